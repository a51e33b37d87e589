# SPDX-License-Identifier: Apache-2.0
"""What the stages of all policies share: groups and their seeds, advantages, updates, refills, missing rewards."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unigen.config.load import load_config
from unigen.training.stages.policy import LOSS, PolicyBatch, PolicyStage, PromptSample, Request, Rollout
from unigen.training.stages.stage import Update

SIZE = 4


class Rewards:
    """Scores by a function of the rollout's seed, and remembers what it was asked."""

    def __init__(self, of: Callable[[int], float]) -> None:
        self.of, self.asked = of, list[list[int]]()

    def score(self, items: Sequence[Any]) -> Any:
        self.asked.append(list(items))
        total_N = torch.tensor([self.of(seed) for seed in items])
        failures = [f"reward {seed} failed" for seed in items if not math.isfinite(self.of(seed))]
        return SimpleNamespace(total_N=total_N, parts={"one": total_N}, failures=failures, seconds=0.0)


class Toy(PolicyStage):
    """A policy whose rollouts are their own seeds."""

    def __init__(self, rewards: Any, **grpo: Any) -> None:
        overrides = [f"grpo.{name}={value}" for name, value in {"group_size": SIZE, **grpo}.items()]
        super().__init__(load_config("configs/shapes/uae_grpo_understanding.yaml", overrides), rewards)
        self.model = nn.Linear(1, 1)

    prepare = property(lambda self: None)

    def roll_out(self, requests: Sequence[Request]) -> list[Rollout]:
        assert not self.training
        assert not torch.is_grad_enabled()
        return [Rollout(one.seed, (one.sample.key, one.seed), measured={"toy/length": 2.0}) for one in requests]  # type: ignore[arg-type]

    def batches(self, rollouts: Sequence[Rollout]) -> Iterator[PolicyBatch]:
        for one in rollouts:
            yield PolicyBatch([one.record[0]], {"advantages": torch.tensor([one.advantage])})

    def empty_batch(self) -> PolicyBatch:
        return PolicyBatch([], {"advantages": torch.zeros(0)})

    def forward(self, batch: PolicyBatch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        raise NotImplementedError

    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None: ...

    def load(self, folder: Path) -> None: ...


def prompts(count: int, visit: int = 0) -> list[PromptSample]:
    return [PromptSample(f"prompt-{number}", visit, None) for number in range(count)]


def advantages(updates: Sequence[Update]) -> list[float]:
    return [float(batch.tensors["advantages"]) for update in updates for batch in update.batches]  # type: ignore[attr-defined]


def last_digit(seed: int) -> float:
    return float(seed % 10)


def test_every_prompt_has_a_group_of_rollouts_that_only_its_key_and_visit_decide() -> None:
    rewards = Rewards(last_digit)
    stage = Toy(rewards)
    stage.updates(prompts(3))
    stage.updates(prompts(3)[::-1])
    stage.updates(prompts(3, visit=1))
    first, turned, later = rewards.asked
    assert len(set(first)) == 3 * SIZE
    assert turned == first[2 * SIZE :] + first[SIZE : 2 * SIZE] + first[:SIZE]
    assert not set(first) & set(later)


def test_the_advantages_of_a_group_have_no_sum_and_are_what_is_learnt_from() -> None:
    (update,) = Toy(Rewards(last_digit), advantage_std="group").updates(prompts(5))
    found = advantages([update])
    assert update.counts == {LOSS: len(found)}
    assert sum(found) == pytest.approx(0, abs=1e-5)
    assert min(found) < -0.5
    assert max(found) > 0.5
    assert update.measured["toy/length"] == (2.0 * 5 * SIZE, 5 * SIZE)


def test_the_rollouts_of_a_step_are_shared_out_among_its_updates() -> None:
    stage = Toy(Rewards(last_digit), updates_per_rollout=2)
    one, other = stage.updates(prompts(4))
    whole = Toy(Rewards(last_digit)).updates(prompts(4))
    assert sorted(advantages([one, other])) == sorted(advantages(whole))
    assert abs(len(one.batches) - len(other.batches)) <= 4  # as many as groups
    assert one.measured
    assert not other.measured


def test_groups_without_spread_are_drawn_anew_and_counted_then_left_out() -> None:
    rewards = Rewards(lambda seed: 1.0)
    (update,) = Toy(rewards, refill_rounds=2).updates(prompts(3))
    assert not update.batches
    assert [len(asked) for asked in rewards.asked] == [3 * SIZE] * 3
    assert len({seed for asked in rewards.asked for seed in asked}) == 9 * SIZE
    assert update.measured["groups/without_spread"] == (3.0, 3)
    assert update.measured["groups/refilled"] == (6.0, 6)


def test_only_groups_without_spread_are_drawn_anew() -> None:
    counter = iter(range(10**6))
    rewards = Rewards(lambda seed: 0.0)
    rewards.of = lambda seed: (
        0.0 if len(rewards.asked) == 1 and rewards.asked[0].index(seed) < SIZE else float(next(counter))
    )
    (update,) = Toy(rewards).updates(prompts(3))
    assert [len(asked) for asked in rewards.asked] == [3 * SIZE, SIZE]
    assert update.measured["groups/without_spread"] == (0.0, 3)


def test_a_rollout_whose_reward_failed_is_left_out_and_named() -> None:
    (update,) = Toy(Rewards(lambda seed: math.nan if seed % 3 == 0 else float(seed % 7))).updates(prompts(6))
    assert all(math.isfinite(advantage) for advantage in advantages([update]))
    missing, total = update.measured["reward/missing_fraction"]
    assert 0 < missing < total
    assert len(update.notes) == missing
    assert update.measured["reward/total"][1] == total - missing


def test_shuffled_advantages_are_the_same_numbers_in_the_same_group() -> None:
    plain = Toy(Rewards(last_digit)).updates(prompts(6))
    dealt = Toy(Rewards(last_digit), shuffle_advantages=True).updates(prompts(6))
    again = Toy(Rewards(last_digit), shuffle_advantages=True).updates(prompts(6))

    def by_key(updates: Sequence[Update]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for key, advantage in zip([b.keys[0] for u in updates for b in u.batches], advantages(updates), strict=True):
            found.setdefault(key, []).append(advantage)
        return found

    assert advantages(dealt) == advantages(again)
    assert by_key(plain) != by_key(dealt)
    assert {key: sorted(values) for key, values in by_key(plain).items()} == {
        key: sorted(values) for key, values in by_key(dealt).items()
    }


def test_on_the_old_policy_the_ratio_is_one_and_nothing_is_clipped() -> None:
    stage = Toy(Rewards(last_digit))
    log_probs_B = torch.tensor([-1.0, -2.0, -0.5])
    terms = stage.policy_terms(log_probs_B, log_probs_B.clone(), torch.tensor([1.0, -1.0, 0.5]))
    assert float(terms["policy/ratio"]) == 3
    assert float(terms["policy/clipped_fraction"]) == 0
    assert float(terms[LOSS]) == pytest.approx(-0.5)


def test_which_update_a_rollout_belongs_to_does_not_depend_on_the_other_groups_of_a_rank() -> None:
    settings = {"updates_per_rollout": 2, "group_size": 3, "advantage_std": "group"}
    one, other = (Toy(Rewards(lambda seed: float(seed % 97)), **settings) for _ in range(2))
    whole = one.updates(prompts(3))
    apart = [other.updates([prompt]) for prompt in prompts(3)]
    for number in range(2):
        assert sorted(advantages([whole[number]])) == sorted(advantages([part[number] for part in apart]))
