#!/bin/sh
# Train the stance head on reviews with ratings and measure it on authors and times held back:
#   finetune/runs/stance.sh OUT_FOLDER REVIEWS.jsonl.gz [MORE.jsonl.gz …]
# Writes OUT_FOLDER/stance.safetensors and OUT_FOLDER/stance.json.
set -eu
if [ $# -lt 2 ]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
fi
out=$1
shift
python=$(dirname "$0")/../../.venv/bin/python
[ -x "$python" ] || python=python
exec "$python" -m penchant_finetune.stance --out "$out" --signals "$@"
