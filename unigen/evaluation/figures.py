# SPDX-License-Identifier: Apache-2.0
"""Figures of a report, as SVG in data URIs."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unigen.evaluation.run_folder import StageLog
from unigen.evaluation.tables import Score

INK, FAINT, BLUE = "#2b2f38", "#c9ced8", "#2f6fde"
COLORS = ("#2f6fde", "#e07a1f", "#2a9d6f", "#a652c4", "#c0392b", "#6b7280")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "unigen",
}
_SMOOTHED_POINTS = 60
_BESIDE = 0.05
"""How far apart the intervals of one step stand, as a share of the way to the next step."""


def loss_curves(stages: Sequence[StageLog]) -> str:
    """One panel a stage with all its losses; thin what was logged, thick a running mean."""
    with rc_context(STYLE):
        figure, panels = _grid(len(stages), 3, (3.5, 2.5))
        for panel, stage in zip(panels, stages, strict=True):
            _draw_losses(panel, stage)
        return _svg(figure)


def metric_curves(stages: Sequence[StageLog], names: Sequence[str]) -> str:
    """One panel a metric, one line a stage that has it, in the same colour in all panels."""
    colors = _colors([[stage.name for stage in stages]])
    with rc_context(STYLE):
        figure, panels = _grid(len(names), 4, (2.7, 2.3))
        for panel, name in zip(panels, names, strict=True):
            for stage in stages:
                steps, values = stage.curve(name)
                if steps:
                    panel.plot(steps, values, color=colors[stage.name], lw=1.2, label=stage.name)
            _label(panel, name.rpartition("/")[2].replace("_", " "), has_legend=False)
        return _svg(_with_legend(figure, panels))


def score_chart(scores: Sequence[Score]) -> str:
    """Bars with 95% intervals; bounds and baselines are drawn pale."""
    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 0.29 * len(scores) + 0.5), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(scores))[::-1]
        for place, score in zip(places, scores, strict=True):
            axes.barh(place, score.value, 0.62, color=FAINT if score.is_reference else BLUE)
            if score.interval:
                low, high = score.value - score.interval[0], score.interval[1] - score.value
                axes.errorbar(score.value, place, xerr=[[max(low, 0)], [max(high, 0)]], color=INK, capsize=2.5, lw=1)
            end = max(score.value, score.interval[1] if score.interval else 0)
            axes.text(end + 0.015, place, score.text, va="center", fontsize=8)
        axes.set_yticks(places, [score.name for score in scores])
        axes.set_xlim(0, 1.14)
        axes.set_xticks(np.arange(0, 1.01, 0.2))
        axes.grid(axis="x", color=FAINT, lw=0.5)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        return _svg(figure)


def alignment_curves(found: Mapping[str, Mapping[str, Any]], order: Sequence[str] = ()) -> str:
    """One panel a title: alignment over the layers with its 95% interval, and the level of chance.

    Args:
        found: by title what the benchmark `alignment` says: `chance`, and `ways` with a curve each.
        order: names in the order in which they take their colours, as in other figures; those that it lacks come after.
    """
    colors = _colors([order, *(one["ways"] for one in found.values())])
    with rc_context(STYLE):
        figure, panels = _grid(len(found), 3, (3.9, 2.9), sharey=True)
        for panel, (title, one) in zip(panels, found.items(), strict=True):
            for name, curve in one["ways"].items():
                _draw_alignment(panel, colors[name], name, curve)
            panel.axhline(one["chance"], color=INK, lw=0.8, ls=":", label="chance")
            panel.set_ylim(bottom=0)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            _label(panel, title, "after layer", has_legend=False)
        return _svg(_with_legend(figure, panels))


def difference_curves(
    found: Mapping[str, Mapping[str, Sequence[tuple[int, Mapping[str, float]]]]], order: Sequence[str] = ()
) -> str:
    """One panel a title, one line a name: differences with their 95% intervals over the steps, beside none at all.

    Args:
        found: by title and name, steps with `mean`, `low` and `high`.
        order: see `alignment_curves`.
    """
    colors = _colors([order, *found.values()])
    with rc_context(STYLE):
        figure, panels = _grid(len(found), 2, (4.6, 2.9))
        for panel, (title, lines) in zip(panels, found.items(), strict=True):
            ticks = sorted({step for points in lines.values() for step, _ in points})
            apart = _BESIDE * min((after - before for before, after in pairwise(ticks)), default=1)
            for number, (name, points) in enumerate(lines.items()):
                _draw_differences(panel, colors[name], name, points, apart * (number - (len(lines) - 1) / 2))
            panel.axhline(0, color=INK, lw=0.8, ls=":")
            panel.set_xticks(ticks)
            _label(panel, title, has_legend=False)
        return _svg(_with_legend(figure, panels))


def _draw_differences(
    panel: Axes, color: str, name: str, points: Sequence[tuple[int, Mapping[str, float]]], aside: float
) -> None:
    """A line; `aside` moves it along the steps, so that its intervals do not cover those of others."""
    steps, values = [step + aside for step, _ in points], [one["mean"] for _, one in points]
    reach = [[one["mean"] - one["low"] for _, one in points], [one["high"] - one["mean"] for _, one in points]]
    panel.errorbar(steps, values, yerr=reach, color=color, lw=1.4, marker="o", ms=3, capsize=2.5, label=name)


def _colors(names: Iterable[Iterable[str]]) -> dict[str, str]:
    """A colour for each name, the same in all panels."""
    different = dict.fromkeys(name for some in names for name in some)
    return dict(zip(different, COLORS * len(different), strict=False))


def _with_legend(figure: Figure, panels: Sequence[Axes]) -> Figure:
    """The figure with one legend below all its panels."""
    shown = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    columns = min(len(shown), 4)
    figure.legend(shown.values(), shown, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    return figure


def _grid(count: int, most_columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, each of this size in inches."""
    columns = min(most_columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, **options).flatten())
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, panels[:count]


