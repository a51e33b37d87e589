# SPDX-License-Identifier: Apache-2.0
"""What one global step takes at most: tokens, operations and bytes, from models on the meta device.

Every sample is taken to fill its row. Three forwards make a training pass; recomputation is not counted, and neither is what
frozen weights save.
"""

import math
from dataclasses import dataclass

import torch
from transformers import SiglipTextConfig, SiglipTextModel, SiglipVisionConfig

from unigen.config.checks import reads_codes
from unigen.config.schema import Config
from unigen.models.cost import (
    ADAMW_BYTES_PER_PARAMETER,
    LanguageModelCost,
    MetaPass,
    count_parameters,
    measure_on_meta,
    vision_tower_flops,
)
from unigen.models.image_tokenizers.registry import AnyTokenizer
from unigen.models.unifork import UniFork
from unigen.models.unigen import UniGenConfig
from unigen.objectives.cross_entropy import LOGITS_PER_CHUNK
from unigen.sequence.mask_schedule import masked_ratio
from unigen.training.compilation import find_layers
from unigen.training.fork_cost import fork_flops
from unigen.training.masked_policy_cost import masked_policy_flops, masked_rows_per_prompt
from unigen.training.meta_model import MetaModels
from unigen.training.optimizer import is_hidden_matrix

BYTES_PER_LOGIT = 12
"""Of the chunk of logits that is held at once: bfloat16, float32, their softmax, the gradient."""
BYTES_PER_HEAD_WEIGHT = 8
"""The gradient of the output embedding, summed over chunks in float32 and once more where it is scaled."""
NUM_SCHEDULE_POINTS = 1000
LAYERS_AT_ONCE = 2
"""Of FSDP2: one computes while the next is fetched."""


@dataclass(frozen=True)
class StepLoad:
    """Samples of one global step, as they are dealt out to GPUs."""

    samples: int
    """The two images of a pair are two, and each rollout of a group is one."""
    rows: int
    """Packed rows, or samples where the stage has no rows."""
    rows_per_micro_batch: int
    tokens: int
    tokens_per_micro_batch: int


def rows_per_sample(config: Config) -> int:
    """Two for a pair of images, as many as a group has for what a policy makes; of a UniGen a row for each step of each."""
    if config.stage == "grpo_generation" and config.model.family == "unigen":
        return masked_rows_per_prompt(config)
    if config.stage.startswith("grpo_"):
        return config.grpo.group_size
    return 2 if config.stage == "dpo" else 1


def step_load(models: MetaModels) -> StepLoad:
    training, rows, factor = models.config.training, models.row_config, rows_per_sample(models.config)
    samples = factor * sum(training.samples_per_step.values())
    per_gpu = factor * math.ceil(samples / factor / training.num_gpus)
    if rows is None:
        return StepLoad(samples, samples, min(per_gpu, training.rows_per_micro_batch), 0, 0)
    length = rows.row_length
    samples_per_row = training.tokens_per_row // length
    rows_per_gpu = math.ceil(per_gpu / samples_per_row)
    rows_at_once = min(rows_per_gpu, training.rows_per_micro_batch)
    tokens_at_once = min(rows_at_once * samples_per_row, per_gpu) * length
    return StepLoad(samples, rows_per_gpu * training.num_gpus, rows_at_once, samples * length, tokens_at_once)


def step_flops(models: MetaModels) -> dict[str, float]:
    """Operations of one global step by part, and their `total`."""
    stages = {
        "tokenizer": _tokenizer_stage_flops,
        "vision": _vision_stage_flops,
        "grpo_generation": masked_policy_flops,
    }
    of_stage = _uae_flops if models.uae is not None else stages.get(models.config.stage, _row_stage_flops)
    flops = of_stage(models)
    return {**flops, "total": sum(flops.values())}


def _uae_flops(models: MetaModels) -> dict[str, float]:
    from unigen.training.uae_step_cost import uae_step_flops  # diffusers takes seconds to import

    assert models.uae is not None
    return uae_step_flops(models.config, models.uae)


def _tokenizer_stage_flops(models: MetaModels) -> dict[str, float]:
    images = models.config.training.samples_per_step.get("t2i", 0)
    flops = {"image_tokenizer": 3 * images * _auto_encode(models).flops}
    if models.contrast is not None:
        flops["caption_contrast"] = 3 * images * _read_caption(models.contrast.text_model).flops
    return flops


def _vision_stage_flops(models: MetaModels) -> dict[str, float]:
    return {"vision_tower": 3 * models.config.training.samples_per_step.get("t2i", 0) * _contrast(models).flops}


