# SPDX-License-Identifier: Apache-2.0
"""The encoders that many tests of this room look through."""

from pathlib import Path

import pytest

from tests.tiny_encoders import MAKERS


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data whose `checkpoints` hold a tiny encoder of each of MAKERS under its name; read only."""
    root = tmp_path_factory.mktemp("encoders")
    for name, make in MAKERS.items():
        make(root / "checkpoints" / name)
    return root
