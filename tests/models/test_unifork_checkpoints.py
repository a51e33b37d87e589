# SPDX-License-Identifier: Apache-2.0
"""UniFork checkpoints: the released format with all its parts, ours bit by bit, and two branches put together."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_unifork import FORK, released_unifork, small_unifork, tiny_rqvae
from unigen.cli.main import main
from unigen.errors import CheckpointError
from unigen.models.checkpoints import load_tokenizer
from unigen.models.image_tokenizers.registry import load_image_tokenizer
from unigen.models.unifork import UniFork
from unigen.models.unifork_checkpoints import (
    load_inner_image_tokenizer,
    load_unifork,
    read_unifork_config,
    save_unifork,
)
from unigen.models.weights import read_weights


def convert(source: Path, output: Path, *more: str) -> int:
    root = str(output.parent)
    return main(["convert", "model", str(source), "--output", str(output), "--to", "ours", "--data-root", root, *more])


def equal_states(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_released_checkpoint_loads_with_all_its_parts(tmp_path: Path) -> None:
    folder = released_unifork(tmp_path / "released")
    raw = torch.load(folder / "pytorch_model.bin", weights_only=True)
    model = load_unifork(folder)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, raw[name]), name
    assert {"model.norm_gen.weight", "model.vision_tower.vision_tower.rqtransformer.pos_emb_d"} <= set(
        model.state_dict()
    )
    assert model.lm_head is not None
    assert model.lm_head.weight is model.model.embed_tokens.weight
    config = read_unifork_config(folder)
    assert (config.num_shared_layers, config.num_understanding_layers, config.num_generation_layers) == (2, 2, 2)
    assert (config.image_resolution, config.num_image_codes, config.max_text_tokens) == (16, 16, 182)
    assert config.depth_sizes.num_heads == 2
    inner = load_inner_image_tokenizer(folder)
    assert inner is not None
    assert equal_states(inner, tiny_rqvae())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_converted_checkpoint_keeps_every_bit_and_saves_nothing_twice(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = released_unifork(tmp_path / "released", dtype=dtype)
    assert convert(folder, tmp_path / "ours") == 0
    assert convert(tmp_path / "ours", tmp_path / "again") == 0
    raw = torch.load(folder / "pytorch_model.bin", weights_only=True)
    for name, tensor in read_weights(tmp_path / "ours").items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, raw[name])
    for place in ("ours", "again"):
        saved = load_file(tmp_path / place / "model.safetensors")
        assert "lm_head.weight" not in saved
        assert not [name for name in saved if "rqvaesiglip" in name]
    assert (tmp_path / "ours/model.safetensors").read_bytes() == (tmp_path / "again/model.safetensors").read_bytes()
    assert equal_states(load_unifork(tmp_path / "ours"), load_unifork(folder))
    assert equal_states(UniFork.from_pretrained(tmp_path / "ours", dtype=torch.float32), load_unifork(folder))
    inner = load_inner_image_tokenizer(folder)
    assert inner is not None
    assert equal_states(load_image_tokenizer(tmp_path / "ours" / "image_tokenizer"), inner)
    assert load_unifork(tmp_path / "again").config.image_tokenizer == "../ours/image_tokenizer"
    assert len(load_tokenizer(tmp_path / "again")) == len(load_tokenizer(folder))


def tuned(model: UniFork, parts: tuple[str, ...]) -> UniFork:
    """Everything moved whose name begins with one of `parts`."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(parts):
                parameter.add_(1.0)
    return model


UNDERSTANDING = ("model.layers.2.", "model.layers.3.", "model.norm.")
GENERATION = ("model.gen_fork_layers.", "model.norm_gen.", "model.vision_tower.")


def test_branches_that_were_tuned_apart_become_one_checkpoint(tmp_path: Path) -> None:
    folder = released_unifork(tmp_path / "base")
    text, base = load_tokenizer(folder), load_unifork(folder)
    save_unifork(tuned(load_unifork(folder), UNDERSTANDING), text, tmp_path / "reads")
    save_unifork(tuned(load_unifork(folder), GENERATION), text, tmp_path / "draws")
    assert convert(tmp_path / "reads", tmp_path / "both", "--generation-branch", str(tmp_path / "draws")) == 0
    found, expected = load_unifork(tmp_path / "both"), tuned(base, UNDERSTANDING + GENERATION)
    assert equal_states(found, expected)


def test_checkpoints_of_different_origins_or_sizes_are_not_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = released_unifork(tmp_path / "base")
    text = load_tokenizer(folder)
    save_unifork(tuned(load_unifork(folder), ("model.layers.1.",)), text, tmp_path / "moved")
    assert convert(folder, tmp_path / "both", "--generation-branch", str(tmp_path / "moved")) == 2
    assert "did not start from the same checkpoint" in capsys.readouterr().err
    small_unifork(**FORK).save_pretrained(tmp_path / "smaller")
    assert convert(folder, tmp_path / "both", "--generation-branch", str(tmp_path / "smaller")) == 2
    assert "different sizes" in capsys.readouterr().err
    assert not (tmp_path / "both").exists()


def test_an_incomplete_checkpoint_is_refused_and_its_head_is_not_drawn_anew(tmp_path: Path) -> None:
    folder = released_unifork(tmp_path / "released")
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    del weights["model.vision_tower.vision_tower.rqtransformer.in_mlp_1.bias"]
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"1 missing \(.*rqtransformer\.in_mlp_1\.bias\)"):
        load_unifork(folder)
    del weights["model.mm_projector.linear1.weight"]
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"mm_projector\.linear1\.weight"):
        load_unifork(folder)


def test_options_of_the_other_family_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = released_unifork(tmp_path / "released")
    words = ["convert", "model", str(folder), "--output", str(tmp_path / "out")]
    assert main([*words, "--to", "released"]) == 2
    assert "--to released" in capsys.readouterr().err
    assert main([*words, "--to", "ours", "--tie", "true"]) == 2
    assert "--tie" in capsys.readouterr().err
