# SPDX-License-Identifier: Apache-2.0
"""Masked-token drawing written plainly: the whole row computed again at every step.

`draw_codes_slowly` and `draw_trajectories_slowly` go image by image and code by code. `draw_codes_from_whole_rows` is the
released algorithm, with its cost: padded rows in a batch, a dense mask, logits of every position over the whole vocabulary.

Legend: B images, R rows, P prompt columns, L positions of a row, V vocabulary, I codes of an image, C codebook size.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unigen.generation.maskgit import MaskGitNoise, MaskGitSettings, fix_and_remask, guided
from unigen.generation.trajectories import Trajectories, Trajectory
from unigen.models.unigen import UniGen
from unigen.sequence.mask_schedule import masked_ratio, remasked_counts
from unigen.sequence.vocabulary import Vocabulary


@torch.no_grad()
def draw_codes_slowly(
    model: UniGen,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    unconditional: Sequence[int],
    noise: MaskGitNoise,
    settings: MaskGitSettings,
) -> Tensor:
    """The codes (B, I) that `generation.maskgit.draw_codes` must give for the same noise."""
    return draw_trajectories_slowly(model, vocabulary, prompts, unconditional, noise, settings).codes_BI


@torch.no_grad()
def draw_trajectories_slowly(
    model: UniGen,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    unconditional: Sequence[int],
    noise: MaskGitNoise,
    settings: MaskGitSettings,
) -> Trajectories:
    """What `generation.trajectories.draw_trajectories` must give for the same noise."""
    images = [
        _draw_one(model, vocabulary, prompt, unconditional, tokens_SI, confidence_SI, settings)
        for prompt, tokens_SI, confidence_SI in zip(prompts, noise.tokens_BSI, noise.confidence_BSI, strict=True)
    ]
    codes, steps, log_probs = ([[code[field] for code in image] for image in images] for field in range(3))
    return Trajectories(torch.tensor(codes), torch.tensor(steps), torch.tensor(log_probs))


def trajectory_log_probs_slowly(
    model: UniGen,
    vocabulary: Vocabulary,
    prompt: Sequence[int],
    unconditional: Sequence[int],
    image: Trajectory,
    settings: MaskGitSettings,
) -> Tensor:
    """The log-probability (I,) of each code of a finished image when it was fixed, with gradient, by the weights of now."""
    found: list[Tensor] = []
    for code, step in zip(image.codes_I.tolist(), image.fixed_at_I.tolist(), strict=True):
        known = [
            other if when < step else None
            for other, when in zip(image.codes_I.tolist(), image.fixed_at_I.tolist(), strict=True)
        ]
        logits_IC = _guided_logits(model, vocabulary, prompt, unconditional, known, settings)
        found.append(logits_IC.log_softmax(-1)[len(found), code])
    return torch.stack(found)


def _draw_one(
    model: UniGen,
    vocabulary: Vocabulary,
    prompt: Sequence[int],
    unconditional: Sequence[int],
    tokens_noise_SI: Tensor,
    confidence_noise_SI: Tensor,
    settings: MaskGitSettings,
) -> list[tuple[int, int, float]]:
    """Of each place its code, the step that fixed it, and the log-probability it had there."""
    num_codes = tokens_noise_SI.shape[1]
    fixed: dict[int, tuple[int, int, float]] = {}
    codes: list[int | None] = [None] * num_codes
    for step in range(settings.steps):
        logits_IC = _guided_logits(model, vocabulary, prompt, unconditional, codes, settings)
        probs_IC = logits_IC.softmax(-1)
        sampled = {
            place: _sample(probs_IC[place], float(tokens_noise_SI[step, place]))
            for place in range(num_codes)
            if codes[place] is None
        }
        confidence = {
            place: math.log(max(float(probs_IC[place, code]), 1e-20))
            - temperature(settings, step) * math.log(-math.log(float(confidence_noise_SI[step, place])))
            for place, code in sampled.items()
        }
        is_last = step + 1 == settings.steps
        ratio = masked_ratio(settings.mask_schedule, (step + 1) / settings.steps)
        num_masked = 0 if is_last else max(1, min(math.floor(num_codes * ratio), len(sampled) - 1))
        for place in sorted(sampled, key=lambda place: confidence[place])[num_masked:]:
            codes[place] = sampled[place]
            fixed[place] = sampled[place], step, math.log(probs_IC[place, sampled[place]])
    return [fixed[place] for place in range(num_codes)]


def _guided_logits(
    model: UniGen,
    vocabulary: Vocabulary,
    prompt: Sequence[int],
    unconditional: Sequence[int],
    codes: Sequence[int | None],
    settings: MaskGitSettings,
) -> Tensor:
    logits_IC = _code_logits(model, vocabulary, prompt, codes)
    if settings.guidance_scale in (0, 1):
        return logits_IC
    unconditional_IC = _code_logits(model, vocabulary, unconditional, codes)
    return unconditional_IC + settings.guidance_scale * (logits_IC - unconditional_IC)


def temperature(settings: MaskGitSettings, step: int) -> float:
    """Weight of the Gumbel noise at a step: `compounding` is a product over all steps so far."""
    if settings.temperature_schedule == "linear":
        return settings.temperature * (1 - (step + 1) / settings.steps)
    return settings.temperature * math.prod(1 - (earlier + 1) / settings.steps for earlier in range(step + 1))


def _code_logits(model: UniGen, vocabulary: Vocabulary, prompt: Sequence[int], codes: Sequence[int | None]) -> Tensor:
    """Logits over the codebook (I, C): the whole row, the whole vocabulary, and only then the part that is wanted."""
    tokens = [vocabulary.mask_id if code is None else vocabulary.code_offset + code for code in codes]
    row = [*prompt, vocabulary.start_of_image, *tokens, vocabulary.end_of_image]
    is_seen_LL = torch.tensor(
        [[column <= place or place >= len(prompt) for column in range(len(row))] for place in range(len(row))]
    )
    ids_1L, positions_1L = torch.tensor([row]), torch.arange(len(row))[None]
    hidden_LD = model(ids_1L, positions_1L, is_seen_LL[None, None])[0]
    logits_LV = (hidden_LD @ model.output_embedding_VD.T).float()
    start = vocabulary.code_offset
    return logits_LV[len(prompt) + 1 : -1, start : start + vocabulary.codebook_size]


def _sample(probs_C: Tensor, uniform: float) -> int:
    """The first code at which the cumulative probability reaches the uniform number."""
    cumulative_C = probs_C.cumsum(-1)
    reached = (cumulative_C >= uniform * cumulative_C[-1]).nonzero()
    return int(reached[0])


@torch.no_grad()
def draw_codes_from_whole_rows(
    model: UniGen,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    unconditional: Sequence[int],
    noise: MaskGitNoise,
    settings: MaskGitSettings,
) -> Tensor:
    """The codes (B, I) that `generation.maskgit.draw_codes` must give for the same noise.

    Only what a step decides from its logits is taken from there: how logits come about is what is compared.
    """
    rows = [list(prompt) for prompt in prompts]
    if settings.has_guidance:
        rows += [list(unconditional)] * len(prompts)
    num_codes, width = noise.tokens_BSI.shape[2], max(map(len, rows))
    prompt_RP = torch.tensor([[vocabulary.pad_id] * (width - len(row)) + row for row in rows], device=model.device)
    lengths_R = torch.tensor([len(row) for row in rows], device=model.device)
    mask_R1LL = _padded_mask(lengths_R, width, num_codes)
    codes_BI = torch.zeros(len(prompts), num_codes, dtype=torch.long, device=model.device)
    known_BI = torch.zeros_like(codes_BI, dtype=torch.bool)
    counts = remasked_counts(num_codes, settings.steps, settings.mask_schedule)
    for step, num_masked in enumerate(counts):
        tokens_BI = (codes_BI + vocabulary.code_offset).masked_fill(~known_BI, vocabulary.mask_id)
        tokens_RI = tokens_BI.repeat(len(rows) // len(prompts), 1)
        start_R1 = torch.full_like(tokens_RI[:, :1], vocabulary.start_of_image)
        end_R1 = torch.full_like(start_R1, vocabulary.end_of_image)
        ids_RL = torch.cat([prompt_RP, start_R1, tokens_RI, end_R1], dim=1)
        positions_RL = torch.arange(ids_RL.shape[1], device=model.device).expand_as(ids_RL)
        logits_RLV = model(ids_RL, positions_RL, mask_R1LL) @ model.output_embedding_VD.T
        codes = slice(vocabulary.code_offset, vocabulary.code_offset + vocabulary.codebook_size)
        logits_BIC = guided(logits_RLV[:, width + 1 : -1, codes], settings)
        draws = (noise.tokens_BSI[:, step], noise.confidence_BSI[:, step])
        codes_BI, known_BI = fix_and_remask(
            logits_BIC, known_BI, codes_BI, draws, temperature(settings, step), num_masked
        )
    return codes_BI


def _padded_mask(lengths_R: Tensor, width: int, num_codes: int) -> Tensor:
    """Who sees whom in rows whose prompts end at `width` (R, 1, L, L): text is causal, the image block sees itself."""
    length = width + num_codes + 2
    place_L = torch.arange(length, device=lengths_R.device)
    is_causal_LL = place_L[None, :] <= place_L[:, None]
    is_image_L = place_L >= width
    is_seen_LL = is_causal_LL | (is_image_L[None, :] & is_image_L[:, None])
    is_padding_RL = place_L[None, :] < width - lengths_R[:, None]
    # Padding sees padding, so that no row of the softmax is empty.
    return (is_seen_LL & (is_padding_RL[:, None, :] == is_padding_RL[:, :, None]))[:, None]
