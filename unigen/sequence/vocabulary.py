# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of a model that reads and writes text and image codes: text ids, task tokens, codes, mask token."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

TASK_TOKENS = (
    "<|soi|>",
    "<|eoi|>",
    "<|sov|>",
    "<|eov|>",
    "<|t2i|>",
    "<|mmu|>",
    "<|t2v|>",
    "<|v2v|>",
    "<|lvg|>",
)
"""Added to the text tokenizer in this order, as ordinary tokens, so that ids equal those of released checkpoints."""


@dataclass(frozen=True)
class Vocabulary:
    """Ids of everything that is not plain text.

    Layout: [text and task tokens | image codes | mask token], so `size = code_offset + codebook_size + 1`.
    """

    code_offset: int
    """Id of image code 0; also the number of text and task tokens."""
    codebook_size: int
    pad_id: int
    start_of_image: int
    end_of_image: int
    draw_task: int
    read_task: int
    message_start: int
    message_end: int

    @property
    def mask_id(self) -> int:
        return self.code_offset + self.codebook_size

    @property
    def size(self) -> int:
        return self.mask_id + 1

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase, codebook_size: int) -> "Vocabulary":
        """Vocabulary over a text tokenizer; the nine task tokens are added to it where they are missing."""
        tokenizer.add_tokens([token for token in TASK_TOKENS if token not in tokenizer.get_vocab()])

        def token_id(token: str) -> int:
            found = tokenizer.convert_tokens_to_ids(token)
            assert isinstance(found, int)
            return found

        return cls(
            code_offset=len(tokenizer),
            codebook_size=codebook_size,
            pad_id=token_id("<|endoftext|>"),
            start_of_image=token_id("<|soi|>"),
            end_of_image=token_id("<|eoi|>"),
            draw_task=token_id("<|t2i|>"),
            read_task=token_id("<|mmu|>"),
            message_start=token_id("<|im_start|>"),
            message_end=token_id("<|im_end|>"),
        )
