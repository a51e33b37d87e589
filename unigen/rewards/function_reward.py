# SPDX-License-Identifier: Apache-2.0
"""A Python function as a reward."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unigen.errors import ConfigError
from unigen.rewards.judged import Judged


class FunctionReward:
    """What `module:name` returns for a list of `Judged`: a number for each, of any kind that float() takes."""

    def __init__(self, function: str) -> None:
        """
        Raises:
            ConfigError: there is no such function.
        """
        self._name = function
        self._function = _find(function)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"kind": "callable", "function": self._name}

    def score(self, items: Sequence[Judged]) -> list[float]:
        """
        Raises:
            Exception: whatever the function raises.
        """
        return [float(value) for value in self._function(list(items))]


def _find(function: str) -> Callable[[list[Judged]], Sequence[float]]:
    module, _, name = function.partition(":")
    if not module or not name:
        raise ConfigError(f"the reward function {function!r} is not module:name, such as my_rewards:brightness")
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the reward function {function!r} cannot be imported: {error}; put its folder on PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise ConfigError(f"the reward function {function!r}: {error}") from error
    if not callable(found):
        raise ConfigError(f"the reward function {function!r} is a {type(found).__name__}, which cannot be called")
    return found
