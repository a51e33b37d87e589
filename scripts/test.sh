#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: bash scripts/test.sh [pytest arguments]. Sets up what the tests need and runs them, offline.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
bash "$UNIGEN_ROOT/scripts/setup.sh" dev eval uae
use_environment
cd "$UNIGEN_ROOT"
# Two workers share two cores: one thread each.
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false WANDB_MODE=offline
exec python -m pytest --numprocesses 2 --dist worksteal "$@"