def _row_stage_flops(models: MetaModels) -> dict[str, float]:
    factor, rows = rows_per_sample(models.config), models.row_config
    samples = {task: factor * count for task, count in models.config.training.samples_per_step.items()}
    assert rows is not None
    assert models.image_tokenizer is not None
    coded = sum(samples.get(task, 0) for task in ("t2i", "mmu") if _encodes_images(models, task))
    encoding = coded * encode_on_meta(models.image_tokenizer, rows.image_resolution).flops
    if isinstance(models.language_model, UniFork):
        return {**fork_flops(models.language_model, samples), "image_tokenizer": encoding}
    tower, length, total = models.vision_tower, rows.row_length, sum(samples.values())
    cost = LanguageModelCost(rows.llm_config)
    logits = sum(count * _logits_of(task, models) for task, count in samples.items())
    read = samples.get("mmu", 0)
    forward = cost.forward_flops(total * length**2, total * length, logits)
    flops = {"language_model": 3 * forward, "image_tokenizer": encoding}
    if models.config.stage == "dpo":
        flops["reference_model"] = forward
    if tower is not None:
        flops["vision_tower"] = read * vision_tower_flops(tower)
        flops["projector"] = 3 * 2 * models.parameters["projector"] * read * tower.max_tokens
    return flops


def _encodes_images(models: MetaModels, task: str) -> bool:
    """Whether images of a task go through the image tokenizer in the step; not where their codes were computed ahead."""
    sources = [source for source in models.config.data.sources.values() if source.task == task and source.weight > 0]
    return reads_codes(models.config, task) and any(source.format != "codes" for source in sources)


def _logits_of(task: str, models: MetaModels) -> float:
    """Classes of all supervised positions of a full row: the masked codes of a drawing row, else everything after the images."""
    unigen, training = models.row_config, models.config.training
    assert isinstance(unigen, UniGenConfig)
    vocabulary = unigen.llm_config.vocab_size
    if task == "t2i":
        classes = vocabulary if training.image_softmax == "full" else unigen.codebook_size
        return unigen.num_image_codes * mean_masked_ratio(training.mask_schedule, training.min_mask_ratio) * classes
    if task == "lm":
        return (unigen.row_length - 1) * vocabulary
    image = unigen.num_image_codes if models.vision_tower is None else models.vision_tower.max_tokens
    return max(0, unigen.row_length - image - 4) * vocabulary  # message start, task, start and end of the image


def mean_masked_ratio(schedule: str, min_ratio: float) -> float:
    """Average share of codes that are masked in training."""
    points = [(number + 0.5) / NUM_SCHEDULE_POINTS for number in range(NUM_SCHEDULE_POINTS)]
    return sum(max(masked_ratio(schedule, point), min_ratio) for point in points) / NUM_SCHEDULE_POINTS


def encode_on_meta(tokenizer: AnyTokenizer, resolution: int) -> MetaPass:
    """One image through the encoder of the image tokenizer, which keeps nothing for a backward pass."""
    pixels_13HW = torch.empty(1, 3, resolution, resolution, device="meta")
    return measure_on_meta(lambda: tokenizer.encode(pixels_13HW))


def _auto_encode(models: MetaModels) -> MetaPass:
    tokenizer, side = models.image_tokenizer, models.config.model.image_resolution
    assert tokenizer is not None
    return measure_on_meta(lambda: tokenizer(torch.empty(1, 3, side, side, device="meta")))


def _contrast(models: MetaModels) -> MetaPass:
    siglip = models.siglip
    assert siglip is not None
    vision = siglip.config.vision_config
    assert isinstance(vision, SiglipVisionConfig)
    side = vision.image_size
    assert isinstance(side, int)
    pixels_13HW = torch.empty(1, 3, side, side, device="meta")
    seen = measure_on_meta(lambda: siglip.vision_model(pixel_values=pixels_13HW))
    said = _read_caption(siglip.text_model)
    return MetaPass(seen.flops + said.flops, seen.kept_bytes + said.kept_bytes)


def _read_caption(text_model: SiglipTextModel) -> MetaPass:
    text = text_model.config
    assert isinstance(text, SiglipTextConfig)
    words_1L = torch.empty(1, text.max_position_embeddings, dtype=torch.long, device="meta")
    return measure_on_meta(lambda: text_model(input_ids=words_1L))


