#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: bash scripts/setup.sh [eval] [annotate] [demo] [dev] [uae] [flash-attn]
# Installs the package and the named extras into the active venv or conda environment (not conda's base), else into .venv.
# Needs Python >= 3.11, git and a package index. Run it as often as you like: what is there is kept, what is broken is mended.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$UNIGEN_ROOT"

UV_VERSION=0.13.8
OUR_OWN=$UNIGEN_ROOT/.venv
IS_NEW_ENOUGH='import sys; sys.exit(sys.version_info < (3, 11))'

is_new_enough() { "$1" -c "$IS_NEW_ENOUGH" >/dev/null 2>&1; }
version_of() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo none; }
works() { "$1" --version >/dev/null 2>&1; }

find_python() {
  local name
  for name in python3 python3.12 python3.13 python3.11 python3.14 python; do
    if command -v "$name" >/dev/null && is_new_enough "$name"; then
      "$name" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  fail "Python >= 3.11 is needed, python3 here is $(version_of python3); install one, or activate an environment that has it"
}

make_our_environment() {
  is_new_enough "$OUR_OWN/bin/python" && return
  local python
  python=$(find_python)
  echo "setup: making .venv with Python $(version_of "$python")"
  if command -v uv >/dev/null && works uv; then
    uv venv --quiet --clear --python "$python" "$OUR_OWN"
  else
    "$python" -m venv --clear "$OUR_OWN" || fail "$python cannot make an environment; install its venv module (Debian: python3-venv), or uv"
  fi
}

find_uv() {
  local candidate
  for candidate in "$UNIGEN_ENVIRONMENT/bin/uv" uv; do
    if command -v "$candidate" >/dev/null && works "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null 2>&1 || fail "$UNIGEN_ENVIRONMENT has neither uv nor pip; install one of them into it"
  "$python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION" >&2 || fail "uv $UV_VERSION could not be installed with pip"
  echo "$UNIGEN_ENVIRONMENT/bin/uv"
}

locks=(scripts/requirements/base.lock)
enable_flash_attention=false
for extra in "$@"; do
  [[ $extra =~ ^[a-z-]+$ && $extra != base && -f scripts/requirements/$extra.lock ]] ||
    fail "there is no extra '$extra'; choose from $(cd scripts/requirements && printf '%s\n' *.lock | sed 's/\.lock$//' | grep -vx base | paste -sd ' ')" 2
  if [[ $extra == flash-attn ]]; then enable_flash_attention=true; else locks+=("scripts/requirements/$extra.lock"); fi
done

[[ $UNIGEN_ENVIRONMENT -ef $OUR_OWN || $UNIGEN_ENVIRONMENT == "$OUR_OWN" ]] && make_our_environment
python=$UNIGEN_ENVIRONMENT/bin/python
[[ -x $python ]] || fail "the active environment $UNIGEN_ENVIRONMENT has no python; deactivate it or make it anew"
is_new_enough "$python" || fail "Python >= 3.11 is needed, the active environment $UNIGEN_ENVIRONMENT has $(version_of "$python"); deactivate it or make a newer one"
uv=$(find_uv)

# The state file says `installing` from before the first package until all of them import: an interrupted run is seen, and
# everything it may have left half-written is installed again. Otherwise uv compares what is there with the locks itself.
state_file=$UNIGEN_ENVIRONMENT/unigen-setup
wanted=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(b"".join(open(f, "rb").read() for f in sys.argv[1:])).hexdigest())' pyproject.toml scripts/requirements/*.lock)
install=("$uv" pip install --quiet --python "$python")
state=$(cat "$state_file" 2>/dev/null || true)
again=()
[[ $state != installing ]] || again=(--reinstall)
echo installing >"$state_file"
# Compiled once here, so that no later process has to, also where PYTHONDONTWRITEBYTECODE is set.
[[ $state == "$wanted" ]] || again+=(--compile-bytecode)

"${install[@]}" ${again[@]+"${again[@]}"} "${locks[@]/#/--requirements=}"
"${install[@]}" --no-deps --no-build-isolation --editable .

if [[ $state != "$wanted" ]]; then
  (cd / && "$python" -c 'import accelerate, omegaconf, torch, torchvision, transformers, webdataset, unigen.config.load') ||
    fail "what was installed into $UNIGEN_ENVIRONMENT does not import; run this again"
fi
echo "$wanted" >"$state_file"

if $enable_flash_attention; then
  # Built against the torch that is installed, so without a build environment of its own; without nvcc it fails and says so.
  "${install[@]}" --no-build-isolation --no-deps --requirements=scripts/requirements/flash-attn.lock
fi
echo "setup: Python $(version_of "$python") in $UNIGEN_ENVIRONMENT has: base${*:+ $*}"
