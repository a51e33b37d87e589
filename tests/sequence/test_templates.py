# SPDX-License-Identifier: Apache-2.0
"""UniGen's rows, written out: what stands where, what is supervised, what is cut when a row is too long."""

from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerFast

from unigen.data.shapes.tokenizer import train_tokenizer
from unigen.sequence.layout import IGNORED, Document, Kind, Segment, Supervision, Visibility, lay_out
from unigen.sequence.templates.unigen import RowTooLongError, UnigenTemplate
from unigen.sequence.vocabulary import Vocabulary

NUM_CODES = 4
CODES, FEATURES = "[codes]", "[features]"
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
LONG = "a red circle left of a blue square " * 20


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(452)


@pytest.fixture
def template(tokenizer: PreTrainedTokenizerFast) -> UnigenTemplate:
    return UnigenTemplate(tokenizer, Vocabulary.from_tokenizer(tokenizer, 64), NUM_CODES, row_length=200)


def _written(template: UnigenTemplate, segments: tuple[Segment, ...]) -> str:
    marks = {Kind.CODES: CODES, Kind.FEATURES: FEATURES}
    return "".join(marks.get(one.kind) or template.tokenizer.decode(one.token_ids) for one in segments)


def _supervised(template: UnigenTemplate, segments: tuple[Segment, ...]) -> str:
    """The tokens that are predicted, as text."""
    row = lay_out([Document(0, segments)], sum(one.length for one in segments))
    return template.tokenizer.decode([target for target in row.targets_L.tolist() if target != IGNORED])


def _length(segments: tuple[Segment, ...]) -> int:
    return sum(one.length for one in segments)


def test_a_drawing_row(template: UnigenTemplate) -> None:
    row = template.draw("a red circle", supervised=True)
    head = "<|im_start|><|t2i|>user\na red circle<|im_end|>\n<|im_start|>assistant\n"
    assert _written(template, row) == f"{head}<|soi|>{CODES}<|eoi|>"
    assert [one.visibility for one in row] == [Visibility.CAUSAL, *[Visibility.BLOCK] * 3]
    assert [one.supervision for one in row].count(Supervision.MASKED) == 1
    assert _supervised(template, row) == ""


def test_a_dropped_prompt_keeps_the_template(template: UnigenTemplate) -> None:
    row = template.draw("", supervised=True)
    expected = f"<|im_start|><|t2i|>user\n<|im_end|>\n<|im_start|>assistant\n<|soi|>{CODES}<|eoi|>"
    assert _written(template, row) == expected


def test_a_drawing_row_to_sample_from_supervises_nothing(template: UnigenTemplate) -> None:
    row = template.draw("a red circle", supervised=False)
    assert {one.supervision for one in row} == {Supervision.NONE}


@pytest.mark.parametrize("row_length", [60, 80, 120])
def test_a_caption_that_is_too_long_loses_its_end_and_keeps_the_assistants_header(
    row_length: int, template: UnigenTemplate
) -> None:
    template = replace(template, row_length=row_length)
    row = template.draw(LONG, supervised=True)
    assert _length(row) == row_length
    text = _written(template, row)
    assert text.startswith("<|im_start|><|t2i|>user\na red")
    assert text.endswith(f"<|im_end|>\n<|im_start|>assistant\n<|soi|>{CODES}<|eoi|>")


def test_a_prompt_to_draw_is_whole_and_says_what_a_row_has_no_room_for(template: UnigenTemplate) -> None:
    short = replace(template, row_length=80)
    ids = short.draw_prompt(LONG)
    assert short.tokenizer.decode(ids) == f"<|im_start|><|t2i|>user\n{LONG}<|im_end|>\n<|im_start|>assistant\n"
    assert short.num_beyond_row(LONG) == len(ids) + short.num_image_codes + 2 - 80 > 0
    assert short.num_beyond_row("a red circle") == 0


def test_the_task_token_may_come_first(template: UnigenTemplate) -> None:
    first = replace(template, task_token_first=True)
    assert _written(first, first.draw("", supervised=True)).startswith("<|t2i|><|im_start|>user\n")
    assert _written(first, first.read_codes([("", "a")])).startswith("<|mmu|><|im_start|><|soi|>")


def test_a_reading_row_over_codes_supervises_all_text_after_the_image(template: UnigenTemplate) -> None:
    row = template.read_codes([("What is it?", "A circle.")])
    words = "What is it?<|im_end|>\n<|im_start|>assistant\n A circle.<|im_end|>"
    assert _written(template, row) == f"<|im_start|><|mmu|><|soi|>{CODES}<|eoi|>{words}"
    assert _supervised(template, row) == words
    assert [one.visibility for one in row] == [*[Visibility.OPEN] * 4, Visibility.CAUSAL]


