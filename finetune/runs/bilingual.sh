#!/bin/sh
# Makes the embedded encoder's bilingual adapter from nothing, or goes on where an interrupted run stopped.
#   finetune/runs/bilingual.sh DATA RUN [STEPS]
# DATA holds parallel/, lexicon/, similarity/, topics/ and the sets named in the adapter's card; RUN takes checkpoints,
# losses (TensorBoard), the run's configuration and, at the end, the finished adapter in RUN/adapter with its figures.
set -eu
data=$1 run=$2 steps=${3:-2400}
python -m penchant_finetune.bilingual --data "$data" --run "$run" --steps "$steps"
python -m penchant_finetune.bilingual.evaluate --data "$data" --adapter "$run/adapter" --describe
