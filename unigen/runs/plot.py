# SPDX-License-Identifier: Apache-2.0
"""A comparison of runs as a picture, or as one self-contained page with the picture and the scores."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from unigen.errors import DataError
from unigen.evaluation.figures import COLORS, FAINT, STYLE
from unigen.runs.comparison import ABSENT, Comparison
from unigen.runs.folder import Run

SUFFIXES = (".png", ".html")
_DOTS_PER_INCH = 150


def check_suffix(file: Path) -> None:
    """Raises DataError for a kind of file that `write_plot` does not write."""
    if file.suffix not in SUFFIXES:
        raise DataError(f"--plot {file}: this writes {' or '.join(SUFFIXES)} files; change the name's end")


def write_plot(comparison: Comparison, runs: Sequence[Run], file: Path) -> None:
    """Every compared metric over all steps that each run logged."""
    check_suffix(file)
    figure = _draw(comparison, runs)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".png":
        figure.savefig(file, dpi=_DOTS_PER_INCH)
        return
    picture = io.BytesIO()
    figure.savefig(picture, format="svg", metadata={"Date": None})
    file.write_text(_page(comparison, base64.b64encode(picture.getvalue()).decode()), encoding="utf-8")


def _draw(comparison: Comparison, runs: Sequence[Run]) -> Figure:
    names = list(comparison.metrics)
    columns = max(1, min(3, len(names)))
    rows = max(1, -(-len(names) // columns))
    with rc_context(STYLE):
        figure = Figure(figsize=(4.0 * columns, 2.7 * rows + 0.4), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for panel, metric in zip(panels, names, strict=False):
            for place, (name, run) in enumerate(zip(comparison.names, runs, strict=True)):
                curve = run.curve(metric)
                panel.plot(list(curve), list(curve.values()), color=COLORS[place % len(COLORS)], lw=1.2, label=name)
            panel.set_title(metric, loc="left", fontweight="bold", fontsize=10)
            panel.set_xlabel("step")
            panel.grid(color=FAINT, lw=0.5)
        for panel in panels[len(names) :]:
            panel.set_visible(False)
        if names:
            handles, labels = panels[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)), frameon=False)
        return figure


def _page(comparison: Comparison, picture: str) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in comparison.names)
    rows = []
    for score, row in comparison.scores:
        cells = "".join(
            f"<td>{escape(one.text)} <small>{escape(one.interval_text)}</small></td>" if one else f"<td>{ABSENT}</td>"
            for one in row
        )
        rows.append(f"<tr><th>{escape(score.group)}: {escape(score.name)}</th>{cells}</tr>")
    table = f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>" if rows else "<p>No scores.</p>"
    style = "body{font:14px sans-serif;margin:2em}td,th{padding:.2em 1em;text-align:left}small{color:#6b7280}img{max-width:100%}"
    title = escape(" against ".join(comparison.names))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>'
        f'<body><h1>{title}</h1><img alt="metrics over steps" src="data:image/svg+xml;base64,{picture}">{table}</body></html>\n'
    )
