# SPDX-License-Identifier: Apache-2.0
"""Where the files of a public benchmark lie: where the settings say, or where they are usually put."""

from collections.abc import Sequence
from pathlib import Path

from unigen.config.folders import REPOSITORY
from unigen.errors import EvaluationError

THIRD_PARTY = Path("third_party")
PLAYGROUND = Path("playground", "data", "eval")
"""The folder of the LLaVA 1.5 protocol."""


def find_benchmark_file(given: str | None, key: str, *usual: str) -> Path:
    """The file or folder of a benchmark whose files `scripts/setup_eval.sh` fetches.

    Args:
        given: what the settings say.
        key: the setting's name.
        usual: places below `third_party`, of the folder that the command is run in or of the repository; the first there is.
    Raises:
        EvaluationError: there is no such thing, with the two remedies.
    """
    roots = (THIRD_PARTY, REPOSITORY / THIRD_PARTY)
    tried = [Path(given)] if given else [root / place for root in roots for place in usual]
    return _first_there(tried, f"run bash scripts/setup_eval.sh, or give the place with {key}=PATH")


def find_playground_file(given: str | None, key: str, usual: str, data_root: Path) -> Path:
    """The file or folder of a benchmark of the LLaVA 1.5 protocol.

    Args:
        given: what the settings say.
        key: the setting's name.
        usual: its place below `playground/data/eval`, of the folder that the command is run in or of the data root.
    Raises:
        EvaluationError: there is no such thing, with the remedy.
    """
    tried = [Path(given)] if given else [root / PLAYGROUND / usual for root in (Path(), data_root)]
    return _first_there(tried, f"give the place with {key}=PATH")


def _first_there(tried: Sequence[Path], remedy: str) -> Path:
    for place in tried:
        if place.exists():
            return place
    listed = ", ".join(str(place) for place in dict.fromkeys(tried))
    raise EvaluationError(f"nothing at {listed}; {remedy}")
