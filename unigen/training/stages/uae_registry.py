# SPDX-License-Identifier: Apache-2.0
"""Building the stages of UAE: which folders to load, which weights to draw, which side to adapt."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from unigen.config.folders import PARTS_FILE, find_config, find_model, weights_hash
from unigen.config.schema import Config
from unigen.config.uae import UaePrompting, UaeSettings
from unigen.errors import CheckpointError, ConfigError
from unigen.models.adapters import AdapterBase
from unigen.models.uae import Uae
from unigen.models.uae_adapters import TARGETS, Side, add_adapter
from unigen.models.uae_checkpoints import PROCESSOR_FILES, load_processor, load_uae
from unigen.models.uae_config import SCHEDULER_FILE, UaeConfig, latent_side
from unigen.models.uae_parts import KINDS, PartFolders, exchange_part, put_together
from unigen.models.uae_release import Release
from unigen.rewards.reward import build_rewards
from unigen.training.stages.caption_policy import CaptionPolicyStage
from unigen.training.stages.captioning import CaptioningStage
from unigen.training.stages.coldstart import ColdstartStage
from unigen.training.stages.flow_policy import FlowPolicyStage
from unigen.training.stages.longcap import LongcapStage
from unigen.training.stages.stage import Stage
from unigen.training.stages.uae import UaeStage, UaeStart
from unigen.training.stages.vae import build_vae_stage

STAGES: dict[str, type[UaeStage]] = {
    "sft": CaptioningStage,
    "longcap": LongcapStage,
    "coldstart": ColdstartStage,
    "grpo_understanding": CaptionPolicyStage,
    "grpo_generation": FlowPolicyStage,
}
"""By the name of the stage, those of the whole model."""


def build_uae_stage(config: Config, device: torch.device) -> Stage:
    """The stage with its weights: trained parts on the CPU, the image auto-encoder on `device`.

    Raises:
        CheckpointError, ConfigError: a folder that is missing or does not fit.
    """
    if config.stage == "tokenizer":
        return build_vae_stage(config, device)
    if config.stage == "coldstart":
        return _coldstart_stage(config, device)
    kind = stage_kind(config)
    start = load_start(config, kind)
    if issubclass(kind, CaptionPolicyStage | FlowPolicyStage):
        return kind(config, build_rewards(config.grpo.rewards, config.data.root, device), start, device)
    return kind(config, start, device)


def stage_kind(config: Config) -> type[UaeStage]:
    """The class of the stage, which says what it trains."""
    return STAGES[config.stage]


def _coldstart_stage(config: Config, device: torch.device) -> ColdstartStage:
    from unigen.rewards.image_encoders.loading import load_encoder

    named = config.coldstart.encoder
    encoder = load_encoder(named.kind, named.model, config.data.root, device)
    return ColdstartStage(config, load_start(config, ColdstartStage), device, encoder)


def load_start(config: Config, kind: type[UaeStage]) -> UaeStart:
    """What a run of a stage starts from, with the adapter that it trains."""
    processor = find_processor(config)
    model = find_uae(config, processor)
    describe_uae(model.config, config)
    if config.training.lora is None:
        return UaeStart(model, processor)
    base = _adapter_base(config)
    return UaeStart(adapted(model, config, kind), processor, base)


def find_uae(config: Config, processor: Any) -> Uae:
    """The model of `model.pretrained`, else of its parts, else with random weights."""
    wanted, root = config.model, config.data.root
    if wanted.pretrained:
        model = load_uae(find_model(wanted.pretrained, root), root)
    elif wanted.initialization == "random":
        model = Uae(random_sizes(config, len(processor.tokenizer)))
    else:
        model = put_together(part_folders(config))
    if wanted.pretrained or wanted.initialization == "random":
        for part, name in named_parts(config).items():
            exchange_part(model, part, find_model(name, root))
    _check_marks(model.config, processor, config)
    return model


def part_folders(config: Config) -> PartFolders:
    """Where the parts of `model.language_model` and `model.uae` lie, with weights."""
    wanted, root, parts = config.model, config.data.root, config.model.uae
    named = {part: find_model(name, root) for part, name in named_parts(config).items()}
    diffusion = find_model(parts.diffusion, root, files=(str(SCHEDULER_FILE),))
    language_model = find_model(wanted.language_model, root)
    return PartFolders(
        language_model, diffusion, projector_width=parts.projector_width, settings=_settings(config), **named
    )


def random_sizes(config: Config, num_tokens: int = 0) -> UaeConfig:
    """Sizes of a model without weights, from the files of configuration of its parts.

    Args:
        num_tokens: entries of the tokenizer, for a language model with a smaller vocabulary.
    """
    wanted, root, parts = config.model, config.data.root, config.model.uae
    diffusion = find_config(parts.diffusion, root, files=(str(SCHEDULER_FILE),))
    language_model = find_config(wanted.language_model, root)
    named = {part: find_config(name, root) for part, name in named_parts(config).items()}
    width = parts.projector_width
    sizes = PartFolders(language_model, diffusion, projector_width=width, settings=_settings(config), **named).config()
    text = sizes.llm_config.text_config
    text.vocab_size = max(text.vocab_size, num_tokens)
    return sizes


def named_parts(config: Config) -> dict[str, str]:
    """Parts whose folder the configuration names one by one."""
    return {part: name for part in KINDS if (name := getattr(config.model.uae, part)) is not None}


def describe_uae(model: UaeConfig, config: Config) -> None:
    """Write into the model's configuration what a checkpoint has to say of itself.

    Raises:
        ConfigError: a resolution that the model cannot draw.
    """
    for name, value in asdict(_settings(config)).items():
        setattr(model, name, value)
    latent_side(model, model.image_resolution)


def find_processor(config: Config) -> Any:
    """Tokenizer and image processor: those that are named, else of the checkpoint to start from, else the language model's."""
    wanted, root = config.model, config.data.root
    if wanted.text_tokenizer:
        return load_processor(find_model(wanted.text_tokenizer, root, files=PROCESSOR_FILES))
    if not wanted.pretrained:
        return load_processor(find_model(wanted.language_model, root, files=PROCESSOR_FILES))
    folder = find_model(wanted.pretrained, root)
    if (folder / "config.json").is_file():
        return load_processor(folder)
    return load_processor(Release.read(folder / PARTS_FILE, root).folders["llm_processor"])


