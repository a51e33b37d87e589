# SPDX-License-Identifier: Apache-2.0
"""The stage `longcap`: what it trains, that its losses are those of each image alone, and that a stopped run goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.steps import assert_equal_gradients, first_step, loss_and_gradients
from tests.uae_stages import STEPS, stopped_and_gone_on, uae_config
from tests.world import TinyWorld, train, weights
from unigen.generation.pipeline import load_pipeline
from unigen.models.uae_checkpoints import load_uae
from unigen.reference.flow_training import flow_loss
from unigen.training.stages.longcap import LongcapStage


def moved_parts(world: TinyWorld, run: Path) -> set[str]:
    """Parts of the model of which a run has changed anything."""
    before, after = load_uae(world.root / "checkpoints" / "tiny-uae").state_dict(), weights(run)
    return {name.partition(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize(("trains", "parts"), [("true", {"decoder", "projector"}), ("false", {"decoder"})])
def test_the_decoder_is_trained_and_by_key_the_projector(
    trains: str, parts: set[str], tiny_world: TinyWorld, tmp_path: Path
) -> None:
    config = uae_config(tiny_world, tmp_path, "longcap", training={"steps": 2})
    assert train(config, f"longcap.train_projector={trains}") == 0
    assert moved_parts(tiny_world, tmp_path / "run") == parts
    drawn = load_pipeline(tmp_path / "run", data_root=tiny_world.root, device="cpu").draw("a red circle", steps=2)
    assert drawn[0].size == (16, 16)


def test_a_run_that_was_stopped_ends_with_the_same_weights(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = uae_config(tiny_world, tmp_path, "longcap", training={"prompt_drop_prob": 0.5})
    whole, again = stopped_and_gone_on(config, tmp_path)
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def test_an_adapter_is_trained_and_saved_with_the_projector_and_goes_on(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = uae_config(tiny_world, tmp_path, "longcap", training={"lora": {"rank": 2, "alpha": 4, "dropout": 0.1}})
    whole, again = stopped_and_gone_on(config, tmp_path)
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
    assert {"projector" in name or ".lora_" in name for name in whole} == {True}
    assert not any("llm." in name for name in whole)
    merged = load_uae(tmp_path / "whole" / f"checkpoint-{STEPS}" / "unwrapped_model", tiny_world.root).state_dict()
    before = load_uae(tiny_world.root / "checkpoints" / "tiny-uae").state_dict()
    moved = {name.partition(".")[0] for name, tensor in before.items() if not torch.equal(merged[name], tensor)}
    assert moved == {"decoder", "projector"}


@pytest.mark.parametrize("weighting", ["none", "cosmap", "sigma_sqrt"])
def test_the_loss_is_that_of_the_images_one_by_one(weighting: str, tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = uae_config(tiny_world, tmp_path, "longcap")
    stage, samples = first_step(config, f"longcap.weighting={weighting}", "longcap.timestep_mean=0.3")
    assert isinstance(stage, LongcapStage)
    found, gradients = loss_and_gradients(stage, samples)
    stage.zero_grad()
    expected = sum(flow_loss(stage.uae, sample, mean=0.3, std=1.0, weighting=weighting) for sample in samples) / len(
        samples
    )
    assert found == pytest.approx(float(expected.detach()), rel=1e-4)
    expected.backward()
    plain = {name: one.grad.clone() for name, one in stage.named_parameters() if one.grad is not None}
    assert gradients.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-5)


def test_micro_batches_change_nothing_and_empty_ones_count_for_nothing(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = uae_config(tiny_world, tmp_path, "longcap")
    whole, samples = first_step(config, "training.rows_per_micro_batch=4")
    parts, same = first_step(config, "training.rows_per_micro_batch=1")
    loss, gradients = loss_and_gradients(whole, samples)
    again, others = loss_and_gradients(parts, same)
    assert again == pytest.approx(loss, rel=1e-5)
    assert_equal_gradients(others, gradients)
    total, _ = whole(whole.encode(whole.empty_batch()), {"flow": 1.0})
    assert float(total) == 0.0


@pytest.mark.parametrize("null", ["negative_prompt", "empty_prompt", "zeros"])
def test_a_dropped_caption_becomes_what_guidance_leads_away_from(
    null: str, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    config = uae_config(
        tiny_world, tmp_path, "longcap", training={"prompt_drop_prob": 0.5, "samples_per_step": {"t2i": 16}}
    )
    stage, samples = first_step(config, f"model.uae.cfg_null={null}")
    assert isinstance(stage, LongcapStage)
    words = {"negative_prompt": stage.uae.config.negative_prompt, "empty_prompt": ""}
    kept = 0
    for sample in samples:
        assert sample.drawing is not None
        own = stage.template.draw_prompt(sample.caption)
        is_own = sample.drawing.prompt_ids.tolist() == own and not sample.drawing.is_blank
        kept += is_own
        if not is_own and null == "zeros":
            assert sample.drawing.is_blank
            assert not stage.prompt_states([sample.drawing])[0].states_TE.any()
        elif not is_own:
            assert sample.drawing.prompt_ids.tolist() == stage.template.draw_prompt(words[null])
    assert 0 < kept < len(samples)


def test_draws_belong_to_a_visit_to_a_sample(tiny_world: TinyWorld, tmp_path: Path) -> None:
    stage, samples = first_step(uae_config(tiny_world, tmp_path, "longcap"))
    assert isinstance(stage, LongcapStage)
    drawings = [sample.drawing for sample in samples if sample.drawing is not None]
    assert len({one.seed for one in drawings}) == len({one.time_normal for one in drawings}) == len(samples)
    batch = next(iter(stage.batches(samples)))
    turned = replace(
        batch, drawings=batch.drawings[::-1], target_images=batch.target_images[::-1], keys=batch.keys[::-1]
    )
    latents, others = stage.encode(batch).latents_BChw, stage.encode(turned).latents_BChw
    assert latents is not None
    assert others is not None
    np.testing.assert_allclose(others.flip(0).numpy(), latents.numpy(), atol=1e-5)
    means = stage.uae.encode_images(torch.stack(batch.target_images))
    assert not torch.allclose(means, latents, atol=1e-3)
