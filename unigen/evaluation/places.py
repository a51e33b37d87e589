# SPDX-License-Identifier: Apache-2.0
"""Where the files of a public benchmark lie: where the settings say, or where `scripts/setup_eval.sh` puts them."""

from pathlib import Path

from unigen.config.folders import REPOSITORY
from unigen.errors import EvaluationError

THIRD_PARTY = Path("third_party")


def find_benchmark_file(given: str | None, key: str, *usual: str) -> Path:
    """The file or folder of a benchmark.

    Args:
        given: what the settings say.
        key: the setting's name.
        usual: places below `third_party`, of the folder that the command is run in or of the repository; the first there is.
    Raises:
        EvaluationError: there is no such thing, with the two remedies.
    """
    roots = (THIRD_PARTY, REPOSITORY / THIRD_PARTY)
    tried = [Path(given)] if given else [root / place for root in roots for place in usual]
    for place in tried:
        if place.exists():
            return place
    listed = ", ".join(str(place) for place in dict.fromkeys(tried))
    raise EvaluationError(f"nothing at {listed}; run bash scripts/setup_eval.sh, or give the place with {key}=PATH")
