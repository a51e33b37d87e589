# SPDX-License-Identifier: Apache-2.0
"""UniGen's rows: how a caption, a question about images or plain text becomes segments.

Rows (no BOS, nothing after the image of a drawing row):
    draw          <|im_start|><|t2i|>user\\n{caption}<|im_end|>\\n<|im_start|>assistant\\n [<|soi|> codes <|eoi|>]
    read codes    (<|im_start|><|mmu|><|soi|> codes <|eoi|>){question}<|im_end|>\\n<|im_start|>assistant\\n {answer}<|im_end|>
    read features {system}<|im_start|><|mmu|><|soi|>(features)<|eoi|>user\\n{question}<|im_end|>\\n<|im_start|>assistant\\n...
    text          <|im_start|>{text}<|im_end|>
[...] is one open block; (...) is open to all rows of the document.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from unigen.sequence.layout import Kind, Segment, Supervision, Visibility, codes, features, text
from unigen.sequence.vocabulary import Vocabulary

SYSTEM_MESSAGE = "You are a helpful assistant."


class RowTooLongError(ValueError):
    """What cannot be cut leaves no room in a row: its images, or the fixed words around a caption."""


@dataclass(frozen=True)
class UnigenTemplate:
    """Builds the segments of UniGen's rows, none longer than `row_length`.

    Texts to be trained on lose their end where they are too long; what a model has to go on from is whole. Rows to be trained
    on raise RowTooLongError where their images alone fill a row.
    """

    tokenizer: PreTrainedTokenizerBase
    vocabulary: Vocabulary
    num_image_codes: int
    row_length: int
    task_token_first: bool = False

    def draw(self, caption: str, *, supervised: bool) -> tuple[Segment, ...]:
        """A drawing row. A caption that is too long loses its end, never the assistant's header after it."""
        visibility = Visibility.BLOCK
        return (
            text(self._cut_prompt(caption)),
            text([self.vocabulary.start_of_image], visibility=visibility),
            codes(
                self.num_image_codes,
                visibility=visibility,
                supervision=Supervision.MASKED if supervised else Supervision.NONE,
            ),
            text([self.vocabulary.end_of_image], visibility=visibility),
        )

    def draw_prompt(self, caption: str) -> list[int]:
        """Token ids before the image block, with the whole caption, also where `draw` would cut it."""
        head, middle = self._around_caption
        return [*head, *self._encode(caption), *middle]

    def num_beyond_row(self, caption: str) -> int:
        """How many tokens of a caption are more than the rows of training have room for."""
        return max(0, len(self.draw_prompt(caption)) + self.num_image_codes + 2 - self.row_length)

    def read_codes(self, turns: Sequence[tuple[str, str]], num_images: int = 1) -> tuple[Segment, ...]:
        """A reading row over image codes; all text after the images is supervised, the question too."""
        image = self._code_images(num_images)
        words: list[int] = []
        for number, (question, answer) in enumerate(turns):
            opening = "" if number == 0 else "\n<|im_start|>user\n"
            words += self._encode(f"{opening}{question}<|im_end|>\n<|im_start|>assistant\n {answer}<|im_end|>")
        return (*image, text(self._cut(words, image), supervision=Supervision.NEXT_TOKEN))

    def read_features(self, turns: Sequence[tuple[str, str]], num_features: Sequence[int]) -> tuple[Segment, ...]:
        """A conversation about images read as features, one entry of `num_features` an image; assistant turns are supervised."""
        return self._cut_segments(self._dialogue(turns, num_features, Supervision.NEXT_TOKEN))

    def plain(self, content: str) -> tuple[Segment, ...]:
        """Running text, all of it supervised; cut without its end token when too long."""
        ids = [self.vocabulary.message_start, *self._encode(content), self.vocabulary.message_end]
        return (text(ids[: self.row_length], supervision=Supervision.NEXT_TOKEN),)

    def question_over_codes(
        self, turns: Sequence[tuple[str, str]], question: str, num_images: int, answer: str = ""
    ) -> tuple[Segment, ...]:
        """A reading row over codes up to `<|im_start|>assistant`, or up to the end of the beginning of an `answer`; after
        earlier turns of question and answer."""
        words: list[int] = []
        for asked, answered in turns:
            words += self._encode(
                f"{asked}<|im_end|>\n<|im_start|>assistant\n {answered}<|im_end|>\n<|im_start|>user\n"
            )
        words += self._encode(f"{question}<|im_end|>\n<|im_start|>assistant" + (f"\n {answer}" if answer else ""))
        return (*self._code_images(num_images), text(words))

    def question_over_features(
        self, turns: Sequence[tuple[str, str]], question: str, num_features: Sequence[int], answer: str = ""
    ) -> tuple[Segment, ...]:
        """A conversation up to `<|im_start|>assistant` without the line break, which the model writes itself; or up to the
        end of the beginning of an `answer`."""
        segments = self._dialogue(turns, num_features, Supervision.NONE)
        user = self._user_message(question, goes_on=not turns and bool(num_features))
        return (*segments, text([*user, *self._encode("<|im_start|>assistant" + (f"\n{answer}" if answer else ""))]))

    @cached_property
    def _around_caption(self) -> tuple[list[int], list[int]]:
        head = [*self._opening(self.vocabulary.draw_task), *self._encode("user\n")]
        return head, self._encode("<|im_end|>\n<|im_start|>assistant\n")

    def _cut_prompt(self, caption: str) -> list[int]:
        head, middle = self._around_caption
        budget = self.row_length - self.num_image_codes - 2 - len(head) - len(middle)
        if budget < 0:
            raise RowTooLongError(
                f"a row of {self.row_length} tokens has no room for a caption; raise model.max_text_tokens"
            )
        return [*head, *self._encode(caption)[:budget], *middle]

    def _encode(self, content: str) -> list[int]:
        return self.tokenizer.encode(content, add_special_tokens=False)

    def _opening(self, task: int) -> list[int]:
        pair = [self.vocabulary.message_start, task]
        return pair[::-1] if self.task_token_first else pair

    def _code_images(self, num_images: int) -> list[Segment]:
        visibility = Visibility.OPEN
        segments = [text(self._opening(self.vocabulary.read_task), visibility=visibility)]
        for _ in range(num_images):
            segments += [
                text([self.vocabulary.start_of_image], visibility=visibility),
                codes(self.num_image_codes, visibility=visibility),
                text([self.vocabulary.end_of_image], visibility=visibility),
            ]
        return segments

    def _feature_images(self, num_features: Sequence[int]) -> list[Segment]:
        """System message and image blocks; without images, the system message alone."""
        system = self._encode(f"<|im_start|>system\n{SYSTEM_MESSAGE}<|im_end|>\n")
        if not num_features:
            return [text(system)]
        segments = [text([*system, *self._opening(self.vocabulary.read_task)])]
        for count in num_features:
            segments += [
                text([self.vocabulary.start_of_image]),
                features(count, visibility=Visibility.OPEN),
                text([self.vocabulary.end_of_image]),
            ]
        return segments

    def _dialogue(
        self, turns: Sequence[tuple[str, str]], num_features: Sequence[int], supervision: Supervision
    ) -> list[Segment]:
        segments = self._feature_images(num_features)
        for number, (question, answer) in enumerate(turns):
            user = self._user_message(question, goes_on=number == 0 and bool(num_features))
            reply = self._encode(f"<|im_start|>assistant\n{answer}<|im_end|>\n")
            segments += [text(user), text(reply, supervision=supervision)]
        return segments

    def _user_message(self, question: str, *, goes_on: bool) -> list[int]:
        """A user's turn; the first one after images goes on in the message that `<|im_start|><|mmu|>` opened."""
        return self._encode(f"{'' if goes_on else '<|im_start|>'}user\n{question}<|im_end|>\n")

    def _cut(self, words: list[int], before: Sequence[Segment]) -> list[int]:
        left = self.row_length - sum(segment.length for segment in before)
        if left <= 0:
            raise RowTooLongError(f"the images fill a row of {self.row_length} tokens")
        return words[:left]

    def _cut_segments(self, segments: Sequence[Segment]) -> tuple[Segment, ...]:
        kept: list[Segment] = []
        for segment in segments:
            left = self.row_length - sum(other.length for other in kept)
            if segment.length <= left:
                kept.append(segment)
                continue
            if Kind.FEATURES in (other.kind for other in segments[len(kept) :]):
                raise RowTooLongError(f"the images fill a row of {self.row_length} tokens")
            if left > 0:
                kept.append(text(segment.token_ids[:left], supervision=segment.supervision))
            break
        return tuple(kept)
