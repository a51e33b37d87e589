#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All stages of UniFork as jobs that wait for one another; each starts from the weights of the one that it waits for.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"

usage() {
  cat <<'EOF'
Usage: bash scripts/slurm/unifork_all.sh [--output_dir DIR] [sbatch's flags ...] [key=value ...]
  --output_dir DIR   each stage trains in DIR/<stage> (default: runs/unifork_0_5b)
  --nodes 4, -p gpu, --time=24:00:00, --hold ...   go to sbatch, for every stage; a flag whose value has a = as one word
  key=value          any key of the configuration, for every stage; s2_sft.key=value for one of them
EOF
}

# stage -> the stage that it starts from
stages=(s1_imagenet s1_laion_coyo s2_pretrain s2_sft s3_gen s3_und)
declare -A before=([s1_laion_coyo]=s1_imagenet [s2_pretrain]=s1_laion_coyo [s2_sft]=s2_pretrain [s3_gen]=s2_sft [s3_und]=s2_sft)
declare -A job=()

output_dir=runs/unifork_0_5b sbatch_flags=() overrides=() previous=''
while (($#)); do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --output[_-]dir=*) output_dir=${1#*=} ;;
    --output[_-]dir) (($# > 1)) || fail "$1 needs a value" 2; output_dir=$2 && shift ;;
    experiment.output_dir=*) fail "experiment.output_dir would be one folder for all stages; give --output_dir, a folder of theirs" 2 ;;
    -*) sbatch_flags+=("$1") ;;
    *=*) overrides+=("$1") ;;
    *) # the value of the flag before it
      [[ $previous == -* ]] || fail "'$1' is neither a flag nor key=value; see --help" 2
      sbatch_flags+=("$1")
      ;;
  esac
  previous=$1 && shift
done

# Sets `words`, which come after the script of a stage.
words_of() {
  local word name
  words=("experiment.output_dir=$output_dir/$1")
  [[ -z ${before[$1]:-} ]] || words+=("model.pretrained=$output_dir/${before[$1]}")
  for word in ${overrides[@]+"${overrides[@]}"}; do
    name=${word%%.*}
    if [[ " ${stages[*]} " != *" $name "* ]]; then
      words+=("$word")
    elif [[ $name == "$1" ]]; then
      words+=("${word#*.}")
    fi
  done
}

cd "$UNIGEN_ROOT"
type -P sbatch >/dev/null || fail "there is no sbatch here; submit on a login node of the cluster"
use_environment
for stage in "${stages[@]}"; do # a mistake is said now, not when the jobs before it are through
  words_of "$stage"
  python -m unigen runs folder "configs/unifork_0_5b/$stage.yaml" "${words[@]}" >/dev/null
done
for stage in "${stages[@]}"; do
  words_of "$stage"
  after=${before[$stage]:+${job[${before[$stage]}]}}
  job[$stage]=$(sbatch --parsable ${after:+--dependency="afterok:$after" --kill-on-invalid-dep=yes} \
    ${sbatch_flags[@]+"${sbatch_flags[@]}"} "scripts/train/$stage.sh" "${words[@]}")
  job[$stage]=${job[$stage]%%;*} # without the cluster's name
  echo "$stage: job ${job[$stage]}${after:+, after job $after}"
done
echo "one model of both branches, when all are done: unigen convert model $output_dir/s3_und --generation-branch $output_dir/s3_gen --output $output_dir/unifork --to ours"
