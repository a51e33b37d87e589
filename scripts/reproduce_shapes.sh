#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What preference optimisation and Best-of-N bring, in the world of shapes, from the quickstart's fine-tuned model:
#   bash scripts/reproduce_shapes.sh
# QUICKSTART (default runs/quickstart) is read, and made first if it is not there; RUN_DIR (default runs/alignment) takes
# everything. SEEDS (default "0 1 2") are the training seeds. What is done already is not done again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
quickstart="${QUICKSTART:-runs/quickstart}"
run="${RUN_DIR:-runs/alignment}"
read -ra seeds <<<"${SEEDS:-0 1 2}"

[[ -d "$quickstart/sft" ]] || RUN_DIR="$quickstart" bash scripts/quickstart.sh
bash scripts/setup.sh
source scripts/environment.sh
use_environment
mkdir -p "$run"
run=$(cd "$run" && pwd)
[[ -f "$run/started" ]] || date +%s >"$run/started"

drawing=(--guidance-scale 1.5 --steps 16 --batch-size 64)
model() { printf '%s\n' --model "$1" --data-root "$quickstart"; }
evaluate() { # checkpoint, benchmark, output, options
  mapfile -t of < <(model "$1")
  unigen evaluate "${of[@]}" --data "$quickstart/datasets" --benchmarks "$2" --output "$3" "${drawing[@]}" "${@:4}"
}

# Training data: drawings of the fine-tuned model, of prompts that no benchmark has, judged question by question.
notes="$run/annotation"
mapfile -t of < <(model "$quickstart/sft")
unigen annotate questions --prompts "$quickstart/datasets/prompts/train.jsonl" --output "$notes/questions.jsonl" --judge rule
unigen annotate candidates --prompts "$quickstart/datasets/prompts/train.jsonl" --output "$notes/images" --num-images 12 \
  "${of[@]}" "${drawing[@]}"
unigen annotate answers --questions "$notes/questions.jsonl" --images "$notes/images" --output "$notes/answers.jsonl" --judge detector
unigen annotate pairs --answers "$notes/answers.jsonl" --images "$notes/images" --output "$notes/pairs.jsonl" \
  --pairs-per-prompt 3 --min-margin 0.01 --min-chosen-score 1
# Prompts that are drawn right every time, such as those of one object, have wrong images among those of other prompts alone.
unigen annotate answers --questions "$notes/questions.jsonl" --images "$notes/images" --output "$notes/others.jsonl" \
  --judge detector --of-others 4
unigen annotate cotv --answers "$notes/answers.jsonl" --answers "$notes/others.jsonl" --images "$notes/images" \
  --output "$notes/think.jsonl" --images-per-prompt 6

evaluate "$quickstart/sft" geneval_shapes "$run/sft/evaluation"
for seed in "${seeds[@]}"; do
  own="$run/seed-$seed"
  unigen train configs/shapes/dpo.yaml data.root="$quickstart" model.pretrained="$quickstart/sft" experiment.seed="$seed" \
    experiment.output_dir="$own/dpo" data.sources.pairs.paths="[$notes/pairs.jsonl]"
  unigen train configs/shapes/cotv.yaml data.root="$quickstart" model.pretrained="$own/dpo" experiment.seed="$seed" \
    experiment.output_dir="$own/cotv" data.sources.verdicts.paths="[$notes/think.jsonl]"
  evaluate "$own/dpo" geneval_shapes "$own/evaluation/dpo"
  evaluate "$own/cotv" geneval_shapes_cot "$own/evaluation/cotv" --best-of 5 --keep 1 --verifier think
done
unigen study alignment "$run"
