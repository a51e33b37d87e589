# SPDX-License-Identifier: Apache-2.0
"""Questions by rule: a scene in GenEval's schema, taken apart into facts that can be asked for one at a time.

All answers are yes if and only if GenEval's decision over the whole entry is that the image is correct.
"""

from collections.abc import Mapping
from typing import Any

from unigen.errors import DataError

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
VOWELS = "aeiou"

Check = dict[str, Any]


def scene_questions(entry: Mapping[str, Any]) -> list[tuple[str, Check]]:
    """(question, what it checks) for each fact of an entry: what is there, then its number, colour and place.

    Raises:
        DataError: the entry has no `include` of GenEval's schema.
    """
    include = entry.get("include")
    if not isinstance(include, list) or not include or not all(map(_is_item, include)):
        raise DataError(f"{entry.get('prompt')!r} has no scene (`include`) to make questions of; name a judge instead")
    asked: dict[str, Check] = {}
    for item in include:
        for question, check in _of_item(item, include, entry):
            asked.setdefault(question, check)
    for item in entry.get("exclude", ()):
        if not any(item["class"] == wanted["class"] for wanted in include):
            question = f"are there fewer than {_number(item['count'])} {_plural(item['class'])}?"
            asked.setdefault(question, {"tag": entry.get("tag"), "include": [], "exclude": [item]})
    return list(asked.items())


def _of_item(
    item: Mapping[str, Any], include: list[Mapping[str, Any]], entry: Mapping[str, Any]
) -> list[tuple[str, Check]]:
    name, count, color = item["class"], item["count"], item.get("color")
    base = {"tag": entry.get("tag")}
    facts = [(f"is there {_a(name)}?", {**base, "include": [{"class": name, "count": 1}]})]
    excluded = [other for other in entry.get("exclude", ()) if other["class"] == name]
    if count > 1 or excluded:
        check = {**base, "include": [{"class": name, "count": count}], "exclude": excluded}
        how = "are there exactly" if excluded else "are there at least"
        facts.append((f"{how} {_number(count)} {_plural(name) if count != 1 else name}?", check))
    if color is not None:
        check = {**base, "include": [{"class": name, "count": count, "color": color}]}
        thing = _a(f"{color} {name}") if count == 1 else f"{_number(count)} {color} {_plural(name)}"
        facts.append((f"{'is' if count == 1 else 'are'} there {thing}?", check))
    if "position" in item:
        relation, target = item["position"]
        if not 0 <= target < len(include):
            raise DataError(f"{entry.get('prompt')!r}: position {item['position']!r} names no item of `include`")
        pair = [{"class": one["class"], "count": one["count"]} for one in (include[target], item)]
        check = {**base, "include": [pair[0], {**pair[1], "position": [relation, 0]}]}
        facts.append((f"is the {name} {relation} the {pair[0]['class']}?", check))
    return facts


def _is_item(item: Any) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("class"), str) and isinstance(item.get("count"), int)


def _a(words: str) -> str:
    return f"{'an' if words[0].lower() in VOWELS else 'a'} {words}"


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def _plural(name: str) -> str:
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")
