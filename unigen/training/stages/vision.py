# SPDX-License-Identifier: Apache-2.0
"""Training of a SigLIP on images and their captions (arXiv 2303.15343), whose vision half later reads for a language model, or
judges how alike two images are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, SiglipModel, SiglipTextConfig, SiglipVisionConfig

from unigen.config.schema import Config
from unigen.data.batch import Batch, Sample, collate
from unigen.data.draws import Draws
from unigen.data.preparation import CaptionedImagePreparer, blank_image
from unigen.data.sample import RawSample
from unigen.models.vision import VisionInput, VisionTower
from unigen.models.weights import read_weights
from unigen.training.stages.contrast import CaptionWords, matching_losses, softmax_losses
from unigen.training.stages.stage import Stage, are_counted, in_chunks


class VisionStage(Stage):
    """Every image against every caption of a forward pass, over all ranks."""

    model: SiglipModel

    def __init__(self, config: Config, model: SiglipModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.model = model
        self._config = config
        self._tokenizer = tokenizer
        model.logit_bias.requires_grad_(config.vision_stage.loss == "sigmoid")  # which moves no softmax
        text_config, vision_config = model.config.text_config, model.config.vision_config
        assert isinstance(text_config, SiglipTextConfig)
        assert isinstance(vision_config, SiglipVisionConfig)
        self._words = CaptionWords(tokenizer, text_config.max_position_embeddings)
        self._image_side = VisionTower(vision_config).image_size
        self._preprocess = VisionTower(vision_config).preprocess

    @property
    def prepare(self) -> Callable[[RawSample, Draws], Sample]:
        return CaptionedImagePreparer(self._preprocess)

    def batches(self, samples: Sequence[Sample]) -> Iterator[Batch]:
        for chunk in in_chunks(samples, self._config.training.rows_per_micro_batch):
            yield collate([chunk])

    def counts(self, samples: Sequence[Sample]) -> dict[str, int]:
        return {"images": len(samples)}

    def empty_batch(self) -> Batch:
        blank = CaptionedImagePreparer(self._preprocess)(
            RawSample("", "t2i", (blank_image(self._image_side),)), Draws(0, "", 0)
        )
        return collate([[blank]])

    def forward(self, batch: Batch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        images = VisionInput.stack([one for one in batch.feature_images if isinstance(one, VisionInput)])
        device = self.model.logit_scale.device
        image_BD = self.model.vision_model(images.to(device).pixel_values).pooler_output
        text_BD = self.model.text_model(input_ids=self._words(batch.captions).to(device)).pooler_output
        losses_B = self._losses(image_BD, text_BD, batch)
        losses_B = losses_B * are_counted(batch).to(device)
        return losses_B.sum() * scales.get("images", 0.0), {"images": losses_B.detach().sum()}

    def _losses(self, image_BD: Tensor, text_BD: Tensor, batch: Batch) -> Tensor:
        if self._config.vision_stage.loss == "softmax":
            return softmax_losses(image_BD, text_BD, batch, self.model.logit_scale)
        return matching_losses(image_BD, text_BD, batch, self.model.logit_scale, self.model.logit_bias)

    def directly_read_parameters(self) -> Sequence[nn.Parameter]:
        return (self.model.logit_scale, self.model.logit_bias)

    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        self.model.save_pretrained(folder, state_dict=state)
        self._tokenizer.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        self.model.load_state_dict(read_weights(folder))  # in place: the optimizer holds these very parameters
