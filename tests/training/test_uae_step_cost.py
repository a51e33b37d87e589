# SPDX-License-Identifier: Apache-2.0
"""The dry run of UAE: exact sizes at full size, and what a step of captions as a policy takes, by hand."""

from functools import cache
from pathlib import Path

import pytest

from unigen.config.load import load_config
from unigen.models.uae_cost import decoder_forward_flops
from unigen.training.dry_run import RunPlan, plan_run
from unigen.training.meta_model import build_on_meta

GRPO = Path(__file__).resolve().parents[2] / "configs/uae/grpo_understanding.yaml"
LANGUAGE_MODEL, PROJECTOR, DECODER = 3_754_622_976, 50_343_936, 8_056_627_520
ADAPTER = 36 * 32 * (2 * (2048 + 2048) + 2 * (2048 + 256) + 3 * (2048 + 11008))
"""Rank 32 on the seven matrices of 36 layers."""
ROLLOUTS = 32 * 8


@cache
def plan(*overrides: str) -> RunPlan:
    return plan_run(load_config(GRPO, [*overrides, "data.root=nowhere"]), mfu=0.4)


def test_the_full_size_is_exact_and_its_adapter_alone_is_trained() -> None:
    sizes = plan().parameters
    assert (sizes["language_model"], sizes["projector"], sizes["decoder"]) == (LANGUAGE_MODEL, PROJECTOR, DECODER)
    assert sizes["trained"] == sizes["adapters"] == ADAPTER == 59_867_136
    assert any("runs/uae/coldstart is not here" in note for note in plan().notes)


def test_frozen_weights_take_two_bytes_where_they_are_rounded() -> None:
    needs = plan().memory_per_gpu
    assert needs["weights_gradients_optimizer"] == 16 * ADAPTER + 2 * (LANGUAGE_MODEL + PROJECTOR + DECODER)
    exact = plan("training.precision=float32").memory_per_gpu
    assert exact["weights_gradients_optimizer"] == 16 * ADAPTER + 4 * (LANGUAGE_MODEL + PROJECTOR + DECODER)


def test_drawing_is_most_of_a_step_and_follows_its_formula() -> None:
    flops = plan().flops_per_step
    uae = build_on_meta(load_config(GRPO, ["data.root=nowhere"])).uae
    assert uae is not None
    steps = ROLLOUTS * 10 * 2 * decoder_forward_flops(uae.sizes, 512 + 32)
    assert flops["decoder"] == steps
    assert flops["decoder"] > 0.75 * flops["total"]
    layers = 36 * (2 * 2048 * (2048 + 256) + 3 * 2048 * 11008)
    attention = 4 * 36 * 2048 * (512 + 32) ** 2
    assert flops["prompt_states"] == pytest.approx(ROLLOUTS * (2 * layers * (512 + 32) + attention))
    tokens = 19**2 + len(uae.sizes.caption_request) + 32 + 512  # 512 pixels are 18.3 times 28
    head, attention = 2 * 2048 * 151_936 * 512, 4 * 36 * 2048 * tokens**2
    assert flops["language_model"] == pytest.approx(ROLLOUTS * 5 * (2 * layers * tokens + head + attention))


def test_keys_of_the_rollout_change_what_they_should() -> None:
    usual = plan().flops_per_step
    unguided = plan("grpo.caption.guidance_scale=1").flops_per_step
    assert unguided["decoder"] == usual["decoder"] / 2
    free = plan("grpo.kl_weight=0").flops_per_step
    assert free["language_model"] == pytest.approx(usual["language_model"] * 4 / 5)
    more = plan("grpo.group_size=16").flops_per_step
    assert more["writing"] == 2 * usual["writing"]
    assert more["vision_tower"] == pytest.approx(usual["vision_tower"] * 17 / 9)


DRAWING = GRPO.with_name("grpo_generation.yaml")
DRAWING_ADAPTER = 47_161_344
"""Rank 32 on 303 layers of the joint attention."""
DRAWN = 48 * 24


@cache
def drawing_plan(*overrides: str) -> RunPlan:
    return plan_run(load_config(DRAWING, [*overrides, "data.root=nowhere"]), mfu=0.4)


def test_the_adapter_of_the_decoder_has_303_layers_and_is_all_that_is_trained_or_averaged() -> None:
    sizes = drawing_plan().parameters
    assert (sizes["language_model"], sizes["projector"], sizes["decoder"]) == (LANGUAGE_MODEL, PROJECTOR, DECODER)
    assert sizes["trained"] == sizes["adapters"] == DRAWING_ADAPTER
    model = build_on_meta(load_config(DRAWING, ["data.root=nowhere"])).uae
    assert model is not None
    assert model.model is not None
    names = [name for name, one in model.model.named_parameters() if one.requires_grad]
    assert len(names) == 2 * 303
    assert drawing_plan().memory_per_gpu["moving_average"] == 4 * DRAWING_ADAPTER


def test_drawing_and_learning_take_the_forward_passes_of_their_steps() -> None:
    uae = build_on_meta(load_config(DRAWING, ["data.root=nowhere"])).uae
    assert uae is not None
    forward = DRAWN * 2 * decoder_forward_flops(uae.sizes, 512 + 32)
    usual = drawing_plan().flops_per_step
    assert usual["drawing"] == 10 * forward
    assert usual["decoder"] == (3 + 1) * 9 * forward
    fast = drawing_plan("grpo.flow.trained_steps=2", "grpo.kl_weight=0", "grpo.kl_form=exact").flops_per_step
    assert fast["decoder"] == 3 * 2 * forward
    unguided = drawing_plan("grpo.flow.guidance_scale=1").flops_per_step
    assert unguided["drawing"] == usual["drawing"] / 2
    assert usual["writing"] == fast["writing"] > 0


def test_layers_that_are_computed_again_keep_little() -> None:
    kept = {
        kind: drawing_plan(f"training.recompute={kind}").memory_per_gpu["activations"]
        for kind in ("none", "selective", "full")
    }
    of_a_layer = 8 * 2 * (1024 + 544) * 2432 * 2
    assert kept == {"none": 38 * 21 * of_a_layer, "selective": (38 * 11 + 21) * of_a_layer, "full": 59 * of_a_layer}
