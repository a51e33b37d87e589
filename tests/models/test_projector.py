# SPDX-License-Identifier: Apache-2.0
"""The projector's names, size and behaviour on a batch without images."""

import torch

from unigen.models.projector import Projector


def test_projector_has_the_names_and_size_of_the_released_one() -> None:
    with torch.device("meta"):
        projector = Projector(1152, 1536)
    assert list(projector.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert sum(parameter.numel() for parameter in projector.parameters()) == 4_131_840


def test_depth_below_two_is_two_and_more_adds_layers_with_gelu_between() -> None:
    assert list(Projector(3, 4, depth=1).state_dict()) == list(Projector(3, 4, depth=2).state_dict())
    assert list(Projector(3, 4, depth=3).state_dict())[-2:] == ["4.weight", "4.bias"]


def test_no_rows_give_no_rows_and_zero_gradients() -> None:
    projector = Projector(6, 8)
    output = projector(torch.zeros(0, 6))
    assert output.shape == (0, 8)
    output.sum().backward()
    for parameter in projector.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() == 0


def test_the_width_between_the_layers_can_be_another() -> None:
    with torch.device("meta"):
        projector = Projector(2048, 4096, hidden_features=8192)
    assert [tuple(weight.shape) for weight in projector.parameters()] == [(8192, 2048), (8192,), (4096, 8192), (4096,)]
    assert sum(parameter.numel() for parameter in projector.parameters()) == 50_343_936
