# SPDX-License-Identifier: Apache-2.0
"""Images drawn along the run."""

from pathlib import Path

import pytest
from PIL import Image

from tests.training.test_checkpoint import assert_equal_weights
from tests.world import TinyWorld, train, weights


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a red circle\n\na blue square\n")
    return path


def test_images_of_every_prompt_are_written_at_the_steps_asked_for(
    tiny_world: TinyWorld, tmp_path: Path, prompts: Path
) -> None:
    validation = {"every": 2, "prompts": str(prompts), "steps": 2}
    assert train(tiny_world.config(tmp_path, training={"validation": validation}), "training.steps=5") == 0
    folder = tmp_path / "run" / "validation"
    assert sorted(path.name for path in folder.iterdir()) == ["step-2", "step-4"]
    for step in ("step-2", "step-4"):
        images = sorted(folder.joinpath(step).iterdir())
        assert [path.name for path in images] == ["000.png", "001.png"]
        assert Image.open(images[0]).size == (32, 32)


def test_drawing_along_the_way_changes_no_weight(tiny_world: TinyWorld, tmp_path: Path, prompts: Path) -> None:
    validation = {"every": 1, "prompts": str(prompts), "steps": 2}
    assert train(tiny_world.config(tmp_path / "with", training={"validation": validation})) == 0
    assert train(tiny_world.config(tmp_path / "without")) == 0
    assert_equal_weights(weights(tmp_path / "with" / "run"), weights(tmp_path / "without" / "run"))


def test_a_missing_list_of_prompts_is_named(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validation = {"every": 1, "prompts": str(tmp_path / "none.txt")}
    assert train(tiny_world.config(tmp_path, training={"validation": validation})) == 2
    assert "none.txt" in capsys.readouterr().err


def test_a_stage_that_draws_nothing_refuses_validation_images(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tiny_world.config(tmp_path, "tokenizer", training={"validation": {"every": 1}})) == 2
    assert "training.validation.every" in capsys.readouterr().err
