# SPDX-License-Identifier: Apache-2.0
"""Figures as lines of text: each beside what it is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unigen.bench.figures import Figure

NAME_WIDTH = 56


def heading(machine: dict[str, Any]) -> str:
    """What is measured on, in one line."""
    place = machine.get("gpu") or machine["cpu"]
    commit = (machine["commit"] or "unknown")[:12]
    quick = ", quick (times are not judged)" if machine["quick"] else ""
    return (
        f"{place}, {machine['threads']} threads, torch {machine['torch']}, commit {commit}, {machine['date']}, "
        f"seed {machine['seed']}{quick}"
    )


def figure_line(figure: Figure) -> str:
    """`  name   value unit   bound   verdict   note`."""
    verdict = {True: "met", False: "MISSED", None: ""}[figure.is_met]
    value = f"{_number(figure.value)} {figure.unit}".strip()
    return f"  {figure.name:<{NAME_WIDTH}} {value:>18}  {_bounds(figure):<40} {verdict:<6} {figure.note}".rstrip()


def verdict_lines(figures: Sequence[Figure]) -> list[str]:
    """What was missed, by name, or that nothing was."""
    judged = [figure for figure in figures if figure.is_met is not None]
    missed = [figure for figure in judged if not figure.is_met]
    if not missed:
        return [f"all {len(judged)} bounds are met"]
    return [
        f"{len(missed)} of {len(judged)} bounds are missed:",
        *(f"  {figure.name}: {_number(figure.value)}, {_bounds(figure)}" for figure in missed),
    ]


def _bounds(figure: Figure) -> str:
    parts = []
    if figure.at_least is not None:
        parts.append(f">= {_number(figure.at_least)}")
    if figure.at_most is not None:
        parts.append(f"<= {_number(figure.at_most)}")
    if figure.good is not None:
        parts.append(f"good {_number(figure.good)}")
    if figure.ceiling is not None:
        parts.append(f"ceiling {_number(figure.ceiling)} ({figure.share:.0%})")
    return ", ".join(parts)


def _number(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
