# SPDX-License-Identifier: Apache-2.0
"""Running benchmarks by name: a table as they go, and at the end all figures as one JSON object.

    python -m unigen.bench [NAMES...] [--device cpu|cuda] [--quick] [--json]

needs torch and transformers alone (the loader's figures need the data room's packages too); `unigen bench` is the same command.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module

import torch

from unigen.bench.figures import Figure, Setting
from unigen.bench.machine import describe_machine
from unigen.bench.table import figure_line, heading, verdict_lines
from unigen.errors import ConfigError

# name: (device, module that holds its `measure`, one line of help)
BENCHMARKS: dict[str, tuple[str, str, str]] = {
    "maskgit": ("cpu", "unigen.bench.maskgit", "drawing with cached prompts against whole rows"),
    "reading": ("cpu", "unigen.bench.reading", "cached reading against full recompute"),
    "rating": ("cpu", "unigen.bench.rating", "questions about images behind what they share against one at a time"),
    "packing": ("cpu", "unigen.bench.packing", "packed rows against padded ones, forward and backward"),
    "unifork_trunk": ("cpu", "unigen.bench.unifork_trunk", "one trunk for both tasks against a pass for each"),
    "unifork_drawing": ("cpu", "unigen.bench.unifork_drawing", "UniFork's drawing against the released loop"),
    "loss": ("cpu", "unigen.bench.loss", "memory of the chunked cross-entropy against all logits at once"),
    "loader": ("cpu", "unigen.bench.loader", "samples a second and core: codes, exact and approximate JPEGs"),
    "ceilings": ("cuda", "unigen.bench.gpu.ceilings", "matrix product and copy, what the rest is measured against"),
    "training": (
        "cuda",
        "unigen.bench.gpu.training",
        "tokens a second and MFU at 0.5B and 1.5B, each lever off and on",
    ),
    "drawing": ("cuda", "unigen.bench.gpu.drawing", "images a second of 1.5B, 50 steps with guidance"),
    "decoding": ("cuda", "unigen.bench.gpu.decoding", "text tokens a second of 1.5B"),
    "encoder": ("cuda", "unigen.bench.gpu.encoder", "images a second of the MAGVIT-v2 encoder"),
}
PAIRS = 5


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def run_benchmarks(
    names: Sequence[str],
    device: str | None = None,
    *,
    is_quick: bool = False,
    is_json_only: bool = False,
    seed: int = 0,
    write: Callable[[str], None],
) -> bool:
    """Measure and write lines, the last of them one JSON object.

    Args:
        names: benchmarks; all of the device where empty.
        device: `cpu` or `cuda`; a GPU where there is one if not given.
        is_json_only: write the last line alone.
    Returns:
        whether every bound that applies is met.

    Raises:
        ConfigError: a name that is not known or belongs to another device, or a device that is not here.
    """
    chosen = torch.device(device or default_device())
    _check_device(chosen)
    chosen_names = _chosen_names(names, chosen)
    setting = Setting(chosen, is_quick, seed, PAIRS)
    machine = {**describe_machine(chosen), "seed": seed, "quick": is_quick}
    show = (lambda line: None) if is_json_only else write
    show(heading(machine))
    figures: list[Figure] = []
    skipped: dict[str, str] = {}
    for name in chosen_names:
        _, module, line = BENCHMARKS[name]
        show(f"{name}: {line}")
        try:
            measure = import_module(module).measure
        except ModuleNotFoundError as error:
            if names:
                raise ConfigError(f"benchmark {name} needs the package {error.name}, which is not installed") from error
            skipped[name] = f"needs the package {error.name}, which is not installed"
            show(f"  skipped: {skipped[name]}")
            continue
        for figure in measure(setting):
            figures.append(figure)
            show(figure_line(figure))
    for line in verdict_lines(figures):
        show(line)
    missed = [figure.name for figure in figures if figure.is_met is False]
    result = {"machine": machine, "missed": missed, "skipped": skipped}
    write(json.dumps({**result, "figures": [figure.to_json() for figure in figures]}))
    return not missed


def _check_device(device: torch.device) -> None:
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device is {device}; choose cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "--device is cuda, but torch sees no GPU here; `unigen doctor` says why, or give --device cpu"
        )


def _chosen_names(names: Sequence[str], device: torch.device) -> list[str]:
    for name in names:
        if name not in BENCHMARKS:
            near = get_close_matches(name, BENCHMARKS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(BENCHMARKS)}"
            raise ConfigError(f"there is no benchmark {name}; {hint}")
        wanted = BENCHMARKS[name][0]
        if wanted != device.type:
            raise ConfigError(f"benchmark {name} is measured on {wanted}, not on {device.type}; give --device {wanted}")
    return list(names) or [name for name, (kind, _, _) in BENCHMARKS.items() if kind == device.type]
