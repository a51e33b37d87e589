#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Learning from rewards (GRPO): of describing (stage grpo_understanding) or of drawing (stage grpo_generation). Takes the flags of run_sft.sh.
set -euo pipefail
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

usage() {
  cat <<EOF
Usage: bash scripts/run_grpo.sh --experiment_config FILE --pretrained_model DIR --output_dir DIR [key=value ...]
  --experiment_config FILE the YAML of the run, such as configs/uae/grpo_understanding.yaml (required)
  --pretrained_model DIR   checkpoint to start from (required)
$LAUNCH_FLAGS
EOF
}

known_flags='experiment_config output_dir pretrained_model train_module'
required_flags='experiment_config pretrained_model output_dir'
parse_flags "$@"
launch
