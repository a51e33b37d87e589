# SPDX-License-Identifier: Apache-2.0
"""Ratings by a model: what it is asked, what its answers are worth, and what orders images of equal score."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.tiny import tiny_unigen
from unigen.errors import ConfigError
from unigen.generation.best_of_n import Candidate, Prompt, Rating, ranking
from unigen.generation.pipeline import AskRequest, Pipeline, load_pipeline
from unigen.generation.unigen import UnigenPipeline
from unigen.reference.rating import answer_slowly, yes_probability_slowly
from unigen.rewards.rating_text import outcome_prompt, parse_think, rule_prompt, think_prompt, think_so_far
from unigen.rewards.verifier import MAX_NEW_TOKENS, STYLES, Style, Verifier

PROMPT = "a photo of a red circle and a blue cross"
QUESTIONS = ["is there a red circle?", "is there a blue cross?"]


class Scripted(Pipeline):
    """Writes and thinks what it is told, by the colour of the image."""

    name = "scripted"

    def __init__(self, answers: dict[str, list[str]], probabilities: dict[str, list[float]] | None = None) -> None:
        self._answers = {color: list(texts) for color, texts in answers.items()}
        self._probabilities = {color: list(values) for color, values in (probabilities or {}).items()}
        self.tells_probabilities = probabilities is not None
        self.asked: list[AskRequest] = []
        self.judged: list[AskRequest] = []
        self.settings: dict[str, Any] = {}

    draw_requests = describe = None  # type: ignore[assignment]

    def ask_requests(self, requests: Iterable[AskRequest], *, batch_size: int = 16, **settings: Any) -> Iterator[str]:
        self.settings = settings
        for request in requests:
            self.asked.append(request)
            yield self._answers[color(request)].pop(0)

    def yes_probabilities(self, requests: Iterable[AskRequest], *, batch_size: int = 16) -> Iterator[float]:
        if not self.tells_probabilities:
            yield from super().yes_probabilities(requests)
        for request in requests:
            self.judged.append(request)
            yield self._probabilities[color(request)].pop(0)


def color(request: AskRequest) -> str:
    return {(255, 0, 0): "red", (0, 0, 255): "blue"}[request.images[0].getpixel((0, 0))]


def candidate(color: str, prompt: str = PROMPT, item_id: str = "") -> Candidate:
    return Candidate(Prompt(prompt, Path(), (), item_id), Image.new("RGB", (8, 8), color))


BOTH = [candidate("red"), candidate("blue")]


def test_think_scores_the_share_of_its_own_questions_and_probability_breaks_the_tie() -> None:
    thoughts = {"red": ["<think_start> a? Yes; b? No <think_end>"], "blue": ["a? No; b? Yes"]}
    pipeline = Scripted(thoughts, {"red": [0.9, 0.1], "blue": [0.4, 0.4]})
    ratings = Verifier(pipeline, "think")(BOTH)
    assert [request.question for request in pipeline.asked] == [think_prompt(PROMPT)] * 2
    assert [rating.score for rating in ratings] == [0.5, 0.5]
    assert [rating.probability for rating in ratings] == pytest.approx([0.3, 0.4])
    assert [request.answer_start for request in pipeline.judged[:2]] == ["<think_start> a?", "<think_start> a? Yes; b?"]
    assert ranking(ratings) == [1, 0]
    assert ratings[0].details["texts"] == thoughts["red"]
    assert ratings[0].details["verdicts"] == [{"question": "a?", "is_yes": True}, {"question": "b?", "is_yes": False}]
    assert pipeline.settings["temperature"] == 0


def test_a_thought_without_questions_is_one_no_and_is_not_judged_again() -> None:
    pipeline = Scripted({"red": ["I like it."], "blue": ["a? Yes"]}, {"red": [], "blue": [0.6]})
    first, second = Verifier(pipeline, "think")(BOTH)
    assert (first.score, first.probability, first.details["is_parsed"], first.details["num_questions"]) == (
        0,
        0,
        False,
        1,
    )
    assert (second.score, second.details["is_parsed"]) == (1.0, True)


def test_outcome_asks_once_and_reads_the_leading_word() -> None:
    pipeline = Scripted({"red": ["Yes."], "blue": ["Yesterday"]}, {"red": [0.7], "blue": [0.8]})
    ratings = Verifier(pipeline, "outcome")(BOTH)
    assert [request.question for request in pipeline.asked] == [outcome_prompt(PROMPT)] * 2
    assert [rating.score for rating in ratings] == [1.0, 0.0]
    assert [rating.details["is_parsed"] for rating in ratings] == [True, False]
    assert ranking(ratings) == [0, 1], "the score comes before the probability"


def test_rule_asks_what_follows_from_the_prompt() -> None:
    pipeline = Scripted({"red": ["yes", "no"], "blue": ["yes", "Yes"]}, {"red": [0.9, 0.2], "blue": [0.9, 0.9]})
    ratings = Verifier(pipeline, "rule")(BOTH)
    assert [request.question for request in pipeline.asked] == [rule_prompt(question) for question in QUESTIONS] * 2
    assert [rating.score for rating in ratings] == [0.5, 1.0]
    assert [verdict["question"] for verdict in ratings[0].details["verdicts"]] == QUESTIONS
    assert pipeline.judged == pipeline.asked


def test_rule_takes_the_questions_of_a_file_by_item_id() -> None:
    pipeline = Scripted({"red": ["no"]}, {"red": [0.1]})
    Verifier(pipeline, "rule", questions={"7": ["is it dusk?"]})([candidate("red", "a dusk of sorts, over hills", "7")])
    assert [request.question for request in pipeline.asked] == [rule_prompt("is it dusk?")]


def test_rule_refuses_a_prompt_without_questions() -> None:
    with pytest.raises(ConfigError, match="'sunset over the sea'; rate with think or outcome"):
        Verifier(Scripted({}, {}), "rule")([candidate("red", "sunset over the sea")])


def test_probability_writes_nothing() -> None:
    pipeline = Scripted({}, {"red": [0.9, 0.4], "blue": [0.6, 0.6]})
    ratings = Verifier(pipeline, "probability")(BOTH)
    assert pipeline.asked == []
    assert [rating.score for rating in ratings] == pytest.approx([0.6, 0.6])
    assert [verdict["is_yes"] for verdict in ratings[0].details["verdicts"]] == [True, False]


def test_probability_of_other_prompts_is_that_of_the_outcome() -> None:
    pipeline = Scripted({}, {"red": [0.25]})
    (rating,) = Verifier(pipeline, "probability")([candidate("red", "sunset over the sea")])
    assert [request.question for request in pipeline.judged] == [outcome_prompt("sunset over the sea")]
    assert rating.score == pytest.approx(0.25)


def test_without_probabilities_ties_are_left_to_the_order_and_the_style_probability_is_refused() -> None:
    ratings = Verifier(Scripted({"red": ["yes"], "blue": ["yes"]}), "outcome")(BOTH)
    assert [rating.probability for rating in ratings] == [0, 0]
    assert ranking(ratings) == [0, 1]
    with pytest.raises(ConfigError, match="do not tell the probability"):
        Verifier(Scripted({}), "probability")(BOTH)


def test_ranking_goes_by_score_then_probability_then_number() -> None:
    ratings = [Rating(0.5, 0.9), Rating(1.0, 0.2), Rating(1.0, 0.7), Rating(1.0, 0.2), Rating(0.5, 0.9)]
    assert ranking(ratings) == [2, 1, 3, 0, 4]


@pytest.mark.parametrize("style", STYLES)
def test_all_at_once_gives_the_ratings_of_one_at_a_time_recomputation(
    style: Style, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAX_NEW_TOKENS, "think", 16)
    pipeline = load_pipeline(tiny_unigen(tmp_path, reads_features=True), device="cpu")
    assert isinstance(pipeline, UnigenPipeline)
    candidates = [
        Candidate(Prompt(prompt, Path(), ()), Image.effect_noise((32, 32), spread).convert("RGB"))
        for prompt in (PROMPT, "a photo of two squares")
        for spread in (20, 60, 90)
    ]
    ratings = Verifier(pipeline, style, batch_size=4)(candidates)
    for one, rating in zip(candidates, ratings, strict=True):
        texts = rating.details.get("texts", [])
        images = (one.image,)
        if style == "think":
            asked = [AskRequest(think_prompt(one.prompt.text), images)]
            verdicts = parse_think(texts[0])
            judged = [
                AskRequest(
                    asked[0].question, images, answer_start=think_so_far(verdicts.verdicts[:place], found.question)
                )
                for place, found in enumerate(verdicts.verdicts if verdicts.is_parsed else ())
            ]
        elif style == "outcome":
            asked = judged = [AskRequest(outcome_prompt(one.prompt.text), images)]
        else:
            questions = [verdict["question"] for verdict in rating.details["verdicts"]]
            whole = questions if style == "probability" else [rule_prompt(question) for question in questions]
            asked = judged = [AskRequest(question, images) for question in whole]
        if texts:
            assert texts == [answer_slowly(pipeline, request, MAX_NEW_TOKENS[style]) for request in asked]
        slow = 1.0
        for request in judged:
            slow *= yes_probability_slowly(pipeline, request)
        assert rating.probability == pytest.approx(slow ** (1 / len(judged)) if judged else 0.0, rel=1e-4)
