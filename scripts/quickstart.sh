#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh machine to a model that trains, draws, reads and is scored, in the world of shapes:
#   bash scripts/quickstart.sh [key=value ...]
# RUN_DIR (default runs/quickstart) takes everything. Stages that are done already are not done again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
run="${RUN_DIR:-runs/quickstart}"
mkdir -p "$run"
[[ -f "$run/started" ]] || date +%s >"$run/started"

bash scripts/setup.sh
source scripts/environment.sh
use_environment
unigen data shapes --output "$run/datasets"

compile=none
if command -v g++ >/dev/null; then compile=blocks; fi

train() { unigen train "$1" data.root="$run" "${@:2}"; }
# These two need nothing of each other: one core each.
OMP_NUM_THREADS=1 train configs/shapes/vision.yaml "$@" &
vision=$!
trap 'kill "$vision" 2>/dev/null || true' EXIT
OMP_NUM_THREADS=1 train configs/shapes/tokenizer.yaml "$@"
wait "$vision"
# The stages that see an image many times read its codes, made once: `unigen encode` writes $run/codes/<stage>.yaml.
encode() { unigen encode "configs/shapes/$1.yaml" data.root="$run" experiment.name="$1" "${@:2}" --output "$run/codes"; }
encode pt1 "$@"
encode sft "$@"
train "$run/codes/pt1.yaml" training.compile="$compile" "$@"
train configs/shapes/pt2.yaml training.compile="$compile" "$@"
train "$run/codes/sft.yaml" training.compile="$compile" "$@"

unigen evaluate --model "$run/sft" --data-root "$run" --data "$run/datasets" --benchmarks geneval_shapes,vqa_shapes \
  --guidance-scale 1.5 --steps 16 --batch-size 64 --output "$run/evaluation"
unigen report --run "$run"
