# SPDX-License-Identifier: Apache-2.0
"""The folder names of the released evaluation, as links to where a benchmark keeps its files: tools made for them still work."""

import os
from collections.abc import Sequence
from pathlib import Path

from unigen.errors import EvaluationError
from unigen.evaluation.job import Benchmark, Options
from unigen.generation.maskgit import MaskGitSettings


def link_released_names(benchmarks: Sequence[Benchmark], options: Options) -> list[Path]:
    """Make the links of these benchmarks below the output folder; returns them.

    Raises:
        EvaluationError: something else has that name.
    """
    links = []
    for benchmark in benchmarks:
        for name, target in _names(benchmark.name, options).items():
            link = options.output / name
            if (options.output / target).exists():
                _link(link, options.output / target)
                links.append(link)
    return links


def _names(benchmark: str, options: Options) -> dict[str, str]:
    """Released name -> our name, both below the output folder."""
    steps = options.drawing.steps or MaskGitSettings.steps
    scale = MaskGitSettings.guidance_scale if options.drawing.guidance_scale is None else options.drawing.guidance_scale
    settings = f"step{steps}_scale{scale:g}"
    names = {
        "geneval": {f"geneval/t2i_samples_{settings}": "geneval/images"},
        "dpg": {f"dpg_bench/dpg_bench_{settings}": f"dpg/grids-{options.dpg.grid}"},
        "dpg_cot": {"dpg_bench_cot": "dpg_cot"},  # that of GenEval has its name already
        "lmms": {"lmms_eval": "lmms"},
    }
    return names.get(benchmark, {})


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        raise EvaluationError(f"{link} is there and is no link; move it away or give another --output")
    link.symlink_to(os.path.relpath(target, link.parent))
