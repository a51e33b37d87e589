# SPDX-License-Identifier: Apache-2.0
"""UAE's texts: prompts and questions as messages of a chat, which the model's own chat template puts into words.

A prompt to be drawn is a message of a role of its own; a question is the user's, and its images follow its first message.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from unigen.errors import ConfigError

STOP = "<|im_end|>"
"""Ends a message, and so an answer."""


@dataclass(frozen=True)
class UaeTemplate:
    tokenizer: PreTrainedTokenizerBase
    """With a chat template that takes images."""
    draw_role: str
    draw_generation_prompt: bool

    def draw_prompt(self, caption: str) -> list[int]:
        """Token ids of a prompt, whole."""
        messages: Any = [_message(self.draw_role, caption)]
        words = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=self.draw_generation_prompt
        )
        assert isinstance(words, str)
        return self.tokenizer.encode(words, add_special_tokens=False)

    def question(
        self, history: Sequence[tuple[str, str]], question: str, num_images: int, answer_start: str = ""
    ) -> str:
        """A chat up to where the answer goes on, with one mark for each image."""
        messages: list[dict[str, Any]] = []
        for asked, answered in history:
            messages += [_message("user", asked), _message("assistant", answered)]
        messages.append(_message("user", question))
        messages[0]["content"] += [{"type": "image"}] * num_images
        words = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return f"{words}{answer_start}"

    def dialogue(self, exchanges: Sequence[tuple[str, str]], num_images: int) -> list[tuple[str, bool]]:
        """A whole chat in pieces, each with whether the model writes it: the answers up to the mark of their end.

        Raises:
            ConfigError: a chat template that changes what was said before as the chat goes on.
        """
        pieces: list[tuple[str, bool]] = []
        said = ""
        for number, (question, answer) in enumerate(exchanges):
            asked = self.question(exchanges[:number], question, num_images)
            if not asked.startswith(said):
                raise ConfigError(
                    "the chat template of model.text_tokenizer says earlier turns in other words as a chat goes on, so answers "
                    "cannot be learnt in their places; take that of Qwen2.5-VL"
                )
            pieces += [(asked[len(said) :], False), (f"{answer}{STOP}", True)]
            said = f"{asked}{answer}{STOP}"
        return pieces


def _message(role: str, words: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": words}]}
