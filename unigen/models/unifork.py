# SPDX-License-Identifier: Apache-2.0
"""UniFork: a Qwen2 whose lower layers are shared and whose upper layers are there once for reading and once for drawing.

Source: Li et al., arXiv 2506.17202, section 3. Weight names as in the released checkpoints: `model.layers` are the shared
layers and the understanding branch, `model.gen_fork_layers` the generation branch.
Legend: R rows, L positions, D width, K feature slots, F feature size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, Cache, PreTrainedModel, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm, Qwen2RotaryEmbedding

from unigen.errors import ConfigError
from unigen.models.depth_transformer import DepthTransformer
from unigen.models.language import use_our_attention
from unigen.models.unifork_config import Branch, UniForkConfig

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask  # imported where it is used: it takes seconds

    from unigen.sequence.visibility import DocumentMasks, Visible


class Connector(nn.Module):
    """Image features -> embeddings, and the two vectors that stand around an image."""

    def __init__(self, feature_size: int, hidden_size: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(feature_size, hidden_size)
        self.linear2 = nn.Linear(hidden_size, hidden_size)
        self.token_embedding = nn.Embedding(2, hidden_size)

    def forward(self, features_KF: Tensor) -> Tensor:
        return self.linear2(F.gelu(self.linear1(features_KF)))


class ForkedLayers(nn.Module):
    """Everything but the output embedding, under the released names."""

    def __init__(self, config: UniForkConfig) -> None:
        super().__init__()
        llm, shared = config.llm_config, config.num_shared_layers
        reads, draws = config.has("understanding"), config.has("generation")
        below = shared + (config.branch_layers("understanding") if reads else 0)
        beside = config.branch_layers("generation") if draws else 0
        self.embed_tokens = nn.Embedding(llm.vocab_size, llm.hidden_size)
        self.layers = nn.ModuleList(Qwen2DecoderLayer(llm, depth) for depth in range(below))
        # Numbered from where they part, so that both branches use the same places of a cache.
        self.gen_fork_layers = nn.ModuleList(Qwen2DecoderLayer(llm, shared + depth) for depth in range(beside))
        self.norm = Qwen2RMSNorm(llm.hidden_size, eps=llm.rms_norm_eps) if reads else None
        self.norm_gen = Qwen2RMSNorm(llm.hidden_size, eps=llm.rms_norm_eps) if draws else None
        self.rotary_emb = Qwen2RotaryEmbedding(config=llm)
        self.mm_projector = Connector(config.feature_size, llm.hidden_size)
        depth_transformer = {"rqtransformer": DepthTransformer(config.depth_sizes)} if draws else {}
        self.vision_tower = nn.ModuleDict({"vision_tower": nn.ModuleDict(depth_transformer)})


class UniFork(PreTrainedModel):
    """Rows of the two tasks run through the shared layers together, then through the branch of their task.

    Knows no objective, no loader, no image tokenizer and no way of decoding.
    """

    config_class = UniForkConfig
    config: UniForkConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _no_split_modules = ["Qwen2DecoderLayer"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: UniForkConfig) -> None:
        super().__init__(config)
        llm = use_our_attention(config.llm_config)
        self.model = ForkedLayers(config)
        self.lm_head = None
        if config.has("understanding"):
            self.lm_head = nn.Linear(llm.hidden_size, llm.vocab_size, bias=False)
        else:
            self._tied_weights_keys = {}
        for module in (*self.model.mm_projector.modules(), *self.model.vision_tower.modules()):
            module._is_hf_initialized = True  # they start as PyTorch draws them
        self.post_init()

    def forward(
        self,
        input_ids_RL: Tensor,
        positions_RL: Tensor,
        visible: Visible,
        is_generation_R: Tensor,
        features_KF: Tensor | None = None,
        feature_slots_K: Tensor | None = None,
    ) -> Tensor:
        """Normed hidden states (R, L, D) of rows of both tasks; `is_generation_R` says which branch a row goes through.

        Both branches run even where no row is theirs: then every rank has a gradient for their weights, if a zero one.

        Args:
            features_KF: of the image tokenizer, for the flat positions `feature_slots_K` of the (R, L) grid.
        Raises:
            ConfigError: rows for a branch that the model lacks.
        """
        hidden_RLD = self.embed(input_ids_RL, features_KF, feature_slots_K)
        rotary = self.model.rotary_emb(hidden_RLD, positions_RL)
        hidden_RLD = _run(self.shared_layers, hidden_RLD, rotary, visible.mask())
        for branch in ("understanding", "generation"):
            rows = (is_generation_R == (branch == "generation")).nonzero()[:, 0]
            if self.config.has(branch):
                states = self._own_states(branch, hidden_RLD, rotary, visible, rows)
                hidden_RLD = hidden_RLD.index_copy(0, rows, states.to(hidden_RLD.dtype))
            elif len(rows):
                raise ConfigError(f"{len(rows)} rows are for the {branch} branch, which this model does not have")
        return hidden_RLD

    def _own_states(
        self, branch: Branch, hidden_RLD: Tensor, rotary: Sequence[Tensor], visible: Visible, rows: Tensor
    ) -> Tensor:
        """Normed states of the rows of a branch; of no rows too, from a single position whose state goes nowhere."""
        layers, norm = self.branch_layers(branch), self.branch_norm(branch)
        if len(rows):
            mask = visible.rows(rows).mask(branch)
            return norm(_run(layers, hidden_RLD[rows], [part[rows] for part in rotary], mask))
        states_11D = norm(_run(layers, hidden_RLD[:1, :1], [part[:1, :1] for part in rotary], None))
        return states_11D[:0].expand(0, *hidden_RLD.shape[1:])

    def hidden_states(
        self,
        embeddings_RLD: Tensor,
        positions_RL: Tensor,
        mask: Tensor | BlockMask | DocumentMasks | None,
        branch: Branch,
        cache: Cache | None = None,
    ) -> Tensor:
        """Normed hidden states (R, L, D) of rows of one task, with the keys and values of what came before in `cache`."""
        rotary = self.model.rotary_emb(embeddings_RLD, positions_RL)
        hidden_RLD = _run(self.shared_layers, embeddings_RLD, rotary, mask, cache)
        hidden_RLD = _run(self.branch_layers(branch), hidden_RLD, rotary, mask, cache)
        return self.branch_norm(branch)(hidden_RLD)

    def embed(
        self, input_ids_RL: Tensor, features_KF: Tensor | None = None, feature_slots_K: Tensor | None = None
    ) -> Tensor:
        """Embeddings (R, L, D) of token ids, of the two ids beyond the vocabulary and of image features."""
        beyond_RL = input_ids_RL - self.config.llm_config.vocab_size
        words_RLD = self.model.embed_tokens(input_ids_RL.clamp(max=self.config.llm_config.vocab_size - 1))
        around_RLD = self.model.mm_projector.token_embedding(beyond_RL.clamp(min=0))
        embeddings_RLD = torch.where((beyond_RL >= 0)[..., None], around_RLD, words_RLD)
        if features_KF is None or feature_slots_K is None:
            return embeddings_RLD
        projected_KD = self.model.mm_projector(features_KF.to(embeddings_RLD.dtype)).to(embeddings_RLD.dtype)
        return embeddings_RLD.flatten(0, 1).index_copy(0, feature_slots_K, projected_KD).view_as(embeddings_RLD)

    @property
    def shared_layers(self) -> list[nn.Module]:
        return list(self.model.layers)[: self.config.num_shared_layers]

    def branch_layers(self, branch: Branch) -> list[nn.Module]:
        """The layers that are a branch's own."""
        if branch == "generation":
            return list(self.model.gen_fork_layers)
        return list(self.model.layers)[self.config.num_shared_layers :]

    def branch_norm(self, branch: Branch) -> nn.Module:
        norm = self.model.norm_gen if branch == "generation" else self.model.norm
        assert norm is not None, f"this model has no {branch} branch"
        return norm

    @property
    def depth_transformer(self) -> DepthTransformer:
        """What turns a state of the generation branch into the codes of the next position."""
        inner = self.model.vision_tower["vision_tower"]
        assert isinstance(inner, nn.ModuleDict)
        head = inner["rqtransformer"]
        assert isinstance(head, DepthTransformer)
        return head

    @property
    def output_embedding_VD(self) -> Tensor:
        """Of the understanding branch, over the whole vocabulary."""
        assert self.lm_head is not None, "this model has no understanding branch"
        return self.lm_head.weight

    def get_input_embeddings(self) -> Any:
        return self.model.embed_tokens

    def get_output_embeddings(self) -> Any:
        return self.lm_head


