#!/bin/sh
# Train the stance head on reviews with ratings and measure it on authors and times held back:
#   finetune/runs/stance.sh OUT_FOLDER REVIEWS.jsonl.gz [MORE.jsonl.gz …]
# Writes OUT_FOLDER/stance.safetensors and OUT_FOLDER/stance.json.
set -eu
out=$1
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
exec "$root/.venv/bin/python" -m penchant_finetune.stance --out "$out" --signals "$@"
