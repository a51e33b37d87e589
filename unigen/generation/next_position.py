# SPDX-License-Identifier: Apache-2.0
"""Drawing position by position: UniFork's generation branch with cached keys and values, its depth transformer for the codes.

Legend: B images, R rows (conditional, then unconditional), U different prompts, S positions, P depths, D width, C feature size,
K codes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unigen.data.batch import Sample, collate
from unigen.generation.autoregressive import TextSettings, choose, read_rows
from unigen.generation.cache import DecodingCache, Layers
from unigen.generation.maskgit import guided
from unigen.generation.steps import Decoding, step_runner
from unigen.models.unifork import UniFork
from unigen.models.unifork_config import Branch
from unigen.sequence.layout import Document, text


@dataclass(frozen=True)
class NextPositionSettings:
    """How an image is drawn; the defaults are those of the released model."""

    guidance_scale: float = 4.0
    """g in u + g (c - u); 0 and 1 draw from the conditional logits alone."""
    temperature: float = 1.0
    """0 takes the most probable codes."""
    top_k: int = 900
    """Choose among the k most probable codes; 0 takes all."""
    top_p: float = 0.96
    """Choose among codes of this total probability."""
    negative_prompt: str = ""
    """What the unconditional rows say; empty is the null prompt that the model was trained with."""

    @property
    def has_guidance(self) -> bool:
        return self.guidance_scale not in (0.0, 1.0)

    @property
    def choice(self) -> TextSettings:
        return TextSettings(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)


@dataclass(frozen=True)
class BranchReader:
    """One branch of a UniFork, called as a model that has no other."""

    model: UniFork
    branch: Branch

    def __call__(
        self,
        input_ids_RL: Tensor,
        positions_RL: Tensor,
        mask: Any,
        features_KF: Tensor | None = None,
        feature_slots_K: Tensor | None = None,
        cache: Any = None,
    ) -> Tensor:
        embeddings_RLD = self.model.embed(input_ids_RL, features_KF, feature_slots_K)
        return self.model.hidden_states(embeddings_RLD, positions_RL, mask, self.branch, cache)

    @property
    def output_embedding_VD(self) -> Tensor:
        return self.model.output_embedding_VD


@torch.no_grad()
def draw_positions(
    model: UniFork,
    codebook_KC: Tensor,
    prompts: Sequence[Sequence[int]],
    unconditional: Sequence[int],
    uniform_BSP: Tensor,
    settings: NextPositionSettings,
    on_step: Callable[[int], None] = lambda step: None,
    decoding: Decoding = "auto",
) -> Tensor:
    """Draw one image for each prompt.

    Args:
        codebook_KC: of the image tokenizer, in the model's dtype.
        prompts: token ids before the image, one list an image; equal lists are read once.
        unconditional: the same for the unconditional rows, which share one reading.
        uniform_BSP: a number in (0, 1) for every code.
    Returns:
        codes (B, S, P).
    """
    num_images, num_positions, _ = uniform_BSP.shape
    wanted = [tuple(prompt) for prompt in prompts]
    wanted += [tuple(unconditional)] * (num_images if settings.has_guidance else 0)
    unique = list(dict.fromkeys(wanted))
    opened = [Sample("", Document(0, (text([*ids, model.config.start_of_image_id]),))) for ids in unique]
    rows = read_rows(BranchReader(model, "generation"), collate([[one] for one in opened]).to(model.device), None)
    index_R = torch.tensor([unique.index(ids) for ids in wanted], device=model.device)
    width = rows.is_column_BL.shape[1]
    cache = rows.cache.rows(index_R, width + num_positions - 1, torch.zeros(1, dtype=torch.long, device=model.device))
    uniform_BSP = uniform_BSP.to(model.device)
    codes_BP, summed_RC = _decode_position(model, codebook_KC, settings, rows.last_BD[index_R], uniform_BSP[:, 0])
    drawn = [codes_BP]
    fixed = (model, codebook_KC, settings, cache.layers, rows.is_column_BL[index_R], rows.lengths_B[index_R])
    advance = step_runner(_draw_next, fixed, decoding, model.device, num_positions - 1)
    for step_1 in torch.arange(num_positions - 1, device=model.device)[:, None]:
        on_step(len(drawn) - 1)
        codes_BP, summed_RC = advance(summed_RC, step_1, uniform_BSP[:, len(drawn)])
        drawn.append(codes_BP)
    on_step(len(drawn) - 1)
    return torch.stack(drawn, dim=1)


def _draw_next(
    model: UniFork,
    codebook_KC: Tensor,
    settings: NextPositionSettings,
    layers: Layers,
    is_column_RL: Tensor,
    lengths_R: Tensor,
    summed_RC: Tensor,
    step_1: Tensor,
    uniform_BP: Tensor,
) -> tuple[Tensor, Tensor]:
    """The position after the one whose features are `summed_RC`, which goes into the cache as number `step_1`."""
    width, num_columns = is_column_RL.shape[1], layers[0][0].shape[2]
    columns = torch.arange(num_columns, device=step_1.device)
    is_seen_RC = F.pad(is_column_RL, (0, num_columns - width)) | ((columns >= width) & (columns <= width + step_1))
    embeddings_R1D = model.model.mm_projector(summed_RC)[:, None]
    cache = DecodingCache(num_columns, layers, width + step_1)
    positions_R1 = (lengths_R + step_1)[:, None]
    hidden_R1D = model.hidden_states(embeddings_R1D, positions_R1, is_seen_RC[:, None, None], "generation", cache)  # type: ignore[arg-type]
    return _decode_position(model, codebook_KC, settings, hidden_R1D[:, 0], uniform_BP)


def _decode_position(
    model: UniFork, codebook_KC: Tensor, settings: NextPositionSettings, state_RD: Tensor, uniform_BP: Tensor
) -> tuple[Tensor, Tensor]:
    """Codes (B, P) of one position, and the features (R, C) of it: conditional and unconditional rows take the same."""

    def choose_code(logits_RK: Tensor, depth: int) -> Tensor:
        chosen_B = choose(guided(logits_RK.float(), settings), settings.choice, uniform_BP[:, depth : depth + 1])
        return chosen_B.repeat(2 if settings.has_guidance else 1)

    codes_RP, summed_RC = model.depth_transformer.decode(
        state_RD, lambda codes: F.embedding(codes, codebook_KC), choose_code
    )
    return codes_RP[: uniform_BP.shape[0]], summed_RC
