# SPDX-License-Identifier: Apache-2.0
"""What a UniFork checkpoint says of itself: where its layers part, and what its branches and heads are."""

from __future__ import annotations

import copy
from typing import Any, Literal

from transformers import PretrainedConfig, Qwen2Config

from unigen.errors import ConfigError
from unigen.models.depth_transformer import DepthTransformerSizes
from unigen.models.language import use_our_attention
from unigen.sequence.templates.unifork import DrawFormat, ReadFormat

Branch = Literal["understanding", "generation"]


class UniForkConfig(PretrainedConfig):
    """The released model by default: 24 layers of Qwen2.5-0.5B, of which the upper 12 are there once a branch.

    A branch of 0 layers is a final norm alone, so `num_shared_layers` of all and two branches of 0 are the fully shared model,
    and 0 shared layers a mixture of transformers. A branch of None is not there: the model is an expert of the other task.
    """

    model_type = "unifork"
    sub_configs = {"llm_config": Qwen2Config}  # noqa: RUF012 (transformers declares it so)

    llm_config: Any = None
    """Sizes of all layers; `num_hidden_layers` is that of the longer path."""
    num_shared_layers: int = 12
    num_understanding_layers: int | None = 12
    num_generation_layers: int | None = 12
    depth_transformer: dict[str, Any] | None = None
    """Fields of DepthTransformerSizes; null takes the defaults."""
    feature_size: int = 1024
    """Channels of the image tokenizer's features, which the connector reads for both tasks."""
    num_image_codes: int = 576
    """Positions of an image; each has as many codes as the depth transformer has depths."""
    image_resolution: int = 384
    max_text_tokens: int = 772
    draw_format: DrawFormat = "conversation"
    """What stands around a caption in the rows that it was trained on."""
    read_format: ReadFormat = "conversation"
    """What stands around questions and answers."""
    image_tokenizer: str = "image_tokenizer"
    """Folder of the image tokenizer, relative to this checkpoint's own folder or looked up by name."""
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if self.llm_config is None:
            self.llm_config = Qwen2Config(
                vocab_size=151936,
                hidden_size=896,
                intermediate_size=4864,
                num_hidden_layers=24,
                num_attention_heads=14,
                num_key_value_heads=2,
                rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            )
        elif isinstance(self.llm_config, dict):
            self.llm_config = Qwen2Config(**{k: v for k, v in self.llm_config.items() if k != "model_type"})
        use_our_attention(self.llm_config)
        super().__post_init__(**kwargs)
        self._check()
        self.llm_config.num_hidden_layers = self.num_shared_layers + max(self.branch_layers(b) for b in self.branches)
        self.llm_config.layer_types = ["full_attention"] * self.llm_config.num_hidden_layers
        self.llm_config.tie_word_embeddings = self.tie_word_embeddings

    def _check(self) -> None:
        if not self.branches:
            raise ConfigError(
                "num_understanding_layers and num_generation_layers are both null, so there is no branch; give one of them"
            )
        numbers = {"num_shared_layers": self.num_shared_layers}
        numbers |= {f"num_{branch}_layers": self.branch_layers(branch) for branch in self.branches}
        for name, number in numbers.items():
            if number < 0:
                raise ConfigError(f"{name} is {number}; give 0 or more")
        if self.has("generation") and self.depth_sizes.hidden_size != self.llm_config.hidden_size:
            raise ConfigError(
                f"depth_transformer.hidden_size is {self.depth_sizes.hidden_size}, but the language model's is "
                f"{self.llm_config.hidden_size}; make them equal"
            )

    @property
    def branches(self) -> list[Branch]:
        """Those that the model has."""
        return [branch for branch in ("understanding", "generation") if self.has(branch)]

    def has(self, branch: Branch) -> bool:
        return getattr(self, f"num_{branch}_layers") is not None

    def branch_layers(self, branch: Branch) -> int:
        """How many layers of its own a branch has."""
        return getattr(self, f"num_{branch}_layers")

    def path_config(self, branch: Branch) -> Qwen2Config:
        """Of the plain Qwen2 that the shared layers and those of a branch make."""
        path = copy.deepcopy(self.llm_config)
        path.num_hidden_layers = self.num_shared_layers + self.branch_layers(branch)
        path.layer_types = path.layer_types[: path.num_hidden_layers]
        return path

    @property
    def depth_sizes(self) -> DepthTransformerSizes:
        return DepthTransformerSizes(**(self.depth_transformer or {}))

    @property
    def initializer_range(self) -> float:
        """Of the language model's weights, where they are drawn."""
        return self.llm_config.initializer_range

    @property
    def start_of_image_id(self) -> int:
        """Stands for the connector's first vector; beyond the vocabulary, so it is never written."""
        return self.llm_config.vocab_size

    @property
    def end_of_image_id(self) -> int:
        """Stands for the connector's second vector."""
        return self.llm_config.vocab_size + 1

    @property
    def num_text_ids(self) -> int:
        """The whole vocabulary: image codes have no ids."""
        return self.llm_config.vocab_size

    @property
    def row_length(self) -> int:
        """The longest row: text, image positions and the two vectors around them."""
        return self.max_text_tokens + self.num_image_codes + 2
