# SPDX-License-Identifier: Apache-2.0
"""UniFork's rows: what each format says, where the image stands, and which positions are supervised."""

import pytest
from transformers import PreTrainedTokenizerBase

from unigen.data.shapes.tokenizer import train_tokenizer
from unigen.sequence.layout import IGNORED, Document, Kind, RowLayout, Segment, Supervision, lay_out
from unigen.sequence.templates.unifork import NULL_PROMPT, SYSTEM_MESSAGE, UniForkTemplate
from unigen.sequence.templates.unigen import RowTooLongError

TOKENIZER = train_tokenizer(400)
START, END, IMAGE = 1000, 1001, 4
MARKS = {START: "<BOI>", END: "<EOI>"}


def template(row_length: int = 500, **formats: str) -> UniForkTemplate:
    return UniForkTemplate(TOKENIZER, START, END, IMAGE, row_length, **formats)  # type: ignore[arg-type]


def written(segments: tuple[Segment, ...], tokenizer: PreTrainedTokenizerBase = TOKENIZER) -> str:
    """The row as text: images as dots, supervised segments in braces."""
    found = ""
    for segment in segments:
        if segment.kind is Kind.CODES:
            shown = "." * segment.length
        elif segment.token_ids[0] in MARKS:
            shown = MARKS[segment.token_ids[0]]
        else:
            shown = tokenizer.decode(list(segment.token_ids))
        found += f"{{{shown}}}" if segment.supervision is Supervision.NEXT_TOKEN else shown
    return found


def row_of(segments: tuple[Segment, ...]) -> RowLayout:
    document = Document(0, segments)
    return lay_out([document], document.length)


@pytest.mark.parametrize(
    ("draw_format", "prompt"),
    [
        ("bare", "a red circle"),
        ("opened", "<|im_start|>a red circle"),
        ("conversation", "<|im_start|>USER: a red circle ASSISTANT: "),
    ],
)
def test_a_drawing_row_is_the_prompt_and_a_supervised_image(draw_format: str, prompt: str) -> None:
    rows = template(draw_format=draw_format)
    assert written(rows.draw("a red circle", supervised=True)) == f"{prompt}<BOI>{{....}}<EOI>"
    assert written(rows.draw("a red circle", supervised=False)) == f"{prompt}<BOI>....<EOI>"
    assert written(rows.draw("", supervised=True)) == f"{NULL_PROMPT}<BOI>{{....}}<EOI>"


def test_the_state_at_the_beginning_of_an_image_predicts_its_first_position_and_all_positions_are_predicted() -> None:
    layout = row_of(template().draw("a red circle", supervised=True))
    (slots,) = layout.code_slots
    assert slots.targets_I.tolist() == (slots.slots_I - 1).tolist()
    assert layout.input_ids_L[slots.targets_I[0]] == START
    assert (layout.targets_L == IGNORED).all()
    assert layout.input_ids_L[-1] == END
    assert (layout.blocks_L == -1).all()
    assert not layout.open_L.any()


def test_a_conversation_supervises_every_answer_with_its_end_and_nothing_else() -> None:
    turns = [("what is it?", "a circle"), ("which colour?", "red")]
    assert written(template().read_codes(turns)) == (
        f"<|im_start|>{SYSTEM_MESSAGE} USER: <BOI>....<EOI>\nwhat is it? ASSISTANT:{{ a circle<|im_end|>}}"
        "USER: which colour? ASSISTANT:{ red<|im_end|>}"
    )
    assert written(template().read_codes(turns[:1], num_images=0)) == (
        f"<|im_start|>{SYSTEM_MESSAGE} USER: what is it? ASSISTANT:{{ a circle<|im_end|>}}"
    )
    layout = row_of(template().read_codes(turns))
    (slots,) = layout.code_slots
    assert (slots.targets_I == IGNORED).all()


def test_the_other_formats_of_reading() -> None:
    turns = [("say what it is.", "a circle"), ("and", "more")]
    assert written(template(read_format="plain").read_codes(turns)) == (
        "<BOI>....<EOI>\nsay what it is.{a circle<|im_end|>}and{more<|im_end|>}"
    )
    assert written(template(read_format="caption").read_codes(turns[:1])) == "<|im_start|><BOI>....<EOI>{a circle}"


def test_a_question_ends_where_the_answer_of_training_begins() -> None:
    rows, turns = template(), [("what is it?", "a circle"), ("which colour?", "red")]
    trained = [token for segment in rows.read_codes(turns) for token in segment.token_ids]
    asked = [token for segment in rows.question(turns[:1], "which colour?") for token in segment.token_ids]
    assert trained[: len(asked)] == asked
    assert TOKENIZER.decode(trained[len(asked) :]) == " red<|im_end|>"


def test_a_row_that_is_too_long_is_refused_with_its_image() -> None:
    with pytest.raises(RowTooLongError, match="longer than 20"):
        template(20).draw("a red circle " * 9, supervised=True)
    with pytest.raises(RowTooLongError, match="longer than 20"):
        template(20).read_codes([("why?", "because " * 20)])


def test_running_text_is_supervised_and_cut() -> None:
    assert written(template().plain("a b c")) == "{a b c<|im_end|>}"
    assert sum(segment.length for segment in template(5).plain("a b c " * 9)) == 5
