# SPDX-License-Identifier: Apache-2.0
"""Captions: what is cleaned, shortened and drawn before a caption is learnt; and the prompts that ask for one."""

import json
import re
from collections.abc import Callable
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np

from unigen.data.faults import SampleRefused
from unigen.errors import ConfigError

PROMPTS = ("short", "long", "sentence")
"""The lists of prompts that come with the package; `sentence` holds the one that UniFork's released training asked with."""

PERSON_WORDS = ("a person", "someone", "somebody", "an individual")
"""What stands for `<person>`, the mark that CC12M puts in the place of names."""

OPENINGS = (
    "The image features ",
    "The image shows ",
    "The image depicts ",
    "The image displays ",
    "The image presents ",
    "The image captures ",
    "The image portrays ",
    "The image illustrates ",
    "The image contains ",
    "The image is of ",
    "This image features ",
    "This image shows ",
    "This image depicts ",
    "This image captures ",
    "In this image, ",
    "In the image, ",
    "In this picture, ",
    "The picture shows ",
    "The photo shows ",
    "The photograph shows ",
    "The scene features ",
    "An image of ",
    "A picture of ",
)
"""Phrases without content that recaptioning models begin with; removed at the start of a caption and nowhere else."""

_CJK = re.compile(
    r"[\u1100-\u11ff\u2e80-\u30ff\u3100-\u318f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f]"
)
"""Hangul, kana, bopomofo and ideographs."""
_ARTICLE = re.compile(r"\b([Aa]) \{\}")
_PERSON = re.compile(r"(?:\b(?:an?|the)\s+)?<person>", re.IGNORECASE)
_SENTENCE_END = re.compile(r"""[.!?]["')\]]*(?=\s+["'(\[]*[^\Wa-z_])""")
_NO_SENTENCE_END = re.compile(
    r"(?:^|[\s(])(?:e\.g|i\.e|cf|vs|mr|mrs|ms|dr|prof|st|no|fig|approx|ca|jr|sr|[a-z]|(?:[a-z]\.)+[a-z])\.$",
    re.IGNORECASE,
)


def clean_caption(caption: str, generator: Callable[[], np.random.Generator], *, short_prob: float = 0.0) -> str:
    """The caption to learn: blanks normalised, `<person>` put into words, maybe the first sentence alone, no empty opening.

    Args:
        generator: makes what draws the words and whether to shorten; called only where something is drawn, for it takes
            as long as all the rest.
        short_prob: probability to keep only the first sentence.

    Raises:
        SampleRefused: `empty_caption` where nothing is left.
    """
    text = " ".join(caption.split())
    names_person = "<person>" in text.lower()
    if short_prob > 0.0 or names_person:
        drawn = generator()
        if short_prob > 0.0 and drawn.random() < short_prob:
            text = first_sentence(text)
        if names_person:
            text = _name_persons(text, drawn)
    text = strip_opening(text)
    if not any(character.isalnum() for character in text):
        raise SampleRefused("empty_caption", repr(caption[:80]))
    return text


def refuse_cjk(caption: str) -> None:
    """Raises SampleRefused for a caption with Chinese, Japanese or Korean characters."""
    if _CJK.search(caption):
        raise SampleRefused("cjk_caption", repr(caption[:80]))


def first_sentence(text: str) -> str:
    """Up to the first `.`, `!` or `?` that ends a sentence: followed by a blank and no small letter, and not part of
    an abbreviation ("e.g. Berlin", "J. S. Bach") or a number ("3.5")."""
    for match in _SENTENCE_END.finditer(text):
        if not _NO_SENTENCE_END.search(text[: match.start() + 1]):
            return text[: match.end()]
    return text


def strip_opening(text: str) -> str:
    """Without a phrase of `OPENINGS` at its start, and with a capital letter again."""
    if not text.startswith(OPENINGS):
        return text
    for opening in OPENINGS:
        if text.startswith(opening):
            rest = text[len(opening) :]
            return rest[:1].upper() + rest[1:]
    return text


def load_prompts(name: str) -> tuple[str, ...]:
    """The prompts that ask for a caption: `short`, `long`, `sentence`, those of a JSON file with a list of strings, or one of
    several words that is given itself.

    Raises:
        ConfigError: a file that is not such a list.
    """
    if name in PROMPTS:
        return _packaged(f"{name}_caption.json")
    if " " in name.strip() and not name.endswith(".json"):
        return (name,)
    return _read_list(name, "caption_prompts", ", ".join(PROMPTS))


def _read_list(name: str, key: str, others: str) -> tuple[str, ...]:
    try:
        entries = json.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key} '{name}' is neither {others} nor a readable JSON file: {error}") from error
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, str) and entry for entry in entries):
        raise ConfigError(f"{key} '{name}' must hold a list of texts")
    return tuple(entries)


def load_class_templates(name: str) -> tuple[str, ...]:
    """Sentences about a class, each with one `{}` for its name: `photo`, or those of a JSON file with a list.

    Raises:
        ConfigError: a file that is not such a list.
    """
    templates = _packaged("photo_class.json") if name == "photo" else _read_list(name, "class_templates", "photo")
    wrong = next((template for template in templates if template.count("{}") != 1), None)
    if wrong is not None:
        raise ConfigError(f"class_templates '{name}': {wrong!r} has not one {{}} for the name of the class")
    return templates


def class_sentence(template: str, name: str) -> str:
    """A template with the name of a class in the place of its `{}`; `a {}` becomes `an {}` before a vowel."""
    if name[:1].lower() in {*"aeiou"}:
        template = _ARTICLE.sub(r"\1n {}", template)
    return template.replace("{}", name)


def validation_prompts() -> tuple[str, ...]:
    """The prompts that validation images are drawn from where a config names no file."""
    text = resources.files("unigen.data").joinpath("prompts/validation.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line)


@lru_cache(maxsize=4)
def _packaged(name: str) -> tuple[str, ...]:
    return tuple(json.loads(resources.files("unigen.data").joinpath(f"prompts/{name}").read_text(encoding="utf-8")))


def _name_persons(text: str, generator: np.random.Generator) -> str:
    def word(match: re.Match[str]) -> str:
        chosen = PERSON_WORDS[int(generator.integers(len(PERSON_WORDS)))]
        return chosen[:1].upper() + chosen[1:] if match.start() == 0 else chosen

    return _PERSON.sub(word, text)
