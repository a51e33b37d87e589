# SPDX-License-Identifier: Apache-2.0
"""Learning from rewards in groups (GRPO): what the stages of every policy have in common.

One global step: this rank's prompts -> a group of rollouts of each, by the policy as it is now -> rewards -> advantages among
the groups of all ranks -> one update or several. Groups lie whole on a rank. What a rollout draws is a function of (seed, key and
visit of its prompt, its number in the group), so neither ranks nor resuming change it. There is no supervised term.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor

from unigen.config.schema import Config
from unigen.data.draws import Draws
from unigen.generation.seeds import image_seed
from unigen.objectives.policy_gradient import clipped_losses, group_advantages, has_spread
from unigen.training.stages.stage import RunStart, Stage, Update

if TYPE_CHECKING:
    from unigen.rewards.judged import Judged
    from unigen.rewards.reward import WeightedRewards

LOSS = "policy"


@dataclass(frozen=True)
class PromptSample:
    """What a group of rollouts is drawn for."""

    key: str
    visit: int
    content: Any
    """What the policy needs of it."""


@dataclass(frozen=True)
class Request:
    """One rollout to be made."""

    sample: PromptSample
    seed: int


@dataclass(frozen=True)
class Rollout:
    """What a policy made of a request."""

    judged: Judged
    """What is scored."""
    record: Any
    """What the policy learns from: how it came about, with its log-probabilities at that time."""
    advantage: float = 0.0
    measured: Mapping[str, float] = field(default_factory=dict)
    """Metrics about it, by name with a slash."""


@dataclass(frozen=True)
class PolicyBatch:
    """Some rollouts as tensors, for one forward pass; the first dimension of each is that of the losses' terms or rollouts."""

    keys: list[str]
    tensors: dict[str, Tensor]
    num_tokens: int = 0
    num_slots: int = 0
    num_images: int = 0

    def to(self, device: torch.device | str) -> PolicyBatch:
        return replace(self, tensors={name: value.to(device) for name, value in self.tensors.items()})


