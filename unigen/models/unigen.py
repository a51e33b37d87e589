# SPDX-License-Identifier: Apache-2.0
"""UniGen: a Qwen2 that reads text, image codes and projected vision features, and writes text and image codes.

Source: Tian et al., arXiv 2505.14682, section 3. Weight names: `llm.*` (Qwen2ForCausalLM) and `mm_projector.{0,2,...}.*`.
Legend: R rows, L positions, D width, K feature slots, F vision width, N positions, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import AutoConfig, AutoModel, Cache, PretrainedConfig, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from unigen.errors import CheckpointError
from unigen.models.language import hidden_states, use_our_attention
from unigen.models.projector import Projector

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask  # imported where it is used: it takes seconds

    from unigen.sequence.visibility import DocumentMasks


class UniGenConfig(PretrainedConfig):
    """Everything that a checkpoint must say of itself to be trained further, sampled from and evaluated."""

    model_type = "unigen"
    sub_configs = {"llm_config": Qwen2Config}  # noqa: RUF012 (transformers declares it so)

    llm_config: Any = None
    code_offset: int = 151674
    """Id of image code 0."""
    codebook_size: int = 8192
    num_image_codes: int = 256
    image_resolution: int = 256
    max_text_tokens: int = 128
    task_token_first: bool = False
    feature_size: int = 0
    """Width of the vision tower's features; 0 where the model reads through image codes and has no projector."""
    projector_depth: int = 2
    image_tokenizer: str = "magvitv2"
    """Folder of the image tokenizer, relative to this checkpoint's own folder or looked up by name."""
    vision_tower: str | None = None
    tie_word_embeddings: bool = False
    """The language model's own configuration says whether its embeddings are tied."""

    def __post_init__(self, **kwargs: Any) -> None:
        if self.llm_config is None:
            self.llm_config = Qwen2Config()
        elif isinstance(self.llm_config, dict):
            self.llm_config = Qwen2Config(**{k: v for k, v in self.llm_config.items() if k != "model_type"})
        use_our_attention(self.llm_config)
        super().__post_init__(**kwargs)

    @property
    def mask_token_id(self) -> int:
        return self.code_offset + self.codebook_size

    @property
    def num_text_ids(self) -> int:
        """Text and task tokens of the vocabulary; the rest are image codes."""
        return self.code_offset

    @property
    def row_length(self) -> int:
        """The longest row: text, image codes and three tokens around them."""
        return self.max_text_tokens + self.num_image_codes + 3


class UniGen(PreTrainedModel):
    """The language model with its projector. Knows no objective, no loader and no way of decoding."""

    config_class = UniGenConfig
    config: UniGenConfig
    base_model_prefix = "llm"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Qwen2DecoderLayer"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: UniGenConfig) -> None:
        super().__init__(config)
        self.llm = Qwen2ForCausalLM(use_our_attention(config.llm_config))
        self.mm_projector = (
            Projector(config.feature_size, config.llm_config.hidden_size, config.projector_depth)
            if config.feature_size
            else None
        )
        self.post_init()

    def forward(
        self,
        input_ids_RL: Tensor,
        positions_RL: Tensor,
        mask: Tensor | BlockMask | DocumentMasks | None,
        features_KF: Tensor | None = None,
        feature_slots_K: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden states (R, L, D). `features_KF` fill the flat positions `feature_slots_K` of the (R, L) grid."""
        embeddings_RLD = self.llm.model.embed_tokens(input_ids_RL)
        if self.mm_projector is not None and features_KF is not None and feature_slots_K is not None:
            # Run with no features too: then every rank has a gradient for the projector, if a zero one.
            projected_KD = self.mm_projector(features_KF.to(embeddings_RLD.dtype))
            flat_ND = embeddings_RLD.flatten(0, 1).index_copy(0, feature_slots_K, projected_KD.to(embeddings_RLD.dtype))
            embeddings_RLD = flat_ND.view_as(embeddings_RLD)
        return hidden_states(self.llm, embeddings_RLD, positions_RL, mask, cache)

    def add_projector(self, feature_size: int, depth: int) -> None:
        """Make the model read vision features; one that already does must read features of this width."""
        if self.mm_projector is not None:
            if self.config.feature_size != feature_size:
                raise CheckpointError(
                    f"the model reads vision features of width {self.config.feature_size}, but the tower's have {feature_size}"
                )
            return
        self.config.feature_size, self.config.projector_depth = feature_size, depth
        self.mm_projector = Projector(feature_size, self.config.llm_config.hidden_size, depth)

    @property
    def output_embedding_VD(self) -> Tensor:
        """Output embedding over the whole vocabulary."""
        return self.llm.lm_head.weight

    @property
    def code_output_embedding_CD(self) -> Tensor:
        """Its rows of the image codes."""
        start = self.config.code_offset
        return self.output_embedding_VD[start : start + self.config.codebook_size]

    def get_input_embeddings(self) -> Any:
        return self.llm.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        return self.llm.get_output_embeddings()


AutoConfig.register(UniGenConfig.model_type, UniGenConfig)
AutoModel.register(UniGenConfig, UniGen)
