# SPDX-License-Identifier: Apache-2.0
"""Yes or no in what a model says: words of their own, in any case, whatever punctuation stands around them."""

import re

_WORD = r"(yes|no)(?![^\W_])"
_LEADING = re.compile(rf"[\W_]*{_WORD}", re.IGNORECASE)
_FIRST = re.compile(rf"(?<![^\W_]){_WORD}", re.IGNORECASE)


def leading_verdict(text: str) -> bool | None:
    """Whether the first word is yes; None where it is neither yes nor no."""
    return _verdict(_LEADING.match(text))


def first_verdict(text: str) -> bool | None:
    """The first yes or no, wherever it stands; None where there is neither."""
    return _verdict(_FIRST.search(text))


def _verdict(found: re.Match[str] | None) -> bool | None:
    return None if found is None else found[1].lower() == "yes"
