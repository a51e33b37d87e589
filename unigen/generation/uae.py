# SPDX-License-Identifier: Apache-2.0
"""UAE as a pipeline: drawing along a flow from the states of a prompt's tokens, reading by Qwen2.5-VL.

Legend: B images, S steps, V vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from unigen.config.folders import PARTS_FILE, weights_hash
from unigen.data.images import square_pixels
from unigen.generation.autoregressive import TextSettings, choose, token_numbers
from unigen.generation.flow import FlowSettings, Guidance, LatentNoise, draw_latents, guide, is_guided
from unigen.generation.pipeline import AskRequest, DrawRequest, Pipeline, in_batches, settings_of
from unigen.generation.shared_reading import answer_in_batches
from unigen.generation.steps import Decoding
from unigen.models.text_states import PromptStates
from unigen.models.uae import Uae
from unigen.models.uae_checkpoints import load_processor, load_uae
from unigen.models.uae_config import latent_side
from unigen.objectives.flow_matching import sampling_sigmas
from unigen.sequence.templates.uae import STOP, UaeTemplate

MOST_REMEMBERED = 256
"""Prompts whose states are kept while images are drawn."""


@dataclass(frozen=True)
class CaptionSettings(TextSettings):
    """How text is written, as the release writes it."""

    max_new_tokens: int = 512
    temperature: float = 0.7


@dataclass
class UaePipeline(Pipeline):
    model: Uae
    processor: Any
    name: str = ""
    decoding: Decoding = "auto"
    """How the steps of drawing are run; text is always written eagerly."""
    hashes: dict[str, str] = field(default_factory=dict)
    """Of the weights it was read from."""

    @classmethod
    def load(
        cls, folder: Path, data_root: str | Path, device: torch.device, decoding: Decoding = "auto"
    ) -> UaePipeline:
        model = load_uae(folder, data_root, torch.bfloat16 if device.type == "cuda" else torch.float32)
        torch.nn.Module.to(model, device)
        if (folder / "config.json").is_file():
            processor, hashes = load_processor(folder), {"model": weights_hash(folder)}
        else:
            from unigen.models.uae_release import Release

            release = Release.read(folder / PARTS_FILE, data_root)
            processor, hashes = load_processor(release.folders["llm_processor"]), release.hashes()
        return cls(model, processor, str(folder), decoding, hashes)

    @property
    def template(self) -> UaeTemplate:
        config = self.model.config
        return UaeTemplate(self.processor.tokenizer, config.draw_role, config.draw_generation_prompt)

    @property
    def caption_request(self) -> str:
        return self.model.config.caption_request

    def describe(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "family": self.model.config.model_type,
            "num_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "image_resolution": self.model.config.image_resolution,
            "dtype": str(self.model.llm.dtype),
            "device": str(self.model.device),
            "weights": self.hashes,
        }

    def draw_requests(
        self,
        requests: Iterable[DrawRequest],
        *,
        batch_size: int = 16,
        on_step: Callable[[int], None] = lambda step: None,
        **settings: Any,
    ) -> Iterator[Image.Image]:
        chosen = settings_of("UAE", FlowSettings, settings)
        return self._draw(requests, batch_size, on_step, chosen, self.latent_shape(chosen.resolution))

    def _draw(
        self,
        requests: Iterable[DrawRequest],
        batch_size: int,
        on_step: Callable[[int], None],
        chosen: FlowSettings,
        shape: tuple[int, int, int],
    ) -> Iterator[Image.Image]:
        sigmas_S = sampling_sigmas(chosen.steps, self.model.config.shift)
        states = StatesOfPrompts(self)
        for batch in in_batches(requests, batch_size):
            noise = LatentNoise([one.seed for one in batch], shape, self.model.device)
            guidance = self._guidance([one.prompt for one in batch], states, chosen)
            yield from self.images_of(
                draw_latents(self.model, guidance, noise.draw(), sigmas_S, on_step, self.decoding)
            )

    def ask_requests(self, requests: Iterable[AskRequest], *, batch_size: int = 16, **settings: Any) -> Iterator[str]:
        chosen = settings_of("UAE", CaptionSettings, settings)
        return answer_in_batches(requests, batch_size, lambda batch: self._answers(batch, chosen))

    def reconstruct(self, images: Sequence[Image.Image], *, batch_size: int = 16) -> list[Image.Image]:
        """The images after they went through the image auto-encoder, without a word; see `unigen.generation.redrawing`."""
        found: list[Image.Image] = []
        for batch in in_batches(images, batch_size):
            pixels = [square_pixels(image.convert("RGB"), self.model.config.image_resolution) for image in batch]
            found += self._images(self.model.encode_images(torch.stack(pixels).to(self.model.device)))
        return found

    def states_of(self, prompts: Sequence[str]) -> list[PromptStates]:
        """Projected states of prompts to be drawn, or of nulls."""
        ids = [self.template.draw_prompt(prompt) for prompt in prompts]
        with torch.no_grad():
            return self.model.prompt_states(ids, self.processor.tokenizer.pad_token_id)

    def latent_shape(self, resolution: int | None = None) -> tuple[int, int, int]:
        """Channels and sides of what is drawn, at the model's own resolution where none is given."""
        side = latent_side(self.model.config, resolution or self.model.config.image_resolution)
        return self.model.latent_channels, side, side

    def images_of(self, latents_BChw: Tensor) -> Iterator[Image.Image]:
        """Images of scaled latents, one by one: convolutions round differently in batches of other sizes, and an image at once
        takes enough memory."""
        for latents_1Chw in latents_BChw.split(1):
            yield from self._images(latents_1Chw)

    def _guidance(self, prompts: list[str], states: StatesOfPrompts, chosen: FlowSettings) -> Guidance:
        found = states.find(prompts)
        nulls = self.nulls_of(found, states, chosen) if is_guided(chosen.guidance_scale) else []
        return guide(found, nulls, chosen.guidance_scale, is_masked=self.model.config.decoder_text_mask)

    def nulls_of(
        self, found: Sequence[PromptStates], states: StatesOfPrompts, chosen: FlowSettings
    ) -> list[PromptStates]:
        """What guidance leads each image away from: a negative prompt that is asked for, or what the model has."""
        config = self.model.config
        if chosen.negative_prompt is None and config.cfg_null == "zeros":
            return [one.blank() for one in found]
        own = config.negative_prompt if config.cfg_null == "negative_prompt" else ""
        return states.find([own if chosen.negative_prompt is None else chosen.negative_prompt]) * len(found)

    @torch.no_grad()
    def _images(self, latents_B: Tensor) -> list[Image.Image]:
        from diffusers.image_processor import VaeImageProcessor

        pixels = self.model.decode_latents(latents_B).float()
        found: list[Image.Image] = VaeImageProcessor().postprocess(pixels, output_type="pil")
        return found

    @torch.no_grad()
    def _answers(self, batch: list[AskRequest], chosen: CaptionSettings) -> list[str]:
        template, tokenizer = self.template, self.processor.tokenizer
        words = [template.question(one.history, one.question, len(one.images), one.answer_start) for one in batch]
        images = [image.convert("RGB") for one in batch for image in one.images]
        inputs = self.processor(
            text=words, images=images or None, padding=True, padding_side="left", return_tensors="pt"
        ).to(self.model.device)
        written = self.write(inputs, [one.seed for one in batch], chosen)
        return [answer.strip() for answer in tokenizer.batch_decode(written, skip_special_tokens=True)]

    @torch.no_grad()
    def write(self, inputs: Mapping[str, Tensor], seeds: list[int], settings: CaptionSettings) -> list[list[int]]:
        """Token ids that go on from rows as the processor gives them, padding before them; with the mark of the end of each, if
        it came to one."""
        tokenizer: Any = self.processor.tokenizer
        stop = tokenizer.convert_tokens_to_ids(STOP)
        writer: Any = self.model.llm  # transformers' types do not know their own class
        written_BT = writer.generate(
            **inputs,
            generation_config=GenerationConfig(
                max_new_tokens=settings.max_new_tokens, eos_token_id=stop, pad_token_id=tokenizer.pad_token_id
            ),
            logits_processor=LogitsProcessorList([SeededChoice(settings, seeds, len(tokenizer))]),
        )
        rows = written_BT[:, inputs["input_ids"].shape[1] :].tolist()
        return [row[: row.index(stop) + 1] if stop in row else row for row in rows]


