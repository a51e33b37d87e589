# SPDX-License-Identifier: Apache-2.0
"""What a stage is: one objective over one model. The loop knows nothing else of it.

A stage is the module that accelerate wraps, so that forward runs the model and its loss inside the wrapper. Frozen encoders
are kept outside of it (`encode`), where they are neither wrapped nor sharded nor saved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from unigen.data.batch import Sample
from unigen.data.draws import Draws
from unigen.data.sample import RawSample

if TYPE_CHECKING:
    from unigen.data.loader import StepLoader
    from unigen.training.backend import Backend  # which knows this module


@dataclass(frozen=True)
class RunStart:
    """A run before its first step, or before it goes on from a checkpoint."""

    folder: Path
    """Of the run's output."""
    num_steps: int
    backend: Backend
    """With the stage in it, whose weights are those that the run starts from."""
    open_data: Callable[[], StepLoader[Sample]]

    @property
    def is_main(self) -> bool:
        return self.backend.accelerator.is_main_process

    def samples(self) -> Iterator[list[Sample]]:
        """This rank's samples of every step, as training will see them."""
        steps = iter(self.open_data())
        for _ in range(self.num_steps):
            yield next(steps)


class TrainingBatch(Protocol):
    """What one forward pass trains on, as the loop sees it."""

    @property
    def keys(self) -> Sequence[str]:
        """Of the samples in it; empty for those that count for nothing."""

    @property
    def num_tokens(self) -> int:
        """Positions that hold something."""

    @property
    def num_slots(self) -> int:
        """Positions that are computed."""

    @property
    def num_images(self) -> int: ...

    def to(self, device: torch.device | str) -> TrainingBatch:
        """The same on a device."""


@dataclass(frozen=True)
class Update:
    """This rank's share of one update of the weights."""

    counts: dict[str, int]
    """How many terms each loss has."""
    batches: Sequence[TrainingBatch]
    measured: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    """Metrics that were found on the way, by name with a slash: sum and number."""
    notes: Sequence[str] = ()
    """Lines for who watches the run."""


class Stage(nn.Module, ABC):
    model: nn.Module
    """What is trained."""

    num_updates = 1
    """Of the weights in a global step."""

    @property
    @abstractmethod
    def prepare(self) -> Callable[[RawSample, Draws], Any]:
        """Makes a sample of a record, in the loader's workers."""

    def begin(self, run: RunStart) -> None:
        """What has to be done once with the weights that the run starts from. All ranks make this call together."""
        return

    def updates(self, samples: Sequence[Any]) -> Sequence[Update]:
        """What one rank's share of a global step trains, `num_updates` of them. All ranks make this call together."""
        return [Update(self.counts(samples), list(self.batches(samples)))]

    @abstractmethod
    def batches(self, samples: Sequence[Any]) -> Iterator[TrainingBatch]:
        """The forward passes of one rank's share of an update."""

    @abstractmethod
    def counts(self, samples: Sequence[Any]) -> dict[str, int]:
        """How many terms each loss has; losses are averaged by their sums over all ranks."""

    def loss_weights(self) -> Mapping[str, float]:
        """Factor of the mean of each loss of `counts`; 1 where absent."""
        return {}

    @abstractmethod
    def empty_batch(self) -> TrainingBatch:
        """A forward pass that counts for nothing, for ranks that have fewer of them than others."""

    def encode(self, batch: Any) -> Any:
        """Run the frozen encoders. Nothing is differentiated here."""
        return batch

    @abstractmethod
    def forward(self, batch: Any, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to differentiate, sum over losses of scale * sum of terms; and the plain sum of each loss, detached.

        A name with a slash is that of a metric beside the losses, whose mean is over the terms of the first loss."""

    @abstractmethod
    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write the model as a folder that can be loaded, sampled from and evaluated; from `state` if given."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Take the weights that `save` wrote."""

    def learning_rate_factors(self) -> dict[str, float]:
        """Factor on the learning rate for parameters whose name has the given prefix."""
        return {}

    def directly_read_parameters(self) -> Sequence[nn.Parameter]:
        """Parameters that `forward` reads without calling the module that holds them."""
        return ()

    def draw_validation(self, prompts: Sequence[str], **settings: Any) -> Iterator[Any]:
        """Images of prompts with the weights of now; none for stages that do not draw."""
        return iter(())

    def training_flops(self, batch: Any) -> float:
        """Floating-point operations of one training pass over `batch`, recomputation not counted; 0 where not known."""
        return 0.0


def in_chunks(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def are_counted(batch: TrainingBatch) -> Tensor:
    """Which samples (B,) enter the losses: those of `empty_batch`, which have no key, do not."""
    return torch.tensor([bool(key) for key in batch.keys])


def weighted_mean_terms(
    terms: Mapping[str, Tensor], weights: Mapping[str, float], scale: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total of named per-image losses (B,), each with its weight, and their detached sums."""
    total = sum((weights[name] * values.sum() for name, values in terms.items()), torch.zeros(()))
    return total * scale, {name: values.detach().sum() for name, values in terms.items()}
