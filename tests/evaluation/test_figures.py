# SPDX-License-Identifier: Apache-2.0
"""Figures: the same name has the same colour in every one of them, and nothing covers what stands beside it."""

import base64
import re
from itertools import combinations

from unigen.evaluation.figures import COLORS, alignment_curves, difference_curves, metric_curves
from unigen.evaluation.run_folder import StageLog

ARMS = ("an expert", "a shared model", "a fork")
CURVE = {"alignment": [0.1, 0.2], "intervals": [[0.0, 0.2], [0.1, 0.3]]}


def drawing(uri: str) -> str:
    return base64.b64decode(uri.partition(",")[2]).decode()


def test_a_name_keeps_its_colour_in_figures_that_lack_others() -> None:
    panels = {"reading": {"chance": 0.1, "ways": {"a fork": CURVE}}}
    point = {"mean": 0.1, "low": 0.0, "high": 0.2}
    differences = {"reading": {"a fork": [(500, point), (1000, point)]}}
    log = StageLog("a fork", [{"step": 1, "loss/t2i": 2.0}, {"step": 2, "loss/t2i": 1.0}], {})
    logs = [StageLog(name, [], {}) for name in ARMS[:2]]
    for figure in (
        alignment_curves(panels, ARMS),
        difference_curves(differences, ARMS),
        metric_curves([*logs, log], ["loss/t2i"]),
    ):
        svg = drawing(figure)
        assert COLORS[2] in svg
        assert COLORS[0] not in svg
        assert COLORS[1] not in svg


def test_intervals_of_one_step_stand_beside_each_other() -> None:
    point = {"mean": 0.1, "low": 0.0, "high": 0.2}
    svg = drawing(difference_curves({"reading": {name: [(500, point), (1000, point)] for name in ARMS}}))
    places = {
        color: re.findall(rf'd="M ([\d.]+) [\d.]+ \nL [\d.]+ [\d.]+ \n" [^>]*stroke: {color}', svg)
        for color in COLORS[:3]
    }
    assert all(places.values())
    assert not any(set(places[one]) & set(places[other]) for one, other in combinations(places, 2))
