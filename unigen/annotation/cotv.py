# SPDX-License-Identifier: Apache-2.0
"""From answers to conversations that teach a model to verify images step by step, as many over good images as over bad ones.

An image is good if all its answers are yes. Prompts that have images of both kinds give equally many of either, so that the
verdict cannot be told from the prompt; what prompts of one kind alone add is balanced over all of them.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from unigen.annotation.answers import rating_name
from unigen.annotation.judges.judge import reason_of
from unigen.annotation.step import Done, Failed, Line, StepWithoutFiles, Unit
from unigen.annotation.verdicts import RatedImage, RatedPrompt, relative_to
from unigen.errors import DataError
from unigen.rewards.rating_text import think_prompt
from unigen.sequence.templates.rating import think_answer

Choice = tuple[RatedPrompt, RatedImage]


class Conversations(StepWithoutFiles):
    """LLaVA-format records: the rating prompt of style `think`, and the answer that the verdicts make."""

    name = "cotv"

    def __init__(
        self, prompts: Sequence[RatedPrompt], answers_sha256: str, images: Path, output: Path, images_per_prompt: int
    ) -> None:
        """
        Args:
            images_per_prompt: most images of one kind that a prompt gives.
        """
        self._prompts, self._sha256, self._images, self._output = prompts, answers_sha256, images, output
        self._images_per_prompt = images_per_prompt

    def identity(self) -> Mapping[str, Any]:
        return {
            "answers": self._sha256,
            "images": str(self._images.resolve()),
            "images_per_prompt": self._images_per_prompt,
            "request": think_prompt("{prompt}"),
        }

    def units(self) -> Sequence[Unit]:
        chosen = choose_balanced(self._prompts, self._images_per_prompt)
        return [Unit(rating_name(prompt.id, Path(image.filename)), (prompt, image)) for prompt, image in chosen]

    def work(self, units: Sequence[Unit]) -> Iterator[Done | Failed]:
        for unit in units:
            try:
                yield Done(unit, [self._line(unit.name, *unit.content)])
            except DataError as error:
                yield Failed(unit, reason_of(error))

    def _line(self, name: str, prompt: RatedPrompt, image: RatedImage) -> Line:
        return {
            "id": name,
            "image": relative_to(self._output, self._images, image.filename),
            "conversations": [
                {"from": "human", "value": f"<image>\n{think_prompt(prompt.text)}"},
                {"from": "gpt", "value": think_answer(image.questions, image.verdicts)},
            ],
        }


def is_good(image: RatedImage) -> bool:
    """Whether every answer about it is yes."""
    return all(image.verdicts)


def choose_balanced(prompts: Sequence[RatedPrompt], images_per_prompt: int) -> list[Choice]:
    """As many good images as bad ones, at most `images_per_prompt` of either kind of one prompt, prompt by prompt."""
    taken: dict[str, list[Choice]] = {}
    left: dict[bool, list[list[Choice]]] = {True: [], False: []}
    for prompt in prompts:
        kinds = {kind: _varied([one for one in prompt.images if is_good(one) is kind]) for kind in (True, False)}
        num_each = min(images_per_prompt, *map(len, kinds.values()))
        taken[prompt.id] = [(prompt, image) for images in kinds.values() for image in images[:num_each]]
        for kind, images in kinds.items():
            if num_each == 0:
                left[kind].append([(prompt, image) for image in images[:images_per_prompt]])
    num_more = min(sum(map(len, groups)) for groups in left.values())
    for groups in left.values():
        for prompt, image in _in_turn(groups)[:num_more]:
            taken[prompt.id].append((prompt, image))
    return [choice for choices in taken.values() for choice in choices]


def _varied(images: Sequence[RatedImage]) -> list[RatedImage]:
    """Images whose verdicts differ come first: one of each pattern of verdicts, then a second of each."""
    patterns: dict[tuple[bool, ...], list[RatedImage]] = defaultdict(list)
    for image in images:
        patterns[image.verdicts].append(image)
    return _in_turn(list(patterns.values()))


def _in_turn(groups: Sequence[Sequence[Any]]) -> list[Any]:
    """The first of each group, then the second of each, and so on."""
    return [one for one in chain.from_iterable(zip_longest(*groups)) if one is not None]
