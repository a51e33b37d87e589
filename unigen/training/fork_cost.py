# SPDX-License-Identifier: Apache-2.0
"""Operations of one global step of UniFork at most: every row is full, and goes through the shared layers and its own branch."""

import torch

from unigen.models.cost import LanguageModelCost, count_parameters, measure_on_meta
from unigen.models.unifork import UniFork
from unigen.models.unifork_config import Branch


def fork_flops(model: UniFork, samples: dict[str, int]) -> dict[str, float]:
    """Forward and backward by part, without the frozen image tokenizer; a model on the meta device.

    Args:
        samples: of each task in a global step.
    """
    config = model.config
    drawn = samples.get("t2i", 0)
    read = sum(samples.values()) - drawn
    length, vocabulary = config.row_length, config.llm_config.vocab_size
    words = read * (length - 1) - samples.get("mmu", 0) * (config.num_image_codes + 1)

    def path(branch: Branch, rows: int, logits: int) -> float:
        if not rows:
            return 0.0
        return LanguageModelCost(config.path_config(branch)).forward_flops(rows * length**2, rows * length, logits)

    images = drawn + samples.get("mmu", 0)
    connector = 2 * count_parameters(model.model.mm_projector) * images * config.num_image_codes
    flops = {
        "language_model": 3 * (path("understanding", read, words * vocabulary) + path("generation", drawn, 0)),
        "connector": 3.0 * connector,
    }
    if drawn:
        flops["depth_transformer"] = 3 * drawn * _depth_flops(model)
    return flops


def _depth_flops(model: UniFork) -> float:
    """One image through the depth transformer, teacher-forced."""
    sizes, positions = model.depth_transformer.sizes, model.config.num_image_codes
    hidden_MD = torch.empty(positions, sizes.hidden_size, device="meta")
    embeddings_MPC = torch.empty(positions, sizes.depth, sizes.code_channels, device="meta")
    return measure_on_meta(lambda: model.depth_transformer(hidden_MD, embeddings_MPC)).flops
