# SPDX-License-Identifier: Apache-2.0
"""Answers as VQA compares them (Antol et al., arXiv 1505.00468): small letters, numbers as digits, no articles, one spelling of
contractions, hardly any punctuation. Who hands in answers brings them into this form, as the server does with those of people.

The rules and the contractions are those of lmms-eval's `EvalAIAnswerProcessor` (Apache-2.0, from facebookresearch/mmf, BSD).
"""

import re

_PUNCTUATION = ';/[]"{}()=+\\_-><@`!'
_FULL_STOP = re.compile(r"\.(?!\d)")
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's how'd
how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at
shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's
something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas
wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've
why'll why're why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:place] + word[place + 1 :] for place, letter in enumerate(word) if letter == "'"]


_SPELLINGS = {short: word for word in _CONTRACTED.split() for short in _without_one_apostrophe(word)}
_SPELLINGS["somebody'd"] = "somebodyd"  # the other way about, as in the official table


def normalise_answer(text: str) -> str:
    """An answer in the form that is compared."""
    plain = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    words = _without_punctuation(re.sub(r"[\n\t]", " ", plain).strip()).split()
    numbers = (_DIGITS.get(word, word) for word in words)
    return " ".join(_SPELLINGS.get(word, word) for word in numbers if word not in _ARTICLES)


def _without_punctuation(text: str) -> str:
    """A sign that stands beside a blank somewhere is dropped everywhere, any other is a blank; decimal points stay."""
    changed = text
    for sign in _PUNCTUATION:
        stands_free = f"{sign} " in text or f" {sign}" in text
        changed = changed.replace(sign, "" if stands_free else " ")
    return _FULL_STOP.sub("", changed)
