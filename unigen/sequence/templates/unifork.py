# SPDX-License-Identifier: Apache-2.0
"""UniFork's rows: how a caption, a conversation about images or plain text becomes segments; all of them are causal.

Rows of drawing, by `draw_format`:
    bare           {caption} <BOI> codes <EOI>
    opened         <|im_start|>{caption} <BOI> codes <EOI>
    conversation   <|im_start|>USER: {caption} ASSISTANT: _ <BOI> codes <EOI>      (_ is a space)
Rows of reading, by `read_format`; what stands in [...] is supervised:
    caption        <|im_start|> <BOI> features <EOI> [{answer}]
    plain          <BOI> features <EOI> \\n{question} [{answer}<|im_end|>] ...
    conversation   <|im_start|>{system} USER:_ <BOI> features <EOI> \\n{question} ASSISTANT: [_{answer}<|im_end|>] USER: ...
<BOI> and <EOI> are ids beyond the vocabulary, which stand for the connector's two vectors. The hidden state at <BOI> predicts
the first position of an image, that of a position the next one; <EOI> is never predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from unigen.sequence.layout import Segment, Supervision, codes, text
from unigen.sequence.templates.unigen import RowTooLongError

DrawFormat = Literal["bare", "opened", "conversation"]
ReadFormat = Literal["caption", "plain", "conversation"]
SYSTEM_MESSAGE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite "
    "answers to the user's questions."
)
"""Of the public Vicuna and LLaVA v1 conversations."""
NULL_PROMPT = "<|im_start|>USER: <|video_pad|>. ASSISTANT: "
"""Stands for no caption, in every format of drawing."""

_AROUND_CAPTION: dict[DrawFormat, tuple[str, str]] = {
    "bare": ("", ""),
    "opened": ("<|im_start|>", ""),
    "conversation": ("<|im_start|>USER: ", " ASSISTANT: "),
}


@dataclass(frozen=True)
class UniForkTemplate:
    """Builds the segments of UniFork's rows, none longer than `row_length`.

    Nothing is cut: a row to be trained on that is too long raises RowTooLongError, and is left out with its image.
    """

    tokenizer: PreTrainedTokenizerBase
    start_of_image: int
    end_of_image: int
    num_image_codes: int
    row_length: int
    draw_format: DrawFormat = "conversation"
    read_format: ReadFormat = "conversation"

    def draw(self, caption: str, *, supervised: bool) -> tuple[Segment, ...]:
        """A drawing row; an empty caption is the null prompt of classifier-free guidance."""
        supervision = Supervision.NEXT_TOKEN if supervised else Supervision.NONE
        return self._whole([text(self.draw_prompt(caption)), *self._image(supervision)])

    def draw_prompt(self, caption: str) -> list[int]:
        """Token ids before the image."""
        before, after = _AROUND_CAPTION[self.draw_format]
        return self._encode(f"{before}{caption}{after}" if caption else NULL_PROMPT)

    def num_beyond_row(self, caption: str) -> int:
        """How many tokens of a caption are more than the rows of training have room for."""
        return max(0, len(self.draw_prompt(caption)) + self.num_image_codes + 2 - self.row_length)

    def caption_positions(self, caption: str) -> list[int]:
        """Where among the ids of its `draw_prompt` those of a caption stand."""
        before, after = _AROUND_CAPTION[self.draw_format]
        first, stop = len(before), len(before) + len(caption)
        encoded = self.tokenizer(f"{before}{caption}{after}", add_special_tokens=False, return_offsets_mapping=True)
        spans = encoded["offset_mapping"]
        return [position for position, (start, end) in enumerate(spans) if start < stop and end > first]

    def running_text(self, content: str) -> list[int]:
        """Token ids of a text that stands alone, behind `<|im_start|>`."""
        return self._encode(f"<|im_start|>{content}")

    def read_codes(self, turns: Sequence[tuple[str, str]], num_images: int = 1) -> tuple[Segment, ...]:
        """A reading row over the image tokenizer's features; the answers are supervised."""
        segments = self._opening(num_images)
        for number, (question, answer) in enumerate(turns):
            asked = self._asked(question, is_first=number == 0, num_images=num_images)
            segments += [text(self._encode(asked)), text(self._answered(answer), supervision=Supervision.NEXT_TOKEN)]
        return self._whole([segment for segment in segments if segment.length])

    def question(
        self, turns: Sequence[tuple[str, str]], question: str, num_images: int = 1, answer_start: str = ""
    ) -> tuple[Segment, ...]:
        """A reading row up to where the model is to answer, or to go on with the beginning of an answer; after earlier turns."""
        segments = self._opening(num_images)
        for number, (asked, answer) in enumerate(turns):
            segments.append(text(self._encode(self._asked(asked, is_first=number == 0, num_images=num_images))))
            segments.append(text(self._answered(answer)))
        asked = self._asked(question, is_first=not turns, num_images=num_images)
        begun = f" {answer_start}" if answer_start and self.read_format == "conversation" else answer_start
        segments += [text(self._encode(asked)), text(self._encode(begun))]
        return tuple(segment for segment in segments if segment.length)

    def plain(self, content: str) -> tuple[Segment, ...]:
        """Running text, all of it supervised; cut without its end token when too long."""
        return (text(self._encode(f"{content}<|im_end|>")[: self.row_length], supervision=Supervision.NEXT_TOKEN),)

    def _opening(self, num_images: int) -> list[Segment]:
        """What stands before the first question: the images, and what the format puts before them."""
        before = {
            "caption": "<|im_start|>",
            "plain": "",
            "conversation": f"<|im_start|>{SYSTEM_MESSAGE} USER: ",
        }
        images = [segment for _ in range(num_images) for segment in self._image(Supervision.NONE)]
        return [text(self._encode(before[self.read_format])), *images]

    def _asked(self, question: str, *, is_first: bool, num_images: int) -> str:
        if self.read_format == "caption":
            return ""
        line = "\n" if is_first and num_images else ""
        if self.read_format == "plain":
            return f"{line}{question}"
        return f"{line if is_first else 'USER: '}{question} ASSISTANT:"

    def _answered(self, answer: str) -> list[int]:
        shapes = {"caption": answer, "plain": f"{answer}<|im_end|>", "conversation": f" {answer}<|im_end|>"}
        return self._encode(shapes[self.read_format])

    def _image(self, supervision: Supervision) -> list[Segment]:
        return [
            text([self.start_of_image]),
            codes(self.num_image_codes, supervision=supervision),
            text([self.end_of_image]),
        ]

    def _whole(self, segments: Sequence[Segment]) -> tuple[Segment, ...]:
        length = sum(segment.length for segment in segments)
        if length > self.row_length:
            raise RowTooLongError(f"a row of {length} tokens is longer than {self.row_length}")
        return tuple(segments)

    def _encode(self, content: str) -> list[int]:
        return self.tokenizer.encode(content, add_special_tokens=False) if content else []
