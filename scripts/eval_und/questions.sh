# SPDX-License-Identifier: Apache-2.0
# Sourced by mme.sh, pope.sh, seed.sh, vqav2.sh and gqa.sh: one benchmark of question files over a checkpoint, one process per GPU.

evaluate_questions() { # benchmark, flags of the user
  local benchmark=$1 script=scripts/eval_und/${0##*/} words=() has_output=false
  shift
  while (($#)); do
    case $1 in
      -h | --help)
        cat <<EOF
Usage: bash $script --model_path DIR [--output_dir DIR] [key=value ...]
  --model_path DIR    a checkpoint's folder, or a name under unigen_data/checkpoints (required)
  --output_dir DIR    results go below it (default: output/eval_und)
  $benchmark.questions=FILE $benchmark.images=DIR $benchmark.truth=PATH   where its files lie (default: below playground/data/eval)
  and the other flags of scripts/run_evaluation.sh. A flag may be written with dashes or underscores.
EOF
        exit 0
        ;;
      --model_path | --model-path) words+=(--eval_checkpoint) ;;
      --model_path=* | --model-path=*) words+=("--eval_checkpoint=${1#*=}") ;;
      --output_dir | --output-dir | --output_dir=* | --output-dir=*) has_output=true && words+=("$1") ;;
      *) words+=("$1") ;;
    esac
    shift
  done
  $has_output || words+=(--output_dir output/eval_und)
  exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_evaluation.sh" --eval_modules "$benchmark" ${words[@]+"${words[@]}"}
}
