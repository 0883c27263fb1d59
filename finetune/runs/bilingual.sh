#!/bin/sh
# Makes the embedded encoder's bilingual adapter from nothing, or goes on where an interrupted run stopped;
# for other options, and for other data, take another RUN.
#   finetune/runs/bilingual.sh DATA RUN [OPTION ...]
# DATA holds parallel/, lexicon/, similarity/, topics/ and the sets named in the adapter's card; RUN takes checkpoints,
# losses (TensorBoard), the run's configuration and, at the end, the finished adapter in RUN/adapter with its figures.
# 2,000 translated sentences, 1,000 translated titles and 1,000 untranslated sentences are set aside: DATA needs more.
# Needs pip install -e '.[finetune,bilingual]'. As it is, it is made for two cores. A GPU takes larger batches:
#   finetune/runs/bilingual.sh DATA RUN --steps 2300 --batch 12 --reading 140000 --headlines 800000 --threads 16
# Several runs on the same data (--rank, --seed) become one adapter, as the one that ships is, by
#   python -m penchant_finetune.bilingual.average ADAPTER RUN/adapter RUN/adapter ...
#   python -m penchant_finetune.bilingual.evaluate --data DATA --adapter ADAPTER --describe
set -eu
if [ $# -lt 2 ]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
fi
data=$1 run=$2
shift 2
python=$(dirname "$0")/../../.venv/bin/python
[ -x "$python" ] || python=python
mkdir -p "$run"
"$python" -m penchant_finetune.bilingual --data "$data" --run "$run" "$@"
"$python" -m penchant_finetune.bilingual.evaluate --data "$data" --adapter "$run/adapter" --describe
