# SPDX-License-Identifier: Apache-2.0
"""Combinations of settings that cannot work for UAE, or that none of its stages would read."""

from typing import TYPE_CHECKING

from unigen.errors import ConfigError

if TYPE_CHECKING:
    from unigen.config.schema import Config  # whose own check asks this module

UAE_ALONE = ("longcap", "coldstart", "grpo_understanding")
"""Stages that train no other family."""
TASK_OF_STAGE = {"tokenizer": "t2i", "sft": "mmu", "longcap": "t2i", "coldstart": "t2i", "grpo_understanding": "mmu"}
"""What the samples of the stages that learn from data are for."""


def check_uae(config: "Config") -> None:
    """Refuse what cannot work for a model of this family.

    Raises:
        ConfigError: naming the key, the value and what to do.
    """
    for complaints in (
        _complain_of_stage,
        _complain_of_foreign,
        _complain_of_quantisers,
        _complain_of_adapter,
        _complain_of_numbers,
    ):
        for complaint in complaints(config):
            raise ConfigError(complaint)


def _complain_of_stage(config: "Config") -> list[str]:
    from unigen.config.schema import UAE_STAGES

    if config.stage not in UAE_STAGES:
        return [f"stage {config.stage} does not train model.family=uae; choose from {', '.join(UAE_STAGES)}"]
    task = TASK_OF_STAGE.get(config.stage)
    return [
        f"training.samples_per_step.{other} is {count}, but stage {config.stage} of model.family=uae takes samples of task "
        f"{task} alone; set it to 0"
        for other, count in config.training.samples_per_step.items()
        if task is not None and count > 0 and other != task
    ]


def _complain_of_foreign(config: "Config") -> list[str]:
    """Keys of other families."""
    from unigen.config.schema import ForkConfig, ModelConfig

    model, training, is_vae = config.model, config.training, config.stage == "tokenizer"
    foreign = {
        "model.fork": model.fork != ForkConfig(),
        "model.image_tokenizer": model.image_tokenizer != ModelConfig.image_tokenizer,
        "model.vision_tower": model.vision_tower is not None,
        "model.projector_depth": model.projector_depth != ModelConfig.projector_depth,
        "model.task_token_first": model.task_token_first,
        "model.tie_word_embeddings": model.tie_word_embeddings != "keep",
        "data.image_crops": config.data.image_crops != 1,
        "training.image_softmax": training.image_softmax != "full",
        "training.mask_schedule": training.mask_schedule != "cosine",
        "training.min_mask_ratio": training.min_mask_ratio != 0,
        "training.loss_kernel": training.loss_kernel != "chunked",
        "training.lora": is_vae and training.lora is not None,
        "training.validation.every": is_vae and training.validation.every != 0,
        "model.pretrained": is_vae and model.pretrained is not None,
        "model.uae.decoder": is_vae and model.uae.decoder is not None,
        "data.image_decoding": config.stage == "sft" and config.data.image_decoding != "exact",
    }
    stage = f"stage {config.stage} of model.family=uae"
    return [f"{key} means nothing for {stage}; drop it" for key, is_wrong in foreign.items() if is_wrong]


def _complain_of_quantisers(config: "Config") -> list[str]:
    """Keys of the stage tokenizer that are for codes."""
    from unigen.config.schema import TokenizerStageConfig

    names = (
        "commitment_weight",
        "entropy_weight",
        "codebook_weight",
        "enable_code_restart",
        "contrastive_weight",
        "entropy_inverse_temperature",
    )
    chosen, plain = config.tokenizer_stage, TokenizerStageConfig()
    return [
        f"tokenizer_stage.{name} is {getattr(chosen, name)}, but the image auto-encoder of model.family=uae has no codes; drop it"
        for name in names
        if getattr(chosen, name) != getattr(plain, name)
    ]


def _complain_of_adapter(config: "Config") -> list[str]:
    named = [part for part in ("decoder", "vae") if getattr(config.model.uae, part) is not None]
    if config.training.lora is None or not named:
        return []
    return [
        f"model.uae.{named[0]} exchanges a part of model.pretrained, which the adapter of training.lora names as what it "
        "changes; save the model with its new part first, or drop one of them"
    ]


def _complain_of_numbers(config: "Config") -> list[str]:
    coldstart, longcap = config.coldstart, config.longcap
    numbers = {"coldstart.steps": coldstart.steps, "longcap.timestep_std": longcap.timestep_std}
    return [f"{key} is {value}; give a number above 0" for key, value in numbers.items() if not value > 0]
