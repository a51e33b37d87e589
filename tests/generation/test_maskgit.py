# SPDX-License-Identifier: Apache-2.0
"""Drawing with a cached prompt gives the codes of the plain algorithm, at every guidance scale and schedule."""

import math

import pytest
import torch

from unigen.generation.maskgit import MaskGitNoise, MaskGitSettings, draw_codes, fix_and_remask, guided
from unigen.generation.unigen import UnigenPipeline
from unigen.reference.maskgit import draw_codes_slowly
from unigen.sequence.mask_schedule import remasked_counts

PROMPTS = ["a cross", "a photo of a red circle left of a blue square", "a cross", "a picture of four green triangles"]
CPU = torch.device("cpu")


def draw_both_ways(pipeline: UnigenPipeline, settings: MaskGitSettings) -> tuple[torch.Tensor, torch.Tensor]:
    prompts = [pipeline.template.draw_prompt(prompt) for prompt in PROMPTS]
    assert len({len(prompt) for prompt in prompts}) > 1, "the prompts must need padding"
    noise = MaskGitNoise.from_seeds([1, 2, 3, 4], settings.steps, pipeline.model.config.num_image_codes, CPU)
    arguments = (pipeline.model, pipeline.vocabulary, prompts, pipeline.template.draw_prompt(""), noise, settings)
    return draw_codes(*arguments), draw_codes_slowly(*arguments)


@pytest.mark.parametrize("guidance_scale", [0.0, 0.5, 1.0, 6.0])
@pytest.mark.parametrize("temperature_schedule", ["compounding", "linear"])
def test_the_cached_prompt_gives_the_codes_of_full_recompute(
    drawer: UnigenPipeline, guidance_scale: float, temperature_schedule: str
) -> None:
    settings = MaskGitSettings(steps=5, guidance_scale=guidance_scale, temperature_schedule=temperature_schedule)  # type: ignore[arg-type]
    fast, slow = draw_both_ways(drawer, settings)
    assert fast.tolist() == slow.tolist()
    assert not torch.equal(fast[0], fast[2]), "two seeds of one prompt must differ"


@pytest.mark.parametrize("mask_schedule", ["cosine", "linear", "square", "sigmoid"])
def test_every_mask_schedule_is_drawn_as_by_full_recompute(drawer: UnigenPipeline, mask_schedule: str) -> None:
    fast, slow = draw_both_ways(drawer, MaskGitSettings(steps=7, mask_schedule=mask_schedule))  # type: ignore[arg-type]
    assert fast.tolist() == slow.tolist()


@pytest.mark.parametrize("steps", [1, 16, 40])
def test_any_number_of_steps_fixes_every_code(drawer: UnigenPipeline, steps: int) -> None:
    fast, slow = draw_both_ways(drawer, MaskGitSettings(steps=steps))
    assert fast.tolist() == slow.tolist()
    assert 0 <= int(fast.min()) <= int(fast.max()) < drawer.vocabulary.codebook_size


def test_guidance_moves_from_the_unconditional_to_the_conditional_logits() -> None:
    conditional, unconditional = torch.tensor([[[1.0, 5.0]]]), torch.tensor([[[3.0, 1.0]]])
    both = torch.cat([conditional, unconditional])
    assert guided(both, MaskGitSettings(guidance_scale=0.5)).tolist() == [[[2.0, 3.0]]]
    assert guided(both, MaskGitSettings(guidance_scale=6.0)).tolist() == [[[-9.0, 25.0]]]
    for alone in (0.0, 1.0):
        assert torch.equal(guided(conditional, MaskGitSettings(guidance_scale=alone)), conditional)


def test_the_compounding_temperature_is_the_product_of_what_remains() -> None:
    temperatures = MaskGitSettings(steps=50, temperature=1.0).temperatures()
    closed_form = [math.factorial(49) / math.factorial(49 - step) / 50**step for step in range(1, 50)]
    assert temperatures[:-1] == pytest.approx(closed_form)
    assert temperatures[-1] == 0
    released = [temperatures[step - 1] for step in (5, 10, 15, 20)]
    assert released == pytest.approx([0.73, 0.31, 0.0675, 0.007], rel=0.05)


def test_the_linear_temperature_falls_evenly_to_zero() -> None:
    settings = MaskGitSettings(steps=4, temperature=2.0, temperature_schedule="linear")
    assert settings.temperatures() == pytest.approx([1.5, 1.0, 0.5, 0.0])


def test_codes_masked_again_follow_the_cosine() -> None:
    expected = [254, 251, 244, 236, 225, 212, 197, 181, 162, 142, 120, 97, 74, 49, 25, 0]
    assert remasked_counts(256, 16, "cosine") == expected


def test_a_step_keeps_known_codes_and_masks_exactly_as_many_as_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 16, 64, generator=generator)
    known = torch.zeros(3, 16, dtype=torch.bool)
    known[:, :4] = True
    codes = torch.full((3, 16), 7)
    noise = tuple(torch.rand(2, 3, 16, generator=generator).unbind(0))
    found, now_known = fix_and_remask(logits, known, codes, noise, 1.0, 9)  # type: ignore[arg-type]
    assert (found[:, :4] == 7).all()
    assert now_known[:, :4].all()
    assert now_known.sum(1).tolist() == [7, 7, 7]


def test_without_temperature_the_least_probable_codes_are_masked_again() -> None:
    logits = torch.tensor([[[9.0, 0.0], [0.1, 0.0], [4.0, 0.0]]])
    noise = (torch.full((1, 3), 0.2), torch.full((1, 3), 0.5))
    codes, known = fix_and_remask(logits, torch.zeros(1, 3, dtype=torch.bool), torch.zeros(1, 3).long(), noise, 0.0, 1)
    assert codes.tolist() == [[0, 0, 0]]
    assert known.tolist() == [[True, False, True]]
