# SPDX-License-Identifier: Apache-2.0
"""Drawing along a flow: against the slow twin and diffusers' pipeline, and rollouts whose steps have probabilities."""

from collections.abc import Sequence

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from torch import Tensor

from tests.tiny_uae import VAE, small_uae
from unigen.generation.flow import (
    Guidance,
    LatentNoise,
    RolloutSettings,
    draw_latents,
    guide,
    guided_velocity,
    roll_out,
)
from unigen.models.text_states import PromptStates, TextStates
from unigen.models.uae import Uae
from unigen.objectives.flow_matching import NoiseKind, sampling_sigmas
from unigen.reference.flow_sampling import draw_slowly, slow_noisy_step

TEXTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14], [4], [4, 5, 6, 7]]
NULL = [15, 16, 17, 18, 19]
SHAPE = (4, 4, 4)


@pytest.fixture(scope="module")
def model() -> Uae:
    return small_uae()


@pytest.fixture(scope="module")
def states(model: Uae) -> list[PromptStates]:
    """Of all texts, and last of what guidance leads away from."""
    with torch.no_grad():
        return model.prompt_states([*TEXTS, NULL], 2)


def noise(seeds: Sequence[int]) -> LatentNoise:
    return LatentNoise(seeds, SHAPE, torch.device("cpu"))


