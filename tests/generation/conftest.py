# SPDX-License-Identifier: Apache-2.0
"""One tiny model of either way of reading, for all tests of drawing and reading."""

import pytest

from tests.tiny import tiny_unigen
from unigen.generation.pipeline import load_pipeline
from unigen.generation.unigen import UnigenPipeline


@pytest.fixture(scope="session", params=[False, True], ids=["reads codes", "reads features"])
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> UnigenPipeline:
    folder = tiny_unigen(tmp_path_factory.mktemp("tiny"), reads_features=request.param)
    loaded = load_pipeline(folder, device="cpu")
    assert isinstance(loaded, UnigenPipeline)
    return loaded


@pytest.fixture(scope="session")
def drawer(tmp_path_factory: pytest.TempPathFactory) -> UnigenPipeline:
    """A pipeline for what does not depend on the way of reading."""
    loaded = load_pipeline(tiny_unigen(tmp_path_factory.mktemp("drawer")), device="cpu")
    assert isinstance(loaded, UnigenPipeline)
    return loaded
