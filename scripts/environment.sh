# SPDX-License-Identifier: Apache-2.0
# Sourced by the other scripts: which environment is ours, so that they work without activation.
#   UNIGEN_ROOT  the repository;  UNIGEN_ENVIRONMENT  the active venv or conda environment, else <repository>/.venv
# conda's own `base` does not count as active: it belongs to conda, and installing into it can break conda.

UNIGEN_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -n ${VIRTUAL_ENV:-} ]]; then
  UNIGEN_ENVIRONMENT=$VIRTUAL_ENV
elif [[ -n ${CONDA_PREFIX:-} && ${CONDA_DEFAULT_ENV:-} != base ]]; then
  UNIGEN_ENVIRONMENT=$CONDA_PREFIX
else
  UNIGEN_ENVIRONMENT=$UNIGEN_ROOT/.venv
fi

fail() {
  printf '%s: error: %s\n' "$(basename "$0")" "$1" >&2
  exit "${2:-1}"
}

# Put the environment's python and unigen first on PATH.
use_environment() {
  [[ -x $UNIGEN_ENVIRONMENT/bin/python ]] || fail "nothing is installed in $UNIGEN_ENVIRONMENT; run: bash $UNIGEN_ROOT/scripts/setup.sh"
  export PATH="$UNIGEN_ENVIRONMENT/bin:$PATH"
}
