# SPDX-License-Identifier: Apache-2.0
"""Figures of a report, as SVG in data URIs."""

import base64
import io
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


def loss_curves(stages: Sequence[StageLog]) -> str:
    """One panel a stage with all its losses; thin what was logged, thick a running mean."""
    columns = min(3, len(stages))
    rows = -(-len(stages) // columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(3.5 * columns, 2.5 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for panel, stage in zip(panels, stages, strict=False):
            _draw_losses(panel, stage)
        for panel in panels[len(stages) :]:
            panel.set_visible(False)
        return _svg(figure)


def metric_curves(stages: Sequence[StageLog], names: Sequence[str]) -> str:
    """One panel a metric, one line a stage."""
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(2.7 * columns, 2.3 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for panel, name in zip(panels, names, strict=False):
            for color, stage in zip(COLORS * len(stages), stages, strict=False):
                panel.plot(*stage.curve(name), color=color, lw=1.2, label=stage.name)
            _label(panel, name.rpartition("/")[2].replace("_", " "))
        for panel in panels[len(names) :]:
            panel.set_visible(False)
        return _svg(figure)


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


def _label(panel: Axes, title: str) -> None:
    panel.set_title(title, loc="left", fontweight="bold", fontsize=10)
    panel.set_xlabel("step")
    panel.grid(color=FAINT, lw=0.5)
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
