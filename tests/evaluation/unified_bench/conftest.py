# SPDX-License-Identifier: Apache-2.0
"""The four encoders with random weights, and pictures to compare."""

from pathlib import Path

import pytest

from tests.evaluation.unified_bench.folders import tiny_encoders, write_pictures


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoders(tmp_path_factory.mktemp("unified_bench"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 5)
