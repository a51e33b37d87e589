# SPDX-License-Identifier: Apache-2.0
"""Building the stage that a configuration names: which folders to load, which weights to draw."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from accelerate import init_empty_weights
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from torch import nn

from unigen.config.folders import find_config, find_model, weights_hash
from unigen.config.schema import ROW_STAGES, Config
from unigen.data.batch import Sample
from unigen.data.draws import Draws
from unigen.data.preparation import ImagePreparer, PairPreparer, RowPreparer
from unigen.data.sample import RawSample
from unigen.errors import CheckpointError, ConfigError
from unigen.models.adapters import AdapterBase
from unigen.models.checkpoints import load_unigen
from unigen.models.image_tokenizers.registry import ImageTokenizer, build_image_tokenizer, load_image_tokenizer
from unigen.models.language import language_config, load_language_model
from unigen.models.unigen import UniGen, UniGenConfig
from unigen.models.vision import VisionTower
from unigen.objectives.loss_kernels import find_loss_kernel
from unigen.rewards.reward import build_rewards
from unigen.sequence.vocabulary import Vocabulary
from unigen.training.stages.dpo import DpoStage
from unigen.training.stages.masked_policy import MaskedPolicyStage
from unigen.training.stages.parts import image_positions, require_room, text_tokenizer
from unigen.training.stages.pretrain import PretrainStage, row_preparer
from unigen.training.stages.sft import SftStage
from unigen.training.stages.stage import Stage
from unigen.training.stages.tokenizer_registry import build_tokenizer_stage, build_vision_stage
from unigen.training.stages.unifork_registry import build_unifork_preparer, build_unifork_stage
from unigen.training.stages.unigen import Origins

DRAWING_STAGES = ("dpo", "grpo_generation")
"""Stages of a UniGen that draw alone: its vision tower is not run, but their checkpoints name it."""

LANGUAGE_MODEL_LAYERS = r"llm\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""The linear layers of a language model, which `training.lora` adapts where it does not say."""


def build_stage(config: Config, device: torch.device) -> Stage:
    """The stage with its weights: trained parts on the CPU (accelerate moves them), frozen ones on `device`.

    Raises:
        CheckpointError, ConfigError: a folder that is missing or does not fit.
    """
    torch.manual_seed(config.experiment.seed)
    if config.model.family == "uae":
        from unigen.training.stages.uae_registry import build_uae_stage  # Qwen2.5-VL takes seconds to import

        return build_uae_stage(config, device)
    rows = {"unigen": _row_stage, "unifork": build_unifork_stage}[config.model.family]
    builders = {
        "tokenizer": build_tokenizer_stage,
        "vision": build_vision_stage,
        **dict.fromkeys((*ROW_STAGES, "grpo_generation"), rows),
    }
    return builders[config.stage](config, device)


def build_row_preparer(config: Config) -> RowPreparer | PairPreparer:
    """What makes the rows of a stage that trains on rows, from configurations and the text tokenizer: no weights are needed.

    Raises:
        CheckpointError, ConfigError: a folder that is missing or does not fit.
    """
    assert config.stage in ROW_STAGES, "the others have no rows"
    if config.model.family == "uae":
        raise ConfigError("the chats of model.family=uae are no packed rows, so there are none to show")
    if config.model.family == "unifork":
        return build_unifork_preparer(config)
    wanted, root = config.model, config.data.root
    image_tokenizer = build_image_tokenizer(find_config(wanted.image_tokenizer, root))
    tower_name = wanted.vision_tower if config.stage not in DRAWING_STAGES else None
    tower = VisionTower.from_config(find_config(tower_name, root)) if tower_name else None
    tokenizer = text_tokenizer(config)
    vocabulary = Vocabulary.from_tokenizer(tokenizer, image_tokenizer.codebook_size)
    described = UniGenConfig()
    describe_model(described, config, vocabulary.code_offset, image_tokenizer)
    rows = row_preparer(config, described, tokenizer, vocabulary, tower)
    return PairPreparer(rows, config.dpo.pairing) if config.stage == "dpo" else rows


def build_image_preparer(config: Config) -> Callable[[RawSample, Draws], Sample]:
    """What makes the images of a stage of single images, as `target_image` to be looked at; no weights are needed.

    Raises:
        CheckpointError, ConfigError: a folder that is missing or is no SigLIP, or a stage that reads no images.
    """
    if config.stage == "grpo_generation" and config.model.family == "unigen":
        raise ConfigError(
            "stage grpo_generation draws what it learns from while it runs; there is nothing to show before"
        )
    if config.stage == "tokenizer" or config.model.family == "uae":
        return ImagePreparer(config.model.image_resolution)
    assert config.model.vision_tower is not None, "the configuration's check asks for it"
    tower = VisionTower.from_config(find_config(config.model.vision_tower, config.data.root))
    if tower.is_naflex:
        raise ConfigError(f"stage vision trains models of type siglip, but {config.model.vision_tower} is NaFlex")

    def prepare(raw: RawSample, draws: Draws) -> Sample:
        pixels_3HW = tower.preprocess(raw.images[0]).pixel_values
        return replace(ImagePreparer(1)(raw, draws), target_image=pixels_3HW)

    return prepare


