# SPDX-License-Identifier: Apache-2.0
"""What a step of a policy over masked tokens takes: rows of all steps of all drawings, twice with guidance."""

import pytest

from unigen.config.load import load_config
from unigen.training.dry_run import RunPlan, plan_run

PROMPTS, GROUP, STEPS, ROW = 16, 8, 8, 128


def plan(*overrides: str) -> RunPlan:
    return plan_run(load_config("configs/shapes/unigen_grpo.yaml", overrides), mfu=0.4)


def test_the_rows_of_an_update_are_those_of_all_steps_of_all_drawings() -> None:
    plain, guided = plan(), plan("grpo.masked.guidance_scale=2.0")
    assert plain.tokens_per_step == PROMPTS * GROUP * STEPS * ROW
    assert guided.tokens_per_step == 2 * plain.tokens_per_step
    for part in ("language_model", "rollouts"):
        assert guided.flops_per_step[part] == pytest.approx(2 * plain.flops_per_step[part], rel=0.05)
    assert 3 < plain.flops_per_step["language_model"] / plain.flops_per_step["rollouts"] < 3 * ROW / 16
    assert guided.flops_per_step["image_tokenizer"] == plain.flops_per_step["image_tokenizer"] > 0


def test_a_reference_takes_one_more_forward_pass() -> None:
    with_reference = plan("grpo.kl_weight=0.1", "training.lora={rank: 4}").flops_per_step
    assert with_reference["reference_model"] == pytest.approx(with_reference["language_model"] / 3)
