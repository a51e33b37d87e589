# SPDX-License-Identifier: Apache-2.0
"""Combinations of settings that cannot work, refused before anything loads: each names the key, the value and the remedy."""

from unigen.config.policy_checks import check_policy
from unigen.config.ranges import check_ranges
from unigen.config.rewards import check_rewards
from unigen.config.schema import (
    CAPTION_FORMATS,
    IMAGE_RECORD_FORMATS,
    RECORD_FORMATS,
    ROW_STAGES,
    TASKS,
    TASKS_OF_FORMAT,
    Config,
    ForkConfig,
    ModelConfig,
    SourceConfig,
)
from unigen.config.uae import UaeModelConfig
from unigen.config.uae_checks import UAE_ALONE, check_uae
from unigen.errors import ConfigError


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


def check(config: Config) -> None:
    """Refuse combinations that cannot work, before anything loads.

    Raises:
        ConfigError: naming the key, the value and what to do.
    """
    _check_tasks(config)
    check_ranges(config)
    _check_numbers(config)
    _check_sources(config)
    training = config.training
    unknown = sorted(set(config.experiment.trackers) - {"tensorboard", "wandb"})
    _require(not unknown, f"experiment.trackers has {unknown}; choose from tensorboard, wandb")
    _check_family(config)
    _require(
        config.stage != "sft" or config.model.family != "unigen" or config.model.vision_tower is not None,
        "stage sft reads images through a vision tower, but model.vision_tower is null; name its folder",
    )
    _require(
        config.stage != "vision" or config.model.vision_tower is not None,
        "stage vision trains a vision tower, but model.vision_tower is null; name its folder",
    )
    if config.stage == "tokenizer" and config.model.family != "uae":
        _check_tokenizer_stage(config)
    _require(
        config.model.initialization == "pretrained" or config.model.pretrained is None,
        f"model.initialization is random and model.pretrained is {config.model.pretrained}; drop one of them",
    )
    _require(
        training.lora is None or config.stage in (*ROW_STAGES, "grpo_generation") or config.model.family == "uae",
        f"training.lora needs stage {', '.join(ROW_STAGES)} or grpo_generation, not {config.stage}",
    )
    _require(
        training.loss_kernel == "chunked" or config.stage in ("pretrain", "sft"),
        f"training.loss_kernel is {training.loss_kernel}, which stage {config.stage} does not use; drop it",
    )
    if config.stage == "dpo":
        _check_dpo(config)
    check_rewards(config.stage, config.grpo.rewards)
    check_policy(config)


def _check_family(config: Config) -> None:
    """Keys that a family would never read are refused, like unknown ones."""
    model, training = config.model, config.training
    if model.family == "uae":
        check_uae(config)
        return
    _require(
        config.stage not in UAE_ALONE,
        f"stage {config.stage} trains a UAE, but model.family is {model.family}; set model.family=uae",
    )
    _require(model.uae == UaeModelConfig(), f"model.uae is UAE's, but model.family is {model.family}; drop it")
    if model.family == "unigen":
        _require(model.fork == ForkConfig(), "model.fork is UniFork's, but model.family is unigen; drop it")
        return
    _require(
        config.stage in ("pretrain", "sft"),
        f"stage {config.stage} does not train model.family=unifork; drop model.family",
    )
    foreign = {
        "model.vision_tower": model.vision_tower is not None,
        "model.task_token_first": model.task_token_first,
        "model.projector_depth": model.projector_depth != 2,
        "training.lora": training.lora is not None,
        "training.image_softmax": training.image_softmax != "full",
        "training.mask_schedule": training.mask_schedule != "cosine",
        "training.min_mask_ratio": training.min_mask_ratio != 0,
        "training.validation.every": training.validation.every != 0,
    }
    for key, is_wrong in foreign.items():
        _require(not is_wrong, f"{key} means nothing for model.family=unifork; drop it")
    tasks = {"generation": {"t2i"}, "understanding": {"mmu", "lm"}, "both": {"t2i", "mmu", "lm"}}[model.fork.branches]
    for task, count in training.samples_per_step.items():
        _require(
            count == 0 or task not in TASKS or task in tasks,
            f"training.samples_per_step.{task} is {count}, but model.fork.branches is {model.fork.branches}; set it to 0",
        )


def _check_tokenizer_stage(config: Config) -> None:
    weight = config.tokenizer_stage.contrastive_weight
    _require(weight >= 0, f"tokenizer_stage.contrastive_weight is {weight}; give 0 or more")
    _require(
        weight == 0 or config.model.vision_tower is not None,
        f"tokenizer_stage.contrastive_weight is {weight}, but model.vision_tower is null; name a SigLIP whose text half reads "
        "the captions",
    )
    _require(
        weight == 0 or config.training.rows_per_micro_batch > 1,
        f"tokenizer_stage.contrastive_weight is {weight}, but training.rows_per_micro_batch is 1: an image is compared with the "
        "captions of others; take more",
    )


def _check_dpo(config: Config) -> None:
    dpo, training = config.dpo, config.training
    _require(
        config.model.pretrained is not None,
        "stage dpo compares with the model that it starts from, but model.pretrained is null; name a checkpoint",
    )
    _require(dpo.beta > 0, f"dpo.beta is {dpo.beta}; give a number above 0")
    _require(dpo.sft_weight >= 0, f"dpo.sft_weight is {dpo.sft_weight}; give 0 or more")
    _require(
        dpo.reference != "adapter_off" or training.lora is not None,
        "dpo.reference is adapter_off, but there is no training.lora; set it, or take dpo.reference=copy",
    )
    _require(
        not training.loss_weights,
        f"training.loss_weights is {dict(training.loss_weights)}, but stage dpo has one loss; drop it ("
        "dpo.sft_weight adds a term)",
    )
    tasks = sorted(task for task, count in training.samples_per_step.items() if count > 0)
    _require(
        tasks == ["t2i"], f"training.samples_per_step has {tasks}, but stage dpo takes pairs of images of t2i alone"
    )


