# SPDX-License-Identifier: Apache-2.0
"""Operations of one global step of UniFork at most: every row is full, and goes through the shared layers and its own branch."""

from unigen.models.cost import LanguageModelCost, count_parameters
from unigen.models.unifork import UniFork
from unigen.models.unifork_config import Branch
from unigen.models.unifork_cost import depth_transformer_flops


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
        flops["depth_transformer"] = 3 * drawn * depth_transformer_flops(model)
    return flops
