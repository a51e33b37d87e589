# SPDX-License-Identifier: Apache-2.0
"""Questions with one-word answers about scenes, balanced so that nothing can be guessed without looking.

For every wording each possible answer is handed out equally often (to within one), and so it is for every kind.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unigen.data.shapes.captions import NUMBERS, plural
from unigen.data.shapes.scene import (
    COLORS,
    RELATIONS,
    SHAPES,
    TAGS,
    WITHHELD_POSITIONS,
    WITHHELD_SHAPE_PAIRS,
    Scene,
    relations,
    sample_scene,
)

YES_OR_NO = ("yes", "no")
ANSWERS = {
    "color": tuple(COLORS),
    "shape": SHAPES,
    "count": NUMBERS[1:],
    "existence": YES_OR_NO,
    "relation": YES_OR_NO,
}

# Kinds of scenes in which a question of a kind can be asked and has any of its answers.
_TELLING_TAGS = {
    "color": ("single_object", "two_object", "color_attr"),
    "shape": ("single_object", "two_object", "color_attr"),
    "count": ("single_object", "counting", "counting", "counting"),
    "existence": TAGS,
    "relation": ("two_object", "position"),
}
_LEAD_OF_ANSWERS = 1
_LEAD_OF_KINDS = 4


@dataclass(frozen=True)
class Question:
    """A question of one of the kinds of ANSWERS and its one-word answer."""

    kind: str
    question: str
    answer: str


class QuestionBook:
    """Hands out questions and keeps the account that holds kinds and answers in balance."""

    def __init__(self) -> None:
        self._by_wording: Counter[tuple[str, str]] = Counter()
        self._by_kind: Counter[tuple[str, str]] = Counter()

    def sample_scene(self, rng: np.random.Generator, held_out: bool = False) -> Scene:
        """Draw a scene that can answer a question of the kind asked least so far."""
        kind = min(ANSWERS, key=self.num_asked)
        while True:
            tag = _TELLING_TAGS[kind][rng.integers(len(_TELLING_TAGS[kind]))]
            scene = sample_scene(tag, rng, held_out)
            if any(map(self._keeps_balance, _candidates(kind, scene))):
                return scene

    def ask(self, scene: Scene, num_questions: int, rng: np.random.Generator) -> list[Question]:
        """Up to `num_questions` questions of different kinds that this scene can answer without upsetting the balance.

        The kinds asked least so far come first. The list may be shorter; it is empty only for a scene of another source
        than `sample_scene`.
        """
        asked: list[Question] = []
        least = min(map(self.num_asked, ANSWERS))
        for kind in sorted(ANSWERS, key=self.num_asked):
            if len(asked) == num_questions or self.num_asked(kind) > least + _LEAD_OF_KINDS:
                break
            fitting = [question for question in _candidates(kind, scene) if self._keeps_balance(question)]
            if fitting:
                asked.append(fitting[rng.integers(len(fitting))])
                self._by_wording[asked[-1].question, asked[-1].answer] += 1
                self._by_kind[kind, asked[-1].answer] += 1
        return asked

    def num_asked(self, kind: str) -> int:
        """How many questions of a kind were handed out."""
        return sum(self._by_kind[kind, answer] for answer in ANSWERS[kind])

    def _keeps_balance(self, question: Question) -> bool:
        """Whether the answer is behind the others (to within the lead), for this wording and for the whole kind."""
        return all(
            account[key, question.answer] <= min(account[key, answer] for answer in ANSWERS[question.kind]) + lead
            for account, key, lead in (
                (self._by_wording, question.question, 0),
                (self._by_kind, question.kind, _LEAD_OF_ANSWERS),
            )
        )


def _candidates(kind: str, scene: Scene) -> Iterator[Question]:
    """Every question of a kind that has one right answer in this scene."""
    shapes = Counter(thing.shape for thing in scene.objects)
    colors = Counter(thing.color for thing in scene.objects)
    if kind == "color":
        for thing in scene.objects:
            if shapes[thing.shape] == 1:
                yield Question(kind, f"what color is the {thing.shape}?", thing.color)
    elif kind == "shape":
        for thing in scene.objects:
            if colors[thing.color] == 1:
                yield Question(kind, f"what shape is the {thing.color} object?", thing.shape)
    elif kind == "count":
        for shape, count in shapes.items():
            yield Question(kind, f"how many {plural(shape)} are there?", NUMBERS[count])
    elif kind == "existence":
        yield from _existence(scene)
    else:
        yield from _relations(scene)


def _existence(scene: Scene) -> Iterator[Question]:
    """What is there, and near misses: the colour or the shape of something else that is there."""
    present = {(thing.color, thing.shape) for thing in scene.objects}
    for color in COLORS:
        for shape in SHAPES:
            is_near = any(color == other_color or shape == other_shape for other_color, other_shape in present)
            if is_near:
                answer = "yes" if (color, shape) in present else "no"
                yield Question("existence", f"is there a {color} {shape}?", answer)


def _relations(scene: Scene) -> Iterator[Question]:
    """Where two different shapes lie; what training never shows is never asked, for it could only ever be denied."""
    for first in scene.objects:
        for second in scene.objects:
            if first.shape == second.shape or frozenset({first.shape, second.shape}) in WITHHELD_SHAPE_PAIRS:
                continue
            for relation in RELATIONS:
                if (first.shape, relation, second.shape) not in WITHHELD_POSITIONS:
                    answer = "yes" if relation in relations(first, second) else "no"
                    yield Question("relation", f"is the {first.shape} {relation} the {second.shape}?", answer)
