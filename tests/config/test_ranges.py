# SPDX-License-Identifier: Apache-2.0
"""Each number that has a range is refused beyond it, by its key."""

from dataclasses import replace
from typing import Any

import pytest

from tests.config.test_schema import SOURCE, sound_config
from unigen.config.ranges import ABOVE_ZERO, AT_LEAST_ZERO, FRACTIONS
from unigen.config.schema import DataConfig
from unigen.errors import ConfigError

BEYOND = [
    *((key, 0, "a number above 0") for key in ABOVE_ZERO),
    *((key, -1, "0 or more") for key in AT_LEAST_ZERO),
    *((key, 1.01, r"a value in \[0, 1\]") for key in FRACTIONS),
]


@pytest.mark.parametrize(("key", "value", "remedy"), BEYOND)
def test_a_number_beyond_its_range_is_refused_by_its_key(key: str, value: Any, remedy: str) -> None:
    section, name = key.split(".")
    sound = sound_config()
    with pytest.raises(ConfigError, match=f"{key} is {value}; give {remedy}"):
        replace(sound, **{section: replace(getattr(sound, section), **{name: value})})


def test_a_source_is_named_in_the_key() -> None:
    sources = {"drawing": replace(SOURCE, short_caption_prob=-0.5)}
    with pytest.raises(
        ConfigError, match=r"data\.sources\.drawing\.short_caption_prob is -0\.5; give a value in \[0, 1\]"
    ):
        sound_config(data=DataConfig(sources=sources))
