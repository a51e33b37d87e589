# SPDX-License-Identifier: Apache-2.0
"""Files that may hold pickles are opened only where they are, byte by byte, what this very run wrote."""

import json
import re
from pathlib import Path

import pytest
from accelerate import Accelerator

from unigen.errors import CheckpointError
from unigen.training.manifest import FILE, RUN_ID, check_manifest, write_manifest


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """State files with their manifest, in the run folder `tmp_path`."""
    folder = tmp_path / "checkpoint-1" / "state"
    (folder / "zero").mkdir(parents=True)
    (folder / "zero" / "optimizer.pt").write_bytes(b"some bytes")
    write_manifest(folder, tmp_path, Accelerator())
    return folder


def check(state: Path) -> None:
    check_manifest(state, state.parents[1], Accelerator())


def test_what_a_run_wrote_it_may_open(state: Path) -> None:
    check(state)


def test_two_checkpoints_of_a_run_name_the_same_run(state: Path) -> None:
    later = state.parents[1] / "checkpoint-2" / "state"
    later.mkdir(parents=True)
    write_manifest(later, state.parents[1], Accelerator())
    assert json.loads((later / FILE).read_text())["run"] == json.loads((state / FILE).read_text())["run"]
    check(later)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: (state / FILE).unlink(), "has no manifest.json"),
        (lambda state: (state.parents[1] / RUN_ID).write_text("another\n"), "another run's"),
        (lambda state: (state.parents[1] / RUN_ID).unlink(), "another run's"),
        (lambda state: (state / "zero" / "optimizer.pt").write_bytes(b"other bytes"), "zero/optimizer.pt is not as"),
        (lambda state: (state / "zero" / "optimizer.pt").unlink(), "zero/optimizer.pt is not as"),
        (lambda state: (state / "zero" / "more.pt").write_bytes(b""), "zero/more.pt is not as"),
    ],
)
def test_anything_else_is_refused_with_the_way_out(state: Path, change, named: str) -> None:  # type: ignore[no-untyped-def]
    change(state)
    with pytest.raises(CheckpointError, match=re.escape(named) + ".*model.pretrained="):
        check(state)


def test_another_number_of_ranks_is_refused(state: Path) -> None:
    content = json.loads((state / FILE).read_text())
    (state / FILE).write_text(json.dumps({**content, "world_size": 4}))
    with pytest.raises(CheckpointError, match="written by 4 ranks, this run has 1"):
        check(state)
