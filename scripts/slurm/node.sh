#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Started by train.sbatch once on every node: the launcher of this node's processes. Takes the flags of run_pretraining.sh.
set -euo pipefail
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

gpus=${SLURM_GPUS_ON_NODE:-0}
((gpus > 0)) || export CUDA_VISIBLE_DEVICES= # the node may have GPUs that this job did not ask for
# A signal to a job reaches every process of it. A second one, passed on, would make torchrun leave its ranks in the middle of a save.
every_process_is_signalled=true
known_flags='experiment_config output_dir'
required_flags=$known_flags
parse_flags --machine_rank "$SLURM_NODEID" --num_processes "$(((gpus > 0 ? gpus : 1) * SLURM_NNODES))" "$@"
launch
