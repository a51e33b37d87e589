# SPDX-License-Identifier: Apache-2.0
"""Drawing by masked-token prediction (MaskGIT, Chang et al. 2022), with the prompt computed once.

The rows of the text are causal, so their keys and values do not depend on the image: they are cached, one row a prompt and
one for all unconditional rows. Each step runs the image block alone, and the head over the codebook alone.

Legend: B images, U prompts, P prompt columns, I codes of an image, S steps, C codebook size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from unigen.generation.cache import PrefixCache
from unigen.generation.seeds import uniform_noise
from unigen.models.unigen import UniGen
from unigen.sequence.mask_schedule import remasked_counts
from unigen.sequence.vocabulary import Vocabulary

SMALLEST_PROB = 1e-20


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
    temperature: float,
    num_masked: int,
) -> tuple[Tensor, Tensor]:
    """One step's decision: sample every unknown code, keep the most confident, mask `num_masked` again.

    Returns:
        codes (B, I) with all unknown ones sampled, and which of them are known from now on (B, I).
    """
    tokens_noise_BI, confidence_noise_BI = noise_BI
    probs_BIC = torch.softmax(logits_BIC.float(), dim=-1)
    cumulative_BIC = probs_BIC.cumsum(-1)
    threshold_BI1 = (tokens_noise_BI * cumulative_BIC[..., -1])[..., None]
    sampled_BI = torch.searchsorted(cumulative_BIC, threshold_BI1)[..., 0].clamp(max=logits_BIC.shape[-1] - 1)
    codes_BI = torch.where(known_BI, codes_BI, sampled_BI)
    if num_masked == 0:
        return codes_BI, torch.ones_like(known_BI)
    prob_BI = probs_BIC.gather(-1, codes_BI[..., None])[..., 0]
    gumbel_BI = -torch.log(-torch.log(confidence_noise_BI))
    confidence_BI = prob_BI.clamp(min=SMALLEST_PROB).log() + temperature * gumbel_BI
    confidence_BI = confidence_BI.masked_fill(known_BI, torch.finfo(torch.float32).max)
    cut_B1 = confidence_BI.sort(dim=-1).values[:, num_masked : num_masked + 1]
    return codes_BI, confidence_BI >= cut_B1


def guided(logits_RIC: Tensor, settings: MaskGitSettings) -> Tensor:
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
) -> Tensor:
    """Draw one image for each prompt.

    Args:
        prompts: token ids before the image block, one list an image; equal lists are computed once.
        unconditional: token ids before the image block of an empty prompt.
    Returns:
        codes (B, I) in [0, codebook size).
    """
    block = _ImageBlock(model, vocabulary, prompts, unconditional, settings)
    num_images, _, num_codes = noise.tokens_BSI.shape
    codes_BI = torch.zeros(num_images, num_codes, dtype=torch.long, device=model.device)
    known_BI = torch.zeros_like(codes_BI, dtype=torch.bool)
    counts = remasked_counts(num_codes, settings.steps, settings.mask_schedule)
    for step, (temperature, num_masked) in enumerate(zip(settings.temperatures(), counts, strict=True)):
        tokens_BI = (codes_BI + vocabulary.code_offset).masked_fill(~known_BI, vocabulary.mask_id)
        logits_BIC = guided(block.logits(tokens_BI), settings)
        draws = (noise.tokens_BSI[:, step], noise.confidence_BSI[:, step])
        codes_BI, known_BI = fix_and_remask(logits_BIC, known_BI, codes_BI, draws, temperature, num_masked)
        on_step(step)
    return codes_BI


class _ImageBlock:
    """The image block of every row behind its cached prompt: rows [conditional ...; unconditional ...]."""

    def __init__(
        self,
        model: UniGen,
        vocabulary: Vocabulary,
        prompts: Sequence[Sequence[int]],
        unconditional: Sequence[int],
        settings: MaskGitSettings,
    ) -> None:
        self._model, self._vocabulary = model, vocabulary
        wanted = [tuple(prompt) for prompt in prompts]
        if settings.has_guidance:
            wanted += [tuple(unconditional)] * len(prompts)
        self._repeats = 2 if settings.has_guidance else 1
        unique = list(dict.fromkeys(wanted))
        index_B = torch.tensor([unique.index(prompt) for prompt in wanted], device=model.device)
        lengths_U = torch.tensor([len(prompt) for prompt in unique], device=model.device)
        self._cache = self._prefill(unique, lengths_U).rows(index_B)
        self._lengths_B = lengths_U[index_B]
        # Asked once: the answer has to come from the device.
        self._has_one_length = bool((lengths_U == lengths_U.max()).all())

    def _prefill(self, prompts: list[tuple[int, ...]], lengths_U: Tensor) -> PrefixCache:
        width = int(lengths_U.max())
        rows = [F.pad(torch.tensor(prompt), (0, width - len(prompt))) for prompt in prompts]
        ids_UP = torch.stack(rows).to(self._model.device)
        positions_UP = torch.arange(width, device=ids_UP.device).expand_as(ids_UP)
        causal = torch.ones(1, 1, width, width, dtype=torch.bool, device=ids_UP.device).tril()
        cache = PrefixCache()
        self._model(ids_UP, positions_UP, causal, cache=cache)
        return cache

    def _mask(self, num_slots: int) -> Tensor | None:
        """Every slot sees its own prompt and the whole block; with prompts of one length nothing has to be hidden."""
        if self._has_one_length:
            return None
        width = self._cache.num_columns
        columns = torch.arange(width + num_slots, device=self._lengths_B.device)
        is_seen = (columns < self._lengths_B[:, None]) | (columns >= width)
        return is_seen[:, None, None, :].expand(-1, 1, num_slots, -1)

    def logits(self, tokens_BI: Tensor) -> Tensor:
        """Logits over the codebook at the code slots, one row for each conditional and unconditional image."""
        vocabulary = self._vocabulary
        ends = tokens_BI.new_tensor([vocabulary.start_of_image, vocabulary.end_of_image]).expand(len(tokens_BI), 2)
        ids_BN = torch.cat([ends[:, :1], tokens_BI, ends[:, 1:]], dim=1).repeat(self._repeats, 1)
        positions_BN = self._lengths_B[:, None] + torch.arange(ids_BN.shape[1], device=ids_BN.device)
        hidden_BND = self._model(ids_BN, positions_BN, self._mask(ids_BN.shape[1]), cache=self._cache)
        return F.linear(hidden_BND[:, 1:-1], self._model.code_output_embedding_CD)
