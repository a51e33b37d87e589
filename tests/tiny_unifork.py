# SPDX-License-Identifier: Apache-2.0
"""UniFork with random weights, small enough to run anywhere in milliseconds."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, SiglipVisionConfig

from unigen.data.shapes.tokenizer import train_tokenizer
from unigen.models.image_tokenizers.rqvae_siglip import RqVaeSiglip, RqVaeSiglipConfig
from unigen.models.unifork import UniFork
from unigen.models.unifork_config import UniForkConfig

SMALL_DEPTH: dict[str, Any] = {
    "depth": 3,
    "codebook_size": 20,
    "code_channels": 6,
    "hidden_size": 16,
    "width": 16,
    "attention_width": 24,
    "num_heads": 2,
    "num_layers": 2,
}


def small_language(**changed: Any) -> Qwen2Config:
    """Four layers; weights large enough for everything to matter."""
    sizes: dict[str, Any] = {
        "vocab_size": 50,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return Qwen2Config(**{**sizes, **changed})


def small_unifork(**fields: Any) -> UniFork:
    """Always the same weights for the same fields; norms are no ones."""
    described = {"depth_transformer": SMALL_DEPTH, "feature_size": 6, "num_image_codes": 16, **fields}
    config = UniForkConfig(**{"llm_config": small_language(), **described})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UniFork(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" in name:
                    parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


VISION: dict[str, Any] = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
FORK: dict[str, Any] = {"num_shared_layers": 2, "num_understanding_layers": 2, "num_generation_layers": 2}


def tiny_rqvae() -> RqVaeSiglip:
    """16 pixels to 4 x 4 positions of 3 codes; a decoder as a released config.json describes it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        config = RqVaeSiglipConfig(
            siglip_config=VISION,
            codebook_size=20,
            depth=3,
            latent_channels=4,
            base_channels=32,
            channel_multipliers=[1, 1, 1],
            res_blocks=1,
            attention_resolutions=[4],
            resolution=16,
        )
        return RqVaeSiglip(config).eval()


def write_released_tower_config(folder: Path) -> Path:
    """The folder that a released config.json names, without weights."""
    SiglipVisionConfig(**VISION).save_pretrained(folder / "siglip")
    decoder = {"ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [4], "z_channels": 4}
    rqvae = {
        "pretrained_model": str(folder / "siglip"),
        "embed_dim": 8,
        "n_embed": 20,
        "code_shape": [4, 4, 3],
        "ddconfig": {**decoder, "resolution": 16},
    }
    head = {"n_layer": 2, "block": {"n_head": 2}}
    content = {"model_type": "rqvaesigliptransformer_model", "rqvaesiglip": rqvae, "rqtransformer": {"head": head}}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def released_unifork(folder: Path, model: UniFork | None = None, dtype: torch.dtype = torch.float32) -> Path:
    """Write a checkpoint as the released trainer does: one pickle of all parts, codebooks and embeddings repeated."""
    text = train_tokenizer(400)
    if model is None:
        depth = {**SMALL_DEPTH, "code_channels": 8}
        model = small_unifork(
            **FORK, llm_config=small_language(vocab_size=len(text)), feature_size=8, depth_transformer=depth
        )
    tower = write_released_tower_config(folder.parent / "tower")
    inner = tiny_rqvae().state_dict()
    codebook = inner["quantizer.codebooks.0.weight"]
    repeated = {f"quantizer.codebooks.{depth}.weight": codebook.clone() for depth in range(3)}
    unused = {"siglip_model.logit_scale": torch.zeros(1), "siglip_model.text_model.head.bias": torch.zeros(8)}
    inside = {f"model.vision_tower.vision_tower.rqvaesiglip.{k}": v for k, v in (inner | repeated | unused).items()}
    state = {name: tensor.to(dtype) for name, tensor in (model.state_dict() | inside).items()}
    llm = {k: v for k, v in model.config.llm_config.to_dict().items() if k not in ("layer_types", "model_type")}
    content = {
        **llm,
        "model_type": "llava_qwen2",
        "architectures": ["LlavaQwen2ForCausalLM"],
        "mm_vision_tower": str(tower),
        "image_resolution": 16,
        "tokenizer_model_max_length": 200,
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(content))
    torch.save(state, folder / "pytorch_model.bin")
    text.save_pretrained(folder)
    return folder


def save_tiny_rqvae(folder: Path, side: int = 32) -> Path:
    """An image tokenizer of `side` pixels to 4 x 4 positions of 3 codes."""
    patch = side // 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        config = RqVaeSiglipConfig(
            siglip_config={**VISION, "image_size": side, "patch_size": patch},
            codebook_size=20,
            depth=3,
            latent_channels=4,
            base_channels=4,
            channel_multipliers=[1] * patch.bit_length(),
            res_blocks=1,
            attention_resolutions=[4],
            norm_groups=4,
            resolution=side,
        )
        RqVaeSiglip(config).save_pretrained(folder)
    return folder