def adapted(model: Uae, config: Config, kind: type[UaeStage]) -> Any:
    """The model with the adapter that `training.lora` asks for."""
    lora = config.training.lora
    assert lora is not None
    side: Side = kind.adapted_side
    named = lora.target_modules
    for known in TARGETS:
        if named == known:
            side, named = known, None
    return add_adapter(
        model,
        side,
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=lora.dropout,
        target_modules=named,
        trained_whole=kind.parts_beside_adapter(config),
    )


def _settings(config: Config) -> UaeSettings:
    said = {field.name: getattr(config.model.uae, field.name) for field in fields(UaePrompting)}
    return UaeSettings(**said, image_resolution=config.model.image_resolution)


def _adapter_base(config: Config) -> AdapterBase:
    wanted = config.model
    if wanted.pretrained is None:
        raise ConfigError(
            "training.lora trains an adapter over a checkpoint, but model.pretrained is null; name the checkpoint, or drop "
            "training.lora"
        )
    folder: Path = find_model(wanted.pretrained, config.data.root)
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"model.pretrained is the released {folder / PARTS_FILE}, which an adapter cannot name as its base; write it as "
            f"one checkpoint first: unigen convert model {folder / PARTS_FILE} --to ours"
        )
    return AdapterBase(folder, weights_hash(folder))


def _check_marks(model: UaeConfig, processor: Any, config: Config) -> None:
    """The marks of images have to be the same words for the model and its processor."""
    expected = model.llm_config.image_token_id
    found = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    if expected != found:
        raise ConfigError(
            f"model.text_tokenizer is {config.model.text_tokenizer}, whose {processor.image_token} is token {found}, but for the "
            f"model it is {expected}; name the processor that belongs to it"
        )