@pytest.mark.parametrize("num_steps", [1, 10, 40])
def test_the_times_of_sampling_are_those_of_diffusers(num_steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(num_steps)
    torch.testing.assert_close(sampling_sigmas(num_steps, 3.0), scheduler.sigmas, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(1000 * sampling_sigmas(num_steps, 3.0)[:-1], scheduler.timesteps, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("is_masked", [False, True], ids=["padding is seen", "padding is hidden"])
def test_a_batch_draws_what_is_drawn_image_by_image(
    model: Uae, states: list[PromptStates], scale: float, is_masked: bool
) -> None:
    (*prompts, null) = states
    sigmas, start = sampling_sigmas(5, 3.0), noise(range(4)).draw()
    guidance = guide(prompts, [null] * 4, scale, is_masked=is_masked)
    seen: list[int] = []
    found = draw_latents(model, guidance, start, sigmas, seen.append)
    with torch.no_grad():
        slow = draw_slowly(model, prompts, null, scale, start, sigmas.tolist(), is_masked=is_masked)
    torch.testing.assert_close(found, slow, rtol=1e-4, atol=1e-4)
    assert seen == [0, 1, 2, 3, 4]


def test_padding_is_seen_up_to_the_longer_of_a_prompt_and_its_null_in_any_batch(states: list[PromptStates]) -> None:
    (*prompts, null) = states
    seen, hidden = (guide(prompts, [null] * 4, 5.0, is_masked=masked).text.is_visible_BT for masked in (False, True))
    assert seen is not None
    assert hidden is not None
    assert seen.sum(dim=1).tolist() == [5, 7, 5, 5] * 2
    assert hidden.sum(dim=1).tolist() == [5, 5, 5, 5, 3, 7, 1, 4]


def test_a_drawing_is_that_of_diffusers_pipeline_from_the_same_noise(model: Uae, states: list[PromptStates]) -> None:
    prompt, null = states[1], states[-1]
    guidance = guide([prompt], [null], 5.0, is_masked=False)
    away, towards = guidance.text.states_BTE
    pipeline = StableDiffusion3Pipeline(
        transformer=model.decoder,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=AutoencoderKL.from_config(VAE),
        **dict.fromkeys(f"{kind}{number}" for kind in ("text_encoder", "tokenizer") for number in ("", "_2", "_3")),
    )
    pipeline.set_progress_bar_config(disable=True)
    start, pooled = noise([3]).draw(), model.pooled_embedding[None]
    (expected,) = pipeline(
        prompt_embeds=towards[None],
        negative_prompt_embeds=away[None],
        pooled_prompt_embeds=pooled,
        negative_pooled_prompt_embeds=pooled,
        latents=start,
        num_inference_steps=6,
        guidance_scale=5.0,
        output_type="latent",
        return_dict=False,
    )
    found = draw_latents(model, guidance, start, sampling_sigmas(6, 3.0))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "level"), [("sde", 0.7), ("cps", 0.8)])
def test_every_noisy_step_has_the_log_probability_of_the_slow_twin(
    model: Uae, states: list[PromptStates], kind: NoiseKind, level: float
) -> None:
    (*prompts, null) = states
    guidance = guide(prompts, [null] * 4, 4.5, is_masked=False)
    sigmas, settings = sampling_sigmas(5, 3.0), RolloutSettings(steps=5, kind=kind, noise_level=level)
    rollout = roll_out(model, guidance, noise(range(4)), sigmas, settings)
    assert [step.number for step in rollout.steps] == [0, 1, 2, 3, 4]
    with torch.no_grad():
        for step in rollout.steps:
            sigma_B = sigmas[step.number].expand(4)
            velocity = guided_velocity(model, guidance, step.sample_BChw, sigma_B)
            for row in range(4):
                mean, std, log_prob = slow_noisy_step(
                    kind, step.sample_BChw[row], velocity[row], sigmas.tolist(), step.number, level, step.next_BChw[row]
                )
                assert float(step.log_prob_B[row]) == pytest.approx(log_prob, abs=1e-3)
                is_last = kind == "cps" and step.number == 4
                moved = float((step.next_BChw[row] - mean).std())
                assert moved == pytest.approx(std, rel=0.5, abs=1e-5 if is_last else 0)


def test_the_steps_of_a_rollout_are_one_path_from_the_noise_to_its_latents(
    model: Uae, states: list[PromptStates]
) -> None:
    guidance = guide(states[:2], [states[-1]] * 2, 4.5, is_masked=False)
    rollout = roll_out(model, guidance, noise([1, 2]), sampling_sigmas(4, 3.0), RolloutSettings(steps=4))
    assert torch.equal(rollout.steps[0].sample_BChw, noise([1, 2]).draw())
    for before, after in zip(rollout.steps, rollout.steps[1:], strict=False):
        assert torch.equal(before.next_BChw, after.sample_BChw)
    assert torch.equal(rollout.steps[-1].next_BChw, rollout.latents_BChw)


def test_outside_of_its_window_a_rollout_is_without_noise(model: Uae, states: list[PromptStates]) -> None:
    guidance = guide(states[:2], [states[-1]] * 2, 4.5, is_masked=False)
    sigmas, start = sampling_sigmas(6, 3.0), noise([1, 2]).draw()
    plain = draw_latents(model, guidance, start, sigmas)
    without = roll_out(model, guidance, noise([1, 2]), sigmas, RolloutSettings(steps=6, window=(0, 0)))
    torch.testing.assert_close(without.latents_BChw, plain)
    assert without.steps == ()
    some = roll_out(model, guidance, noise([1, 2]), sigmas, RolloutSettings(steps=6, window=(1, 3)))
    assert [step.number for step in some.steps] == [1, 2]
    first = draw_latents(model, guidance, start, sigmas[:2])
    torch.testing.assert_close(some.steps[0].sample_BChw, first)
    rest = draw_latents(model, guidance, some.steps[1].next_BChw, sigmas[3:])
    torch.testing.assert_close(some.latents_BChw, rest)


def test_a_rollout_of_an_image_does_not_depend_on_its_batch(model: Uae, states: list[PromptStates]) -> None:
    (*prompts, null) = states
    sigmas, settings = sampling_sigmas(4, 3.0), RolloutSettings(steps=4)
    whole = roll_out(model, guide(prompts, [null] * 4, 4.5, is_masked=False), noise([5, 6, 7, 8]), sigmas, settings)
    part = roll_out(model, guide(prompts[2:3], [null], 4.5, is_masked=False), noise([7]), sigmas, settings)
    torch.testing.assert_close(part.latents_BChw[0], whole.latents_BChw[2], rtol=1e-4, atol=1e-4)
    for one, other in zip(part.steps, whole.steps, strict=True):
        torch.testing.assert_close(one.log_prob_B[0], other.log_prob_B[2], rtol=1e-4, atol=1e-4)


class HalfPrecision:
    """A decoder whose velocities are rounded."""

    def velocity(self, latents_BChw: Tensor, sigma_B: Tensor, text: TextStates) -> Tensor:
        return (latents_BChw * 0.3 + sigma_B.view(-1, 1, 1, 1)).bfloat16()


def test_everything_but_the_decoder_is_computed_in_float32() -> None:
    guidance = Guidance(TextStates(torch.zeros(2, 1, 1), None), 1.0)
    rollout = roll_out(HalfPrecision(), guidance, noise([1, 2]), sampling_sigmas(4, 3.0), RolloutSettings(steps=4))
    drawn = draw_latents(HalfPrecision(), guidance, noise([1, 2]).draw(), sampling_sigmas(4, 3.0))
    for tensor in (drawn, rollout.latents_BChw, rollout.steps[0].next_BChw, rollout.steps[0].log_prob_B):
        assert tensor.dtype is torch.float32
