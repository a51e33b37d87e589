# SPDX-License-Identifier: Apache-2.0
"""The loss of a chat about images, by Qwen2.5-VL's own processor and its own forward pass, one chat at a time.

Legend: L tokens, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def chat_loss(
    model: Any, processor: Any, exchanges: Sequence[tuple[str, str]], images: Sequence[Image.Image]
) -> Tensor:
    """Sum of -log p of all tokens of the answers and of the marks that end them.

    Args:
        model: a Uae.
    """
    messages: list[dict[str, Any]] = []
    for question, answer in exchanges:
        for role, words in (("user", question), ("assistant", answer)):
            messages.append({"role": role, "content": [{"type": "text", "text": words}]})
    messages[0]["content"] += [{"type": "image"}] * len(images)
    words = processor.apply_chat_template(messages, tokenize=False)
    inputs = processor(text=[words], images=list(images) or None, return_tensors="pt")
    logits_LV = model.llm(**inputs, use_cache=False).logits[0]
    ids_L = inputs["input_ids"][0].tolist()
    start, end = processor.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    head = processor.tokenizer.encode("assistant\n", add_special_tokens=False)
    total, is_answer = logits_LV.new_zeros(()), False
    for place in range(1, len(ids_L)):
        if is_answer:
            total = total + F.cross_entropy(logits_LV[place - 1], inputs["input_ids"][0, place])
        is_answer = (is_answer and ids_L[place] != end) or ids_L[place - len(head) : place + 1] == [start, *head]
    return total
