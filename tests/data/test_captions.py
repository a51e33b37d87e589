# SPDX-License-Identifier: Apache-2.0
"""What becomes of a caption before it is learnt."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from unigen.data.captions import (
    OPENINGS,
    PERSON_WORDS,
    clean_caption,
    first_sentence,
    load_prompts,
    strip_opening,
    validation_prompts,
)
from unigen.data.faults import SampleRefused
from unigen.errors import ConfigError


def test_a_prompt_of_several_words_asks_for_captions_itself() -> None:
    assert load_prompts("What does this show?") == ("What does this show?",)
    with pytest.raises(ConfigError, match="medium"):
        load_prompts("medium")


def clean(caption: str, short_prob: float = 0.0, seed: int = 0) -> str:
    return clean_caption(caption, lambda: np.random.default_rng(seed), short_prob=short_prob)


def test_a_person_is_put_into_words_that_vary() -> None:
    found = {clean("portrait of <person> and <person>", seed=seed) for seed in range(200)}
    assert found == {f"portrait of {one} and {other}" for one in PERSON_WORDS for other in PERSON_WORDS}
    assert not any(mark in text for text in found for mark in "<>[]'")


def test_the_word_for_a_person_brings_its_own_article_and_capital() -> None:
    assert {clean("The <person> sings", seed=seed) for seed in range(50)} == {
        f"{word[0].upper()}{word[1:]} sings" for word in PERSON_WORDS
    }


@pytest.mark.parametrize("opening", OPENINGS)
def test_an_empty_opening_goes_at_the_start_and_nowhere_else(opening: str) -> None:
    assert clean(f"{opening}a red circle.") == "A red circle."
    assert clean(f"A circle; {opening}a square.") == " ".join(f"A circle; {opening}a square.".split())


def test_a_caption_without_an_opening_stays_as_it_is() -> None:
    assert clean("a red circle left of\n a  blue square") == "a red circle left of a blue square"
    assert strip_opening("The image featuresque") == "The image featuresque"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("A dog runs. It is brown.", "A dog runs."),
        ("A tower 3.5 metres high. It leans.", "A tower 3.5 metres high."),
        ("A town, e.g. Berlin, at night. Lights shine.", "A town, e.g. Berlin, at night."),
        ("A bust of Mr. Smith by J. S. Bach. Bronze.", "A bust of Mr. Smith by J. S. Bach."),
        ('A sign says "Stop!" A car waits.', 'A sign says "Stop!"'),
        ("What a view! 2 boats sail.", "What a view!"),
        ("Wait... no end here", "Wait... no end here"),
        ("one sentence only", "one sentence only"),
        ("", ""),
    ],
)
def test_the_first_sentence_ends_where_a_reader_would_end_it(text: str, first: str) -> None:
    assert first_sentence(text) == first


def test_captions_are_shortened_with_the_configured_probability() -> None:
    found = Counter(clean("A dog. A cat.", short_prob=0.3, seed=seed) for seed in range(2000))
    assert set(found) == {"A dog.", "A dog. A cat."}
    assert 0.26 < found["A dog."] / 2000 < 0.34


@pytest.mark.parametrize("caption", ["", " \n\t", "...", "The image shows ."])
def test_a_caption_without_words_is_refused(caption: str) -> None:
    with pytest.raises(SampleRefused) as refused:
        clean(caption)
    assert refused.value.cause == "empty_caption"


def test_the_packaged_prompts_are_distinct_and_as_many_as_announced() -> None:
    packaged = {"short": 11, "long": 63, "sentence": 1}
    for prompts, count in [
        *((load_prompts(name), count) for name, count in packaged.items()),
        (validation_prompts(), 13),
    ]:
        assert len(prompts) == len(set(prompts)) == count
        assert all(prompt == prompt.strip() and prompt for prompt in prompts)


def test_prompts_may_come_from_a_file_and_a_wrong_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(["Say what you see."]))
    assert load_prompts(str(file)) == ("Say what you see.",)
    file.write_text("[]")
    with pytest.raises(ConfigError, match="must hold a list of texts"):
        load_prompts(str(file))
    with pytest.raises(ConfigError, match="neither short, long, sentence nor a readable JSON file"):
        load_prompts("lnog")
