# SPDX-License-Identifier: Apache-2.0
"""A UAE as a policy that describes images: it writes captions, and tells how probable each of their tokens is.

Legend: B rows, L positions, T tokens of captions, K image tokens, D width, V vocabulary.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unigen.config.policy import CaptionRolloutConfig
from unigen.generation.pipeline import in_batches
from unigen.generation.uae import STOP, CaptionSettings, UaePipeline
from unigen.objectives.token_policy import token_log_probs
from unigen.training.stages.caption_records import ImageToDescribe, WrittenCaption, caption_rows, join_prompts


class CaptionWriter:
    """Has no weights of its own: what it does is what the model does at the moment."""

    def __init__(self, pipeline: UaePipeline, settings: CaptionRolloutConfig) -> None:
        self._pipeline, self._settings = pipeline, settings
        self._model = pipeline.model
        self._tokenizer = pipeline.processor.tokenizer

    def write(self, images: Sequence[ImageToDescribe], seeds: Sequence[int]) -> list[WrittenCaption]:
        """One caption for each, drawn by the numbers of its seed."""
        chosen = CaptionSettings(self._settings.max_new_tokens, self._settings.temperature)
        written: list[list[int]] = []
        for batch in in_batches(zip(images, seeds, strict=True), self._settings.batch_size):
            prompts = join_prompts([image.inputs for image, _ in batch], self._tokenizer.pad_token_id)
            inputs = {name: value.to(self._model.device) for name, value in prompts.items()}
            written += self._pipeline.write(inputs, [seed for _, seed in batch], chosen)
        return self.see(images, written)

    def see(self, images: Sequence[ImageToDescribe], token_ids: Sequence[Sequence[int]]) -> list[WrittenCaption]:
        """Captions with what the vision tower makes of their images, each of which goes through it once."""
        distinct = list({id(image): image for image in images}.values())
        features: dict[int, Tensor] = {}
        for batch in in_batches(distinct, self._settings.batch_size):
            pixels, grids = (
                torch.cat([image.inputs[name] for image in batch]).to(self._model.device)
                for name in ("pixel_values", "image_grid_thw")
            )
            found = self._model.image_features(pixels, grids)
            features |= {id(image): features_KD for image, features_KD in zip(batch, found, strict=True)}
        return [
            WrittenCaption(image.inputs, features[id(image)], tuple(tokens))
            for image, tokens in zip(images, token_ids, strict=True)
        ]

    def words(self, captions: Sequence[WrittenCaption]) -> list[str]:
        """What a caption says; it may be nothing."""
        found = self._tokenizer.batch_decode([one.token_ids for one in captions], skip_special_tokens=True)
        return [one.strip() for one in found]

    def is_finished(self, caption: WrittenCaption) -> bool:
        """Whether it came to an end before its longest."""
        return caption.token_ids[-1] == self._tokenizer.convert_tokens_to_ids(STOP)

    def rows(self, captions: Sequence[WrittenCaption]) -> dict[str, Tensor]:
        """See `caption_rows`."""
        return caption_rows(captions, self._tokenizer.pad_token_id, self._model.llm.model.get_rope_index)

    def token_log_probs(self, rows: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of all tokens of captions (T) under the temperature that they are drawn with, with the gradient of the language model,
        and the entropies of what they are drawn of.

        Args:
            rows: of `rows`, on the model's device.
        """
        states_BLD = self._model.states_with_features(
            rows["ids_BL"], rows["is_text_BL"], rows["is_image_BL"], rows["features_KD"], rows["positions_B3L"]
        )
        states_TD = states_BLD.flatten(0, 1)[rows["places_T"]]
        head_VD = self._model.llm.lm_head.weight[: len(self._tokenizer)]  # of all that may be written
        return token_log_probs(states_TD, head_VD, rows["targets_T"], self._settings.temperature)
