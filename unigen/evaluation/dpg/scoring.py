# SPDX-License-Identifier: Apache-2.0
"""From yes and no to DPG-Bench's score, in two variants.

`compat` is what the published scorer computes, so that numbers can be compared: it takes the first row of questions for a header,
drops a prompt whose dependency it then cannot find, zeroes dependants in the order of the file, and looks at the last tile alone
for the scores by kind. `fixed` leaves out no question, no prompt and no tile, and lets an answer count only if all questions that
it depends on, however far, were answered with yes.

In both, a tile scores the mean over its questions, a prompt the mean over its tiles, and the benchmark 100 times the mean over
prompts; the scores by kind are means of the answers as they were given, before dependants are zeroed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unigen.evaluation.dpg.questions import Question, QuestionFile
from unigen.evaluation.statistics import Clusters, clustered, estimate

Variant = Literal["compat", "fixed"]
PERCENT = 100

Answers = Mapping[int, bool]
"""Whether each question of a prompt, by number, was answered with yes on one tile."""


class UnknownParentError(KeyError):
    """A question depends on one that is not there."""


@dataclass(frozen=True)
class DpgScore:
    """The scores of one variant, 0 to 100."""

    overall: float
    interval: Sequence[float]
    levels: Mapping[str, float]
    details: Mapping[str, float]
    num_prompts: int
    dropped: Sequence[str]
    """Prompts that are not in the score."""

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "levels": dict(self.levels), "details": dict(self.details), "dropped": list(self.dropped)}


def score_dpg(file: QuestionFile, answers: Mapping[str, Sequence[Answers]], variant: Variant) -> DpgScore | None:
    """Score answers, given for each tile of each prompt; None where no prompt is left."""
    questions = file.by_item(skips_first_row=variant == "compat")
    items: list[tuple[str, float]] = []
    given: list[tuple[str, Question, bool]] = []
    dropped = []
    for item_id, tiles in answers.items():
        asked = questions.get(item_id)
        try:
            if asked is None:
                raise UnknownParentError(item_id)
            items.append((item_id, sum(tile_score(asked, tile, variant) for tile in tiles) / len(tiles)))
        except UnknownParentError:
            dropped.append(item_id)
            continue
        for tile in tiles[-1:] if variant == "compat" else tiles:
            given += [(item_id, question, tile[number]) for number, question in asked.items()]
    if not items:
        return None
    found = estimate(_percent(items))
    return DpgScore(
        overall=found.value,
        interval=found.interval,
        levels=_means((question.level, answer) for _, question, answer in given),
        details=_means((question.detail, answer) for _, question, answer in given),
        num_prompts=len(items),
        dropped=dropped,
    )


def tile_score(questions: Mapping[int, Question], answers: Answers, variant: Variant) -> float:
    """Share of the questions whose answer is yes and counts.

    Raises:
        UnknownParentError: in `compat`, a question is looked up that is not there.
    """
    scores = _zeroed_in_order(questions, answers) if variant == "compat" else _zeroed_below_no(questions, answers)
    return sum(scores.values()) / len(scores)


def _zeroed_in_order(questions: Mapping[int, Question], answers: Answers) -> dict[int, bool]:
    """A question without the yes of a parent is zeroed where it stands, so that those after it see the zero; those before
    it do not. A parent is looked up only until one without a yes is found."""
    scores = {number: answers[number] for number in questions}
    for number, question in questions.items():
        for parent in question.parents:
            if parent not in scores:
                raise UnknownParentError(parent)
            if not scores[parent]:
                scores[number] = False
                break
    return scores


def _zeroed_below_no(questions: Mapping[int, Question], answers: Answers) -> dict[int, bool]:
    """Everything below a question without a yes is zeroed, in whatever order; parents that are not there are passed over."""
    scores = {number: answers[number] for number in questions}
    while True:
        lost = [
            number
            for number, question in questions.items()
            if scores[number] and not all(scores.get(parent, True) for parent in question.parents)
        ]
        if not lost:
            return scores
        scores |= dict.fromkeys(lost, False)


def _percent(items: Sequence[tuple[str, float]]) -> Clusters:
    return clustered((item_id, PERCENT * score) for item_id, score in items)


def _means(pairs: Any) -> dict[str, float]:
    groups: dict[str, list[bool]] = defaultdict(list)
    for name, answer in pairs:
        groups[name].append(answer)
    return {name: PERCENT * sum(values) / len(values) for name, values in groups.items()}
