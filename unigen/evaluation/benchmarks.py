# SPDX-License-Identifier: Apache-2.0
"""The benchmarks by name. Another one joins by one entry."""

from collections.abc import Sequence
from difflib import get_close_matches

from unigen.errors import EvaluationError
from unigen.evaluation.geneval_shapes import GenevalShapes
from unigen.evaluation.job import Benchmark
from unigen.evaluation.vqa_shapes import VqaShapes

BENCHMARKS: dict[str, type[Benchmark]] = {
    "geneval_shapes": GenevalShapes,
    "vqa_shapes": VqaShapes,
}
ALIASES = {"geneval-shapes": "geneval_shapes", "vqa-shapes": "vqa_shapes"}


def find_benchmarks(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of these names or aliases, each once, in order.

    Raises:
        EvaluationError: an unknown name, or none.
    """
    known = [*BENCHMARKS, *ALIASES]
    found: dict[str, Benchmark] = {}
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(BENCHMARKS)}"
            raise EvaluationError(f"there is no benchmark {name!r}; {hint}")
        canonical = ALIASES.get(name, name)
        found[canonical] = BENCHMARKS[canonical]()
    if not found:
        raise EvaluationError(f"name at least one benchmark out of {', '.join(BENCHMARKS)}")
    return list(found.values())
