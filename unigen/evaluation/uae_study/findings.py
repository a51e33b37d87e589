# SPDX-License-Identifier: Apache-2.0
"""What came out of a study of UAE, in words: which stage raises the score of held-out images, and whether its control does too.

A difference counts where its 95% interval leaves 0 out. Everything is said from the numbers of report.json alone.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from unigen.evaluation.study import signed, verdict
from unigen.evaluation.uae_study.runs import CONTROLS

Content = Mapping[str, Any]

STAGES = {"understanding": "Understanding", "generation": "Generation"}
LEARNERS = {"understanding": "the language model", "generation": "the decoder"}
_EDGE_SHARE = 10  # the first and last tenth of a curve are averaged


def findings(content: Content) -> list[dict[str, str]]:
    """Paragraphs, each with a `title` and a `text`."""
    return [
        *({"title": title, "text": _stage(content, name)} for name, title in STAGES.items()),
        {"title": "Control", "text": _control(content)},
        {"title": "Captions", "text": _captions(content)},
        {"title": "Time", "text": _time(content)},
    ]


def _stage(content: Content, name: str) -> str:
    found = content["paired"][name]
    verb = {1: "rises", -1: "falls", 0: "is not shown to change"}[verdict(found)]
    return (
        f"Where {LEARNERS[name]} is the policy, the score of held-out images {verb}: {signed(found)}. "
        f"It is above 0 in {sum(value > 0 for value in found['seeds'])} of {len(found['seeds'])} training seeds. "
        f"{_reward(content, name)}"
    )


def _reward(content: Content, name: str) -> str:
    """The training reward of a stage and of its control at the two ends."""
    (start, end), (control_start, control_end) = (_ends(content["reward"][run]) for run in (name, CONTROLS[name]))
    return (
        f"The reward of training goes from {start:.3f} to {end:.3f}, "
        f"the control's from {control_start:.3f} to {control_end:.3f}."
    )


def _control(content: Content) -> str:
    found, against = content["paired"]["control"], content["paired"]["policy_minus_control"]
    meaning = {
        1: "it rises too, so a rise of the policy cannot be put down to the rewards alone",
        0: "it is not shown to change, as it must be",
        -1: "it does not rise, and even falls",
    }[verdict(found)]
    ahead = {1: "is ahead of it", 0: "is not shown to differ from it", -1: "is behind it"}[verdict(against)]
    return (
        "With the advantages of each group dealt out at random both stages together change the score by "
        f"{signed(found)}: {meaning}. "
        f"The policy that learnt from its rewards {ahead}: {signed(against)}."
    )


def _captions(content: Content) -> str:
    found = content["caption_accuracy"]
    before, after, control, paired = found["before"], found["after"], found["control"], found["paired"]["after"]
    verb = {1: "become truer", -1: "become less true", 0: "are not shown to become more or less true"}[verdict(paired)]
    return (
        f"Captions {verb}: the F1 of claimed against true objects goes from {before['mean']:.3f} to {after['mean']:.3f}, "
        f"{signed(paired)}; the control is at {control['mean']:.3f}. "
        f"A caption has {before['words']:.1f} words before and {after['words']:.1f} after, "
        f"the control's {control['words']:.1f}."
    )


def _time(content: Content) -> str:
    seconds = content["seconds"]
    policies, seeds = seconds["rl"]["total"], content["num_seeds"]
    return (
        f"The policy stages took {policies / 60:.1f} minutes, controls and {seeds} training seed{'' if seeds == 1 else 's'} "
        f"together; the pretrained parts {seconds['pretrained']['total'] / 60:.1f}, evaluation {seconds['evaluation'] / 60:.1f}."
    )


def _ends(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> tuple[float, float]:
    """Means over the seeds of the beginning and of the end of their curves."""
    ends = []
    for curve in curves.values():
        values = curve["values"]
        count = max(1, len(values) // _EDGE_SHARE)
        ends.append((fmean(values[:count]), fmean(values[-count:])))
    first, last = zip(*ends, strict=True)
    return fmean(first), fmean(last)
