# SPDX-License-Identifier: Apache-2.0
"""Compiled layers train as eager ones do, whatever the lengths of the rows."""

from pathlib import Path

import pytest
import torch

from tests.world import TinyWorld, metrics, train, weights


@pytest.fixture
def _fresh_compiler() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.mark.timeout(900)  # half a minute of compiling on an idle core, several where others work beside it
@pytest.mark.usefixtures("_fresh_compiler")
def test_a_run_of_compiled_layers_has_the_losses_of_an_eager_one(tiny_world: TinyWorld, tmp_path: Path) -> None:
    for kind in ("none", "blocks"):
        assert train(tiny_world.config(tmp_path / kind), f"training.compile={kind}") == 0
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    eager, fast = (metrics(tmp_path / kind / "run") for kind in ("none", "blocks"))
    assert compiled > 0, "nothing was compiled"
    assert [line["loss/total"] for line in fast] == pytest.approx([line["loss/total"] for line in eager], rel=1e-5)
    first, second = (weights(tmp_path / kind / "run") for kind in ("none", "blocks"))
    assert first.keys() == second.keys(), "names in checkpoints must not change"


def test_a_stage_whose_model_names_no_layers_is_refused(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tiny_world.config(tmp_path, "tokenizer"), "training.compile=blocks") == 2
    assert "training.compile=blocks" in capsys.readouterr().err
