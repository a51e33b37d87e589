# SPDX-License-Identifier: Apache-2.0
"""What many tests need: a tiny world with tiny models, and a process that forgets the last run."""

import os
from collections.abc import Iterator

import pytest

from tests.world import TinyWorld, forget_last_run, write_tiny_world

os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # the exact comparisons of training are of CPU runs
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """Images, conversations, text and tiny models on disk; read only."""
    return write_tiny_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def _new_process() -> Iterator[None]:
    """accelerate keeps the state of the last run in the process; every test begins without one."""
    yield
    forget_last_run()
