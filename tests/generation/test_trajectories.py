# SPDX-License-Identifier: Apache-2.0
"""How drawn images came about: the record equals the plain twin's, step by step."""

import pytest
import torch

from unigen.generation.maskgit import MaskGitNoise, MaskGitSettings, draw_codes
from unigen.generation.trajectories import draw_trajectories
from unigen.generation.unigen import UnigenPipeline
from unigen.reference.maskgit import draw_trajectories_slowly, trajectory_log_probs_slowly
from unigen.sequence.mask_schedule import remasked_counts

PROMPTS = ["a cross", "a photo of a red circle left of a blue square", "a cross"]


def arguments(drawer: UnigenPipeline, settings: MaskGitSettings) -> tuple[object, ...]:
    prompts = [drawer.template.draw_prompt(prompt) for prompt in PROMPTS]
    noise = MaskGitNoise.from_seeds([1, 2, 3], settings.steps, drawer.model.config.num_image_codes, torch.device("cpu"))
    return (drawer.model, drawer.vocabulary, prompts, drawer.template.draw_prompt(""), noise, settings)


@pytest.mark.parametrize(("guidance_scale", "steps"), [(0.0, 5), (1.0, 3), (4.0, 5), (0.0, 20)])
def test_the_record_is_that_of_drawing_with_full_recompute(
    drawer: UnigenPipeline, guidance_scale: float, steps: int
) -> None:
    given = arguments(drawer, MaskGitSettings(steps=steps, guidance_scale=guidance_scale))
    fast, slow = draw_trajectories(*given), draw_trajectories_slowly(*given)  # type: ignore[arg-type]
    assert torch.equal(fast.codes_BI, draw_codes(*given))  # type: ignore[arg-type]
    assert torch.equal(fast.codes_BI, slow.codes_BI)
    assert torch.equal(fast.fixed_at_BI, slow.fixed_at_BI)
    torch.testing.assert_close(fast.log_probs_BI, slow.log_probs_BI, rtol=1e-5, atol=1e-5)
    assert float(fast.log_probs_BI.std()) > 0.1


def test_every_step_fixes_as_many_codes_as_its_schedule_says(drawer: UnigenPipeline) -> None:
    settings = MaskGitSettings(steps=5, guidance_scale=0.0)
    found = draw_trajectories(*arguments(drawer, settings))  # type: ignore[arg-type]
    left = remasked_counts(16, 5, settings.mask_schedule)
    for fixed_at_I in found.fixed_at_BI:
        assert [int((fixed_at_I > step).sum()) for step in range(5)] == left


@pytest.mark.parametrize("guidance_scale", [0.0, 4.0])
def test_a_finished_image_says_what_was_known_before_each_of_its_codes(
    drawer: UnigenPipeline, guidance_scale: float
) -> None:
    settings = MaskGitSettings(steps=4, guidance_scale=guidance_scale)
    model, vocabulary, prompts, unconditional, *_ = given = arguments(drawer, settings)
    for prompt, image in zip(prompts, draw_trajectories(*given).split(), strict=True):  # type: ignore[arg-type, call-overload]
        again_I = trajectory_log_probs_slowly(model, vocabulary, prompt, unconditional, image, settings)  # type: ignore[arg-type]
        torch.testing.assert_close(again_I.detach(), image.log_probs_I, rtol=1e-4, atol=1e-4)