def _draw_alignment(panel: Axes, color: str, name: str, curve: Mapping[str, Any]) -> None:
    values, places = curve["alignment"], range(len(curve["alignment"]))
    lows, highs = zip(*curve["intervals"], strict=True)
    panel.fill_between(places, lows, highs, color=color, alpha=0.15, lw=0)
    panel.plot(places, values, color=color, lw=1.6, marker="o", ms=3, label=name)


def _draw_losses(panel: Axes, stage: StageLog) -> None:
    names = stage.losses
    if len(names) == 2:  # the total and its only part are one line
        names = names[:1]
    for color, name in zip(COLORS * len(names), names, strict=False):
        steps, values = stage.curve(name)
        label = name.removeprefix("loss/").replace("_", " ")
        panel.plot(steps, values, color=color, lw=0.6, alpha=0.3)
        panel.plot(*_smoothed(steps, values), color=color, lw=1.6, label=label)
    _label(panel, stage.name)


def _label(panel: Axes, title: str, below: str = "step", *, has_legend: bool = True) -> None:
    panel.set_title(title, loc="left", fontweight="bold", fontsize=10)
    panel.set_xlabel(below)
    panel.grid(color=FAINT, lw=0.5)
    if has_legend:
        panel.legend(frameon=False, fontsize=8)


def _smoothed(steps: Sequence[int], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of neighbouring points, about _SMOOTHED_POINTS of them."""
    count = min(len(values), _SMOOTHED_POINTS)
    bounds = np.linspace(0, len(values), count + 1).astype(int)
    means = [(np.mean(steps[start:stop]), np.mean(values[start:stop])) for start, stop in pairwise(bounds)]
    return np.array([step for step, _ in means]), np.array([value for _, value in means])


def _svg(figure: Figure) -> str:
    """A data URI, so that the names inside one figure cannot meet those inside another."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
