# SPDX-License-Identifier: Apache-2.0
"""Where single numbers of a configuration mean anything."""

from collections.abc import Iterator
from typing import Any

from unigen.config.schema import Config
from unigen.errors import ConfigError

ABOVE_ZERO = (
    "training.steps",
    "training.epochs",
    "training.num_gpus",
    "training.rows_per_micro_batch",
    "model.max_text_tokens",
    "model.image_resolution",
    "data.lanes",
    "data.image_crops",
    "optimizer.learning_rate",
    "experiment.log_every",
    "experiment.checkpoint_every_minutes",
    "experiment.time_limit_minutes",
    "experiment.stuck_after_minutes",
)
"""Keys of numbers above 0, where they are given."""
AT_LEAST_ZERO = (
    "training.gradient_clipping",
    "data.num_workers",
    "experiment.checkpoint_every",
    "experiment.keep_last",
    "experiment.keep_every",
    "experiment.stop_before_limit_minutes",
    "optimizer.weight_decay",
    "schedule.warmup_steps",
)
FRACTIONS = ("schedule.min_ratio", "schedule.warmup_ratio", "training.min_mask_ratio", "data.max_bad_fraction")


def check_ranges(config: Config) -> None:
    """Refuse numbers beyond their ranges.

    Raises:
        ConfigError: naming the key, the value and what to give.
    """
    for complaint in _complaints(config):
        raise ConfigError(complaint)


def _complaints(config: Config) -> Iterator[str]:
    for key in ABOVE_ZERO:
        if (value := _value(config, key)) is not None and not value > 0:
            yield f"{key} is {value}; give a number above 0"
    for key in AT_LEAST_ZERO:
        if not (value := _value(config, key)) >= 0:
            yield f"{key} is {value}; give 0 or more"
    fractions = {key: _value(config, key) for key in FRACTIONS}
    for name, source in config.data.sources.items():
        fractions[f"data.sources.{name}.short_caption_prob"] = source.short_caption_prob
    for key, value in fractions.items():
        if not 0.0 <= value <= 1.0:
            yield f"{key} is {value}; give a value in [0, 1]"


def _value(config: Config, key: str) -> Any:
    """What a key of two parts is set to."""
    section, name = key.split(".")
    return getattr(getattr(config, section), name)
