# SPDX-License-Identifier: Apache-2.0
"""Every golden file is of a kind that some test runs."""

from pathlib import Path

import pytest

from tests.parity.golden import SUFFIXES, golden_folder

BUILT = ("magvitv2", "unigen_tiny", "geneval_rules", "unifork_tokenizer", "flow_sde")


def test_every_golden_file_is_of_a_known_kind() -> None:
    folder = golden_folder()
    if folder is None:
        pytest.skip("no golden folder here (set UNIGEN_GOLDEN)")
    cases = [file.name for file in folder.iterdir() if file.suffix in SUFFIXES]
    unknown = [name for name in cases if not name.startswith(BUILT)]
    assert not unknown, f"no test reads {unknown}"


@pytest.mark.parametrize("kind", BUILT)
def test_every_kind_that_is_built_is_run_by_a_test(kind: str) -> None:
    tests = {
        "magvitv2": "test_magvitv2.py",
        "unigen_tiny": "test_unigen.py",
        "geneval_rules": "test_geneval_rules.py",
        "unifork_tokenizer": "test_unifork_tokenizer.py",
        "flow_sde": "test_flow_sde.py",
    }
    content = (Path(__file__).parent / tests[kind]).read_text(encoding="utf-8")
    assert kind in content
