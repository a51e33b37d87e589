# SPDX-License-Identifier: Apache-2.0
"""A tiny model of either way of reading, and a small world, for the commands that use a trained model."""

from pathlib import Path

import pytest

from tests.small_world import small_world
from tests.tiny import tiny_unigen


@pytest.fixture(scope="session", params=[False, True], ids=["reads codes", "reads features"])
def any_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_unigen(tmp_path_factory.mktemp("model"), reads_features=request.param)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_unigen(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_world(tmp_path_factory.mktemp("data") / "shapes")
