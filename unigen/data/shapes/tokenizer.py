# SPDX-License-Identifier: Apache-2.0
"""A small text tokenizer for the world of shapes: byte-level BPE with Qwen's special tokens and chat template."""

from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from unigen.data.captions import load_prompts
from unigen.data.shapes.captions import long_caption, short_caption
from unigen.data.shapes.questions import QuestionBook
from unigen.data.shapes.scene import TAGS, Scene, sample_scene
from unigen.sequence.templates.rating import RATING_PROMPTS, think_answer
from unigen.sequence.templates.unigen import SYSTEM_MESSAGE

PAD_TOKEN = "<|endoftext|>"
START_TOKEN = "<|im_start|>"
END_TOKEN = "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_SPECIAL_TOKENS = [PAD_TOKEN, START_TOKEN, END_TOKEN]
_NUM_CORPUS_LINES = 3000


def corpus(seed: int, num_lines: int) -> Iterator[str]:
    """Lines of every kind of text of this world: captions short (worded like prompts) and long, questions, answers, requests,
    ratings."""
    rng = np.random.default_rng([seed, 0])
    book = QuestionBook()
    requests = [*load_prompts("short"), *load_prompts("long")]
    for index in range(num_lines):
        scene = sample_scene(TAGS[index % len(TAGS)], rng)
        request = requests[index % len(requests)]
        captions = [short_caption(scene, rng), long_caption(scene, rng)]
        yield "\n".join([*captions, _chat(scene, book, rng), request, _rating(scene)])


def train_tokenizer(vocab_size: int = 640) -> PreTrainedTokenizerFast:
    """Train the tokenizer on this world's texts; always the same for the same `vocab_size`.

    Any text encodes and decodes without loss. `vocab_size` is an upper limit: this world may not need so many words.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(_SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(0, _NUM_CORPUS_LINES), trainer)
    tokenizer.add_special_tokens(_SPECIAL_TOKENS)  # before wrapping: the wrapper would number them differently
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        eos_token=END_TOKEN,
        additional_special_tokens=[START_TOKEN],
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _chat(scene: Scene, book: QuestionBook, rng: np.random.Generator) -> str:
    turns = [f"user\n{asked.question}\nassistant\n{asked.answer}" for asked in book.ask(scene, 2, rng)]
    return "\n".join(["system", SYSTEM_MESSAGE, *turns])


def _rating(scene: Scene) -> str:
    questions = [f"is there a {thing.color} {thing.shape}?" for thing in scene.objects]
    answers = [index % 2 == 0 for index in range(len(questions))]
    return f"{RATING_PROMPTS['think'].format(context='')}\n{think_answer(questions, answers)}"
