# SPDX-License-Identifier: Apache-2.0
"""An exponential moving average of trained weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Shadow copies of the trained parameters of a module; on sharded backends, of each rank's shards."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._live = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        self._shadow = {name: parameter.detach().clone() for name, parameter in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        shadows, live = list(self._shadow.values()), [self._live[name].detach() for name in self._shadow]
        torch._foreach_lerp_(shadows, live, 1 - self._decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module with averaged weights, for as long as the context lasts."""
        with torch.no_grad():
            kept = {name: parameter.detach().clone() for name, parameter in self._live.items()}
            for name, parameter in self._live.items():
                parameter.copy_(self._shadow[name])
            try:
                yield
            finally:
                for name, parameter in self._live.items():
                    parameter.copy_(kept[name])

    def state_dict(self) -> dict[str, Tensor]:
        return {name: tensor.contiguous() for name, tensor in self._shadow.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self._shadow.items():
            tensor.copy_(state[name])
