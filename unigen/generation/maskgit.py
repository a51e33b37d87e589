# SPDX-License-Identifier: Apache-2.0
"""Drawing by masked-token prediction (MaskGIT, Chang et al. 2022), with the prompt computed once.

The rows of the text are causal, so their keys and values do not depend on the image: they are cached, one row a prompt and
one for all unconditional rows. Each step runs the image block alone, and the head over the codebook alone.

Legend: B images, U prompts, P prompt columns, N slots of an image block, I codes of an image, S steps, C codebook size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from unigen.generation.cache import Layers, PrefixCache
from unigen.generation.seeds import uniform_noise
from unigen.generation.steps import Decoding, Step, step_runner
from unigen.models.unigen import UniGen
from unigen.sequence.mask_schedule import remasked_counts
from unigen.sequence.vocabulary import Vocabulary

SMALLEST_PROB = 1e-20
COMPILED_WIDTH = 64
"""Prompts of compiled steps are padded to a multiple of this, so that few widths are compiled."""


@dataclass(frozen=True)
class MaskGitSettings:
    """How an image is drawn; the defaults are those of the released evaluation."""

    steps: int = 50
    guidance_scale: float = 6.0
    """g in u + g (c - u); 0 and 1 draw from the conditional logits alone, as the released code does."""
    temperature: float = 1.0
    """Weight of the Gumbel noise on the confidence at the first step."""
    temperature_schedule: Literal["compounding", "linear"] = "compounding"
    """`compounding` multiplies the temperature by (1 - progress) at every step, as released; `linear` is MaskGIT's."""
    mask_schedule: Literal["cosine", "linear", "square", "sigmoid"] = "cosine"

    @property
    def has_guidance(self) -> bool:
        return self.guidance_scale not in (0.0, 1.0)

    def temperatures(self) -> list[float]:
        """Temperature of each step."""
        remaining = [1 - (step + 1) / self.steps for step in range(self.steps)]
        if self.temperature_schedule == "linear":
            return [self.temperature * share for share in remaining]
        found, temperature = [], self.temperature
        for share in remaining:
            temperature *= share
            found.append(temperature)
        return found


@dataclass(frozen=True)
class MaskGitNoise:
    """All random numbers of a batch of images, uniform in (0, 1); the same for the fast and the slow way of drawing."""

    tokens_BSI: Tensor
    confidence_BSI: Tensor

    @classmethod
    def from_seeds(cls, seeds: list[int], steps: int, num_codes: int, device: torch.device) -> "MaskGitNoise":
        noise_B2SI = uniform_noise(seeds, 2, steps, num_codes).to(device)
        return cls(noise_B2SI[:, 0], noise_B2SI[:, 1])


def fix_and_remask(
    logits_BIC: Tensor,
    known_BI: Tensor,
    codes_BI: Tensor,
    noise_BI: tuple[Tensor, Tensor],
    temperature: float | Tensor,
    num_masked: int | Tensor,
) -> tuple[Tensor, Tensor]:
    """One step's decision: sample every unknown code, keep the most confident, mask `num_masked` again.

    As tensors of one number on the device, `temperature` and `num_masked` keep the step free of questions to the host.

    Returns:
        codes (B, I) with all unknown ones sampled, and which of them are known from now on (B, I).
    """
    tokens_noise_BI, confidence_noise_BI = noise_BI
    probs_BIC = torch.softmax(logits_BIC.float(), dim=-1)
    cumulative_BIC = probs_BIC.cumsum(-1)
    threshold_BI1 = (tokens_noise_BI * cumulative_BIC[..., -1])[..., None]
    sampled_BI = torch.searchsorted(cumulative_BIC, threshold_BI1)[..., 0].clamp(max=logits_BIC.shape[-1] - 1)
    codes_BI = torch.where(known_BI, codes_BI, sampled_BI)
    prob_BI = probs_BIC.gather(-1, codes_BI[..., None])[..., 0]
    gumbel_BI = -torch.log(-torch.log(confidence_noise_BI))
    confidence_BI = prob_BI.clamp(min=SMALLEST_PROB).log() + temperature * gumbel_BI
    confidence_BI = confidence_BI.masked_fill(known_BI, torch.finfo(torch.float32).max)
    place_1 = torch.as_tensor(num_masked, device=confidence_BI.device).reshape(1)
    cut_B1 = confidence_BI.sort(dim=-1).values.index_select(1, place_1)
    return codes_BI, confidence_BI >= cut_B1


class Guidance(Protocol):
    """Settings of a way of drawing that has classifier-free guidance."""

    @property
    def guidance_scale(self) -> float:
        """g in u + g (c - u)."""

    @property
    def has_guidance(self) -> bool:
        """Whether there are unconditional rows."""


def guided(logits_RIC: Tensor, settings: Guidance) -> Tensor:
    """Logits (B, I, C) from rows [conditional ...; unconditional ...], or from conditional rows alone."""
    if not settings.has_guidance:
        return logits_RIC
    conditional, unconditional = logits_RIC.float().chunk(2)
    return unconditional + settings.guidance_scale * (conditional - unconditional)


@torch.no_grad()
def draw_codes(
    model: UniGen,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    unconditional: Sequence[int],
    noise: MaskGitNoise,
    settings: MaskGitSettings,
    on_step: Callable[[int], None] = lambda step: None,
    decoding: Decoding = "auto",
) -> Tensor:
    """Draw one image for each prompt.

    Args:
        prompts: token ids before the image block, one list an image; equal lists are computed once.
        unconditional: token ids before the image block of an empty prompt.
        decoding: how the step is run.
    Returns:
        codes (B, I) in [0, codebook size).
    """
    advance, draws = open_steps(fix_some, model, vocabulary, prompts, unconditional, noise, settings, decoding)
    codes_BI, known_BI = nothing_known(noise)
    for step, given in enumerate(draws):
        codes_BI, known_BI = advance(codes_BI, known_BI, *given)
        on_step(step)
    return codes_BI