def _check_numbers(config: Config) -> None:
    training = config.training
    _require(
        not (config.schedule.warmup_steps and config.schedule.warmup_ratio),
        f"schedule.warmup_steps is {config.schedule.warmup_steps} and schedule.warmup_ratio is "
        f"{config.schedule.warmup_ratio}; set one of them to 0",
    )
    dropped, decay = training.prompt_drop_prob, training.ema_decay
    _require(0.0 <= dropped < 1.0, f"training.prompt_drop_prob is {dropped}; give a probability in [0, 1)")
    _require(
        decay is None or 0.0 < decay < 1.0,
        f"training.ema_decay is {decay}; give a value in (0, 1), such as 0.9999, or null",
    )
    _require(
        config.model.family == "uae" or training.tokens_per_row > config.model.max_text_tokens,
        f"training.tokens_per_row is {training.tokens_per_row}, less than the longest sample with its "
        f"model.max_text_tokens={config.model.max_text_tokens} and image; samples are packed whole",
    )


def _check_sources(config: Config) -> None:
    """Keys that the format of a source would never read are refused, like unknown ones."""
    data = config.data
    for name, source in data.sources.items():
        place = f"data.sources.{name}"
        served = TASKS_OF_FORMAT[source.format]
        _require(
            source.task in served,
            f"{place}.task is {source.task}, but format {source.format} serves {' and '.join(served)}; change one of them",
        )
        _require(source.weight >= 0, f"{place}.weight is {source.weight}; give 0 or more")
        foreign = {
            "take": bool(source.take) and source.format not in RECORD_FORMATS,
            "images": source.images is not None and source.format not in IMAGE_RECORD_FORMATS,
            "first_files": source.first_files is not None and source.format not in RECORD_FORMATS,
            "caption_key": source.caption_key is not None
            and (source.format not in ("webdataset", "codes") or source.conversations_key is not None),
            "conversations_key": source.conversations_key is not None
            and not (source.format in ("webdataset", "codes") and source.task == "mmu"),
            "class_names": source.class_names is not None and source.format != "imagefolder",
            "class_templates": source.class_templates is not None
            and (source.format not in ("imagefolder", "webdataset", "codes") or source.conversations_key is not None),
            "skip_cjk": source.skip_cjk and source.format not in CAPTION_FORMATS,
            "short_caption_prob": source.short_caption_prob > 0
            and not (source.format in CAPTION_FORMATS and source.task == "t2i"),
            "caption_prompts": source.caption_prompts != SourceConfig.caption_prompts
            and not (
                source.task == "mmu"
                and source.format in (*CAPTION_FORMATS, "imagefolder")
                and source.conversations_key is None
            ),
        }
        beside = " beside conversations_key" if source.conversations_key is not None else ""
        for key, is_wrong in foreign.items():
            _require(
                not is_wrong,
                f"{place}.{key} means nothing for format {source.format} and task {source.task}{beside}; drop it",
            )
        _require(
            source.weight == 0 or (source.format == "preferences") == (config.stage == "dpo"),
            f"{place}.format is {source.format}, but this is stage {config.stage}: dpo trains on preferences alone, and no "
            "other stage on any",
        )
        _require(
            source.weight == 0 or source.format != "prompts" or config.stage == "grpo_generation",
            f"{place}.format is prompts, which have no image to learn from, but this is stage {config.stage}: grpo_generation "
            "alone draws them itself",
        )
        _require(
            source.format != "codes" or reads_codes(config, source.task),
            f"{place}.format is codes, but stage {config.stage} looks at the images of task {source.task} themselves; "
            "name what they were made of",
        )
    _require(
        config.stage != "vision" or data.image_decoding == "exact",
        f"data.image_decoding is {data.image_decoding}, but stage vision reads whole images; drop it",
    )
    _require(
        config.stage in ROW_STAGES or data.image_crops == 1,
        f"data.image_crops is {data.image_crops}, but stage {config.stage} takes one square of an image; drop it",
    )


def reads_padded(model: ModelConfig, task: str) -> bool:
    """Whether images of a task are padded to squares for the image tokenizer, instead of cropped: UniFork reads them whole."""
    return model.family == "unifork" and task == "mmu"


def reads_codes(config: Config, task: str) -> bool:
    """Whether images of a task enter the rows of a run as codes of the image tokenizer, and in no other way."""
    is_in_rows = config.stage in ROW_STAGES and config.model.family != "uae"
    return is_in_rows and (task == "t2i" or (task == "mmu" and config.model.vision_tower is None))


def _check_tasks(config: Config) -> None:
    training = config.training
    for key, tasks in (("samples_per_step", training.samples_per_step), ("loss_weights", training.loss_weights)):
        for task in tasks:
            _require(task in TASKS, f"training.{key}.{task} is not a task; choose from {', '.join(TASKS)}")
    for task, count in training.samples_per_step.items():
        _require(count >= 0, f"training.samples_per_step.{task} is {count}; give 0 or more")
    wanted = {task for task, count in training.samples_per_step.items() if count > 0}
    _require(
        bool(wanted),
        "training.samples_per_step is empty; say how many samples of each task a step holds, such as {t2i: 128, mmu: 64}",
    )
    present = {source.task for source in config.data.sources.values() if source.weight > 0}
    for task in sorted(wanted - present):
        raise ConfigError(
            f"training.samples_per_step.{task} is {training.samples_per_step[task]}, "
            f"but no source in data.sources has task {task}; add one or set it to 0"
        )
