#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Supervised fine-tuning of a pre-trained checkpoint, or preference optimisation of a fine-tuned one.
set -euo pipefail
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

usage() {
  cat <<EOF
Usage: bash scripts/run_sft.sh --experiment_config FILE --pretrained_model DIR --output_dir DIR [key=value ...]
  --experiment_config FILE the YAML of the run (required)
  --pretrained_model DIR   checkpoint to start from (required)
  --user_id NAME           accepted and not used, as in the released script
$LAUNCH_FLAGS
EOF
}

known_flags='experiment_config output_dir pretrained_model train_module user_id'
required_flags='experiment_config pretrained_model output_dir'
parse_flags "$@"
launch
