# SPDX-License-Identifier: Apache-2.0
"""Reading configurations: layers, overrides, and one clear line for every mistake."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from unigen.config.load import load_config, save_config
from unigen.errors import ConfigError

CHILD = """
base: parent.yaml
stage: pretrain
experiment: {name: child, output_dir: out}
training: {samples_per_step: {t2i: 8}}
"""
PARENT = """
experiment: {seed: 7}
optimizer: {learning_rate: 3.0e-4}
data:
  sources:
    drawing: {task: t2i, format: webdataset, paths: ["a/{00..03}.tar"], short_caption_prob: 0.5}
"""


@pytest.fixture
def child(tmp_path: Path) -> Path:
    (tmp_path / "parent.yaml").write_text(PARENT)
    (tmp_path / "child.yaml").write_text(CHILD)
    return tmp_path / "child.yaml"


def test_a_file_overrides_its_base_and_the_command_line_overrides_the_file(child: Path) -> None:
    config = load_config(child, ["experiment.seed=9", "training.samples_per_step.t2i=16"])
    assert config.optimizer.learning_rate == 3e-4
    assert config.experiment.name == "child"
    assert config.experiment.seed == 9
    assert config.training.samples_per_step == {"t2i": 16}
    assert config.data.sources["drawing"].paths == ["a/{00..03}.tar"]
    assert config.training.gradient_clipping == 1.0


def test_an_exponent_without_a_point_is_a_number(child: Path) -> None:
    assert load_config(child, ["optimizer.learning_rate=1e-4"]).optimizer.learning_rate == 1e-4


def test_a_loaded_configuration_cannot_be_changed(child: Path) -> None:
    config = load_config(child)
    with pytest.raises(FrozenInstanceError):
        config.experiment.seed = 3  # type: ignore[misc]


def test_a_saved_configuration_loads_to_an_equal_one(child: Path, tmp_path: Path) -> None:
    config = load_config(child, ["model.tie_word_embeddings=false", "training.lora.rank=4"])
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("optimizer.lerning_rate=1", ("optimizer.lerning_rate", "'learning_rate'")),
        ("traning.steps=3", ("traning", "'training'")),
        ("training.lora.rnk=3", ("training.lora.rnk", "'rank'")),
        ("data.sources.drawing.taskk=t2i", ("data.sources.drawing.taskk", "'task'")),
        ("training.steps=many", ("training.steps", "many", "Integer")),
        ("experiment.seed=1.5", ("experiment.seed", "1.5")),
        ("stage=pretrane", ("stage", "pretrane", "pretrain")),
        ("model.tie_word_embeddings=maybe", ("model.tie_word_embeddings", "maybe", "keep")),
        ("training.loss_weights={t2i: heavy}", ("training.loss_weights.t2i", "heavy")),
        ("training.steps", ("training.steps", "key=value")),
        ("data.sources.draw.paths=[set-{0..9}.tar]", ("data.sources.draw.paths", "set-{0..9}.tar", "quote it")),
        ("experiment.name=${x", ("experiment.name", "${x")),
    ],
)
def test_a_mistake_is_one_line_with_the_key_and_the_nearest_right_one(
    override: str, named: tuple[str, ...], child: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(child, [override])
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in named if word not in message] == []


def test_a_mistake_in_a_file_names_the_file(child: Path) -> None:
    (child.parent / "parent.yaml").write_text(PARENT.replace("seed", "sed"))
    with pytest.raises(ConfigError, match=r"parent\.yaml: experiment\.sed"):
        load_config(child)


def test_a_missing_value_is_named(child: Path) -> None:
    child.write_text(CHILD.replace("name: child, ", ""))
    with pytest.raises(ConfigError, match=r"experiment\.name"):
        load_config(child)


@pytest.mark.parametrize(
    ("content", "named"),
    [("- a list\n", "a list"), ("stage: [", "not readable YAML"), ("base: child.yaml\n", "circle")],
)
def test_a_file_that_is_no_configuration_is_refused(content: str, named: str, child: Path) -> None:
    child.write_text(content)
    with pytest.raises(ConfigError, match=named):
        load_config(child)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")
