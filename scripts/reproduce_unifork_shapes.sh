#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Where a UniFork should fork, in the world of shapes: experts of one task, a fully shared model and three depths of the fork,
# trained on one budget with paired seeds, scored side by side:
#   bash scripts/reproduce_unifork_shapes.sh [key=value ...]        (the settings go to every training of an arm)
# RUN_DIR (default runs/unifork) takes everything. What is done already is not done again.
# PROFILE: full (default; hours on two cores, minutes on a GPU) or short (minutes on two cores, to see that all of it works:
# fewer arms, seeds, steps and images, so its scores say nothing).
# ARMS, SEEDS, STEPS and BUDGETS (earlier steps that are scored too, multiples of the first) replace those of the profile.
# JOBS arms are trained at once (default 1; on two cores JOBS=2 OMP_NUM_THREADS=1).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
run="${RUN_DIR:-runs/unifork}"

bash scripts/setup.sh
source scripts/environment.sh
use_environment
mkdir -p "$run"
run=$(cd "$run" && pwd)
[[ -f "$run/started" ]] || date +%s >"$run/started"

world=() tokenizer=() scoring=(--guidance-scale 2 --num-images 2)
arms="und_expert gen_expert fully_shared fork_quarter fork_half fork_three_quarters" seeds="0 1 2" steps=1000 budgets=500
case "${PROFILE:-full}" in
  full) ;;
  short)
    world=(--num-images 2000 --num-question-images 1000)
    tokenizer=(training.steps=150)
    arms="gen_expert fully_shared fork_half" seeds=0 steps=60 budgets=
    scoring=(--guidance-scale 2 --num-images 1)
    ;;
  *) fail "PROFILE is $PROFILE; choose full or short" 2 ;;
esac
read -ra arms <<<"${ARMS:-$arms}"
read -ra seeds <<<"${SEEDS:-$seeds}"
read -ra budgets <<<"${BUDGETS-$budgets}"
steps=${STEPS:-$steps}

settings_of() { # arm: where it forks, and the tasks that it has
  case "$1" in
    und_expert) echo model.fork.branches=understanding training.samples_per_step.t2i=0 ;;
    gen_expert) echo model.fork.branches=generation training.samples_per_step.mmu=0 training.samples_per_step.lm=0 ;;
    fork_quarter) echo model.fork.num_shared_layers=1 ;;
    fork_half) echo model.fork.num_shared_layers=2 ;;
    fork_three_quarters) echo model.fork.num_shared_layers=3 ;;
    fully_shared) echo model.fork.num_shared_layers=4 ;;
    *) fail "there is no arm $1" 2 ;;
  esac
}
benchmarks_of() {
  case "$1" in
    und_expert) echo vqa_shapes,alignment ;;
    gen_expert) echo geneval_shapes,alignment ;;
    *) echo geneval_shapes,vqa_shapes,alignment ;;
  esac
}
train_and_score() { # arm, seed, settings
  local own="$run/$1/seed-$2" keep_every=0 settings budget
  read -ra settings <<<"$(settings_of "$1")"
  ((${#budgets[@]} == 0)) || keep_every=${budgets[0]}
  # Eight texts a step are one for each lane of the data: with whole rounds every arm sees the same samples in every step.
  unigen train configs/shapes/unifork.yaml data.root="$run" experiment.seed="$2" experiment.output_dir="$own/train" \
    training.steps="$steps" training.samples_per_step.lm=8 experiment.keep_every="$keep_every" "${settings[@]}" "${@:3}"
  for budget in "${budgets[@]}"; do
    score "$1" "$own/train/checkpoint-$budget" "$own/evaluation-$budget"
  done
  score "$1" "$own/train/checkpoint-$steps" "$own/evaluation"
}
score() { # arm, checkpoint, output
  unigen evaluate --model "$2" --data-root "$run" --data "$run/datasets" --benchmarks "$(benchmarks_of "$1")" \
    --batch-size 64 "${scoring[@]}" --output "$3"
}

for arm in "${arms[@]}"; do settings_of "$arm" >/dev/null; done
unigen data shapes --output "$run/datasets" "${world[@]}"
unigen train configs/shapes/unifork_tokenizer.yaml data.root="$run" "${tokenizer[@]}"
running=()
for seed in "${seeds[@]}"; do
  for arm in "${arms[@]}"; do
    if ((${#running[@]} == ${JOBS:-1})); then
      wait "${running[0]}"
      running=("${running[@]:1}")
    fi
    train_and_score "$arm" "$seed" "$@" &
    running+=($!)
  done
done
for job in "${running[@]}"; do wait "$job"; done
unigen study unifork "$run"
