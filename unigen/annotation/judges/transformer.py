# SPDX-License-Identifier: Apache-2.0
"""A transformers model in this process as a judge: one that reads text, or one that reads images and text.

Legend: B requests, T positions of the padded prompt and what is written.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from unigen.annotation.judges.judge import Reply, Request
from unigen.annotation.judges.pipeline import readable_groups
from unigen.config.folders import find_model, weights_hash
from unigen.errors import CheckpointError

K = TypeVar("K")


class TransformerJudge:
    """Generates replies in batches, padded on the left, by the model's own chat template."""

    def __init__(
        self, model: Any, processor: Any, folder: Path, *, max_tokens: int, temperature: float, batch_size: int
    ) -> None:
        """
        Args:
            processor: a text tokenizer, or a processor with an image processor and a `tokenizer`.
        """
        self._model, self._processor, self._folder = model, processor, folder
        self._max_tokens, self._temperature, self._batch_size = max_tokens, temperature, batch_size
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._reads_images = self._tokenizer is not processor
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    @classmethod
    def load(cls, name: str, data_root: str | Path, device: str, **settings: Any) -> "TransformerJudge":
        """A model of a folder, or of a name under `<data_root>/checkpoints`; in bfloat16 on a GPU.

        Raises:
            CheckpointError: no such model, or one without a chat template.
        """
        from transformers import (
            AutoConfig,
            AutoModelForCausalLM,
            AutoModelForImageTextToText,
            AutoProcessor,
            AutoTokenizer,
        )

        folder = find_model(name, data_root)
        config = AutoConfig.from_pretrained(folder)
        reads_images = hasattr(config, "vision_config")
        kind: Any = AutoModelForImageTextToText if reads_images else AutoModelForCausalLM
        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        processor = (AutoProcessor if reads_images else AutoTokenizer).from_pretrained(folder)
        if not processor.chat_template:
            raise CheckpointError(f"{folder} has no chat template; a judge has to be a chat model")
        model = kind.from_pretrained(folder, dtype=dtype).to(device).eval()
        return cls(model, processor, folder, **settings)

    def identity(self) -> Mapping[str, Any]:
        return {
            "kind": "transformers",
            "weights": weights_hash(self._folder),
            "dtype": str(self._model.dtype),
            "max_tokens": self._max_tokens,
            "temperature": self._temperature,
        }

    def notes(self) -> Mapping[str, Any]:
        return {"judge_model": str(self._folder)}

    def replies(self, requests: Iterable[tuple[K, Request]]) -> Iterator[tuple[K, Reply]]:
        for group, refused in readable_groups(requests, self._batch_size):
            yield from refused
            seen = [(key, request, images) for key, request, images in group if self._reads_images or not images]
            yield from (
                (key, Reply(error=f"{self._folder} does not read images; name a model that does"))
                for key, _, images in group
                if images and not self._reads_images
            )
            texts = self._write([(request.text, images) for _, request, images in seen]) if seen else []
            yield from ((key, Reply(text)) for (key, _, _), text in zip(seen, texts, strict=True))

    @torch.no_grad()
    def _write(self, asked: Sequence[tuple[str, tuple[Any, ...]]]) -> list[str]:
        prompts = [
            self._processor.apply_chat_template(self._message(text, images), tokenize=False, add_generation_prompt=True)
            for text, images in asked
        ]
        images = [image for _, seen in asked for image in seen]
        # The template writes the special tokens; a tokenizer that adds them too would double the first.
        inputs = self._processor(
            text=prompts,
            add_special_tokens=False,
            padding=True,
            return_tensors="pt",
            **({"images": images} if images else {}),
        ).to(self._model.device)
        sampling = (
            {"do_sample": True, "temperature": self._temperature} if self._temperature > 0 else {"do_sample": False}
        )
        written_BT = self._model.generate(
            **inputs, max_new_tokens=self._max_tokens, pad_token_id=self._tokenizer.pad_token_id, **sampling
        )
        start = inputs["input_ids"].shape[1]
        texts: list[str] = self._tokenizer.batch_decode(written_BT[:, start:], skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _message(self, text: str, images: Sequence[Any]) -> list[dict[str, Any]]:
        if not self._reads_images:
            return [{"role": "user", "content": text}]
        parts = [{"type": "image"} for _ in images]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
