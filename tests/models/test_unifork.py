# SPDX-License-Identifier: Apache-2.0
"""UniFork: one packed trunk and two branches give what two plain Qwen2 give, at the cost of one, for every way of forking."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.tiny_unifork import SMALL_DEPTH, small_language, small_unifork
from unigen.errors import ConfigError
from unigen.generation.cache import DecodingCache
from unigen.models.cost import count_parameters
from unigen.models.language import hidden_states, use_our_attention
from unigen.models.unifork import UniFork, fork_language_model
from unigen.models.unifork_config import UniForkConfig
from unigen.reference.forked import hidden_states_in_two_passes, plain_qwen2
from unigen.sequence.layout import Document, codes, features, lay_out, text
from unigen.sequence.visibility import Visible

FORKS: dict[str, dict[str, Any]] = {
    "half": {"num_shared_layers": 2, "num_understanding_layers": 2, "num_generation_layers": 2},
    "fully shared": {"num_shared_layers": 4, "num_understanding_layers": 0, "num_generation_layers": 0},
    "mixture of transformers": {"num_shared_layers": 0, "num_understanding_layers": 4, "num_generation_layers": 4},
    "longer understanding branch": {"num_shared_layers": 1, "num_understanding_layers": 3, "num_generation_layers": 1},
    "longer generation branch": {"num_shared_layers": 2, "num_understanding_layers": 0, "num_generation_layers": 2},
}
EXPERTS: dict[str, dict[str, Any]] = {
    "understanding": {"num_shared_layers": 2, "num_understanding_layers": 2, "num_generation_layers": None},
    "generation": {"num_shared_layers": 2, "num_understanding_layers": None, "num_generation_layers": 2},
}


def batch(model: UniFork, lengths: list[list[int]], side: int = 4) -> dict[str, Tensor]:
    """Packed rows: in each several documents of text, the two vectors and an image between them, then text."""
    config, generator = model.config, torch.Generator().manual_seed(3)
    ids = iter(torch.randint(0, config.llm_config.vocab_size, (1000,), generator=generator).tolist())
    image, longest = side * side, max(sum(length + side * side + 5 for length in row) for row in lengths)
    rows = []
    for row in lengths:
        documents = [
            Document(
                0,
                (
                    text([next(ids) for _ in range(length)]),
                    text([config.start_of_image_id]),
                    features(image),
                    text([config.end_of_image_id]),
                    text([next(ids) for _ in range(3)]),
                ),
            )
            for length in row
        ]
        rows.append(lay_out(documents, longest))
    slots = [row * longest + run for row, layout in enumerate(rows) for run in layout.feature_slots]

    def stacked(name: str) -> Tensor:
        return torch.stack([torch.from_numpy(getattr(row, name)) for row in rows])

    slots_K = torch.cat([torch.from_numpy(run) for run in slots])
    visible = Visible(stacked("documents_L"), stacked("blocks_L"), stacked("open_L"))
    return {
        "input_ids_RL": stacked("input_ids_L"),
        "positions_RL": stacked("positions_L"),
        "visible": visible,  # type: ignore[dict-item]
        "features_KF": torch.randn(len(slots_K), config.feature_size, generator=generator),
        "feature_slots_K": slots_K,
    }


LENGTHS = [[3, 6], [9], [2, 2, 1], [4]]
IS_GENERATION = torch.tensor([True, False, False, True])


def real(inputs: dict[str, Any]) -> Tensor:
    return inputs["visible"].documents_RL >= 0


@pytest.mark.parametrize("fork", FORKS)
def test_a_mixed_batch_gives_what_two_passes_through_plain_models_give(fork: str) -> None:
    model = small_unifork(**FORKS[fork])
    inputs = batch(model, LENGTHS)
    with torch.no_grad():
        found = model(**inputs, is_generation_R=IS_GENERATION)
    expected = hidden_states_in_two_passes(model, **inputs, is_generation_R=IS_GENERATION)
    torch.testing.assert_close(found[real(inputs)], expected[real(inputs)], rtol=1e-5, atol=1e-5)
    swapped = hidden_states_in_two_passes(model, **inputs, is_generation_R=~IS_GENERATION)
    assert not torch.allclose(found[real(inputs)], swapped[real(inputs)], atol=1e-2)


def test_long_rows_go_document_by_document_and_give_the_same() -> None:
    model = small_unifork(**FORKS["half"])
    inputs = batch(model, [[200, 150], [190, 40], [300]], side=12)
    is_generation = torch.tensor([False, True, False])
    with torch.no_grad():
        found = model(**inputs, is_generation_R=is_generation)
    expected = hidden_states_in_two_passes(model, **inputs, is_generation_R=is_generation)
    torch.testing.assert_close(found[real(inputs)], expected[real(inputs)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("expert", EXPERTS)
def test_an_expert_is_a_plain_model_and_refuses_rows_of_the_other_task(expert: str) -> None:
    model = small_unifork(**EXPERTS[expert])
    inputs = batch(model, LENGTHS)
    mine = torch.full((4,), expert == "generation")
    with torch.no_grad():
        found = model(**inputs, is_generation_R=mine)
    expected = hidden_states_in_two_passes(model, **inputs, is_generation_R=mine)
    torch.testing.assert_close(found[real(inputs)], expected[real(inputs)], rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="which this model does not have"):
        model(**inputs, is_generation_R=~mine)
    names = {name for name, _ in model.named_parameters()}
    drawing = {name for name in names if "gen_fork_layers" in name or "norm_gen" in name or "rqtransformer" in name}
    reading = names & {"lm_head.weight", "model.norm.weight", "model.layers.2.mlp.up_proj.weight"}
    assert bool(drawing) == (expert == "generation")
    assert bool(reading) == (expert == "understanding")


@pytest.mark.parametrize("is_generation", [[True, False, False, True], [True] * 4, [False] * 4])
def test_the_operations_are_those_of_one_trunk_and_of_each_rows_own_branch(is_generation: list[bool]) -> None:
    model = small_unifork(num_shared_layers=3, num_understanding_layers=1, num_generation_layers=2)
    inputs = batch(model, LENGTHS)
    hidden = model.embed(inputs["input_ids_RL"], inputs["features_KF"], inputs["feature_slots_K"])

    def flops(run: Any) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    def layers(count: int, rows: int) -> int:
        rotary = model.model.rotary_emb(hidden, inputs["positions_RL"][:1])
        layer, one = model.model.layers[0], hidden[:1]
        mask = inputs["visible"].rows(torch.tensor([0])).dense()  # type: ignore[attr-defined]
        return count * rows * flops(lambda: layer(one, attention_mask=mask, position_embeddings=rotary))

    embedding = flops(lambda: model.embed(inputs["input_ids_RL"], inputs["features_KF"], inputs["feature_slots_K"]))
    drawn = sum(is_generation)
    expected = embedding + layers(3, 4) + layers(1, 4 - drawn) + layers(2, drawn)
    found = flops(lambda: model(**inputs, is_generation_R=torch.tensor(is_generation)))
    assert found == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("is_generation", [True, False])
def test_a_batch_of_one_task_leaves_zero_gradients_and_not_none_in_the_other_branch(is_generation: bool) -> None:
    model = small_unifork(**FORKS["half"]).train()
    inputs = batch(model, LENGTHS)
    model(**inputs, is_generation_R=torch.full((4,), is_generation))[real(inputs)].square().mean().backward()
    own, other = ("gen_fork_layers", "model.layers.3") if is_generation else ("model.layers.3", "gen_fork_layers")
    for name, parameter in model.named_parameters():
        if own in name or name in ("model.embed_tokens.weight", "model.mm_projector.linear1.weight"):
            assert parameter.grad is not None, name
        if other in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() == 0, name
    trained = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert all("rqtransformer" in name for name in trained), trained


def test_recomputing_layers_changes_no_gradient() -> None:
    gradients = []
    for recompute in (False, True):
        model = small_unifork(**FORKS["half"]).train()
        if recompute:
            model.activation_checkpointing_enable()
        inputs = batch(model, LENGTHS)
        model(**inputs, is_generation_R=IS_GENERATION)[real(inputs)].square().mean().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


@pytest.mark.parametrize("branch", ["understanding", "generation"])
def test_a_cache_gives_the_states_of_the_whole_row(branch: Any) -> None:
    model = small_unifork(**FORKS["half"])
    inputs = batch(model, [[7]])
    embeddings = model.embed(inputs["input_ids_RL"], inputs["features_KF"], inputs["feature_slots_K"]).detach()
    positions, length, known = inputs["positions_RL"], inputs["input_ids_RL"].shape[1], 9
    causal = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    with torch.no_grad():
        whole = model.hidden_states(embeddings, positions, causal, branch)
        cache = DecodingCache(length)
        model.hidden_states(embeddings[:, :known], positions[:, :known], causal[..., :known, :known], branch, cache)
        for column in range(known, length):
            place = torch.tensor([column])
            cache = DecodingCache(length, cache.layers, place)
            mask = causal[:, :, column : column + 1]
            state = model.hidden_states(embeddings[:, place], positions[:, place], mask, branch, cache)
            torch.testing.assert_close(state[:, 0], whole[:, column], rtol=1e-4, atol=1e-5)


def test_branches_start_as_copies_of_the_layers_they_take_the_place_of() -> None:
    torch.manual_seed(1)
    llm = Qwen2ForCausalLM(use_our_attention(small_language()))
    config = UniForkConfig(llm_config=small_language(), feature_size=6, depth_transformer=SMALL_DEPTH, **FORKS["half"])
    model = fork_language_model(llm, config).eval()
    for index, layer in enumerate(model.model.gen_fork_layers):
        for name, tensor in layer.state_dict().items():
            assert torch.equal(tensor, llm.model.layers[2 + index].state_dict()[name])
    assert torch.equal(model.model.norm_gen.weight, llm.model.norm.weight)  # type: ignore[union-attr]
    assert model.lm_head.weight is model.model.embed_tokens.weight  # type: ignore[union-attr]
    ids = torch.randint(0, 50, (2, 9))
    causal = torch.ones(9, 9, dtype=torch.bool).tril()[None, None]
    positions = torch.arange(9).expand(2, -1)
    with torch.no_grad():
        expected = hidden_states(llm.eval(), llm.model.embed_tokens(ids), positions, causal)
        for branch in ("understanding", "generation"):
            assert torch.equal(model.hidden_states(model.embed(ids), positions, causal, branch), expected)
    with pytest.raises(ConfigError, match="more than the 4 layers"):
        fork_language_model(llm, UniForkConfig(**{**config.to_dict(), "num_generation_layers": 3}))


def test_a_plain_qwen2_of_shared_and_branch_layers_gives_the_same_states() -> None:
    model = small_unifork(**FORKS["half"])
    ids, positions = torch.randint(0, 50, (2, 9)), torch.arange(9).expand(2, -1)
    causal = torch.ones(9, 9, dtype=torch.bool).tril()[None, None]
    for branch in ("understanding", "generation"):
        plain = plain_qwen2(model, branch)
        with torch.no_grad():
            expected = plain.model(input_ids=ids, position_ids=positions, attention_mask={"full_attention": causal})
            found = model.hidden_states(model.embed(ids), positions, causal, branch)
        torch.testing.assert_close(found, expected.last_hidden_state)


def test_the_released_model_has_its_exact_sizes() -> None:
    with torch.device("meta"):
        model = UniFork(UniForkConfig())
    head, connector = count_parameters(model.depth_transformer), count_parameters(model.model.mm_projector)
    assert head == 401_936_896
    assert connector == 1_723_904
    assert count_parameters(model) - head - connector == 672_982_272
    assert count_parameters(model.model.gen_fork_layers) == 178_948_608


@pytest.mark.parametrize("fork", [*FORKS.values(), *EXPERTS.values()], ids=[*FORKS, *EXPERTS])
@pytest.mark.parametrize("tie", [True, False])
def test_a_saved_model_loads_bit_by_bit(fork: dict[str, Any], tie: bool, tmp_path: Path) -> None:
    model = small_unifork(**fork, tie_word_embeddings=tie)
    model.save_pretrained(tmp_path)
    loaded = UniFork.from_pretrained(tmp_path)
    assert loaded.config.to_dict()["num_generation_layers"] == fork["num_generation_layers"]
    expected, found = model.state_dict(), loaded.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    if model.lm_head is not None:
        assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tie  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"num_understanding_layers": None, "num_generation_layers": None}, "both null"),
        ({"num_shared_layers": -1}, "num_shared_layers is -1"),
        ({"num_generation_layers": -2}, "num_generation_layers is -2"),
        ({"depth_transformer": {**SMALL_DEPTH, "hidden_size": 7}}, "hidden_size is 7"),
    ],
)
def test_impossible_forks_are_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        small_unifork(**{**FORKS["half"], **fields})


def test_weights_have_the_released_names() -> None:
    names = set(small_unifork(**FORKS["half"]).state_dict())
    wanted = {
        "model.embed_tokens.weight",
        "model.layers.3.self_attn.q_proj.bias",
        "model.gen_fork_layers.1.mlp.gate_proj.weight",
        "model.gen_fork_layers.0.input_layernorm.weight",
        "model.norm.weight",
        "model.norm_gen.weight",
        "lm_head.weight",
        "model.mm_projector.linear1.weight",
        "model.mm_projector.linear2.bias",
        "model.mm_projector.token_embedding.weight",
        "model.vision_tower.vision_tower.rqtransformer.pos_emb_d",
        "model.vision_tower.vision_tower.rqtransformer.head_transformer.blocks.0.attn_in_proj.weight",
    }
    assert wanted <= names


def test_codes_and_features_take_the_same_places() -> None:
    """A drawn image is a segment of codes, a read one of features: both are filled with features of the connector."""
    drawn, read = (lay_out([Document(0, (text([1]), part, text([2])))], 6) for part in (codes(4), features(4)))
    assert drawn.code_slots[0].slots_I.tolist() == read.feature_slots[0].tolist() == [1, 2, 3, 4]


def test_qwen2_configurations_of_any_size_fork() -> None:
    config = UniForkConfig(
        llm_config=Qwen2Config(vocab_size=9, hidden_size=8, num_attention_heads=2, num_key_value_heads=1),
        depth_transformer={**SMALL_DEPTH, "hidden_size": 8},
        **FORKS["longer generation branch"],
    )
    assert config.llm_config.num_hidden_layers == 4
    assert config.start_of_image_id == 9
