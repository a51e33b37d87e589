# SPDX-License-Identifier: Apache-2.0
"""Settings of an evaluation: from a file of their own, from a training configuration, and over both from the command line."""

from pathlib import Path

import pytest

from unigen.config.evaluation import DpgConfig, EvaluationConfig
from unigen.config.load import load_config, load_evaluation
from unigen.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
SFT = REPOSITORY / "configs" / "unigen_1_5b" / "unigen_sft.yaml"


def test_without_a_file_there_are_the_defaults_and_what_is_given() -> None:
    assert load_evaluation(None) == EvaluationConfig()
    found = load_evaluation(None, ["num_images=2", "drawing.guidance_scale=1.5", "dpg.grid=released"])
    assert (found.num_images, found.drawing.given(), found.dpg) == (
        2,
        {"guidance_scale": 1.5},
        DpgConfig(grid="released"),
    )


def test_the_command_line_is_over_the_file_and_the_file_over_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("seed: 7\nnum_images: 8\ndrawing: {steps: 16}\n")
    (tmp_path / "mine.yaml").write_text("base: base.yaml\nnum_images: 2\n")
    found = load_evaluation(tmp_path / "mine.yaml", ["drawing.steps=4"])
    assert (found.seed, found.num_images, found.drawing.steps) == (7, 2, 4)


def test_a_training_configuration_gives_its_evaluation_section_and_nothing_else(tmp_path: Path) -> None:
    assert load_evaluation(SFT) == load_config(SFT).evaluation
    (tmp_path / "run.yaml").write_text(f"base: {SFT}\nevaluation: {{drawing: {{steps: 9}}, dpg: {{judge: file}}}}\n")
    found = load_evaluation(tmp_path / "run.yaml")
    assert (found.drawing.steps, found.dpg.judge) == (9, "file")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("drawing: {step: 3}", "Did you mean: 'steps'"),
        ("model: {image_resolution: 512}", "model"),
        ("dpg: {grid: diagonal}", "diagonal"),
        ("num_images: many", "num_images"),
    ],
)
def test_what_is_no_evaluation_setting_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text + "\n")
    with pytest.raises(ConfigError, match=complaint):
        load_evaluation(tmp_path / "mine.yaml")
