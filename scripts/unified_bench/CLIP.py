# SPDX-License-Identifier: Apache-2.0
"""A command of Unified-Bench; `--help` says its flags."""

from unigen.cli.unified_bench_scripts import of_one_encoder
from unigen.cli.unifork_scripts import start

if __name__ == "__main__":
    start(of_one_encoder("clip"))
