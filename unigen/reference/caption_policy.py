# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of a written caption, plainly: one token at a time, each by a forward pass over all that stands before it.

Legend: P prompt tokens, L tokens read, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def caption_log_probs_slowly(
    language_model: Any, prompt: Mapping[str, Tensor], token_ids: Sequence[int], text_size: int, temperature: float
) -> tuple[list[float], list[float]]:
    """Log-probability of each token of a caption under `temperature`, and the entropy of the distribution that it is of.

    Args:
        language_model: a Qwen2_5_VLForConditionalGeneration.
        prompt: one request about one image, as the processor gives it.
        token_ids: of the caption.
        text_size: only ids below it may be written.
    """
    ids_1L, kinds_1L = prompt["input_ids"], prompt["mm_token_type_ids"]
    log_probs, entropies = [], []
    for token in token_ids:
        logits_1LV = language_model(
            input_ids=ids_1L,
            attention_mask=torch.ones_like(ids_1L),
            mm_token_type_ids=kinds_1L,
            pixel_values=prompt["pixel_values"],
            image_grid_thw=prompt["image_grid_thw"],
            use_cache=False,
        ).logits
        probs_V = torch.softmax(logits_1LV[0, -1, :text_size].double() / temperature, dim=-1)
        log_probs.append(float(probs_V[token].log()))
        entropies.append(float(-(probs_V * probs_V.log()).sum()))
        ids_1L = torch.cat([ids_1L, torch.tensor([[token]])], dim=1)
        kinds_1L = torch.cat([kinds_1L, torch.zeros_like(kinds_1L[:, :1])], dim=1)
    return log_probs, entropies
