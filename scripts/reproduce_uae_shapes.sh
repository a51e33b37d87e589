#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What learning from rewards brings to a UAE, in the world of shapes: a vision-language encoder and a diffusion decoder from random
# weights through all stages, then both policy stages from several seeds, each beside a control with shuffled advantages:
#   bash scripts/reproduce_uae_shapes.sh [key=value ...]        (the settings go to every policy stage)
# RUN_DIR (default runs/uae) takes everything. What is done already is not done again.
# PROFILE: full (default; hours on two cores, of which the policy stages take less than one) or short (minutes, to see that all of
# it works: so few steps and images that its scores say nothing).
# SEEDS, and NUM_IMAGES (held-out images that are scored), replace those of the profile.
# PARTS_DIR (default RUN_DIR/parts) keeps the pretrained parts under names that hold a hash of what each was made from: the files of
# its configuration, its settings, and the parts before it. Another run with the same PARTS_DIR takes those that are the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
run="${RUN_DIR:-runs/uae}"
settings=("$@")

bash scripts/setup.sh
source scripts/environment.sh
use_environment
mkdir -p "$run" "${PARTS_DIR:-$run/parts}"
run=$(cd "$run" && pwd)
cache=$(cd "${PARTS_DIR:-$run/parts}" && pwd)

world=() pretraining=() encoders=() policy=() scoring=(--batch-size 64)
seeds="0 1" num_images=256
case "${PROFILE:-full}" in
  full) ;;
  short)
    world=(--num-images 2000 --num-question-images 1000)
    pretraining=(training.steps=30)
    encoders=(training.steps=30)
    policy=(training.steps=3)
    seeds=0 num_images=16
    ;;
  *) fail "PROFILE is $PROFILE; choose full or short" 2 ;;
esac
read -ra seeds <<<"${SEEDS:-$seeds}"
num_images=${NUM_IMAGES:-$num_images}
[[ -f "$run/started" ]] || date +%s >"$run/started"

declare -A made=() # what each part was made from, as a hash
sizes=$(find configs/models -path '*/shapes-*' -type f -print0 | sort -z | xargs -0 cat | sha256sum)
layers_of() { # configuration: the contents of its file and of those that it is based on
  local file="configs/shapes/$1.yaml" base
  while [[ -n "$file" ]]; do
    cat "$file"
    base=$(sed -n 's/^base: *//p' "$file")
    file=${base:+configs/shapes/$base}
  done
}
part() { # name, configuration, the parts before it with blanks between, settings
  local name=$1 before layers own needed
  read -ra before <<<"$3"
  layers=$(layers_of "$2")
  made[$name]=$({
    printf '%s\n' "$layers" "$sizes" "${world[@]}" "${@:4}"
    for needed in "${before[@]}"; do printf '%s\n' "${made[$needed]}"; done
  } | sha256sum | cut -c 1-12)
  own="$cache/$name-${made[$name]}"
  ln -sfn "$own" "$run/$name"
  [[ ! -f "$own/done" ]] || return 0
  unigen train "configs/shapes/$2.yaml" data.root="$run" experiment.output_dir="$own" "${@:4}"
  touch "$own/done"
}
learn() { # seed, name, stage, settings
  unigen train "configs/shapes/uae_grpo_$3.yaml" data.root="$run" experiment.seed="$1" experiment.output_dir="$run/seed-$1/$2" \
    "${policy[@]}" "${@:4}" "${settings[@]}"
}
score() { # model, output
  unigen evaluate --model "$1" --data-root "$run" --benchmarks unified_bench --models own "${scoring[@]}" --output "$2" \
    unified_bench.images="$run/datasets/evaluation/captioned" unified_bench.num_images="$num_images" \
    unified_bench.max_new_tokens=96 \
    unified_bench.encoders.own.kind=siglip unified_bench.encoders.own.model="$run/score_encoder"
}

unigen data shapes --output "$run/datasets" "${world[@]}"
unigen data shapes-processor --output "$run/processor"
part uae_captioner uae_captioner "" "${pretraining[@]}"
part uae_vae uae_vae "" "${pretraining[@]}"
part reward_encoder uae_reward_encoder "" "${encoders[@]}"
part score_encoder uae_score_encoder "" "${encoders[@]}"
part uae_longcap uae_longcap "uae_captioner uae_vae" "${pretraining[@]}"
part uae_coldstart uae_coldstart "uae_longcap reward_encoder" "${pretraining[@]}"

score "$run/uae_coldstart" "$run/evaluation/before"
for seed in "${seeds[@]}"; do
  own="$run/seed-$seed"
  learn "$seed" understanding understanding
  score "$own/understanding" "$own/evaluation/after_understanding"
  learn "$seed" generation generation model.pretrained="$own/understanding"
  score "$own/generation" "$own/evaluation/after_generation"
  # The same stages, learning from advantages that are dealt out at random: they must bring nothing.
  learn "$seed" control_understanding understanding grpo.shuffle_advantages=true
  learn "$seed" control_generation generation grpo.shuffle_advantages=true model.pretrained="$own/control_understanding"
  score "$own/control_generation" "$own/evaluation/control"
done
unigen study uae "$run"
