#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Benchmarks over a checkpoint, one process per GPU.
set -euo pipefail
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

usage() {
  cat <<EOF
Usage: bash scripts/run_evaluation.sh --eval_checkpoint NAME --output_dir DIR [--config FILE] [key=value ...]
  --eval_checkpoint NAME   a name under <local_shared_fs>/checkpoints, or a folder (required)
  --output_dir DIR         results go to DIR/<run name>_eval_results (required)
  --config FILE            YAML of the run; it gives its name and its \`evaluation\` settings, the checkpoint gives the model.
                           Without it the run is named by the checkpoint
  --eval_modules A+B       lmms, geneval, dpgbench, cot-gen, cot-dpg or any benchmark of \`unigen evaluate\` (default: lmms+geneval)
  --local_shared_fs DIR    where checkpoints and datasets are kept (default: unigen_data)
  --lmms_tasks A,B         tasks of lmms-eval (default: those of unigen/config/evaluation.py)
  --mmu_rating_style NAME  how cot-gen and cot-dpg rate: think, outcome, rule, probability, or several with commas (default: think)
  --num_processes N        default: the GPUs that are here, else 1
  key=value                any evaluation setting, such as num_images=4 drawing.guidance_scale=6
A flag may be written with dashes or underscores.
EOF
}

# Instead of launch.sh's, which is about training.
check_flags() {
  local name
  for name in $required_flags; do
    [[ -n ${!name} ]] || user_mistake "--$name is required; see --help"
  done
  ! $is_dry_run || user_mistake "there is no flag --dry_run; see --help"
  [[ $num_processes =~ ^([1-9][0-9]*)?$ ]] || user_mistake "--num_processes is '$num_processes'; give a number above 0"
  [[ -z $config || -f $config ]] || user_mistake "there is no configuration file $config; the shipped ones are under configs/"
}

# configs/unigen_1_5b/unigen_sft.yaml is the run unigen_1_5b/unigen_sft.
run_name() {
  local name=${config:-$eval_checkpoint}
  name=${name##*configs/}
  name=${name%.yaml}
  printf '%s' "${name#/}"
}

config='' eval_checkpoint='' eval_modules=lmms+geneval local_shared_fs=unigen_data lmms_tasks='' mmu_rating_style=think
known_flags='config eval_checkpoint output_dir eval_modules local_shared_fs lmms_tasks mmu_rating_style'
required_flags='eval_checkpoint output_dir'
parse_flags "$@"
use_environment

gpus=$(count_gpus)
: "${num_processes:=$((gpus > 0 ? gpus : 1))}"
export HF_HOME=${HF_HOME:-$local_shared_fs/datasets/hf_home}
evaluate=(unigen evaluate --model "$eval_checkpoint" --data-root "$local_shared_fs" --benchmarks "${eval_modules//+/,}"
  --output "$output_dir/$(run_name)_eval_results" --released-layout "best_of_n.verifiers=[$mmu_rating_style]")
[[ -z $config ]] || evaluate+=(--config "$config")
[[ -z $lmms_tasks ]] || evaluate+=("lmms.tasks=[$lmms_tasks]")
evaluate+=(${overrides[@]+"${overrides[@]}"})

if ((num_processes > 1)); then
  run_processes python -m torch.distributed.run --standalone --nproc_per_node "$num_processes" -m "${evaluate[@]}"
else
  exec python -m "${evaluate[@]}"
fi
