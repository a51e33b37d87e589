# SPDX-License-Identifier: Apache-2.0
"""The folder names of the released evaluation, as links to where a benchmark keeps its files: tools made for them still work."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from unigen.config.evaluation import DrawingConfig
from unigen.errors import EvaluationError
from unigen.evaluation.families import UAE, UNIFORK
from unigen.evaluation.job import Benchmark, Options
from unigen.generation.flow import FlowSettings
from unigen.generation.maskgit import MaskGitSettings
from unigen.generation.next_position import NextPositionSettings

N = TypeVar("N", int, float)


def settings_name(drawing: DrawingConfig, family: str) -> str:
    """How the released evaluation names folders of drawings by these settings; UniFork has no steps to name."""
    if family == UNIFORK:
        return f"scale{_given(drawing.guidance_scale, NextPositionSettings.guidance_scale):g}"
    usual = FlowSettings if family == UAE else MaskGitSettings
    scale, steps = _given(drawing.guidance_scale, usual.guidance_scale), _given(drawing.steps, usual.steps)
    return f"step{steps}_scale{scale:g}"


def _given(value: N | None, usual: N) -> N:
    return usual if value is None else value


def link_released_names(benchmarks: Sequence[Benchmark], options: Options, family: str) -> list[Path]:
    """Make the links of these benchmarks below the output folder; returns them.

    Args:
        family: of the model that drew.
    Raises:
        EvaluationError: something else has that name.
    """
    links = []
    for benchmark in benchmarks:
        for name, target in _names(benchmark.name, options, family).items():
            link = options.output / name
            if (options.output / target).exists():
                _link(link, options.output / target)
                links.append(link)
    return links


def _names(benchmark: str, options: Options, family: str) -> dict[str, str]:
    """Released name -> our name, both below the output folder."""
    settings = settings_name(options.drawing, family)
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
