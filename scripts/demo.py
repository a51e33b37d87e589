# SPDX-License-Identifier: Apache-2.0
"""The command of UAE's README; `--help` says its flags."""

from unigen.cli.uae_scripts import demo
from unigen.cli.unifork_scripts import start

if __name__ == "__main__":
    start(demo)
