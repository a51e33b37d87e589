# SPDX-License-Identifier: Apache-2.0
"""Golden cases: where their files lie, what kinds there are, and the rule that gives every weight from its name.

The folder is the one that UNIGEN_GOLDEN names, else `../shared/golden` beside the repository. With the variable set, a
missing or empty folder is a failure; without it an absent folder is a skip.
"""

import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

VARIABLE = "UNIGEN_GOLDEN"
DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / ".." / "shared" / "golden"
SUFFIXES = (".safetensors", ".jsonl")


def golden_folder() -> Path | None:
    """The folder of the golden files; None where none is asked for and none is there.

    Raises:
        AssertionError: the variable names a folder that is missing or holds no case.
    """
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else DEFAULT_FOLDER
    if not named and not folder.is_dir():
        return None
    assert folder.is_dir(), f"{VARIABLE}={named} is not a folder"
    assert any(file.suffix in SUFFIXES for file in folder.iterdir()), f"{folder} holds no golden case"
    return folder


def golden_cases(prefix: str) -> list[Path]:
    """The cases of one kind, told by the beginning of the file name; none where there is no folder."""
    folder = golden_folder()
    if folder is None:
        return []
    return sorted(file for file in folder.iterdir() if file.name.startswith(prefix) and file.suffix in SUFFIXES)


def golden_parameters(prefix: str) -> list[Any]:
    """Parameters for `pytest.mark.parametrize`: the cases; one skipped parameter for none; one failing for a bad folder."""
    try:
        cases = golden_cases(prefix)
    except AssertionError:
        # Not raised while tests are collected, which would stop all others: reading this path fails in the test.
        return [pytest.param(Path(os.environ[VARIABLE]) / f"{prefix}.safetensors", id="bad-folder")]
    if not cases:
        return [pytest.param(None, id="none", marks=pytest.mark.skip(f"no {prefix}* golden case (set {VARIABLE})"))]
    return [pytest.param(case, id=case.stem) for case in cases]


def weight_by_name(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 weight that belongs to a state-dict name and shape."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if len(shape) <= 1:
        return (1 + 0.1 * values if name.endswith("weight") else 0.1 * values).astype(np.float32)
    return (values / math.sqrt(math.prod(shape[1:]))).astype(np.float32)
