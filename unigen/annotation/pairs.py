# SPDX-License-Identifier: Apache-2.0
"""From answers to preferences: of the images of a prompt, one that shows more of it and one that shows less."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigen.annotation.judges.judge import reason_of
from unigen.annotation.step import Done, Failed, Line, StepWithoutFiles, Unit
from unigen.annotation.verdicts import RatedImage, RatedPrompt, relative_to
from unigen.errors import DataError


@dataclass(frozen=True)
class PairRule:
    """Which images make a pair."""

    min_margin: float = 0.0
    """Least difference of the two scores; they differ in any case."""
    min_chosen_score: float = 0.0
    """Least score of a chosen image."""
    pairs_per_prompt: int = 1


class Pairs(StepWithoutFiles):
    """Records for preference training: `prompt`, `chosen`, `rejected`, paths seen from the output's folder."""

    name = "pairs"

    def __init__(
        self, prompts: Sequence[RatedPrompt], answers_sha256: str, images: Path, output: Path, rule: PairRule
    ) -> None:
        self._prompts, self._sha256, self._images, self._output = prompts, answers_sha256, images, output
        self._rule = rule

    def identity(self) -> Mapping[str, Any]:
        return {"answers": self._sha256, "images": str(self._images.resolve()), **vars(self._rule)}

    def units(self) -> Sequence[Unit]:
        return [Unit(prompt.id, prompt) for prompt in self._prompts]

    def work(self, units: Sequence[Unit]) -> Iterator[Done | Failed]:
        for unit in units:
            try:
                yield Done(unit, [self._line(unit.content, *pair) for pair in choose_pairs(unit.content, self._rule)])
            except DataError as error:
                yield Failed(unit, reason_of(error))

    def _line(self, prompt: RatedPrompt, chosen: RatedImage, rejected: RatedImage) -> Line:
        return {
            "id": prompt.id,
            "prompt": prompt.text,
            "chosen": relative_to(self._output, self._images, chosen.filename),
            "rejected": relative_to(self._output, self._images, rejected.filename),
            "chosen_score": chosen.score,
            "rejected_score": rejected.score,
        }


def choose_pairs(prompt: RatedPrompt, rule: PairRule) -> list[tuple[RatedImage, RatedImage]]:
    """Best with worst, second best with second worst and so on; no image is in two pairs, of equals the earlier is better."""
    ranked = sorted(prompt.images, key=lambda image: -image.score)
    pairs = list(zip(ranked, reversed(ranked), strict=True))[: min(rule.pairs_per_prompt, len(ranked) // 2)]
    return [
        (chosen, rejected)
        for chosen, rejected in pairs
        if chosen.score > rejected.score
        and chosen.score - rejected.score >= rule.min_margin
        and chosen.score >= rule.min_chosen_score
    ]
