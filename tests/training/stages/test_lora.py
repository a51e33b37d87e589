# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters: what is saved, that it loads over its base and no other, and that a stopped run goes on."""

import json
from pathlib import Path

import pytest
import torch

from tests.training.test_checkpoint import assert_equal_weights
from tests.world import TinyWorld, train, weights
from unigen.errors import CheckpointError
from unigen.generation.pipeline import load_pipeline
from unigen.models.checkpoints import load_unigen


@pytest.fixture
def base(tiny_world: TinyWorld, tmp_path: Path) -> Path:
    """A short pre-training run."""
    assert train(tiny_world.config(tmp_path / "base")) == 0
    return tmp_path / "base" / "run"


def adapter_config(tiny_world: TinyWorld, folder: Path, base: Path, stage: str = "pretrain") -> Path:
    return tiny_world.config(
        folder,
        stage,
        model={"initialization": "pretrained", "pretrained": str(base)},
        training={"lora": {"rank": 2, "alpha": 4, "dropout": 0.1}},
    )


@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_an_adapter_is_saved_alone_and_draws_over_its_base(
    tiny_world: TinyWorld, tmp_path: Path, base: Path, stage: str
) -> None:
    assert train(adapter_config(tiny_world, tmp_path / "lora", base, stage)) == 0
    folder = tmp_path / "lora" / "run" / "checkpoint-3" / "unwrapped_model"
    names = {path.name for path in folder.iterdir()}
    assert {
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "base_model.json",
        "tokenizer.json",
    } <= names
    assert "model.safetensors" not in names
    assert json.loads((folder / "base_model.json").read_text())["path"].startswith("../")
    whole, unchanged = load_unigen(folder, tiny_world.root), load_unigen(base / "checkpoint-3" / "unwrapped_model")
    attention = "llm.model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(whole.state_dict()[attention], unchanged.state_dict()[attention])
    embedding = "llm.model.embed_tokens.weight"
    assert torch.equal(whole.state_dict()[embedding], unchanged.state_dict()[embedding])
    assert (whole.mm_projector is not None) == (stage == "sft")
    drawn = load_pipeline(tmp_path / "lora" / "run", data_root=tiny_world.root, device="cpu").draw(
        "a red circle", steps=2
    )
    assert drawn[0].size == (32, 32)


def test_the_saved_adapter_is_the_model_that_was_trained(tiny_world: TinyWorld, tmp_path: Path, base: Path) -> None:
    from tests.training.steps import first_step

    config = adapter_config(tiny_world, tmp_path / "lora", base, "sft")
    assert train(config) == 0
    stage, _ = first_step(config)
    stage.load(tmp_path / "lora" / "run" / "checkpoint-3" / "unwrapped_model")
    trained = stage.model.merge_and_unload().state_dict()
    loaded = load_unigen(tmp_path / "lora" / "run" / "checkpoint-3" / "unwrapped_model", tiny_world.root).state_dict()
    assert_equal_weights(loaded, trained)


@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_a_stopped_adapter_goes_on_bitwise(tiny_world: TinyWorld, tmp_path: Path, base: Path, stage: str) -> None:
    whole, stopped = (adapter_config(tiny_world, tmp_path / name, base, stage) for name in ("whole", "stopped"))
    assert train(whole, "training.steps=4") == 0
    assert train(stopped, "training.steps=2") == 0
    assert train(stopped, "training.steps=4") == 0
    assert_equal_weights(weights(tmp_path / "stopped" / "run"), weights(tmp_path / "whole" / "run"))


def test_an_adapter_over_other_weights_is_refused(tiny_world: TinyWorld, tmp_path: Path, base: Path) -> None:
    assert train(adapter_config(tiny_world, tmp_path / "lora", base)) == 0
    file = base / "checkpoint-3" / "unwrapped_model" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="was trained on weights with hash"):
        load_unigen(tmp_path / "lora" / "run" / "checkpoint-3" / "unwrapped_model", tiny_world.root)


def test_an_adapter_of_another_rank_cannot_go_on(
    tiny_world: TinyWorld, tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = adapter_config(tiny_world, tmp_path / "lora", base)
    assert train(config, "training.steps=1") == 0
    assert train(config, "training.lora.rank=4") == 2
    assert "training.lora" in capsys.readouterr().err


def test_an_adapter_without_a_checkpoint_under_it_is_refused(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tiny_world.config(tmp_path, training={"lora": {"rank": 2}})) == 2
    error = capsys.readouterr().err
    assert "training.lora" in error
    assert "model.pretrained" in error
