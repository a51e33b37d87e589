# SPDX-License-Identifier: Apache-2.0
"""The benchmarks by name. Another one joins by one entry."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial

from unigen.errors import EvaluationError
from unigen.evaluation.alignment.benchmark import Alignment
from unigen.evaluation.best_of_n import BestOfNBenchmark
from unigen.evaluation.dpg.benchmark import Dpg
from unigen.evaluation.families import FAMILIES, IMAGES
from unigen.evaluation.fid.benchmark import FolderFid
from unigen.evaluation.fid.mjhq import MjhqFid
from unigen.evaluation.geneval.benchmark import Geneval
from unigen.evaluation.geneval_shapes import GenevalShapes
from unigen.evaluation.job import Benchmark
from unigen.evaluation.llava_questions.benchmark import QUESTION_BENCHMARKS
from unigen.evaluation.lmms.benchmark import Lmms
from unigen.evaluation.unified_bench.benchmark import UnifiedBench
from unigen.evaluation.vqa_shapes import VqaShapes

BENCHMARKS: dict[str, Callable[[], Benchmark]] = {
    "geneval_shapes": GenevalShapes,
    "geneval": Geneval,
    "vqa_shapes": VqaShapes,
    "alignment": Alignment,
    "lmms": Lmms,
    "dpg": Dpg,
    "unified_bench": UnifiedBench,
    "mjhq_fid": MjhqFid,
    "fid": FolderFid,
    **QUESTION_BENCHMARKS,
    "geneval_shapes_cot": partial(BestOfNBenchmark, GenevalShapes()),
    "geneval_cot": partial(BestOfNBenchmark, Geneval()),
    "dpg_cot": partial(BestOfNBenchmark, Dpg()),
}
ALIASES: dict[str, str] = {
    "seed": "seed_bench",
    "dpgbench": "dpg",
    "dpg_bench": "dpg",
    "mjhq": "mjhq_fid",
    "mjhq30k": "mjhq_fid",
    "cot_gen": "geneval_cot",
    "cot_dpg": "dpg_cot",
}
"""Other names, those of the READMEs among them. A dash is an underscore everywhere."""


def find_benchmarks(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of these names or aliases, each once, in order.

    Raises:
        EvaluationError: an unknown name, or none.
    """
    known = [*BENCHMARKS, *ALIASES]
    found: dict[str, Benchmark] = {}
    for given in names:
        name = given.replace("-", "_")
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(BENCHMARKS)}"
            raise EvaluationError(f"there is no benchmark {given!r}; {hint}")
        canonical = ALIASES.get(name, name)
        found[canonical] = BENCHMARKS[canonical]()
    if not found:
        raise EvaluationError(f"name at least one benchmark out of {', '.join(BENCHMARKS)}")
    return list(found.values())


def require_support(benchmarks: Sequence[Benchmark], family: str) -> None:
    """Whether all benchmarks take models of this family.

    Raises:
        EvaluationError: naming the first that does not.
    """
    for benchmark in benchmarks:
        if family not in benchmark.families:
            what = "images drawn elsewhere (--images)" if family == IMAGES else f"models of the family {family!r}"
            known = ", ".join(sorted(benchmark.families - {IMAGES}))
            raise EvaluationError(f"{benchmark.name} cannot be run on {what}; it takes models of the family {known}")


def support_table() -> str:
    """Benchmark x family in Markdown; `images` are images drawn elsewhere."""
    lines = [f"| benchmark | {' | '.join(FAMILIES)} |", f"|---|{'---|' * len(FAMILIES)}"]
    for name, make in BENCHMARKS.items():
        marks = ["yes" if family in make().families else "–" for family in FAMILIES]
        lines.append(f"| `{name}` | {' | '.join(marks)} |")
    return "\n".join(lines)
