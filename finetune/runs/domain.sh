#!/usr/bin/env bash
# Fine-tune the encoder on one's own log and show what it gained:
#
#     finetune/runs/domain.sh ITEMS SIGNALS OUT [SEED…]
#
# ITEMS and SIGNALS are JSON Lines or Parquet. Trains once a seed (default 0 1 2), and once more on pairs shuffled at
# random, which must not help; measures all against the live encoder on the later part of the log; exports the
# adapters that are no worse into OUT/adapter-SEED. An interrupted run goes on where it was.
# PREPARE and TRAIN hold further options of `penchant finetune prepare` and `train`, such as TRAIN="--epochs 5"; for
# others, and for other files, take another OUT.
set -euo pipefail

if (($# < 3)); then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
fi
items=$1 signals=$2 out=$3
shift 3
seeds=("$@")
((${#seeds[@]})) || seeds=(0 1 2)
penchant=("$(dirname "$0")/../../.venv/bin/penchant" finetune)
[[ -x ${penchant[0]} ]] || penchant[0]=penchant
read -ra prepare_options <<<"${PREPARE:-}"
read -ra train_options <<<"${TRAIN:-}"

asked=$(cksum <"$items" && cksum <"$signals" && echo "${PREPARE:-}")
if [[ -e $out/prepared/prepare.json ]]; then
  if [[ $asked != "$(cat "$out/asked.txt")" ]]; then
    echo "$out was prepared from other files or with another PREPARE: give the same or another OUT" >&2
    exit 1
  fi
else
  mkdir -p "$out"
  echo "$asked" >"$out/asked.txt"
  echo "── prepare ($SECONDS s)"
  "${penchant[@]}" prepare "$out/prepared" --items "$items" --signals "$signals" ${prepare_options[@]+"${prepare_options[@]}"}
fi

runs=()
train() {
  local run=$out/$1
  shift
  runs+=("$run")
  echo "── train ${run##*/} ($SECONDS s)"
  "${penchant[@]}" train "$out/prepared" "$run" "$@" ${train_options[@]+"${train_options[@]}"}
}
for seed in "${seeds[@]}"; do
  train "seed-$seed" --seed "$seed"
done
train "control-${seeds[0]}" --seed "${seeds[0]}" --control random-pairs

echo "── evaluate ($SECONDS s)"
"${penchant[@]}" evaluate "$out/prepared" "${runs[@]}" | tee "$out/evaluation.txt"

echo "── export ($SECONDS s)"
exported=0
for seed in "${seeds[@]}"; do
  adapter=$out/adapter-$seed
  # One without the sequence model that TRAIN asked for later gives way, and is kept for what was written into its card.
  if [[ ! $adapter/penchant.json -nt $out/seed-$seed/sequence.json ]]; then
    [[ ! -e $adapter ]] || mv "$adapter" "$adapter-$(date +%s)"
    "${penchant[@]}" export "$out/prepared" "$out/seed-$seed" "$adapter" || continue
  fi
  exported=$((exported + 1))
done
echo "── $exported of ${#seeds[@]} exported ($SECONDS s)"
((exported))
