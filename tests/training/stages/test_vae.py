# SPDX-License-Identifier: Apache-2.0
"""The stage `tokenizer` of UAE: its terms, the measure of its latents, and that what it writes is a part of other runs."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_uae import VAE
from tests.training.steps import first_step, loss_and_gradients
from tests.uae_stages import STEPS, stopped_and_gone_on, uae_config
from tests.world import TinyWorld, metrics, train
from unigen.models.measured_vae import MeasuredVae
from unigen.models.uae_checkpoints import load_uae

WEIGHTS = {"l1_weight": 1.0, "l2_weight": 4.0, "kl_weight": 0.01}


def vae_config(world: TinyWorld, folder: Path, **sections: Any) -> Path:
    import json

    (folder / "sizes").mkdir(parents=True, exist_ok=True)
    (folder / "sizes" / "config.json").write_text(json.dumps(VAE))
    model = {"pretrained": None, "initialization": "random", "uae": {"vae": str(folder / "sizes")}}
    return uae_config(world, folder, "tokenizer", model=model, **{"tokenizer_stage": WEIGHTS, **sections})


def test_the_total_is_the_weighted_sum_of_its_terms_and_falls(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = vae_config(tiny_world, tmp_path, training={"steps": 12}, experiment={"checkpoint_every": 0})
    assert train(config) == 0
    lines = metrics(tmp_path / "run")
    for line in lines:
        expected = sum(weight * line[f"loss/{name.removesuffix('_weight')}"] for name, weight in WEIGHTS.items())
        assert line["loss/total"] == pytest.approx(expected, rel=1e-5)
    assert lines[-1]["loss/l2"] < 0.8 * lines[0]["loss/l2"]


def test_a_run_that_was_stopped_ends_with_the_same_weights_and_measure(tiny_world: TinyWorld, tmp_path: Path) -> None:
    whole, again = stopped_and_gone_on(vae_config(tiny_world, tmp_path), tmp_path)
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
    folders = [tmp_path / name / f"checkpoint-{STEPS}" / "unwrapped_model" for name in ("whole", "again")]
    moments = [MeasuredVae.load(folder).latent_moments for folder in folders]
    assert moments[0].equal(moments[1])
    assert float(moments[0][0]) == pytest.approx(1 - 0.99 ** (2 * STEPS)), "two forward passes a step"


def test_scaled_latents_have_mean_0_and_variance_1(tiny_world: TinyWorld, tmp_path: Path) -> None:
    stage, samples = first_step(vae_config(tiny_world, tmp_path), "training.rows_per_micro_batch=4")
    (batch,) = stage.batches(samples)
    for _ in range(3):  # the weights stay, so the moving mean is that of these images
        stage(batch, {"images": 1.0})
    stage.save(tmp_path / "saved")
    made = MeasuredVae.load(tmp_path / "saved").vae
    found = made.encode(torch.stack(batch.target_images)).latent_dist
    torch.manual_seed(0)
    drawn = torch.cat([found.sample() for _ in range(50)])
    scaled = (drawn - made.config.shift_factor) * made.config.scaling_factor
    assert float(scaled.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(scaled.var()) == pytest.approx(1.0, abs=0.03)


def test_micro_batches_and_images_that_do_not_count_change_nothing(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = vae_config(tiny_world, tmp_path)
    whole, samples = first_step(config, "training.rows_per_micro_batch=4")
    parts, same = first_step(config, "training.rows_per_micro_batch=1")
    assert loss_and_gradients(parts, same)[0] == pytest.approx(loss_and_gradients(whole, samples)[0], rel=1e-5)
    before = whole.model.latent_moments.clone()
    total, _ = whole(whole.empty_batch(), {"images": 1.0})
    assert float(total) == 0.0
    assert torch.equal(before, whole.model.latent_moments)


def test_other_stages_take_it_in_the_place_of_their_own(tiny_world: TinyWorld, tmp_path: Path) -> None:
    assert train(vae_config(tiny_world, tmp_path / "vae", training={"steps": 1})) == 0
    run = tmp_path / "vae" / "run"
    config = uae_config(
        tiny_world, tmp_path / "longcap", "longcap", training={"steps": 1}, model={"uae": {"vae": str(run)}}
    )
    assert train(config) == 0
    taken = load_uae(tmp_path / "longcap" / "run" / "checkpoint-1" / "unwrapped_model")
    made = MeasuredVae.load(run / "checkpoint-1" / "unwrapped_model").vae
    assert all(torch.equal(taken.vae.state_dict()[name], tensor) for name, tensor in made.state_dict().items())
    assert taken.vae.config.scaling_factor == made.config.scaling_factor != VAE["scaling_factor"]
    assert train(config, "training.lora.rank=2") == 2, "an adapter names the whole model that it changes"
