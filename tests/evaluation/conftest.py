# SPDX-License-Identifier: Apache-2.0
"""One small world for all tests of benchmarks."""

from pathlib import Path

import pytest

from tests.small_world import small_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_world(tmp_path_factory.mktemp("data") / "shapes")
