# SPDX-License-Identifier: Apache-2.0
"""What each branch of a UniFork costs, against real models and counted operations."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.tiny_unifork import SMALL_DEPTH, small_language
from unigen.models.unifork import UniFork
from unigen.models.unifork_config import UniForkConfig
from unigen.models.unifork_cost import unifork_costs


def config(shared: int, reads: int | None, draws: int | None) -> UniForkConfig:
    return UniForkConfig(
        llm_config=small_language(),
        depth_transformer=SMALL_DEPTH,
        feature_size=6,
        num_image_codes=16,
        max_text_tokens=30,
        num_shared_layers=shared,
        num_understanding_layers=reads,
        num_generation_layers=draws,
    )


def test_a_fork_has_more_parameters_and_costs_a_token_the_same() -> None:
    (shared, shared_costs), (forked, forked_costs) = unifork_costs(config(4, 0, 0)), unifork_costs(config(1, 3, 3))
    assert shared_costs == forked_costs
    layer = sum(parameter.numel() for parameter in UniFork(config(4, 0, 0)).model.layers[0].parameters())
    assert forked - shared == 3 * layer
    assert shared == sum(parameter.numel() for parameter in UniFork(config(4, 0, 0)).parameters())


def test_an_expert_has_no_more_than_its_task_uses() -> None:
    both = unifork_costs(config(2, 2, 2))[1]
    for reads, draws, branch in ((2, None, "understanding"), (None, 2, "generation")):
        total, costs = unifork_costs(config(2, reads, draws))
        assert list(costs) == [branch]
        assert costs[branch] == both[branch]
        assert costs[branch].parameters == total


@torch.no_grad()
def test_the_operations_are_those_that_a_pass_over_a_row_does() -> None:
    model = UniFork(config(2, 2, 2)).eval()
    costs, length = unifork_costs(model.config)[1], model.config.row_length
    embeddings_1LD, positions_1L = torch.randn(1, length, 16), torch.arange(length)[None]
    mask = torch.ones(1, 1, length, length, dtype=torch.bool)
    with FlopCounterMode(display=False) as reading:
        states_1LD = model.hidden_states(embeddings_1LD, positions_1L, mask, "understanding")
        states_1LD @ model.output_embedding_VD.T
    assert costs["understanding"].flops_per_token == pytest.approx(reading.get_total_flops() / length, rel=0.01)
    features, embeddings = torch.randn(16, 6), torch.randn(16, 3, 6)
    with FlopCounterMode(display=False) as path:
        states_1LD = model.hidden_states(embeddings_1LD, positions_1L, mask, "generation")
    with FlopCounterMode(display=False) as head:
        model.model.mm_projector(features)
        model.depth_transformer(states_1LD[0, :16], embeddings)
    drawn = path.get_total_flops() / length + head.get_total_flops() / 16
    assert costs["generation"].flops_per_token == pytest.approx(drawn, rel=0.02)