def fork_language_model(llm: Qwen2ForCausalLM, config: UniForkConfig) -> UniFork:
    """A UniFork that starts from a plain Qwen2: both branches as copies of the layers that they take the place of.

    Raises:
        ConfigError: a path that is longer than the Qwen2.
    """
    shared, depth = config.num_shared_layers, llm.config.num_hidden_layers
    for branch in config.branches:
        if shared + config.branch_layers(branch) > depth:
            raise ConfigError(
                f"num_shared_layers={shared} and num_{branch}_layers={config.branch_layers(branch)} are more than the {depth} "
                "layers of the language model; take fewer, or initialization=random"
            )
    forked = UniFork(config)
    parts: list[tuple[nn.Module | None, nn.Module]] = [
        (forked.model.embed_tokens, llm.model.embed_tokens),
        *zip(forked.model.layers, llm.model.layers, strict=False),
        *zip(forked.model.gen_fork_layers, llm.model.layers[shared:], strict=False),
        (forked.model.norm, llm.model.norm),
        (forked.model.norm_gen, llm.model.norm),
        (forked.lm_head, llm.lm_head),
    ]
    for ours, theirs in parts:
        if ours is not None:
            ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    return forked


def _run(
    layers: Iterable[nn.Module],
    hidden_RLD: Tensor,
    rotary: Any,
    mask: Tensor | BlockMask | DocumentMasks | None,
    cache: Cache | None = None,
) -> Tensor:
    for layer in layers:
        hidden_RLD = layer(
            hidden_RLD, attention_mask=mask, position_embeddings=tuple(rotary), past_key_values=cache, use_cache=False
        )
    return hidden_RLD


AutoConfig.register(UniForkConfig.model_type, UniForkConfig)
AutoModel.register(UniForkConfig, UniFork)
