#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# CoT-V: fine-tuning of an aligned checkpoint to verify images step by step. Takes the flags of run_sft.sh.
set -euo pipefail
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

usage() {
  cat <<EOF
Usage: bash scripts/run_cotv.sh --experiment_config FILE --pretrained_model DIR --output_dir DIR [key=value ...]
  --experiment_config FILE the YAML of the run, such as configs/unigen_1_5b/unigen_cotv_post_sft.yaml (required)
  --pretrained_model DIR   checkpoint to start from, after preference optimisation (required)
  --user_id NAME           accepted and not used, as in run_sft.sh
$LAUNCH_FLAGS
EOF
}

known_flags='experiment_config output_dir pretrained_model train_module user_id'
required_flags='experiment_config pretrained_model output_dir'
parse_flags "$@"
launch
