# SPDX-License-Identifier: Apache-2.0
"""A weighted list of rewards: its sum, its batches, and images that cannot be scored."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rewards.pictures import pictures
from tests.tiny_encoders import tiny_clip, tiny_dinov3
from unigen.config.policy import RewardConfig
from unigen.errors import ConfigError, RewardError, RewardServerError
from unigen.rewards import Judged
from unigen.rewards.reward import Term, WeightedRewards, build_rewards

ITEMS = [Judged(f"key-{number}", image, prompt=str(number)) for number, image in enumerate(pictures(5))]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data with two tiny encoders."""
    root = tmp_path_factory.mktemp("data")
    tiny_clip(root / "checkpoints" / "clip")
    tiny_dinov3(root / "checkpoints" / "dinov3")
    return root


@dataclass
class Told:
    """Gives each item the number that is its prompt, or what `instead` says for that key, an error to be raised included."""

    instead: dict[str, Any] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    identity: dict[str, Any] = field(default_factory=lambda: {"kind": "told"})

    def score(self, items: Sequence[Judged]) -> list[float]:
        self.batches.append(len(items))
        return [self._one(item) for item in items]

    def _one(self, item: Judged) -> float:
        value = self.instead.get(item.key, float(item.prompt))
        if isinstance(value, Exception):
            raise value
        return value


def test_the_sum_is_weighted_and_the_parts_are_not() -> None:
    scores = WeightedRewards([Term("a", Told(), 2.0), Term("b", Told({"key-1": 10.0}), -0.5)]).score(ITEMS)
    assert scores.total_N.tolist() == [0.0, -3.0, 3.0, 4.5, 6.0]
    assert scores.parts["a"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert scores.parts["b"].tolist() == [0.0, 10.0, 2.0, 3.0, 4.0]
    assert scores.failures == []
    assert scores.seconds >= 0


def test_each_reward_has_its_own_batches() -> None:
    small, large = Told(), Told()
    WeightedRewards([Term("a", small, batch_size=2), Term("b", large, batch_size=64)]).score(ITEMS)
    assert (small.batches, large.batches) == ([2, 2, 1], [5])


def test_no_images_have_no_scores() -> None:
    scores = WeightedRewards([Term("a", Told())]).score([])
    assert scores.total_N.shape == scores.parts["a"].shape == (0,)


def test_one_bad_image_costs_one_and_is_named() -> None:
    told = Told({"key-2": ValueError("no face\nin it"), "key-4": RewardError("there is no original")})
    scores = WeightedRewards([Term("face", told, batch_size=3), Term("other", Told())]).score(ITEMS)
    assert scores.parts["face"].isnan().tolist() == [False, False, True, False, True]
    assert scores.total_N.isnan().tolist() == [False, False, True, False, True]
    assert scores.total_N[:2].tolist() == [0.0, 2.0]
    assert scores.failures == [
        "reward face: key-2: ValueError: no face in it",
        "reward face: key-4: there is no original",
    ]
    assert told.batches == [3, 1, 1, 1, 2, 1, 1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_fails_and_is_not_tried_again(value: float) -> None:
    told = Told({"key-3": value})
    scores = WeightedRewards([Term("odd", told)]).score(ITEMS)
    assert scores.total_N.isnan().tolist() == [False, False, False, True, False]
    assert scores.failures == [f"reward odd: key-3: it gave {value}"]
    assert told.batches == [5]


def test_a_term_that_is_only_logged_spoils_no_sum() -> None:
    scores = WeightedRewards([Term("a", Told()), Term("watched", Told({"key-0": math.nan}), 0.0)]).score(ITEMS)
    assert scores.total_N.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert scores.failures == ["reward watched: key-0: it gave nan"]


def test_a_server_that_stays_away_is_not_asked_again_for_the_rest() -> None:
    told = Told({"key-2": RewardServerError("no answer")})
    scores = WeightedRewards([Term("far", told, batch_size=2)]).score(ITEMS)
    assert scores.parts["far"].isnan().tolist() == [False, False, True, True, True]
    assert told.batches == [2, 2]
    assert scores.failures == [f"reward far: key-{number}: no answer" for number in (2, 3, 4)]


@dataclass
class WrongCount(Told):
    def score(self, items: Sequence[Judged]) -> list[float]:
        return [1.0]


def test_a_wrong_count_of_numbers_is_an_error() -> None:
    with pytest.raises(ConfigError, match="reward one gave 1 numbers for 5 images"):
        WeightedRewards([Term("one", WrongCount())]).score(ITEMS)


def test_too_little_memory_is_not_hidden_by_scoring_one_by_one() -> None:
    with pytest.raises(ConfigError, match=r"reward big has too little memory for batch_size=64"):
        WeightedRewards([Term("big", Told({"key-0": torch.OutOfMemoryError("CUDA")}))]).score(ITEMS)


def brightness(items: list[Judged]) -> list[float]:
    """A reward function of a user's."""
    return [sum(item.image.convert("L").resize((1, 1)).getdata()) / 255 for item in items]


def test_a_configuration_becomes_rewards_with_their_identities(data_root: Path) -> None:
    configured = {
        "like": RewardConfig(kind="dinov3", model="dinov3", weight=0.7),
        "words": RewardConfig(kind="clip", model="clip", compares="prompt"),
        "shapes": RewardConfig(kind="detector", strict=True),
        "bright": RewardConfig(kind="callable", function=f"{__name__}:brightness"),
        "far": RewardConfig(kind="endpoint", url="http://127.0.0.1:9/score", compares="prompt"),
    }
    identity = build_rewards(configured, data_root, "cpu").identity
    assert list(identity) == list(configured)
    assert {name: one["kind"] for name, one in identity.items()} == {
        "like": "dinov3",
        "words": "clip",
        "shapes": "detector",
        "bright": "callable",
        "far": "endpoint",
    }
    assert (identity["like"]["weight"], identity["like"]["compares"]) == (0.7, "original")
    assert (identity["words"]["compares"], identity["far"]["sends_originals"]) == ("prompt", False)
    assert len(identity["words"]["weights"]) == 64


def test_images_are_scored_by_their_originals_and_their_prompts(data_root: Path) -> None:
    configured = {
        "like": RewardConfig(kind="clip", model="clip"),
        "words": RewardConfig(kind="clip", model="clip", compares="prompt", weight=0.5),
    }
    rewards = build_rewards(configured, data_root, "cpu")
    image, original = pictures(2)
    items = [
        Judged("same", image, "a red circle", image.copy()),
        Judged("other", image, "a blue square", original),
        Judged("alone", image, "a red circle"),
    ]
    scores = rewards.score(items)
    like, words = (scores.parts[name].tolist() for name in configured)
    assert like[0] == pytest.approx(1.0)
    assert like[1] < 0.999
    assert words[0] == pytest.approx(words[2])
    assert words[0] != pytest.approx(words[1], abs=1e-4)
    assert scores.total_N[:2].tolist() == pytest.approx([like[0] + words[0] / 2, like[1] + words[1] / 2])
    assert scores.failures == [
        "reward like: alone: there is no original image to compare with; take compares: prompt, or data of images"
    ]
