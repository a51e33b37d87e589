# SPDX-License-Identifier: Apache-2.0
"""What came out of a study of forks, in words: where a fork pays, at which depth, from which budget on, and what it costs.

A difference counts where its 95% interval leaves 0 out. Everything is said from the numbers of report.json alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unigen.evaluation.study import signed, verdict
from unigen.evaluation.unifork_study.arms import BASELINE, DRAWING, NEEDS, READING

TITLES = {DRAWING: "Drawing", READING: "Reading"}

Content = Mapping[str, Any]


def findings(content: Content) -> list[dict[str, str]]:
    """Paragraphs, each with a `title` and a `text`."""
    found = [{"title": TITLES[benchmark], "text": _scores(content, benchmark)} for benchmark in TITLES]
    if content["budgets"]:
        found.append({"title": "Budget", "text": " ".join(_budget(content, benchmark) for benchmark in TITLES)})
    if content["alignment"]:
        found.append({"title": "Alignment", "text": _alignment(content)})
    return [*found, {"title": "Cost", "text": _cost(content)}]


def shared_layers(layers: Mapping[str, int | None]) -> str:
    """`2 of 4`; an expert, which shares none of its layers, is of `one task`."""
    own = [count for count in (layers[branch] for branch in NEEDS.values()) if count is not None]
    shared = layers["shared"] or 0
    return f"{shared} of {shared + max(own)}" if len(own) > 1 else "one task"


def depth(layers: Mapping[str, int | None]) -> str:
    """`2 of 4 layers shared`."""
    return f"{shared_layers(layers)} layers shared"


def forks(content: Content) -> list[str]:
    """The arms with two branches that part somewhere, by how many layers they share."""
    models = content["models"]

    def parts(layers: Mapping[str, int | None]) -> bool:
        own = [layers[branch] for branch in NEEDS.values()]
        return None not in own and any(own)

    return sorted(
        (name for name in models if parts(models[name]["layers"])), key=lambda n: models[n]["layers"]["shared"]
    )


def _scores(content: Content, benchmark: str) -> str:
    models = content["models"]
    base = models[BASELINE][benchmark]
    words = [f"The fully shared model scores {base['mean']:.3f} ({base['low']:.3f} to {base['high']:.3f})."]
    words += _expert(content, benchmark)
    differences = {name: _difference(content, name, benchmark) for name in forks(content)}
    if not differences:
        return " ".join(words)
    listed = ", ".join(f"{signed(found)} with {depth(models[name]['layers'])}" for name, found in differences.items())
    words.append(f"Against the fully shared model forks score {listed}.")
    shown = []
    for sign, verb in ((1, "pays"), (-1, "costs")):
        names = [name for name, found in differences.items() if verdict(found) == sign]
        if names:
            shown.append(f"{verb} with {_depths(content, names)}")
    if shown:
        words.append(f"So the fork {' and '.join(shown)}.")
    if not any(map(verdict, differences.values())):
        words.append("So no fork is shown to pay or to cost here: every interval holds 0.")
    elif len(differences) > 1:
        best = max(differences, key=lambda name: differences[name]["mean"])
        words.append(f"The highest of them has {depth(models[best]['layers'])}.")
    return " ".join(words)


def _expert(content: Content, benchmark: str) -> list[str]:
    """What the model of this task alone says of how much the tasks stand in each other's way."""
    needed = NEEDS[benchmark]
    for name, model in content["models"].items():
        has = [branch for branch in NEEDS.values() if model["layers"][branch] is not None]
        if has == [needed]:
            found = _difference(content, name, benchmark)
            meaning = {
                1: "the other task takes something from it, which a fork could give back",
                0: "the other task is not shown to take anything from it, so there is little for a fork to give back",
                -1: "it gains by the other task, so a fork may lose something",
            }[verdict(found)]
            return [f"The expert of this task alone is at {signed(found)} from it: {meaning}."]
    return []


def _budget(content: Content, benchmark: str) -> str:
    """From which step on a fork pays, that is at it and at every later one."""
    steps = sorted(content["budgets"], key=int)
    words = []
    for name in forks(content):
        signs = [verdict(found) for found in _by_step(content, steps, name, benchmark) if found]
        first = next((step for number, step in enumerate(steps) if all(sign == 1 for sign in signs[number:])), None)
        if first is not None and len(signs) == len(steps):
            words.append(f"with {depth(content['models'][name]['layers'])} from step {int(first):,} on")
    listed = ", ".join(f"{int(step):,}" for step in steps)
    if words:
        return f"{TITLES[benchmark]}: of the budgets of {listed} steps a fork pays {'; '.join(words)}."
    return f"{TITLES[benchmark]}: at the last of the budgets of {listed} steps no fork is shown to pay."


def _by_step(content: Content, steps: Sequence[str], name: str, benchmark: str) -> list[Mapping[str, float] | None]:
    pair = f"{name}_minus_{BASELINE}"
    return [content["budgets"][step]["paired"].get(pair, {}).get(benchmark) for step in steps]


@dataclass(frozen=True)
class Peak:
    """An alignment curve in short."""

    highest: float
    layer: int
    """After which it is so high; 0 is what goes into the first."""
    last: float
    """After the last layer."""


def peak(found: Content, way: str) -> Peak | None:
    """Of one branch of an arm's alignment; None where it has no such branch."""
    if way not in found["ways"]:
        return None
    values = found["ways"][way]["alignment"]
    layer = max(range(len(values)), key=values.__getitem__)
    return Peak(values[layer], layer, values[-1])


def _alignment(content: Content) -> str:
    """By branch: how high the models get, and what is left of it at the end."""
    aligned = content["alignment"]
    chance = next(iter(aligned.values()))["chance"]
    words = [f"Share of an image's neighbours that are its caption's too (chance {chance:.3f})."]
    for way in NEEDS.values():
        peaks = {name: one for name, found in aligned.items() if (one := peak(found, way))}
        if not peaks:
            continue
        highest = max(peaks, key=lambda name: peaks[name].highest)
        lasts = [one.last for one in peaks.values()]
        fallen = [one.highest - one.last for one in peaks.values()]
        words.append(
            f"{way.capitalize()} branch: at most {peaks[highest].highest:.3f} ({highest.replace('_', ' ')}, after layer "
            f"{peaks[highest].layer}); {min(lasts):.3f} to {max(lasts):.3f} after the last layer, {min(fallen):.3f} to "
            f"{max(fallen):.3f} below each model's own highest."
        )
    return " ".join(words)


def _cost(content: Content) -> str:
    models, branching = content["models"], forks(content)
    base = models[BASELINE]
    largest = max((models[name]["parameters"]["total"] for name in branching), default=base["parameters"]["total"])
    is_equal = all(models[name]["flops_per_token"] == base["flops_per_token"] for name in branching)
    operations = "the same FLOPs per token" if is_equal else "FLOPs per token as the table has them"
    kind = "the same samples" if content["budget"]["same_samples"] else "as many samples"
    return (
        f"A fork gives each task weights of its own: up to {largest:,} parameters against {base['parameters']['total']:,} of the "
        f"fully shared model, at {operations}. So the comparison is of equal computation, not of equal size. All arms had the "
        f"same steps and in each of them {kind} of every task that they have; an expert went without those of the other task."
    )


def _difference(content: Content, name: str, benchmark: str) -> Mapping[str, float]:
    found: Mapping[str, float] = content["paired"][f"{name}_minus_{BASELINE}"][benchmark]
    return found


def _depths(content: Content, names: Sequence[str]) -> str:
    return " and ".join(depth(content["models"][name]["layers"]) for name in names)
