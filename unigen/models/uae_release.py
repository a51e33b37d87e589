# SPDX-License-Identifier: Apache-2.0
"""A released UAE: six folders become one model, its two adapters worked in, or one of our checkpoints with adapters over it.

`llm_lora` is no folder of peft: it holds the language model as it is with an adapter around its layers, and what it says of the
layers themselves counts more than `llm`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor

from unigen.config.folders import ADAPTER_WEIGHTS, WEIGHT_FILES, find_model, weights_hash
from unigen.config.load import load_uae_parts
from unigen.config.uae import UaeParts
from unigen.errors import CheckpointError
from unigen.models.adapters import put_adapter_weights
from unigen.models.checkpoints import ADAPTER_CONFIG
from unigen.models.pooled_prompt import pooled_empty_prompt
from unigen.models.uae import Uae
from unigen.models.uae_checkpoints import PROCESSOR_FILES, assemble
from unigen.models.uae_config import SCHEDULER_FILE, uae_config
from unigen.models.uae_names import projector_names, uae_name
from unigen.models.weights import read_weights

_FILES: dict[str, Sequence[str]] = {
    "SD3": (str(SCHEDULER_FILE),),
    "dit": ("config.json",),
    "dit_lora": (ADAPTER_CONFIG,),
    "llm": ("config.json",),
    "llm_lora": (*WEIGHT_FILES, "model-00001-of-00003.safetensors"),
    "llm_processor": PROCESSOR_FILES,
}
"""What tells that a folder is the one that a key means."""
_ADAPTER_PREFIX = "base_model.model."
PROJECTOR_BIAS = "projector.0.bias"


@dataclass(frozen=True)
class Adapter:
    """An adapter over the whole model, in peft's terms."""

    config: LoraConfig
    weights: dict[str, Tensor]
    source: Path

    def on(self, model: Uae) -> PeftModel:
        """The model with this adapter.

        Raises:
            CheckpointError: it does not fit.
        """
        adapted = get_peft_model(model, self.config)
        assert isinstance(adapted, PeftModel)
        put_adapter_weights(adapted, self.weights, self.source, "give the model that it was trained on")
        return adapted


@dataclass(frozen=True)
class Release:
    """The folders of a released model."""

    parts: UaeParts
    folders: dict[str, Path]
    """By key; without those that the file leaves out."""

    @classmethod
    def read(cls, file: Path, data_root: str | Path | None = None) -> Release:
        """
        Args:
            file: its `model.yaml`.
        Raises:
            ConfigError: a file that cannot be read, or with unknown keys.
            CheckpointError: a folder that is not there.
        """
        parts, folders = load_uae_parts(file), {}
        for key, files in _FILES.items():
            name = getattr(parts, key)
            if name is None:
                continue
            try:
                folders[key] = find_model(name, data_root, near=file.parent, files=files)
            except CheckpointError as error:
                raise CheckpointError(f"{file}: {key}: {error}") from error
        return cls(parts, folders)

    @property
    def decoder(self) -> Path:
        return self.folders.get("dit", self.folders["SD3"] / "transformer")

    def hashes(self) -> dict[str, str]:
        """Of the weights of every part."""
        folders = {key: folder for key, folder in self.folders.items() if key not in ("SD3", "llm_processor")}
        folders |= {"dit": self.decoder}
        folders |= {part: self.folders["SD3"] / part for part in ("vae", "text_encoder", "text_encoder_2")}
        return {key: weights_hash(folder) for key, folder in folders.items()}

    def load_base(self, dtype: torch.dtype = torch.float32) -> Uae:
        """Everything but the adapters.

        Raises:
            CheckpointError: weights that do not fit.
        """
        weights = self._language_weights()
        if PROJECTOR_BIAS not in weights:
            raise CheckpointError(f"{self.folders['llm']} has no projector; llm has to be the language model of a UAE")
        llm, diffusion = self.folders["llm"], self.folders["SD3"]
        width = weights[PROJECTOR_BIAS].shape[0]
        config = uae_config(llm, diffusion, decoder=self.decoder, projector_width=width, settings=self.parts)
        weights |= {f"decoder.{name}": tensor for name, tensor in read_weights(self.decoder).items()}
        weights |= {f"vae.{name}": tensor for name, tensor in read_weights(diffusion / "vae").items()}
        weights["pooled_embedding"] = pooled_empty_prompt(diffusion)
        return assemble(config, weights, self.folders["llm"], dtype)

    def adapters(self) -> Iterator[tuple[str, Adapter]]:
        """By key, in the order in which they were trained."""
        if "llm_lora" in self.folders:
            yield "llm_lora", self._language_adapter()
        if "dit_lora" in self.folders:
            yield "dit_lora", _decoder_adapter(self.folders["dit_lora"])

    def _language_weights(self) -> dict[str, Tensor]:
        """Of language model and projector; those of `llm_lora` in the place of those of `llm`."""
        weights = renamed(read_weights(self.folders["llm"]))
        if "llm_lora" in self.folders:
            weights |= renamed(read_weights(self.folders["llm_lora"], lambda name: ".lora_" not in name))
        return weights

    def _language_adapter(self) -> Adapter:
        folder = self.folders["llm_lora"]
        found = renamed(read_weights(folder, lambda name: ".lora_" in name))
        ranks = {tensor.shape[0] for name, tensor in found.items() if name.endswith(".lora_A.weight")}
        if len(ranks) != 1:
            raise CheckpointError(f"{folder} holds adapters of the ranks {sorted(ranks)}; one rank is expected")
        config = LoraConfig(
            r=ranks.pop(),
            lora_alpha=self.parts.llm_lora_alpha,
            target_modules=_adapted_modules(found),
            lora_dropout=0.0,
        )
        return Adapter(config, {f"{_ADAPTER_PREFIX}{name}": tensor for name, tensor in found.items()}, folder)


def load_released(file: Path, data_root: str | Path | None = None, dtype: torch.dtype = torch.float32) -> Uae:
    """The model of a `model.yaml`, with its adapters worked into its weights.

    Raises:
        ConfigError: a file that cannot be read, or with unknown keys.
        CheckpointError: a part that is missing or does not fit.
    """
    release = Release.read(file, data_root)
    model = release.load_base(dtype)
    for _, adapter in release.adapters():
        merged = adapter.on(model).merge_and_unload()
        assert isinstance(merged, Uae)
        model = merged
    return model.eval()


def _decoder_adapter(folder: Path) -> Adapter:
    """A folder of peft over the decoder alone, as an adapter over the whole model."""
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise CheckpointError(f"{folder} has no {ADAPTER_WEIGHTS}; an adapter is read from safetensors alone")
    config = LoraConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        raise CheckpointError(f"{folder} holds an adapter of the kind {config.peft_type}; only LoRA is supported")
    named = {name.removeprefix(_ADAPTER_PREFIX): tensor for name, tensor in load_file(folder / ADAPTER_WEIGHTS).items()}
    weights = {f"decoder.{name}": tensor for name, tensor in named.items()}
    config.target_modules = _adapted_modules(weights)
    config.inference_mode = False
    return Adapter(config, {f"{_ADAPTER_PREFIX}{name}": tensor for name, tensor in weights.items()}, folder)


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a language model of any version of transformers under the names of our own checkpoints."""
    projector = projector_names(list(weights))
    return {projector.get(name) or uae_name(name): tensor for name, tensor in weights.items()}


def _adapted_modules(weights: dict[str, Any]) -> list[str]:
    return sorted({name.partition(".lora_")[0] for name in weights if ".lora_A." in name})
