# SPDX-License-Identifier: Apache-2.0
"""A command of UniFork's README; `--help` says its flags."""

from unigen.cli.unifork_scripts import sample_geneval_batch, start

if __name__ == "__main__":
    start(sample_geneval_batch)
