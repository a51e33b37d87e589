# SPDX-License-Identifier: Apache-2.0
"""Rewards as a weighted list: each scores images in batches; one that cannot score an image fails on that image alone.

Legend: N images.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from unigen.config.policy import RewardConfig
from unigen.errors import ConfigError, RewardError, RewardServerError
from unigen.rewards.judged import Judged


class Reward(Protocol):
    """A way to score images."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What a manifest says of it."""
        ...

    def score(self, items: Sequence[Judged]) -> list[float]:
        """A number for each, higher is better; raises where it cannot score one of them."""
        ...


@dataclass(frozen=True)
class Term:
    """One reward of a weighted list."""

    name: str
    reward: Reward
    weight: float = 1.0
    batch_size: int = 64


@dataclass(frozen=True)
class Scores:
    """Of N images, in their order. NaN is what could not be scored."""

    total_N: Tensor
    """The weighted sum, float32 on the CPU."""
    parts: Mapping[str, Tensor]
    """The values (N,) of each reward by its name, before its weight."""
    failures: list[str]
    """One line for each value that is NaN: the reward, the image's key, and why."""
    seconds: float
    """What scoring took."""


class WeightedRewards:
    """Sums rewards. An image that one of them (of a weight other than 0) cannot score has no sum."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self._terms = tuple(terms)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What a manifest says of each, hashes of weights included."""
        return {term.name: {"weight": term.weight, **term.reward.identity} for term in self._terms}

    def score(self, items: Sequence[Judged]) -> Scores:
        """
        Raises:
            ConfigError: a reward returns another number of values than it was given images, or is set up wrong.
        """
        start = time.perf_counter()
        total_N = torch.zeros(len(items))
        parts, failures = {}, []
        for term in self._terms:
            found = _score_in_batches(term, items)
            failures += [
                f"reward {term.name}: {item.key}: {value}"
                for item, value in zip(items, found, strict=True)
                if isinstance(value, str)
            ]
            values_N = torch.tensor([math.nan if isinstance(value, str) else value for value in found])
            parts[term.name] = values_N
            if term.weight:
                total_N += term.weight * values_N
        return Scores(total_N, parts, failures, time.perf_counter() - start)


def build_rewards(
    rewards: Mapping[str, RewardConfig], data_root: str | Path, device: torch.device | str
) -> WeightedRewards:
    """The rewards of a configuration, with their models loaded onto `device`.

    Raises:
        CheckpointError, ConfigError: a model, a function or a library that is not there.
    """
    return WeightedRewards(
        [
            Term(name, _build(reward, data_root, device), reward.weight, reward.batch_size)
            for name, reward in rewards.items()
        ]
    )


def _build(reward: RewardConfig, data_root: str | Path, device: torch.device | str) -> Reward:
    # Each brings libraries that the others do without.
    if reward.kind == "detector":
        from unigen.rewards.detector_reward import DetectorReward

        return DetectorReward(reward.strict)
    if reward.kind == "callable":
        from unigen.rewards.function_reward import FunctionReward

        assert reward.function is not None, "unigen.config.rewards refuses it"
        return FunctionReward(reward.function)
    if reward.kind == "endpoint":
        from unigen.rewards.endpoint_reward import EndpointReward

        assert reward.url is not None, "unigen.config.rewards refuses it"
        sends_originals = reward.compares == "original"
        return EndpointReward(reward.url, sends_originals=sends_originals, timeout_seconds=reward.timeout_seconds)
    from unigen.rewards.encoder_reward import EncoderReward
    from unigen.rewards.image_encoders.loading import load_encoder

    return EncoderReward(load_encoder(reward.kind, reward.model, data_root, device), reward.compares)


def _score_in_batches(term: Term, items: Sequence[Judged]) -> list[float | str]:
    """A finite number for each item, or why there is none. A server that stays away is not asked for the rest."""
    found: list[float | str] = []
    try:
        for start in range(0, len(items), term.batch_size):
            found += _score_batch(term, items[start : start + term.batch_size])
    except RewardServerError as error:
        found += [str(error)] * (len(items) - len(found))
    return found


def _score_batch(term: Term, batch: Sequence[Judged]) -> list[float | str]:
    """A batch that fails is scored again one by one, so that one bad image costs one."""
    try:
        values = list(term.reward.score(batch))
    except (ConfigError, RewardServerError):
        raise
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"reward {term.name} has too little memory for batch_size={term.batch_size}; lower it"
        ) from error
    except Exception as error:
        if len(batch) > 1:
            return [value for item in batch for value in _score_batch(term, [item])]
        return [_reason(error)]
    if len(values) != len(batch):
        raise ConfigError(
            f"reward {term.name} gave {len(values)} numbers for {len(batch)} images; it must give one for each"
        )
    return [value if math.isfinite(value) else f"it gave {value}" for value in values]


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, RewardError) else f"{type(error).__name__}: {text}"
