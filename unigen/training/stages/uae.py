# SPDX-License-Identifier: Apache-2.0
"""What all stages of UAE share: which weights are trained, how they are saved, loaded and drawn from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import PeftModel
from torch import Tensor, nn

from unigen.config.schema import Config
from unigen.data.batch import Drawing
from unigen.data.uae_preparation import DrawingPreparer
from unigen.generation.uae import UaePipeline
from unigen.models.adapters import AdapterBase, load_adapter_weights
from unigen.models.precision import round_frozen
from unigen.models.text_states import PromptStates, TextStates, join_states
from unigen.models.uae import Uae
from unigen.models.uae_adapters import Side
from unigen.models.uae_checkpoints import load_uae, save_uae, save_uae_adapter
from unigen.sequence.templates.uae import UaeTemplate
from unigen.training.stages.stage import Stage

VAE = "vae."
"""What the names of the image auto-encoder's weights begin with in a checkpoint."""


@dataclass(frozen=True)
class UaeStart:
    """What a run starts from."""

    model: Uae | PeftModel
    """On the CPU. A PeftModel passes everything through."""
    processor: Any
    """Tokenizer, chat template and image processor."""
    adapter_base: AdapterBase | None = None
    """What a low-rank adapter changes; None where whole weights are trained."""


class UaeStage(Stage):
    """One objective over a UAE. The image auto-encoder is held apart from the module: it is neither wrapped, nor sharded, nor
    changed, and is saved with the whole model as it came."""

    model: Uae
    adapted_side: ClassVar[Side]
    """The side that `training.lora` adapts, where it does not say."""
    trained_parts: ClassVar[tuple[str, ...]]
    """What the names of the trained weights begin with, where there is no adapter; the rest is frozen."""
    can_round_frozen: ClassVar[bool] = False
    """Whether what is frozen beside an adapter is kept in bfloat16. Not where backends may shard it, which want one precision."""

    def __init__(self, config: Config, start: UaeStart, device: torch.device) -> None:
        super().__init__()
        self.model = start.model  # type: ignore[assignment]  # see UaeStart
        self._config = config
        self._processor = start.processor
        self._adapter_base = start.adapter_base
        self._vae = (nn.Module.to(self.uae.hold_vae_apart(), device).eval(),)  # in a tuple, so that it is no submodule
        if start.adapter_base is None:
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name.startswith(self.parts_to_train(config)))
        if self.rounds_frozen(config):
            round_frozen(self.model)

    @classmethod
    def rounds_frozen(cls, config: Config) -> bool:
        """Whether what is frozen is rounded to the precision of the run. With whole weights it is saved, and stays as it is."""
        return cls.can_round_frozen and config.training.lora is not None and config.training.precision == "bfloat16"

    @classmethod
    def parts_to_train(cls, config: Config) -> tuple[str, ...]:
        """`trained_parts`, as the configuration has them."""
        return cls.trained_parts

    @classmethod
    def parts_beside_adapter(cls, config: Config) -> tuple[str, ...]:
        """Parts of the model that are trained as they are beside an adapter, and saved with it."""
        return ()

    @property
    def uae(self) -> Uae:
        """The model itself; with its adapter's layers in it, if it has one."""
        found: Any = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        assert isinstance(found, Uae)
        return found

    @property
    def template(self) -> UaeTemplate:
        config = self.uae.config
        return UaeTemplate(self._processor.tokenizer, config.draw_role, config.draw_generation_prompt)

    @property
    def pipeline(self) -> UaePipeline:
        """What draws and writes with the weights of now."""
        return UaePipeline(self.uae, self._processor)

    @property
    def null_prompt(self) -> str | None:
        """The words that guidance leads away from; None where zeros stand for them."""
        config = self.uae.config
        return {"negative_prompt": config.negative_prompt, "empty_prompt": "", "zeros": None}[config.cfg_null]

    def drawing_preparer(self, prompt_drop_prob: float = 0.0) -> DrawingPreparer:
        """Makes images of a run and the words to draw them from, in the loader's workers."""
        wanted = self._config.model
        return DrawingPreparer(
            self.template, wanted.image_resolution, wanted.max_text_tokens, self.null_prompt, prompt_drop_prob
        )

    def prompt_states(self, drawings: Sequence[Drawing]) -> list[PromptStates]:
        """States of the words of images, with the gradient of what is trained."""
        ids = [one.prompt_ids.tolist() for one in drawings]
        found = self.uae.prompt_states(ids, self._processor.tokenizer.pad_token_id)
        return [one.blank() if drawing.is_blank else one for drawing, one in zip(drawings, found, strict=True)]

    def texts(self, drawings: Sequence[Drawing]) -> TextStates:
        """The same as a batch, in which the decoder sees of each image its own words and no padding."""
        states = self.prompt_states(drawings)
        return join_states(states, [one.length for one in states])

    def loss_weights(self) -> Mapping[str, float]:
        return self._config.training.loss_weights

    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        if isinstance(self.model, PeftModel):
            assert self._adapter_base is not None, "an adapter changes a model that was loaded"
            root = self._config.data.root
            save_uae_adapter(self.model, self._processor, folder, self._adapter_base, root, state)
            return
        weights = dict(self.model.state_dict() if state is None else state)
        vae = {f"{VAE}{name}": tensor for name, tensor in self._vae[0].state_dict().items()}
        save_uae(self.model, self._processor, folder, {**weights, **vae})

    def load(self, folder: Path) -> None:
        if isinstance(self.model, PeftModel):
            load_adapter_weights(self.model, folder)
            return
        loaded = load_uae(folder, self._config.data.root).state_dict()
        self.model.load_state_dict({name: tensor for name, tensor in loaded.items() if not name.startswith(VAE)})

    def draw_validation(self, prompts: Sequence[str], **settings: Any) -> Iterator[Any]:
        yield from self.pipeline.draw(prompts, seed=self._config.experiment.seed, **settings)