def memory_per_gpu(models: MetaModels, load: StepLoad) -> dict[str, int]:
    """Bytes by what needs them under plain data parallelism, and their `total`. Working memory of kernels is not in it."""
    training, parts = models.config.training, models.trained
    needs = {
        "weights_gradients_optimizer": _state_bytes(models),
        "moving_average": 4 * count_parameters(parts, trained_only=True) if training.ema_decay else 0,
        "activations": _activation_bytes(models, load),
    }
    rows = models.row_config
    if models.uae is not None and models.uae.model is not None:
        exact = sum(p.numel() for p in models.uae.model.parameters() if p.dtype == torch.float32)
        needs["bfloat16_weights"] = 2 * exact if training.precision == "bfloat16" else 0
        needs["frozen_encoders"] = 4 * count_parameters(models.uae.vae)
    if rows is not None:
        head = rows.llm_config.vocab_size * rows.llm_config.hidden_size
        matrices = LanguageModelCost(rows.llm_config).matrix_parameters + head
        if isinstance(models.language_model, UniFork):  # which has more layers than a row goes through
            matrices = count_parameters(models.language_model)
        needs["reference_model"] = 4 * models.parameters.get("reference_model", 0)
        encoders = [part for part in (models.image_tokenizer, models.vision_tower) if part is not None]
        needs["bfloat16_weights"] = 2 * matrices if training.precision == "bfloat16" else 0
        needs["logits"] = BYTES_PER_LOGIT * LOGITS_PER_CHUNK + BYTES_PER_HEAD_WEIGHT * head
        needs["frozen_encoders"] = 4 * sum(map(count_parameters, encoders))
    return {**needs, "total": sum(needs.values())}


def _state_bytes(models: MetaModels) -> int:
    """Weights, gradients and moments. Muon keeps one moment of the matrices that are its own, where AdamW has two."""
    parts = models.trained
    num_trained = count_parameters(parts, trained_only=True)
    frozen = sum(p.numel() * p.element_size() for p in parts.parameters() if not p.requires_grad)
    of_muon = [p.numel() for name, p in parts.named_parameters() if p.requires_grad and is_hidden_matrix(name, p)]
    spared = 4 * sum(of_muon) if models.config.optimizer.name == "muon" else 0
    return ADAMW_BYTES_PER_PARAMETER * num_trained + frozen - spared


def sharded_totals(models: MetaModels, needs: dict[str, int]) -> dict[str, int]:
    """Total per GPU under each backend of configs/accelerate.

    DDP holds float32 weights, DeepSpeed bfloat16 ones with a float32 copy among the state that it splits. FSDP2 splits all of
    its state and holds copies in the precision of the run, for as long as they are used, of what belongs to no layer
    (embeddings, head, norm) and of two layers, the one that computes and the next, which is fetched beside it:

        fsdp2 = total - state - bfloat16 weights + state / GPUs + bytes of a weight * (outside of layers + 2 * layer)
    """
    gpus, state = models.config.training.num_gpus, needs["weights_gradients_optimizer"]
    weights = count_parameters(models.trained)
    rest = needs["total"] - state
    without_copies = rest - needs.get("bfloat16_weights", 0)
    return {
        "ddp": needs["total"],
        "zero2": without_copies + 2 * weights + state // gpus,
        "zero3": without_copies + (2 * weights + state) // gpus,
        "fsdp2": without_copies + _gathered_bytes(models) + state // gpus,
    }


def _gathered_bytes(models: MetaModels) -> int:
    """Copies of weights that FSDP2 holds at once on a GPU; of a model without layers all."""
    size = 2 if models.config.training.precision == "bfloat16" else 4
    parts = models.trained
    sizes = [count_parameters(layer) for part in parts.children() for layer in find_layers(part)]
    outside = count_parameters(parts) - sum(sizes)
    return size * (outside + sum(sorted(sizes)[-LAYERS_AT_ONCE:]))


def _activation_bytes(models: MetaModels, load: StepLoad) -> int:
    training, rows = models.config.training, models.row_config
    if models.uae is not None:
        from unigen.training.uae_step_cost import uae_activation_bytes

        return uae_activation_bytes(models.config, models.uae, load.rows_per_micro_batch)
    if rows is None:
        one = _auto_encode(models) if models.config.stage == "tokenizer" else _contrast(models)
        words = 0 if models.contrast is None else _read_caption(models.contrast.text_model).kept_bytes
        return (one.kept_bytes + words) * load.rows_per_micro_batch
    cost = LanguageModelCost(rows.llm_config)
    kept = cost.activation_bytes_per_token(training.precision, training.recompute)
    if training.recompute != "none":  # one layer is computed again at a time
        kept += cost.activation_bytes_per_token(training.precision, "none") // rows.llm_config.num_hidden_layers
    return kept * load.tokens_per_micro_batch
