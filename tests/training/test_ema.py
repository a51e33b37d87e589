# SPDX-License-Identifier: Apache-2.0
"""The moving average of weights."""

import torch
from torch import nn

from unigen.training.ema import Ema


def _trained() -> tuple[nn.Linear, Ema, torch.Tensor]:
    layer = nn.Linear(2, 1, bias=False)
    start = layer.weight.detach().clone()
    ema = Ema(layer, decay=0.9)
    with torch.no_grad():
        layer.weight += 1
    ema.update()
    return layer, ema, start


def test_the_average_moves_by_one_minus_its_decay() -> None:
    layer, ema, start = _trained()
    with ema.applied():
        torch.testing.assert_close(layer.weight.detach(), start + 0.1)


def test_the_live_weights_come_back_even_after_an_error() -> None:
    layer, ema, start = _trained()
    try:
        with ema.applied():
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert torch.equal(layer.weight.detach(), start + 1)


def test_frozen_weights_are_not_averaged() -> None:
    layer = nn.Linear(2, 1)
    layer.bias.requires_grad_(False)
    assert set(Ema(layer, 0.5).state_dict()) == {"weight"}


def test_the_average_survives_saving() -> None:
    layer, ema, start = _trained()
    other = Ema(layer, decay=0.9)
    other.load_state_dict({name: tensor.clone() for name, tensor in ema.state_dict().items()})
    with other.applied():
        torch.testing.assert_close(layer.weight.detach(), start + 0.1)
