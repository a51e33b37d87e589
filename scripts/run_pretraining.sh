#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pre-training, from a language model (stage 1) or from a checkpoint (stage 2).
set -euo pipefail
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

usage() {
  cat <<EOF
Usage: bash scripts/run_pretraining.sh --experiment_config FILE --output_dir DIR [--pretrained_model DIR] [key=value ...]
  --experiment_config FILE the YAML of the run (required)
  --pretrained_model DIR   checkpoint to start from (default: the language model of the configuration)
$LAUNCH_FLAGS
EOF
}

known_flags='experiment_config output_dir pretrained_model train_module'
required_flags='experiment_config output_dir'
parse_flags "$@"
launch