class StatesOfPrompts:
    """Projected states of prompts: equal prompts are encoded once, and the last ones are remembered."""

    def __init__(self, pipeline: UaePipeline) -> None:
        self._pipeline = pipeline
        self._known: OrderedDict[str, PromptStates] = OrderedDict()

    def find(self, prompts: Sequence[str]) -> list[PromptStates]:
        """The states of each prompt."""
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        if missing:
            self._known |= zip(missing, self._pipeline.states_of(missing), strict=True)
        found = [self._known[prompt] for prompt in prompts]
        for prompt in prompts:
            self._known.move_to_end(prompt)
        while len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
        return found


class SeededChoice(LogitsProcessor):
    """Chooses each row's next token by numbers of the row's own seed, and leaves `generate` nothing else to take."""

    def __init__(self, settings: TextSettings, seeds: list[int], text_size: int) -> None:
        """
        Args:
            text_size: only ids below it are written.
        """
        self._settings, self._text_size = settings, text_size
        self._numbers = iter(token_numbers(seeds, settings))

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        numbers_B1 = next(self._numbers).to(scores.device)
        chosen_B = choose(scores[:, : self._text_size].float(), self._settings, numbers_B1)
        only_BV = torch.full_like(scores, -torch.inf)
        return only_BV.scatter(1, chosen_B[:, None], 0.0)  # type: ignore[return-value]