def _row_stage(config: Config, device: torch.device) -> Stage:
    wanted = config.model
    if config.training.lora is not None and wanted.pretrained is None:
        raise ConfigError(
            "training.lora trains an adapter over a checkpoint, but model.pretrained is null; name the checkpoint, or drop "
            "training.lora"
        )
    loss_kernel = find_loss_kernel(config.training.loss_kernel, device)
    origins = _origins(config)
    image_tokenizer = load_image_tokenizer(origins.image_tokenizer, device)
    tower_folder = origins.vision_tower if config.stage not in DRAWING_STAGES else None
    tower = VisionTower.load(tower_folder, device) if tower_folder else None
    tokenizer = text_tokenizer(config)
    vocabulary = Vocabulary.from_tokenizer(tokenizer, image_tokenizer.codebook_size)
    model = _model(config, vocabulary)
    describe_model(model.config, config, vocabulary.code_offset, image_tokenizer)
    if tower is not None:
        model.add_projector(tower.hidden_size, wanted.projector_depth)
        model.config.vision_tower = wanted.vision_tower
    if config.stage in DRAWING_STAGES:
        build = {"dpo": _dpo_stage, "grpo_generation": _masked_policy_stage}[config.stage]
        return build(config, model, device, (tokenizer, image_tokenizer, tower, origins))
    kind = SftStage if tower is not None else PretrainStage
    return kind(config, as_trained(model, config), tokenizer, image_tokenizer, tower, origins, loss_kernel=loss_kernel)


def _dpo_stage(config: Config, model: UniGen, device: torch.device, parts: tuple[Any, ...]) -> DpoStage:
    _require_named_tower(model, config)
    reference = copy.deepcopy(model) if config.dpo.reference == "copy" else None
    if reference is not None:
        nn.Module.to(reference, device).eval().requires_grad_(False)
    return DpoStage(config, as_trained(model, config), *parts, reference=reference)


def _masked_policy_stage(
    config: Config, model: UniGen, device: torch.device, parts: tuple[Any, ...]
) -> MaskedPolicyStage:
    _require_named_tower(model, config)
    rewards = build_rewards(config.grpo.rewards, config.data.root, device)
    return MaskedPolicyStage(config, rewards, as_trained(model, config), *parts)


def _require_named_tower(model: UniGen, config: Config) -> None:
    wanted = config.model
    if model.mm_projector is not None and wanted.vision_tower is None:
        raise ConfigError(
            f"{wanted.pretrained} reads images through a vision tower, but model.vision_tower is null; name its folder: it is "
            "not run, but the checkpoints of this stage have to name it"
        )


def _origins(config: Config) -> Origins:
    wanted, root = config.model, config.data.root
    base = None
    if config.training.lora is not None and wanted.pretrained is not None:
        folder = find_model(wanted.pretrained, root)
        base = AdapterBase(folder, weights_hash(folder))
    return Origins(
        image_tokenizer=find_model(wanted.image_tokenizer, root),
        vision_tower=find_model(wanted.vision_tower, root) if wanted.vision_tower else None,
        adapter_base=base,
    )


def _model(config: Config, vocabulary: Vocabulary) -> UniGen:
    wanted, root, tie = config.model, config.data.root, config.model.tie_word_embeddings
    if wanted.pretrained:
        model = load_unigen(find_model(wanted.pretrained, root), root, tie)
        if model.config.mask_token_id != vocabulary.mask_id:
            raise CheckpointError(
                f"{wanted.pretrained} was trained with {model.config.code_offset} text ids and {model.config.codebook_size} "
                f"codes, but the tokenizers here have {vocabulary.code_offset} and {vocabulary.codebook_size}"
            )
        return model
    if wanted.initialization == "random":
        llm_config = language_config(find_config(wanted.language_model, root), vocabulary.size, tie)
        return UniGen(UniGenConfig(llm_config=llm_config))
    llm = load_language_model(find_model(wanted.language_model, root), vocabulary.size, tie)
    with init_empty_weights(include_buffers=False):
        model = UniGen(UniGenConfig(llm_config=llm.config))
    model.llm = llm
    return model


def describe_model(model: UniGenConfig, config: Config, code_offset: int, image_tokenizer: ImageTokenizer) -> None:
    """Write into the model's configuration what a checkpoint has to say of itself.

    Raises:
        ConfigError: images that do not split into codes, or rows that are longer than those that samples are packed into.
    """
    model.code_offset, model.codebook_size = code_offset, image_tokenizer.codebook_size
    model.image_resolution = config.model.image_resolution
    model.num_image_codes = image_positions(config, image_tokenizer.downsample_factor)
    model.max_text_tokens, model.task_token_first = config.model.max_text_tokens, config.model.task_token_first
    model.image_tokenizer = config.model.image_tokenizer
    assert math.isqrt(model.num_image_codes) ** 2 == model.num_image_codes
    require_room(config, model.row_length, model.num_image_codes)
    if _goes_in_pairs(config) and config.training.rows_per_micro_batch == 1:
        pair = 2 * model.row_length
        if config.training.tokens_per_row < pair:
            raise ConfigError(
                f"training.tokens_per_row is {config.training.tokens_per_row} and training.rows_per_micro_batch is 1, but both "
                f"rows of a pair go into one forward pass; set the first to {pair} or the second to 2"
            )


def _goes_in_pairs(config: Config) -> bool:
    """Two images of a prompt, or with guidance the row of a prompt and that of none."""
    return config.stage == "dpo" or (config.stage == "grpo_generation" and config.grpo.masked.has_guidance)


def as_trained(model: UniGen, config: Config) -> UniGen:
    """The model with the adapters that `training.lora` asks for, and what the stage never runs frozen."""
    is_read_by = config.stage not in DRAWING_STAGES and config.model.vision_tower is not None
    if model.mm_projector is not None and not is_read_by:
        model.mm_projector.requires_grad_(False)
    lora = config.training.lora
    if lora is None:
        return model
    adapter = PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules or LANGUAGE_MODEL_LAYERS,
        modules_to_save=["mm_projector"] if model.mm_projector is not None and is_read_by else None,
    )
    return get_peft_model(model, adapter)  # type: ignore[return-value]  # a PeftModel passes all attributes through
