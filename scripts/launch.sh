# SPDX-License-Identifier: Apache-2.0
# Sourced by run_pretraining.sh, run_sft.sh, run_cotv.sh and run_grpo.sh: reads their flags and starts `unigen train` on one or more processes.

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

LAUNCH_FLAGS='  --output_dir DIR         where the run goes: DIR/checkpoint-<step>/ (required)
  --train_module NAME      train.py, train_w_clip_vit.py or train_dpo.py, the old names; which objective is trained is the configuration'"'"'s `stage`
  --num_processes N        over all machines (default: the GPUs that are here, else 1)
  --accelerate_config FILE default: single_process.yaml or multi_gpu.yaml of configs/accelerate, by the number of processes
  --num_machines N --machine_rank N --main_process_ip ADDRESS --main_process_port N   for several machines
  --dry_run                say what the run would cost, without weights
  key=value                any key of the configuration
A flag may be written with dashes or underscores.'

user_mistake() { fail "$1" 2; }

# Sets experiment_config, output_dir, pretrained_model, train_module, ... and the array `overrides`.
parse_flags() {
  experiment_config='' output_dir='' pretrained_model='' train_module='' user_id='' accelerate_config=''
  num_processes='' num_machines=1 machine_rank=0 main_process_ip='' main_process_port='' is_dry_run=false
  overrides=()
  local name
  while (($#)); do
    case $1 in
      -h | --help) usage && exit 0 ;;
      --dry-run | --dry_run) is_dry_run=true && shift && continue ;;
      --*) ;;
      *=*) overrides+=("$1") && shift && continue ;;
      *) user_mistake "'$1' is neither a flag nor key=value; see --help" ;;
    esac
    [[ $1 == *=* ]] && set -- "${1%%=*}" "${1#*=}" "${@:2}"
    name=${1#--} && name=${name//-/_}
    case " $known_flags num_processes accelerate_config num_machines machine_rank main_process_ip main_process_port " in
      *" $name "*) ;;
      *) user_mistake "there is no flag $1; see --help" ;;
    esac
    (($# > 1)) || user_mistake "$1 needs a value"
    printf -v "$name" %s "$2"
    shift 2
  done
  check_flags
}

check_flags() {
  local name
  for name in $required_flags; do
    [[ -n ${!name} ]] || user_mistake "--$name is required; see --help"
  done
  for name in num_processes num_machines; do
    [[ ${!name} =~ ^([1-9][0-9]*)?$ ]] || user_mistake "--$name is '${!name}'; give a number above 0"
  done
  case $train_module in
    '' | train.py | train_w_clip_vit.py | train_dpo.py) ;;
    *) user_mistake "--train_module is '$train_module'; choose train.py, train_w_clip_vit.py or train_dpo.py" ;;
  esac
  [[ -f $experiment_config ]] || user_mistake "there is no configuration file $experiment_config; the shipped ones are under configs/"
  [[ -z $accelerate_config || -f $accelerate_config ]] || user_mistake "there is no file $accelerate_config; the shipped ones are under $UNIGEN_ROOT/configs/accelerate"
  ((num_machines == 1)) || [[ -n $main_process_ip ]] || user_mistake "--num_machines $num_machines needs --main_process_ip, the address of machine 0"
}

count_gpus() {
  if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
    tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c '^[0-9A-Za-z]' || true
  else
    { nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU' || true
  fi
}

# Start `unigen train` with what parse_flags found.
launch() {
  use_environment
  local gpus
  gpus=$(count_gpus)
  : "${num_processes:=$(((gpus > 0 ? gpus : 1) * num_machines))}"
  local train=(unigen train "$experiment_config" "experiment.output_dir=$output_dir")
  [[ -z $pretrained_model ]] || train+=("model.pretrained=$pretrained_model")
  train+=(${overrides[@]+"${overrides[@]}"})

  if $is_dry_run; then
    exec python -m "${train[@]}" --dry-run
  elif [[ -n $accelerate_config ]] || ((gpus > 0 && num_processes > 1)); then
    launch_with_accelerate "${train[@]}"
  elif ((num_processes > 1)); then
    # `accelerate launch --cpu --num_processes N` would start one process and say nothing.
    export ACCELERATE_USE_CPU=true
    local where=(--standalone)
    ((num_machines == 1)) || where=(--nnodes "$num_machines" --node_rank "$machine_rank"
      --master_addr "$main_process_ip" --master_port "${main_process_port:-29500}")
    run_processes python -m torch.distributed.run "${where[@]}" --nproc_per_node "$((num_processes / num_machines))" -m "${train[@]}"
  else
    exec python -m "${train[@]}"
  fi
}

launch_with_accelerate() {
  local configs=$UNIGEN_ROOT/configs/accelerate
  if [[ -z $accelerate_config ]]; then
    accelerate_config=$configs/multi_gpu.yaml
    ((num_machines == 1)) || accelerate_config=$configs/multi_node.yaml
  fi
  local where=(--num_machines "$num_machines" --machine_rank "$machine_rank")
  if ((num_machines > 1)); then
    where+=(--main_process_ip "$main_process_ip" --main_process_port "${main_process_port:-29500}")
  else
    where+=(--main_process_port "${main_process_port:-0}") # 0: any free port
  fi
  run_processes python -m accelerate.commands.launch --config_file "$accelerate_config" --num_processes "$num_processes" "${where[@]}" -m "$@"
}

# Several processes: torchrun and accelerate make 1 of every exit code, so a run that wants to be started again also leaves
# the file `requeue` in its folder. SIGTERM and SIGUSR1 (sbatch --signal=B:USR1@300 reaches this script alone) go on to all
# processes, which then have as long as a save may take instead of torchrun's 30 seconds.
run_processes() {
  local requeue=$output_dir/requeue launcher code=0
  rm -f -- "$requeue"
  export PET_SHUTDOWN_TIMEOUT=${PET_SHUTDOWN_TIMEOUT:-600}
  if ${every_process_is_signalled:-false}; then # the ranks hear it themselves, the launcher waits for them
    export PET_SIGNALS_TO_HANDLE=SIGINT,SIGHUP,SIGQUIT
    trap '' TERM USR1 # for what is started from here on; a rank sets its own handlers
  else
    export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1
  fi
  set -m # a process group of its own, so that the signal reaches what the launcher started
  "$@" &
  launcher=$!
  ${every_process_is_signalled:-false} || trap 'kill -TERM -- "-$launcher" 2>/dev/null || true; trap "" TERM USR1' TERM USR1
  trap 'kill -INT -- "-$launcher" 2>/dev/null || true' INT
  wait "$launcher" || code=$?
  while kill -0 "$launcher" 2>/dev/null; do # `wait` returns at a signal too
    code=0
    wait "$launcher" || code=$?
  done
  if ((code != 0)) && [[ -e $requeue ]]; then
    printf '%s: the run saved itself and wants to be started again (exit code 75)\n' "$(basename "$0")" >&2
    exit 75
  fi
  exit "$code"
}
