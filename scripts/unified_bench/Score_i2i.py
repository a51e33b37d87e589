# SPDX-License-Identifier: Apache-2.0
"""A command of Unified-Bench; `--help` says its flags."""

from unigen.cli.unified_bench_scripts import score_i2i
from unigen.cli.unifork_scripts import start

if __name__ == "__main__":
    start(score_i2i)