class PolicyStage(Stage):
    """A stage that scores what its own model made. The rewards are outside of the module, and never trained.

    Comes before the stage of a family among the bases of a class.
    """

    def __init__(self, config: Config, rewards: WeightedRewards, *parts: Any) -> None:
        """
        Args:
            parts: what the family's stage takes.
        """
        super().__init__(*parts)
        self._config = config
        self._grpo = config.grpo
        self._rewards = rewards
        self.num_updates = config.grpo.updates_per_rollout
        self._precision: Any = nullcontext

    @abstractmethod
    def roll_out(self, requests: Sequence[Request]) -> list[Rollout]:
        """Rollouts of requests by the policy as it is, in order. Called without gradient, in evaluation mode."""

    @abstractmethod
    def batches(self, rollouts: Sequence[Rollout]) -> Iterator[PolicyBatch]:
        """The forward passes of an update on these rollouts."""

    def counts(self, rollouts: Sequence[Rollout]) -> dict[str, int]:
        """Terms of the loss: one for each rollout, where a policy does not say otherwise."""
        return {LOSS: len(rollouts)}

    def begin(self, run: RunStart) -> None:
        # The very precision of training: else the first ratio of probabilities would not be 1.
        self._precision = run.backend.accelerator.autocast

    def updates(self, samples: Sequence[PromptSample]) -> Sequence[Update]:
        was_training = self.training
        self.eval()
        with torch.no_grad(), self._run_precision():
            experience = self._experience(samples)
        self.train(was_training)
        # By their numbers in their groups, so that it does not matter which groups lie on a rank.
        parts = [
            [rollout for member, rollout in experience.learnt if member % self.num_updates == number]
            for number in range(self.num_updates)
        ]
        updates = [Update(self.counts(part), list(self.batches(part))) for part in parts]
        return [replace(updates[0], measured=experience.measured, notes=experience.notes), *updates[1:]]

    def policy_terms(self, log_probs_B: Tensor, old_log_probs_B: Tensor, advantages_B: Tensor) -> dict[str, Tensor]:
        """The clipped loss (B) and what to watch of it, under the names of the logs, each as a sum over its terms."""
        ratios_B = (log_probs_B - old_log_probs_B).detach().exp()
        clipped_B = ((ratios_B - 1).abs() > self._grpo.clip_range).float()
        return {
            LOSS: clipped_losses(log_probs_B, old_log_probs_B, advantages_B, self._grpo.clip_range).sum(),
            "policy/ratio": ratios_B.sum(),
            "policy/ratio_deviation": (ratios_B - 1).abs().sum(),
            "policy/clipped_fraction": clipped_B.sum(),
        }

    def _run_precision(self) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = self._precision()
        return found

    def _experience(self, samples: Sequence[PromptSample]) -> _Experience:
        found = _Experience()
        groups = self._scored(samples, 0, found)
        for attempt in range(1, self._grpo.refill_rounds + 1):
            flat = [number for number, group in enumerate(groups) if not has_spread(group.rewards_N)]
            again = self._scored([groups[number].sample for number in flat], attempt, found)
            groups = [dict(zip(flat, again, strict=True)).get(number, group) for number, group in enumerate(groups)]
            found.measure("groups/refilled", float(len(flat)), len(groups))
        self._take_advantages(groups, found)
        return found

    def _scored(self, samples: Sequence[PromptSample], attempt: int, found: _Experience) -> list[_Group]:
        """A group of rollouts of each sample, with rewards; what was measured goes into `found`."""
        if not samples:
            return []
        size, start = self._grpo.group_size, time.perf_counter()
        rollouts = self.roll_out([request for sample in samples for request in self._requests(sample, attempt)])
        drawn = time.perf_counter()
        scores = self._rewards.score([rollout.judged for rollout in rollouts])
        found.measure("time/rollout_seconds", drawn - start)
        found.measure("time/reward_seconds", time.perf_counter() - drawn)
        found.notes += scores.failures
        for name, values_N in {"total": scores.total_N, **scores.parts}.items():
            present_N = values_N[values_N.isfinite()]
            found.measure(f"reward/{name}", float(present_N.sum()), len(present_N))
        found.measure("reward/missing_fraction", float((~scores.total_N.isfinite()).sum()), len(rollouts))
        for rollout in rollouts:
            for name, value in rollout.measured.items():
                found.measure(name, value)
        return [
            _Group(sample, rollouts[first : first + size], scores.total_N[first : first + size])
            for sample, first in zip(samples, range(0, len(rollouts), size), strict=True)
        ]

    def _requests(self, sample: PromptSample, attempt: int) -> list[Request]:
        item, first = f"{sample.key}|{sample.visit}", attempt * self._grpo.group_size
        members = range(first, first + self._grpo.group_size)
        return [Request(sample, image_seed(self._config.experiment.seed, item, member)) for member in members]

    def _take_advantages(self, groups: Sequence[_Group], found: _Experience) -> None:
        """The rollouts to learn from, with their advantages among the groups of all ranks."""
        own = [group.rewards_N.tolist() for group in groups]
        told = gather_object([own])
        before = sum(len(rank) for rank in told[: PartialState().process_index])
        rewards = [reward for rank in told for group in rank for reward in group]
        names = [number for number, group in enumerate([group for rank in told for group in rank]) for _ in group]
        advantages_N = group_advantages(
            torch.tensor(rewards, dtype=torch.float64),
            names,
            deviation=self._grpo.advantage_std,
            most=self._grpo.max_advantage,
        )
        size = self._grpo.group_size
        for number, group in enumerate(groups):
            first = (before + number) * size
            advantages = self._dealt(group.sample, advantages_N[first : first + size])
            spread = (
                group.rewards_N[group.rewards_N.isfinite()].std(correction=0) if has_spread(group.rewards_N) else 0.0
            )
            found.measure("reward/group_deviation", float(spread))
            found.measure("groups/without_spread", float(not has_spread(group.rewards_N)))
            found.learnt += [
                (member, replace(rollout, advantage=advantage))
                for member, (rollout, advantage) in enumerate(zip(group.rollouts, advantages, strict=True))
                if advantage != 0
            ]

    def _dealt(self, sample: PromptSample, advantages_N: Tensor) -> list[float]:
        if not self._grpo.shuffle_advantages:
            return list(advantages_N.tolist())
        draws = Draws(self._config.experiment.seed, sample.key, sample.visit).generator("advantages")
        return list(advantages_N[torch.from_numpy(draws.permutation(len(advantages_N)))].tolist())


@dataclass(frozen=True)
class _Group:
    sample: PromptSample
    rollouts: list[Rollout]
    rewards_N: Tensor


@dataclass
class _Experience:
    """What one rank found out in a global step."""

    learnt: list[tuple[int, Rollout]] = field(default_factory=list)
    """Rollouts with their numbers in their groups."""
    measured: dict[str, tuple[float, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def measure(self, name: str, total: float, count: int = 1) -> None:
        before = self.measured.get(name, (0.0, 0))
        self.measured[name] = before[0] + total, before[1] + count
