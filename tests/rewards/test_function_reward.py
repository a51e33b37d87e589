# SPDX-License-Identifier: Apache-2.0
"""A Python function as a reward: found by its name, or a clear word on why not."""

from pathlib import Path

import pytest
import torch

from tests.rewards.pictures import pictures
from unigen.errors import ConfigError
from unigen.rewards import Judged
from unigen.rewards.function_reward import FunctionReward

ITEMS = [Judged(f"key-{number}", image) for number, image in enumerate(pictures(3))]
NOT_A_FUNCTION = 3


def widths(items: list[Judged]) -> torch.Tensor:
    return torch.tensor([item.image.width for item in items])


def test_what_it_returns_may_be_any_kind_of_numbers() -> None:
    values = FunctionReward(f"{__name__}:widths").score(ITEMS)
    assert values == [48.0, 29.0, 32.0]
    assert all(type(value) is float for value in values)


def test_a_module_of_ones_own_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text("def keys(items):\n    return [float(item.key[-1]) for item in items]\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert FunctionReward("my_rewards:keys").score(ITEMS) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("widths", "is not module:name"),
        (":widths", "is not module:name"),
        ("no_such_module:widths", "cannot be imported: No module named 'no_such_module'; put its folder on PYTHONPATH"),
        (f"{__name__}:heights", "has no attribute 'heights'"),
        (f"{__name__}:NOT_A_FUNCTION", "is a int, which cannot be called"),
    ],
)
def test_a_function_that_is_not_there_is_a_mistake_with_its_remedy(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        FunctionReward(name)
