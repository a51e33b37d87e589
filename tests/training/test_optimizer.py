# SPDX-License-Identifier: Apache-2.0
"""What is trained, decayed, and at which rate."""

from pathlib import Path

import pytest
import torch

from tests.tiny_unifork import save_tiny_rqvae
from tests.training.stages.test_unifork import unifork_config
from tests.training.steps import first_step
from tests.world import TinyWorld, train, weights
from unigen.config.schema import OptimizerConfig
from unigen.errors import ConfigError
from unigen.training.optimizer import build_optimizer, freeze, is_hidden_matrix
from unigen.training.stages.stage import Stage


@pytest.fixture
def stage(tiny_world: TinyWorld, tmp_path: Path) -> Stage:
    return first_step(tiny_world.config(tmp_path, "sft"))[0]


def _decayed(stage: Stage, config: OptimizerConfig) -> dict[str, bool]:
    groups = build_optimizer(stage, config).param_groups
    found = {id(one): group["weight_decay"] > 0 for group in groups for one in group["params"]}
    return {name: found[id(one)] for name, one in stage.named_parameters()}


def test_norms_biases_and_embeddings_are_not_decayed(stage: Stage) -> None:
    decayed = _decayed(stage, OptimizerConfig())
    layer = "model.llm.model.layers.0."
    assert decayed[f"{layer}self_attn.q_proj.weight"]
    assert decayed["model.mm_projector.0.weight"]
    assert not decayed[f"{layer}self_attn.q_proj.bias"]
    assert not decayed[f"{layer}input_layernorm.weight"]
    assert not decayed["model.llm.model.embed_tokens.weight"]


def test_the_released_decay_of_all_but_biases_is_a_choice(stage: Stage) -> None:
    decayed = _decayed(stage, OptimizerConfig(decay_norms_and_embeddings=True))
    assert {name for name, is_decayed in decayed.items() if not is_decayed} == {
        name for name in decayed if name.endswith("bias")
    }


def test_the_discriminator_has_its_own_rate(tiny_world: TinyWorld, tmp_path: Path) -> None:
    tokenizer = {"adversarial_weight": 0.1, "discriminator_learning_rate": 1e-5}
    stage, _ = first_step(tiny_world.config(tmp_path, "tokenizer", tokenizer_stage=tokenizer))
    groups = build_optimizer(stage, OptimizerConfig(learning_rate=0.003)).param_groups
    rates = {id(one): group["lr"] for group in groups for one in group["params"]}
    for name, one in stage.named_parameters():
        assert rates[id(one)] == pytest.approx(1e-5 if name.startswith("discriminator") else 0.003)


def test_a_pattern_that_finds_nothing_is_refused(stage: Stage) -> None:
    with pytest.raises(ConfigError, match=r"'lm_haed', which finds no parameter; names look like model\."):
        freeze(stage, ["lm_haed"])


def test_freezing_everything_is_refused(stage: Stage) -> None:
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        freeze(stage, ["."])


def test_frozen_weights_stay_as_they_are_and_others_move(tiny_world: TinyWorld, tmp_path: Path) -> None:
    freeze_keys = {"freeze": [r"layers\.0\.", "embed_tokens"]}
    config = tiny_world.config(tmp_path, training=freeze_keys, experiment={"checkpoint_every": 1, "keep_last": 0})
    assert train(config) == 0
    first, last = (weights(tmp_path / "run" / f"checkpoint-{step}" / "unwrapped_model") for step in (1, 3))
    for name in first:
        is_frozen = "layers.0." in name or "embed_tokens" in name
        assert torch.equal(first[name], last[name]) == is_frozen, name


def test_muon_steps_matrices_of_layers_and_adamw_all_else(stage: Stage) -> None:
    optimizer = build_optimizer(stage, OptimizerConfig(name="muon", weight_decay=0.0, learning_rate=0.5))
    before = {name: one.detach().clone() for name, one in stage.named_parameters()}
    for one in stage.parameters():
        one.grad = torch.randn_like(one)
    optimizer.step()
    for name, one in stage.named_parameters():
        change = (one.detach() - before[name]) / 0.5
        if one.ndim == 2 and "embed_tokens" not in name:
            # Orthogonalised, and scaled to AdamW's size: all singular values about 0.2 sqrt(longer side).
            values = torch.linalg.svdvals(change) / (0.2 * max(one.shape) ** 0.5)
            assert values.min() > 0.5, name
            assert values.max() < 1.4, name
            assert set(optimizer.state[one]) == {"momentum_buffer"}
        else:
            torch.testing.assert_close(change.abs(), torch.ones_like(change), atol=1e-2, rtol=0)
            assert {"exp_avg", "exp_avg_sq"} <= set(optimizer.state[one])


def test_muon_obeys_the_rates_that_the_loop_sets(stage: Stage) -> None:
    optimizer = build_optimizer(stage, OptimizerConfig(name="muon"))
    before = [one.detach().clone() for one in stage.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for one in stage.parameters():
        one.grad = torch.randn_like(one)
    optimizer.step()
    assert all(torch.equal(one, old) for one, old in zip(stage.parameters(), before, strict=True))


def test_in_unifork_muon_steps_what_lies_between_states_and_no_table_and_no_head(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    forked, _ = first_step(unifork_config(tiny_world, tmp_path))
    of_muon = {name for name, one in forked.named_parameters() if is_hidden_matrix(name, one)}
    inside = ("_proj.weight", "linear1.weight", "linear2.weight", "in_mlp_1.weight", "in_mlp_2.weight")
    depth = ("mlp.0.weight", "mlp.2.weight", "key.weight", "query.weight", "value.weight", "attn.proj.weight")
    assert of_muon
    assert all(name.endswith((*inside, *depth)) for name in of_muon), sorted(of_muon)
    heads = [name for name, _ in forked.named_parameters() if name.endswith("classifier_mlp.linear.weight")]
    tables = [
        name
        for name, _ in forked.named_parameters()
        if name.endswith(("embed_tokens.weight", "token_embedding.weight"))
    ]
    assert (len(heads), len(tables)) == (1, 2)
    decayed = _decayed(forked, OptimizerConfig())
    assert not any(decayed[name] for name in (*heads, *tables))
    assert all(decayed[name] for name in of_muon)


def test_the_codebook_of_an_image_tokenizer_is_a_table(tiny_world: TinyWorld, tmp_path: Path) -> None:
    model = {"image_tokenizer": str(save_tiny_rqvae(tmp_path / "rqvae"))}
    stage, _ = first_step(tiny_world.config(tmp_path, "tokenizer", model=model))
    (name,) = [name for name, _ in stage.named_parameters() if "codebooks" in name]
    assert not is_hidden_matrix(name, dict(stage.named_parameters())[name])
    assert not _decayed(stage, OptimizerConfig())[name]
