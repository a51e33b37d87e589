# SPDX-License-Identifier: Apache-2.0
"""UAE with random weights, small enough to run in milliseconds: as one of our checkpoints, and as released in six folders."""

import copy
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from unigen.data.shapes.processor import VISION_TOKENS, shapes_processor
from unigen.models.uae import Uae
from unigen.models.uae_checkpoints import save_uae
from unigen.models.uae_config import UaeConfig

RESOLUTION = 16
PATCH = 4
POOLED = (5, 7)
"""Widths of the two text encoders."""
LLM_LORA = {"r": 4, "lora_alpha": 8}
DECODER: dict[str, Any] = {
    "_class_name": "SD3Transformer2DModel",
    "sample_size": 4,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "caption_projection_dim": 16,
    "pooled_projection_dim": sum(POOLED),
    "pos_embed_max_size": 8,
    "dual_attention_layers": [0],
    "qk_norm": "rms_norm",
}
VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [8, 8, 8],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": RESOLUTION,
    "scaling_factor": 1.5,
    "shift_factor": 0.1,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


@cache
def processor() -> Any:
    return shapes_processor(400, side=RESOLUTION, patch_size=PATCH)


def language_sizes() -> dict[str, Any]:
    """A config.json as Qwen2.5-VL's was written by transformers 4.50: the sizes of the text model at the top."""
    start, end, image, video = processor().tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "bos_token_id": None,
        "eos_token_id": None,
        "vision_start_token_id": start,
        "vision_end_token_id": end,
        "image_token_id": image,
        "video_token_id": video,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.3,
        "rms_norm_eps": 1e-6,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "vocab_size": len(processor().tokenizer) + 3,
        "vision_config": {
            "depth": 2,
            "fullatt_block_indexes": [1],
            "hidden_act": "silu",
            "hidden_size": 16,
            "in_channels": 3,
            "intermediate_size": 24,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 16,
            "initializer_range": 0.3,
        },
    }


def tiny_config(**fields: Any) -> UaeConfig:
    described = {
        "llm_config": Qwen2_5_VLConfig.from_dict(language_sizes()),
        "decoder_config": DECODER,
        "vae_config": VAE,
    }
    return UaeConfig(**{**described, "projector_width": 20, "image_resolution": RESOLUTION, **fields})


def small_uae(**fields: Any) -> Uae:
    """Always the same weights for the same fields, large enough for everything to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Uae(tiny_config(**fields))
        _spread(model.decoder)
        model.pooled_embedding.normal_()
    return model.eval()


def tiny_uae(folder: Path, **fields: Any) -> Path:
    """Write one of our checkpoints."""
    save_uae(small_uae(**fields), processor(), folder)
    return folder


def _spread(module: nn.Module) -> None:
    """Weights whose differences are seen in the output: those of fresh transformers nearly cancel."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


@dataclass(frozen=True)
class ReleasedUae:
    """A released model: where it lies, and the same model with its adapters in place."""

    file: Path
    language_model: Qwen2_5_VLForConditionalGeneration
    projector: nn.Module
    decoder: PeftModel
    vae: nn.Module
    pooled_embedding: Tensor


def released_uae(
    folder: Path, *, names: str = "4.50", dtype: torch.dtype = torch.float32, **settings: Any
) -> ReleasedUae:
    """Write the six folders of a release and their `model.yaml`.

    Args:
        names: transformers `4.50` or `today`, whose names the language model's weights have.
        settings: keys of `model.yaml` besides.
    """
    model = small_uae()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        pooled = _write_diffusion(folder / "SD3", model)
        model.decoder.save_pretrained(folder / "dit")
        decoder = _adapted_decoder(model.decoder)
        decoder.save_pretrained(folder / "dit_lora")
        _write_language_model(folder, model, names, dtype)
    processor().save_pretrained(folder / "llm_processor")
    keys = {name: name for name in ("SD3", "dit", "dit_lora", "llm", "llm_lora", "llm_processor")}
    content = {**keys, "llm_lora_alpha": LLM_LORA["lora_alpha"], "image_resolution": RESOLUTION, **settings}
    (folder / "model.yaml").write_text(yaml.safe_dump(content))
    return ReleasedUae(folder / "model.yaml", model.llm, model.projector, decoder, model.vae, pooled)