def nothing_known(noise: MaskGitNoise) -> tuple[Tensor, Tensor]:
    """Codes (B, I) before the first step, and which of them are known: none."""
    codes_BI = torch.zeros_like(noise.tokens_BSI[:, 0], dtype=torch.long)
    return codes_BI, torch.zeros_like(codes_BI, dtype=torch.bool)


def open_steps(
    step: Step,
    model: UniGen,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    unconditional: Sequence[int],
    noise: MaskGitNoise,
    settings: MaskGitSettings,
    decoding: Decoding,
) -> tuple[Step, Sequence[tuple[Tensor, ...]]]:
    """Compute the prompts, and make ready what is repeated.

    Args:
        step: `fix_some`, or what has its arguments.
    Returns:
        a function of what is known and of the draws of a step, and those draws for all steps.
    """
    num_images, num_steps, num_codes = noise.tokens_BSI.shape
    # A width that is seldom another one, for what is compiled.
    multiple = COMPILED_WIDTH if decoding == "compile" else 1
    wanted = [*prompts, *([unconditional] * num_images if settings.has_guidance else [])]
    block = _prefill(model, wanted, num_codes + 2, multiple)
    fixed = (model, vocabulary, settings, block.layers, block.positions_BN, block.mask)
    counts_S = torch.tensor(remasked_counts(num_codes, num_steps, settings.mask_schedule), device=model.device)
    temperatures_S = torch.tensor(settings.temperatures(), device=model.device)
    noise_of_steps = noise.tokens_BSI.unbind(1), noise.confidence_BSI.unbind(1)
    draws = list(zip(*noise_of_steps, temperatures_S.unbind(), counts_S.unbind(), strict=True))
    return step_runner(step, fixed, decoding, model.device, num_steps), draws


def fix_some(
    model: UniGen,
    vocabulary: Vocabulary,
    settings: MaskGitSettings,
    layers: Layers,
    positions_BN: Tensor,
    mask: Tensor | None,
    codes_BI: Tensor,
    known_BI: Tensor,
    tokens_noise_BI: Tensor,
    confidence_noise_BI: Tensor,
    temperature: Tensor,
    num_masked: Tensor,
) -> tuple[Tensor, Tensor]:
    """One step: the codes that are known are shown, all others are sampled, and some of them are known from now on."""
    logits_BIC = step_logits(model, vocabulary, settings, layers, positions_BN, mask, codes_BI, known_BI)
    noise = (tokens_noise_BI, confidence_noise_BI)
    return fix_and_remask(logits_BIC, known_BI, codes_BI, noise, temperature, num_masked)


def step_logits(
    model: UniGen,
    vocabulary: Vocabulary,
    settings: MaskGitSettings,
    layers: Layers,
    positions_BN: Tensor,
    mask: Tensor | None,
    codes_BI: Tensor,
    known_BI: Tensor,
) -> Tensor:
    """Logits over the codebook (B, I, C), guided, of images of which some codes are known."""
    tokens_BI = (codes_BI + vocabulary.code_offset).masked_fill(~known_BI, vocabulary.mask_id)
    start_B1, end_B1 = (
        torch.full_like(tokens_BI[:, :1], end) for end in (vocabulary.start_of_image, vocabulary.end_of_image)
    )
    ids_BN = torch.cat([start_B1, tokens_BI, end_B1], dim=1).repeat(2 if settings.has_guidance else 1, 1)
    hidden_BND = model(ids_BN, positions_BN, mask, cache=PrefixCache(layers))
    return guided(F.linear(hidden_BND[:, 1:-1], model.code_output_embedding_CD), settings)


@dataclass(frozen=True)
class _ImageBlocks:
    """What does not change while images are drawn: rows [conditional ...; unconditional ...], N slots of an image block."""

    layers: Layers
    positions_BN: Tensor
    mask: Tensor | None
    """(B, 1, N, P + N): every slot sees its own prompt and the whole block; None where nothing has to be hidden."""


def _prefill(model: UniGen, prompts: Sequence[Sequence[int]], num_slots: int, multiple: int) -> _ImageBlocks:
    """Compute the rows of the prompts, equal ones once; their width P is rounded up to a multiple."""
    wanted = [tuple(prompt) for prompt in prompts]
    unique = list(dict.fromkeys(wanted))
    width = -(-max(map(len, unique)) // multiple) * multiple
    rows = [F.pad(torch.tensor(prompt), (0, width - len(prompt))) for prompt in unique]
    ids_UP = torch.stack(rows).to(model.device)
    positions_UP = torch.arange(width, device=ids_UP.device).expand_as(ids_UP)
    causal = torch.ones(1, 1, width, width, dtype=torch.bool, device=ids_UP.device).tril()
    cache = PrefixCache()
    model(ids_UP, positions_UP, causal, cache=cache)
    index_B = torch.tensor([unique.index(prompt) for prompt in wanted], device=ids_UP.device)
    lengths_B = torch.tensor([len(prompt) for prompt in wanted], device=ids_UP.device)
    positions_BN = lengths_B[:, None] + torch.arange(num_slots, device=ids_UP.device)
    mask = None
    if any(len(prompt) != width for prompt in unique):
        columns = torch.arange(width + num_slots, device=ids_UP.device)
        is_seen = (columns < lengths_B[:, None]) | (columns >= width)
        mask = is_seen[:, None, None, :].expand(-1, 1, num_slots, -1)
    return _ImageBlocks(cache.rows(index_B).layers, positions_BN, mask)
