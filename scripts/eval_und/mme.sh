#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
# shellcheck source=scripts/eval_und/questions.sh
source "$(dirname "${BASH_SOURCE[0]}")/questions.sh"
evaluate_questions mme "$@"
