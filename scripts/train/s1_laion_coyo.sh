#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# UniFork: stage 1.5, the same parts on LAION and COYO; starts from runs/unifork_0_5b/s1_imagenet.
# Submit it in the repository; what is given to sbatch comes before what stands here:
#   sbatch [--nodes 4 --time 24:00:00 ...] scripts/train/s1_laion_coyo.sh [key=value ...]
# It is started, saved and queued again as scripts/slurm/train.sbatch says. scripts/slurm/unifork_all.sh submits all stages.
#SBATCH --job-name=unifork_s1_laion_coyo
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --signal=USR1@600
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/../..}"
[[ -f scripts/slurm/train.sbatch ]] || { echo "$PWD is not the repository; submit scripts/train/s1_laion_coyo.sh there" >&2; exit 2; }
SUBMITTED=scripts/train/s1_laion_coyo.sh exec bash scripts/slurm/train.sbatch configs/unifork_0_5b/s1_laion_coyo.yaml "$@"
