#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the public benchmarks need: the libraries of the extra `eval`, and prompts, questions and judges at pinned versions,
# checked by hash. Started again it fetches only what is missing.
#   bash scripts/setup_eval.sh [--skip_libraries] [NAME ...] [flags of `unigen setup-eval`]
# UNIGEN_EVAL_MIRROR=URL stands for https:// in every address; NAME is geneval, dpg, detector, inception or clip.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  sed -n '3,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
fi
if [[ ${1:-} == --skip_libraries || ${1:-} == --skip-libraries ]]; then
  shift
else
  bash "$UNIGEN_ROOT/scripts/setup.sh" eval
fi
use_environment
exec python -m unigen setup-eval "$@" # where the command is run, as `unigen evaluate` looks there first
