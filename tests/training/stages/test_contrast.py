# SPDX-License-Identifier: Apache-2.0
"""Captions in the stage `tokenizer`: they shape the features, and leave the tokenizer's folder as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import SiglipConfig, SiglipModel

from tests.tiny_unifork import VISION, save_tiny_rqvae
from tests.training.steps import first_step, gradients, loss_and_gradients
from tests.world import TinyWorld, metrics, train, weights
from unigen.cli.main import main
from unigen.config.folders import find_model
from unigen.models.image_tokenizers.registry import load_image_tokenizer
from unigen.training.stages.tokenizer import TokenizerStage

TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 420,
    "max_position_embeddings": 32,
    "projection_size": 12,
    "bos_token_id": None,
    "eos_token_id": None,
}
SIGLIP = SiglipConfig(text_config=TEXT, vision_config={**VISION, "image_size": 32, "patch_size": 8})


def contrast_config(world: TinyWorld, folder: Path, *, has_weights: bool = False, **sections: Any) -> Path:
    siglip = folder / "siglip"
    if has_weights:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            SiglipModel(SIGLIP).save_pretrained(siglip)
    else:
        SIGLIP.save_pretrained(siglip)
    model = {"image_tokenizer": str(save_tiny_rqvae(folder / "rqvae")), "vision_tower": str(siglip)}
    losses = {"contrastive_weight": 1.0, **sections.pop("tokenizer_stage", {})}
    return world.config(folder, "tokenizer", model=model, tokenizer_stage=losses, **sections)


def test_images_find_their_captions_and_are_rebuilt(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = contrast_config(tiny_world, tmp_path, training={"steps": 40}, optimizer={"learning_rate": 0.01})
    assert train(config) == 0
    lines = metrics(tmp_path / "run")
    for name in ("loss/contrastive", "loss/l2", "loss/total"):
        assert lines[-1][name] < 0.8 * lines[0][name]
    terms = {"l1": 1.0, "l2": 1.0, "commitment": 0.25, "codebook": 1.0, "contrastive": 1.0}
    for line in lines:
        expected = sum(weight * line[f"loss/{name}"] for name, weight in terms.items())
        assert line["loss/total"] == pytest.approx(expected, rel=1e-5)


def test_the_folder_that_is_saved_is_a_tokenizer_alone(tiny_world: TinyWorld, tmp_path: Path) -> None:
    assert train(contrast_config(tiny_world, tmp_path, training={"steps": 1})) == 0
    without = load_image_tokenizer(tmp_path / "rqvae").state_dict()
    assert weights(tmp_path / "run").keys() == without.keys()
    loaded = load_image_tokenizer(find_model(tmp_path / "run"))
    assert all(torch.equal(loaded.state_dict()[name], one) for name, one in weights(tmp_path / "run").items())


def test_captions_move_the_encoder_through_the_quantiser_and_not_the_decoder(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    silent = {f"{name}_weight": 0.0 for name in ("l1", "l2", "commitment", "codebook")}
    stage, samples = first_step(contrast_config(tiny_world, tmp_path, tokenizer_stage=silent))
    loss_and_gradients(stage, samples)
    moved = {name for name, gradient in gradients(stage).items() if bool(gradient.any())}
    assert any(name.startswith("model.siglip_model") for name in moved)
    assert any(name.startswith("contrast.text_model") for name in moved)
    assert {"contrast.projection.weight", "contrast.logit_scale", "contrast.logit_bias"} <= moved
    assert not any(name.startswith(("model.decoder", "model.post_quant_conv", "model.quantizer")) for name in moved)


def test_an_interrupted_run_ends_with_the_same_weights_of_both_parts(tiny_world: TinyWorld, tmp_path: Path) -> None:
    whole = contrast_config(tiny_world, tmp_path / "whole", training={"steps": 4})
    assert train(whole) == 0
    parts = contrast_config(tiny_world, tmp_path / "parts", training={"steps": 4})
    assert train(parts, "training.steps=2") == 0
    assert train(parts) == 0
    for file in ("unwrapped_model/model.safetensors", "state/stage.safetensors"):
        found, expected = (load_file(tmp_path / run / "run" / "checkpoint-4" / file) for run in ("parts", "whole"))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert "contrast.text_model.head.weight" in expected


def test_encoder_and_text_half_start_from_a_trained_siglip(tiny_world: TinyWorld, tmp_path: Path) -> None:
    stage, _ = first_step(contrast_config(tiny_world, tmp_path, has_weights=True))
    assert isinstance(stage, TokenizerStage)
    siglip = SiglipModel.from_pretrained(tmp_path / "siglip").state_dict()
    encoder = stage.model.siglip_model["vision_model"].state_dict()  # type: ignore[union-attr,index]
    assert encoder
    assert all(torch.equal(tensor, siglip[f"vision_model.{name}"]) for name, tensor in encoder.items())
    assert stage.contrast is not None
    text = stage.contrast.text_model.state_dict()
    assert all(torch.equal(tensor, siglip[f"text_model.{name}"]) for name, tensor in text.items())


def test_the_dry_run_counts_what_reads_the_captions(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = contrast_config(tiny_world, tmp_path)
    assert main(["train", str(path), "--dry-run"]) == 0
    with_captions = capsys.readouterr().out
    assert main(["train", str(path), "--dry-run", "tokenizer_stage.contrastive_weight=0"]) == 0
    assert "caption contrast" in with_captions
    assert "caption contrast" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["model.vision_tower=null"], ("contrastive_weight", "model.vision_tower")),
        (["model.image_tokenizer=tiny-magvitv2"], ("tiny-magvitv2", "no SigLIP")),
        (["training.rows_per_micro_batch=1"], ("contrastive_weight", "rows_per_micro_batch")),
        (["model.vision_tower=tiny-siglip"], ("of another shape", "embeddings.patch_embedding.weight")),
        (["tokenizer_stage.contrastive_weight=-1"], ("contrastive_weight", "-1")),
    ],
)
def test_a_mistake_is_one_clear_line(
    words: list[str],
    named: tuple[str, ...],
    tiny_world: TinyWorld,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(contrast_config(tiny_world, tmp_path), *words) == 2
    error = capsys.readouterr().err
    assert [word for word in named if word not in error] == []
