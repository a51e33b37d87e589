# SPDX-License-Identifier: Apache-2.0
"""The vocabulary: ids equal to those of released checkpoints, on a stand-in with the size of Qwen2.5's tokenizer."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from unigen.data.shapes.tokenizer import train_tokenizer
from unigen.sequence.vocabulary import TASK_TOKENS, Vocabulary

QWEN_WORDS = 151_643
QWEN_ADDED = 22


@pytest.fixture(scope="module")
def qwen_like() -> PreTrainedTokenizerFast:
    """151,643 words and the 22 tokens that Qwen2.5 adds, the first three under their own names."""
    words = {f"w{number}": number for number in range(QWEN_WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    added = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|added_{n}|>" for n in range(QWEN_ADDED - 3))]
    tokenizer.add_special_tokens(added)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>")


def test_the_ids_are_those_of_released_checkpoints(qwen_like: PreTrainedTokenizerFast) -> None:
    assert len(qwen_like) in (151_665, 151_674)
    vocabulary = Vocabulary.from_tokenizer(qwen_like, 8192)
    assert vocabulary.pad_id == 151_643
    assert (vocabulary.message_start, vocabulary.message_end) == (151_644, 151_645)
    assert (vocabulary.start_of_image, vocabulary.end_of_image) == (151_665, 151_666)
    assert (vocabulary.draw_task, vocabulary.read_task) == (151_669, 151_670)
    assert vocabulary.code_offset == 151_674
    assert vocabulary.mask_id == 159_866
    assert vocabulary.size == 159_867


def test_task_tokens_are_added_in_order_as_ordinary_tokens(qwen_like: PreTrainedTokenizerFast) -> None:
    Vocabulary.from_tokenizer(qwen_like, 8192)
    assert qwen_like.convert_tokens_to_ids(list(TASK_TOKENS)) == list(range(151_665, 151_674))
    assert not set(TASK_TOKENS) & set(qwen_like.all_special_tokens)


def test_a_tokenizer_that_has_them_is_left_as_it_is() -> None:
    tokenizer = train_tokenizer(400)
    first = Vocabulary.from_tokenizer(tokenizer, 64)
    assert Vocabulary.from_tokenizer(tokenizer, 64) == first
    assert len(tokenizer) == first.code_offset


def test_task_tokens_in_a_text_become_one_id_each() -> None:
    tokenizer = train_tokenizer(400)
    vocabulary = Vocabulary.from_tokenizer(tokenizer, 64)
    ids = tokenizer.encode("<|t2i|>red<|soi|>", add_special_tokens=False)
    assert ids[0] == vocabulary.draw_task
    assert ids[-1] == vocabulary.start_of_image
    assert vocabulary.size == vocabulary.code_offset + 64 + 1