def test_several_images_stand_one_after_another_after_one_task_token(template: UnigenTemplate) -> None:
    codes = template.read_codes([("Which?", "Both.")], num_images=2)
    image = f"<|soi|>{CODES}<|eoi|>"
    assert _written(template, codes).startswith(f"<|im_start|><|mmu|>{image}{image}Which?")
    features = template.read_features([("Which?", "Both.")], [3, 5])
    assert _written(template, features).count(f"<|soi|>{FEATURES}<|eoi|>") == 2
    assert [one.length for one in features if one.kind is Kind.FEATURES] == [3, 5]


def test_a_conversation_supervises_the_assistants_turns_with_their_header_and_end(template: UnigenTemplate) -> None:
    row = template.read_features([("What?", "A circle."), ("Which colour?", "Red.")], [3])
    first = "user\nWhat?<|im_end|>\n<|im_start|>assistant\nA circle.<|im_end|>\n"
    second = "<|im_start|>user\nWhich colour?<|im_end|>\n<|im_start|>assistant\nRed.<|im_end|>\n"
    assert _written(template, row) == f"{SYSTEM}<|im_start|><|mmu|><|soi|>{FEATURES}<|eoi|>{first}{second}"
    replies = ("<|im_start|>assistant\nA circle.<|im_end|>\n", "<|im_start|>assistant\nRed.<|im_end|>\n")
    assert _supervised(template, row) == "".join(replies)
    assert [one.visibility for one in row if one.kind is Kind.FEATURES] == [Visibility.OPEN]
    assert {one.visibility for one in row if one.kind is Kind.TEXT} == {Visibility.CAUSAL}


def test_a_conversation_is_the_tokenizers_own_chat_with_an_image_spliced_in(template: UnigenTemplate) -> None:
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": "A circle."},
    ]
    chat = template.tokenizer.apply_chat_template(messages, tokenize=False)
    row = _written(template, template.read_features([("What?", "A circle.")], [3]))
    assert row == chat.replace("<|im_start|>user", f"<|im_start|><|mmu|><|soi|>{FEATURES}<|eoi|>user")


def test_a_conversation_without_images_is_plain_chat(template: UnigenTemplate) -> None:
    row = template.read_features([("What?", "A circle.")], [])
    expected = f"{SYSTEM}<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\nA circle.<|im_end|>\n"
    assert _written(template, row) == expected


def test_running_text_is_supervised_from_its_second_token(template: UnigenTemplate) -> None:
    row = template.plain("a red circle")
    assert _written(template, row) == "<|im_start|>a red circle<|im_end|>"
    assert _supervised(template, row) == "a red circle<|im_end|>"


@pytest.mark.parametrize("row_length", [60, 90])
def test_no_row_is_longer_than_the_row_length(row_length: int, template: UnigenTemplate) -> None:
    short = replace(template, row_length=row_length)
    rows = {
        "draw": short.draw(LONG, supervised=True),
        "codes": short.read_codes([(LONG, LONG)]),
        "features": short.read_features([("What?", LONG)], [5]),
        "plain": short.plain(LONG),
    }
    assert {name: _length(row) for name, row in rows.items()} == dict.fromkeys(rows, row_length)
    assert not _written(short, rows["plain"]).endswith("<|im_end|>")
    cut, whole = (
        _supervised(short, rows["features"]),
        _supervised(template, template.read_features([("What?", LONG)], [5])),
    )
    assert cut
    assert whole.startswith(cut)


def test_images_that_fill_a_row_are_refused_and_never_cut(template: UnigenTemplate) -> None:
    short = replace(template, row_length=60)
    with pytest.raises(RowTooLongError, match="images fill a row of 60"):
        short.read_codes([("What?", "A circle.")], num_images=12)
    with pytest.raises(RowTooLongError, match="images fill a row of 60"):
        short.read_features([("What?", "A circle.")], [8, 50])
    with pytest.raises(RowTooLongError, match="no room for a caption"):
        replace(template, row_length=NUM_CODES + 6).draw("a red circle", supervised=True)


def test_a_question_ends_where_the_assistant_begins(template: UnigenTemplate) -> None:
    """The model writes the line break itself over features; over codes it is trained to write a space after it."""
    turns = [("What?", "A circle.")]
    for asked in (
        template.question_over_codes(turns, "Which colour?", 1),
        template.question_over_features(turns, "Which colour?", [3]),
    ):
        text = _written(template, asked)
        assert text.endswith("Which colour?<|im_end|>\n<|im_start|>assistant")
        assert "A circle." in text
        assert _supervised(template, asked) == ""


@pytest.mark.parametrize("num_turns", [1, 2])
def test_a_question_is_the_beginning_of_the_row_that_was_trained(num_turns: int, template: UnigenTemplate) -> None:
    turns = [("What?", "A circle."), ("Which colour?", "Red.")][:num_turns]
    earlier, (question, _) = turns[:-1], turns[-1]
    trained = _written(template, template.read_codes(turns))
    assert trained.startswith(_written(template, template.question_over_codes(earlier, question, 1)))
    trained = _written(template, template.read_features(turns, [3]))
    assert trained.startswith(_written(template, template.question_over_features(earlier, question, [3])))
