# SPDX-License-Identifier: Apache-2.0
"""What a policy that draws is asked for: words, or an image whose words are still to be written; and how those are found."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from unigen.config.policy import CaptionRolloutConfig
from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.images import square
from unigen.data.sample import RawSample
from unigen.generation.pipeline import AskRequest
from unigen.generation.seeds import image_seed
from unigen.generation.uae import UaePipeline
from unigen.sequence.templates.uae import UaeTemplate
from unigen.training.stages.policy import PromptSample


@dataclass(frozen=True)
class WantedImage:
    """What a group of images is drawn for."""

    prompt: str | None
    """Null where the model is to write it itself, of `original`."""
    original: Image.Image | None
    """Square, in the size that is drawn."""
    entry: Mapping[str, Any] | None
    """What the prompt asks for, see `unigen.rewards.Judged`."""


@dataclass(frozen=True)
class WantedImagePreparer:
    """Makes them of records, in the loader's workers."""

    template: UaeTemplate
    resolution: int
    max_text_tokens: int
    prompts: Literal["written", "given"]

    def __call__(self, raw: RawSample, draws: Draws) -> PromptSample:
        original = square(raw.images[0], self.resolution) if raw.images else None
        prompt = raw.text if self.prompts == "given" else None
        if prompt is None and original is None:
            raise SampleRefused("missing_image", "it has no image to write of")
        if prompt is not None and (length := len(self.template.draw_prompt(prompt))) > self.max_text_tokens:
            raise SampleRefused("too_long", f"{length} tokens, more than model.max_text_tokens={self.max_text_tokens}")
        return PromptSample(raw.key, draws.visit, WantedImage(prompt, original, raw.entry))


def prompts_of(
    pipeline: UaePipeline, samples: Collection[PromptSample], seed: int, writing: CaptionRolloutConfig
) -> list[str]:
    """The words of each sample: those that it has, else what the model writes of its image.

    Args:
        seed: of the run; with key and visit of a sample it decides what is written of it.
    """
    requests = [
        AskRequest(
            pipeline.caption_request,
            (sample.content.original,),
            seed=image_seed(seed, f"{sample.key}|{sample.visit}|caption", 0),
        )
        for sample in samples
        if sample.content.prompt is None
    ]
    written = pipeline.ask_requests(
        requests,
        batch_size=writing.batch_size,
        max_new_tokens=writing.max_new_tokens,
        temperature=writing.temperature,
    )
    return [next(written) if sample.content.prompt is None else sample.content.prompt for sample in samples]
