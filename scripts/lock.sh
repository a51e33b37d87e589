#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes scripts/requirements/*.lock anew: every extra resolved together once, so that any of them can be installed over another.
# `flash-attn.lock` is kept by hand: it must be built against an installed torch, which a resolver does not have.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras=(eval annotate demo dev liger uae)
locks=scripts/requirements
together=$(mktemp)
trap 'rm -f -- "$together"' EXIT
compile=(uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url --no-emit-find-links pyproject.toml)

"${compile[@]}" "${extras[@]/#/--extra=}" --upgrade --output-file "$together"
"${compile[@]}" --constraint "$together" --upgrade --output-file "$locks/base.lock"
for extra in "${extras[@]}"; do
  "${compile[@]}" --constraint "$together" --upgrade --extra "$extra" --output-file "$locks/$extra.lock"
done
grep -c == "$locks"/*.lock