def _adapted_decoder(decoder: SD3Transformer2DModel) -> PeftModel:
    config = LoraConfig(r=3, lora_alpha=5, init_lora_weights=False, target_modules=["to_q", "add_k_proj", "to_out.0"])
    return get_peft_model(copy.deepcopy(decoder), config).eval()


def _write_diffusion(folder: Path, model: Uae) -> Tensor:
    """Auto-encoder, schedule and two text encoders; returns the pooled embedding of the empty prompt."""
    model.vae.save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    pooled = []
    for suffix, width in zip(("", "_2"), POOLED, strict=True):
        tokenizer = _clip_tokenizer(folder / f"tokenizer{suffix}")
        sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        encoder = CLIPTextModelWithProjection(
            CLIPTextConfig(vocab_size=len(tokenizer), projection_dim=width, pad_token_id=None, **ids, **sizes)
        ).eval()
        encoder.save_pretrained(folder / f"text_encoder{suffix}")
        empty = [tokenizer.bos_token_id, *[tokenizer.eos_token_id] * 76]
        with torch.no_grad():
            pooled.append(encoder(torch.tensor([empty])).text_embeds[0])
    return torch.cat(pooled)


def _clip_tokenizer(folder: Path) -> CLIPTokenizer:
    folder.mkdir(parents=True)
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _write_language_model(folder: Path, model: Uae, names: str, dtype: torch.dtype) -> None:
    """`llm` without its adapter and `llm_lora` with it, whose layers have gone on from there; `model` becomes the latter."""
    (folder / "llm").mkdir(parents=True)
    (folder / "llm" / "config.json").write_text(json.dumps(language_sizes()))
    _to_dtype(model, dtype)
    before = {**model.llm.state_dict(), **{f"projector.{k}": v for k, v in model.projector.state_dict().items()}}
    save_file(_as_saved(before, names, dtype), folder / "llm" / "model.safetensors")
    with torch.no_grad():
        model.llm.model.language_model.norm.weight.add_(0.25)
        model.projector[0].bias.add_(0.5)
    text = model.llm.model.language_model
    adapted = get_peft_model(text, LoraConfig(**LLM_LORA, init_lora_weights=False, target_modules="all-linear"))
    model.llm.model.language_model = adapted
    _to_dtype(model, dtype)
    state = {**model.llm.state_dict(), **{f"projector.{k}": v for k, v in model.projector.state_dict().items()}}
    _write_shards(folder / "llm_lora", _as_saved(state, names, dtype))


def _to_dtype(model: Uae, dtype: torch.dtype) -> None:
    """Values that a file of this type can hold."""
    with torch.no_grad():
        for part in (model.llm, model.projector):
            for parameter in part.parameters():
                parameter.copy_(parameter.to(dtype))


def _as_saved(state: dict[str, Tensor], names: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Without the tied head, under the names of a version."""
    kept = {name: tensor.detach().to(dtype).clone() for name, tensor in state.items() if name != "lm_head.weight"}
    if names == "today":
        return kept
    old = {name.replace("model.visual.", "visual.", 1): tensor for name, tensor in kept.items()}
    return {name.replace("model.language_model.", "model.", 1): tensor for name, tensor in old.items()}


def _write_shards(folder: Path, state: dict[str, Tensor]) -> None:
    """Three shards without an index."""
    folder.mkdir()
    names = sorted(state)
    for number in range(3):
        part = {name: state[name] for name in names[number::3]}
        save_file(part, folder / f"model-{number + 1:05d}-of-00003.safetensors")
