# SPDX-License-Identifier: Apache-2.0
"""Rewards that cannot work: keys that their kind would never read are refused, like unknown ones."""

import math
from dataclasses import fields
from urllib.parse import urlsplit

from unigen.config.policy import KINDS_WITH_TEXT, PUBLISHED_ENCODERS, RewardConfig
from unigen.errors import ConfigError

ENCODERS = tuple(PUBLISHED_ENCODERS)
READERS: dict[str, tuple[str, ...]] = {
    "model": ENCODERS,
    "compares": (*ENCODERS, "endpoint"),
    "strict": ("detector",),
    "function": ("callable",),
    "url": ("endpoint",),
    "timeout_seconds": ("endpoint",),
}
"""Fields of a reward that not all kinds read -> the kinds that do."""
NEEDED = {"callable": "function", "endpoint": "url"}
"""The field without which a kind is nothing."""


def check_reward(key: str, reward: RewardConfig) -> None:
    """Refuse a term of a reward that cannot work; `key` is where it stands.

    Raises:
        ConfigError: naming the key, the value and what to do.
    """
    for field in fields(RewardConfig):
        value = getattr(reward, field.name)
        if value != field.default and reward.kind not in READERS.get(field.name, (reward.kind,)):
            raise ConfigError(f"{key}.{field.name} is {value}, which kind {reward.kind} does not read; drop it")
    needed = NEEDED.get(reward.kind)
    if needed is not None and not getattr(reward, needed):
        raise ConfigError(f"{key}.kind is {reward.kind}, but {key}.{needed} is null; set it")
    if reward.kind in ENCODERS and reward.compares == "prompt" and reward.kind not in KINDS_WITH_TEXT:
        raise ConfigError(
            f"{key}.compares is prompt, but kind {reward.kind} reads no text; take {' or '.join(KINDS_WITH_TEXT)}"
        )
    if not math.isfinite(reward.weight):
        raise ConfigError(f"{key}.weight is {reward.weight}; give a number")
    for name in ("batch_size", "timeout_seconds"):
        if not getattr(reward, name) > 0:
            raise ConfigError(f"{key}.{name} is {getattr(reward, name)}; give a number above 0")
    if reward.url is not None:
        _check_address(f"{key}.url", reward.url)


def check_rewards(stage: str, rewards: dict[str, RewardConfig]) -> None:
    """Refuse `grpo.rewards` that do not fit the stage.

    Raises:
        ConfigError: naming the key and what to do.
    """
    is_policy = stage.startswith("grpo_")
    if not is_policy and rewards:
        raise ConfigError(f"grpo.rewards has {', '.join(rewards)}, but stage {stage} learns from no reward; drop it")
    for name, reward in rewards.items():
        check_reward(f"grpo.rewards.{name}", reward)
    if is_policy and not any(reward.weight for reward in rewards.values()):
        found = "empty" if not rewards else "of weight 0 alone"
        raise ConfigError(
            f"grpo.rewards is {found}, but stage {stage} learns from nothing else; add one, such as {{clip: {{kind: clip}}}}"
        )


def _check_address(key: str, address: str) -> None:
    parts = urlsplit(address)
    if "@" in parts.netloc or parts.query:  # without the address: it would stand in logs and saved configurations
        raise ConfigError(
            f"{key} has a user, a password or a query in it, which logs and checkpoints would keep; give the address alone"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{key} is {address}; give an address such as http://127.0.0.1:8000/score")
