# SPDX-License-Identifier: Apache-2.0
"""A model rates images against their prompts: by what it writes, or by how probable it finds a yes.

`outcome`, `think` and `rule` have the model write (see `unigen.rewards.rating_text`); the score is the share of questions that
were answered with yes. Images of equal score are ordered by the probability of yes: one further reading of each question, with
nothing written. `probability` rates by that alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar, get_args

from unigen.errors import ConfigError
from unigen.generation.best_of_n import Candidate, Rating
from unigen.generation.pipeline import AskRequest, Pipeline
from unigen.rewards.prompt_questions import rule_questions
from unigen.rewards.rating_text import (
    Verdict,
    Verdicts,
    outcome_prompt,
    parse_leading,
    parse_think,
    rule_prompt,
    think_prompt,
    think_so_far,
)

T = TypeVar("T")
Style = Literal["think", "outcome", "rule", "probability"]
STYLES: tuple[Style, ...] = get_args(Style)
MAX_NEW_TOKENS = {"think": 256, "outcome": 8, "rule": 8}
"""Longest answer of each style that writes."""


@dataclass(frozen=True)
class Verifier:
    """A rater, see `unigen.generation.best_of_n`."""

    pipeline: Pipeline
    style: Style = "think"
    batch_size: int = 16
    questions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Questions by the item id of a prompt; of a prompt without, they are derived from its words."""

    def __call__(self, candidates: Sequence[Candidate]) -> list[Rating]:
        if self.style == "probability":
            asked = [self._verdict_questions(candidate) for candidate in candidates]
            probabilities = self._probabilities(asked)
            return [_by_probability(questions, found) for questions, found in zip(asked, probabilities, strict=True)]
        written = self._write([self._text_questions(candidate) for candidate in candidates])
        read = [self._parse(candidate, texts) for candidate, texts in zip(candidates, written, strict=True)]
        asked = [self._answered(candidate, found) for candidate, found in zip(candidates, read, strict=True)]
        means = [_geometric_mean(found) for found in self._tie_breakers(asked)]
        return [
            Rating(found.score, mean, {**_details(found), "texts": texts})
            for found, texts, mean in zip(read, written, means, strict=True)
        ]

    def _text_questions(self, candidate: Candidate) -> list[AskRequest]:
        """What the model is asked to answer in writing about one image."""
        prompt, images = candidate.prompt.text, (candidate.image,)
        if self.style == "rule":
            return [AskRequest(rule_prompt(question), images) for question in self._rule_questions(candidate)]
        return [AskRequest((think_prompt if self.style == "think" else outcome_prompt)(prompt), images)]

    def _verdict_questions(self, candidate: Candidate) -> list[AskRequest]:
        """The questions whose probabilities of yes are the whole rating: those by rule, else that of `outcome`."""
        images = (candidate.image,)
        questions = self._questions_of(candidate)
        asked = [rule_prompt(question) for question in questions] or [outcome_prompt(candidate.prompt.text)]
        return [AskRequest(question, images) for question in asked]

    def _questions_of(self, candidate: Candidate) -> list[str]:
        return list(self.questions.get(candidate.prompt.item_id) or rule_questions(candidate.prompt.text))

    def _rule_questions(self, candidate: Candidate) -> list[str]:
        questions = self._questions_of(candidate)
        if not questions:
            raise ConfigError(
                f"no question follows by rule from the prompt {candidate.prompt.text!r}; rate with think or outcome, or "
                "give a file of questions by item id"
            )
        return questions

    def _write(self, asked: Sequence[Sequence[AskRequest]]) -> list[list[str]]:
        requests = [request for group in asked for request in group]
        answers = self.pipeline.ask_requests(
            requests, batch_size=self.batch_size, max_new_tokens=MAX_NEW_TOKENS[self.style], temperature=0.0
        )
        return _regroup(answers, asked)

    def _parse(self, candidate: Candidate, texts: Sequence[str]) -> Verdicts:
        if self.style == "think":
            return parse_think(texts[0])
        questions = self._rule_questions(candidate) if self.style == "rule" else [candidate.prompt.text]
        parsed = [parse_leading(question, text) for question, text in zip(questions, texts, strict=True)]
        verdicts = tuple(verdict for found in parsed for verdict in found.verdicts)
        return Verdicts(verdicts, all(found.is_parsed for found in parsed))

    def _answered(self, candidate: Candidate, found: Verdicts) -> list[AskRequest]:
        """The questions behind the verdicts, each to be read once more; those of `think` after what was thought before them."""
        if self.style != "think":
            return self._text_questions(candidate)
        if not found.is_parsed:
            return []
        prompt, images = think_prompt(candidate.prompt.text), (candidate.image,)
        return [
            AskRequest(prompt, images, answer_start=think_so_far(found.verdicts[:place], verdict.question))
            for place, verdict in enumerate(found.verdicts)
        ]

    def _tie_breakers(self, asked: Sequence[Sequence[AskRequest]]) -> list[list[float]]:
        return self._probabilities(asked) if self.pipeline.tells_probabilities else [[] for _ in asked]

    def _probabilities(self, asked: Sequence[Sequence[AskRequest]]) -> list[list[float]]:
        requests = [request for group in asked for request in group]
        return _regroup(self.pipeline.yes_probabilities(requests, batch_size=self.batch_size), asked)


def _by_probability(questions: Sequence[AskRequest], probabilities: Sequence[float]) -> Rating:
    verdicts = tuple(
        Verdict(request.question, value > 0.5) for request, value in zip(questions, probabilities, strict=True)
    )
    mean = _geometric_mean(probabilities)
    return Rating(mean, mean, {**_details(Verdicts(verdicts)), "probabilities": list(probabilities)})


def _details(found: Verdicts) -> dict[str, Any]:
    return {
        "num_yes": found.num_yes,
        "num_questions": len(found.verdicts),
        "verdicts": [asdict(verdict) for verdict in found.verdicts],
        "result": found.result,
        "is_parsed": found.is_parsed,
    }


def _geometric_mean(probabilities: Sequence[float]) -> float:
    """The probability that all answers are yes, brought to the size of one question; 0 where nothing was asked."""
    if not probabilities or min(probabilities) <= 0:
        return 0.0
    return math.exp(sum(map(math.log, probabilities)) / len(probabilities))


def _regroup(found: Iterator[T], groups: Sequence[Sequence[AskRequest]]) -> list[list[T]]:
    return [[next(found) for _ in group] for group in groups]
