# SPDX-License-Identifier: Apache-2.0
"""What all stages of UniGen share: what stands beside the model, and how it is saved, loaded and drawn from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from unigen.config.folders import portable_path
from unigen.config.schema import Config
from unigen.data.batch import Batch, Sample, collate
from unigen.generation.unigen import UnigenPipeline
from unigen.models.adapters import AdapterBase, load_adapter_weights, save_adapter
from unigen.models.checkpoints import load_unigen, save_unigen
from unigen.models.image_tokenizers.registry import ImageTokenizer
from unigen.models.unigen import UniGen
from unigen.models.vision import VisionTower
from unigen.sequence.layout import Document, text
from unigen.sequence.visibility import BLOCK_LENGTH
from unigen.sequence.vocabulary import Vocabulary
from unigen.training.stages.stage import Stage


@dataclass(frozen=True)
class Origins:
    """Where the parts of a model came from, for its checkpoints to name."""

    image_tokenizer: Path
    vision_tower: Path | None = None
    adapter_base: AdapterBase | None = None
    """What a low-rank adapter changes; None where all weights are trained."""


class UnigenStage(Stage):
    """One objective over a UniGen."""

    model: UniGen

    def __init__(
        self,
        config: Config,
        model: UniGen,
        tokenizer: PreTrainedTokenizerBase,
        image_tokenizer: ImageTokenizer,
        vision_tower: VisionTower | None,
        origins: Origins,
    ) -> None:
        """`model` may be wrapped in a PeftModel, which passes everything through."""
        super().__init__()
        self.model = model
        self._origins = origins
        self._config = config
        self._tokenizer = tokenizer
        self._frozen = (image_tokenizer, vision_tower)  # in a tuple, so that they are no submodules
        self._vocabulary = Vocabulary.from_tokenizer(tokenizer, image_tokenizer.codebook_size)

    @property
    def pipeline(self) -> UnigenPipeline:
        """What draws and reads with the weights of now."""
        return UnigenPipeline(self.model, self._tokenizer, self._vocabulary, self._frozen[0], self._frozen[1])

    def empty_rows(self) -> Batch:
        """Rows in which there is nothing."""
        return collate([[Sample("", Document(0, (text([self._vocabulary.pad_id]),)))]], self._length_multiple)

    @property
    def _length_multiple(self) -> int | None:
        """On CUDA attention goes in blocks, and rows of whole blocks leave none half empty."""
        return BLOCK_LENGTH if self.model.output_embedding_VD.is_cuda else None

    def directly_read_parameters(self) -> Sequence[nn.Parameter]:
        return (self.model.llm.lm_head.weight,)  # by the loss

    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        root, origins, described = self._config.data.root, self._origins, self.model.config
        described.image_tokenizer = portable_path(origins.image_tokenizer, folder, root)
        if origins.vision_tower is not None:
            described.vision_tower = portable_path(origins.vision_tower, folder, root)
        if isinstance(self.model, PeftModel):
            assert origins.adapter_base is not None, "an adapter changes a model that was loaded"
            save_adapter(self.model, self._tokenizer, folder, origins.adapter_base, root, state)
        else:
            save_unigen(self.model, self._tokenizer, folder, state)

    def load(self, folder: Path) -> None:
        if isinstance(self.model, PeftModel):
            load_adapter_weights(self.model, folder)
            return
        loaded = load_unigen(folder, self._config.data.root)
        self.model.load_state_dict(loaded.state_dict())

    def draw_validation(self, prompts: Sequence[str], **settings: Any) -> Iterator[Any]:
        yield from self.pipeline.draw(prompts, seed=self._config.experiment.seed, **settings)
