# SPDX-License-Identifier: Apache-2.0
"""A command of UniFork's README; `--help` says its flags."""

from unigen.cli.unifork_scripts import infer_t2i, start

if __name__ == "__main__":
    start(infer_t2i)
