# SPDX-License-Identifier: Apache-2.0
"""Rewards that cannot work are refused before anything loads, by the key that is wrong."""

from dataclasses import replace
from typing import Any

import pytest

from tests.config.test_schema import sound_config
from unigen.config.assets import wanted_by
from unigen.config.policy import ColdstartConfig, EncoderConfig, GrpoConfig, RewardConfig
from unigen.config.rewards import check_reward, check_rewards
from unigen.errors import ConfigError

SOUND = {
    "clip": RewardConfig(),
    "words": RewardConfig(kind="siglip", model="mine", compares="prompt", batch_size=8),
    "shapes": RewardConfig(kind="detector", strict=True, weight=-1.0),
    "mine": RewardConfig(kind="callable", function="my_rewards:brightness"),
    "far": RewardConfig(kind="endpoint", url="https://host:8000/score", timeout_seconds=5.0, compares="prompt"),
}


def test_sound_rewards_pass() -> None:
    check_rewards("grpo_generation", SOUND)
    check_rewards("sft", {})


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("clip", {"function": "a:b"}, "r.function is a:b, which kind clip does not read"),
        ("clip", {"url": "http://host"}, "r.url is http://host, which kind clip"),
        ("clip", {"timeout_seconds": 1.0}, "r.timeout_seconds is 1.0, which kind clip"),
        ("clip", {"strict": True}, "r.strict is True, which kind clip"),
        ("shapes", {"model": "x"}, "r.model is x, which kind detector"),
        ("shapes", {"compares": "prompt"}, "r.compares is prompt, which kind detector"),
        ("mine", {"model": "x"}, "r.model is x, which kind callable"),
        ("mine", {"function": None}, "r.kind is callable, but r.function is null"),
        ("far", {"url": None}, "r.kind is endpoint, but r.url is null"),
        ("far", {"url": "host:8000"}, "r.url is host:8000; give an address"),
        ("far", {"model": "x"}, "r.model is x, which kind endpoint"),
        ("words", {"kind": "dinov2"}, "r.compares is prompt, but kind dinov2 reads no text; take clip or siglip"),
        ("words", {"kind": "longclip"}, "kind longclip reads no text"),
        ("clip", {"weight": float("nan")}, "r.weight is nan"),
        ("clip", {"batch_size": 0}, "r.batch_size is 0"),
        ("far", {"timeout_seconds": 0.0}, r"r.timeout_seconds is 0\.0"),
    ],
)
def test_a_key_that_means_nothing_or_cannot_work_is_refused(name: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_reward("r", replace(SOUND[name], **change))


@pytest.mark.parametrize("url", ["http://me:t0ken@host/score", "http://host/score?key=t0ken"])
def test_a_secret_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="give the address alone") as error:
        check_reward("r", RewardConfig(kind="endpoint", url=url))
    assert "t0ken" not in str(error.value)


@pytest.mark.parametrize("stage", ["grpo_understanding", "grpo_generation"])
def test_a_policy_without_a_reward_is_refused(stage: str) -> None:
    with pytest.raises(ConfigError, match=f"grpo.rewards is empty, but stage {stage} learns from nothing else"):
        check_rewards(stage, {})
    with pytest.raises(ConfigError, match="of weight 0 alone"):
        check_rewards(stage, {"clip": RewardConfig(weight=0.0)})


def test_a_reward_that_nothing_learns_from_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"grpo\.rewards has clip, but stage pretrain learns from no reward"):
        sound_config(grpo=GrpoConfig(rewards={"clip": RewardConfig()}))


def test_encoders_are_among_what_a_run_wants() -> None:
    config = sound_config()
    rewards = {name: SOUND[name] for name in ("clip", "words", "shapes", "far")}
    object.__setattr__(config, "grpo", GrpoConfig(rewards=rewards))  # past the check of the stage
    wanted = {one.key: (one.name, one.asset and one.asset.name) for one in wanted_by(config)}
    assert wanted["grpo.rewards.clip.model"] == ("clip-vit-large-patch14", "clip-vit-large-patch14")
    assert wanted["grpo.rewards.words.model"] == ("mine", None)
    assert not {"grpo.rewards.shapes.model", "grpo.rewards.far.model"} & wanted.keys()
    object.__setattr__(config, "stage", "coldstart")
    object.__setattr__(config, "coldstart", ColdstartConfig(encoder=EncoderConfig(kind="dinov3")))
    assert {"coldstart.encoder.model"} <= {one.key for one in wanted_by(config)}
