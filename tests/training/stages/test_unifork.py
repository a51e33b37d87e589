# SPDX-License-Identifier: Apache-2.0
"""UniFork's stages through the real command line: losses, what trains and what does not, checkpoints, sizes, refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from tests.tiny_unifork import released_unifork, save_tiny_rqvae
from tests.training.steps import assert_equal_gradients, first_step, loss_and_gradients
from tests.world import TinyWorld, metrics, train, weights
from unigen.cli.main import main
from unigen.config.folders import find_model
from unigen.data.batch import Sample
from unigen.models.image_tokenizers.registry import load_image_tokenizer
from unigen.models.unifork_checkpoints import load_unifork
from unigen.reference.forked import hidden_states_in_two_passes
from unigen.sequence.layout import IGNORED
from unigen.training.stages.unifork import DRAWING, UniForkStage

SMALL_HEAD = {"attention_width": 16, "num_heads": 2, "num_layers": 1, "dropout": 0.0}


def unifork_config(world: TinyWorld, folder: Path, fork: dict[str, Any] | None = None, **sections: Any) -> Path:
    model = {
        "family": "unifork",
        "image_tokenizer": str(save_tiny_rqvae(folder / "rqvae")),
        "fork": {"depth_transformer": SMALL_HEAD, **(fork or {})},
        **sections.pop("model", {}),
    }
    return world.config(folder, model=model, **sections)


def slow_losses(stage: UniForkStage, samples: list[Sample]) -> dict[str, list[Tensor]]:
    """The loss of every term: one sample at a time through a plain model of its own, whole logits."""
    found: dict[str, list[Tensor]] = {"t2i": [], "mmu": [], "lm": []}
    for sample in samples:
        (batch,) = stage.batches([sample])
        batch = stage.encode(batch)
        is_drawing = batch.tasks_RL[:, 0] == DRAWING
        features = {"features_KF": batch.features_KF, "feature_slots_K": batch.feature_slots_K}
        hidden = hidden_states_in_two_passes(
            stage.model, batch.input_ids_RL, batch.positions_RL, batch.visible, is_drawing, **features
        )[0]
        if is_drawing:
            (codes,) = batch.codes_NIP  # type: ignore[misc]
            head, embeddings = stage.model.depth_transformer, stage._frozen[0].depth_embeddings(codes)
            logits = head(hidden[batch.code_targets_NI[0]], embeddings)
            found["t2i"].append(F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none"))
            continue
        targets = batch.targets_RL[0]
        logits = stage.model.lm_head(hidden)  # type: ignore[misc]
        name = {1: "mmu", 2: "lm"}[sample.document.task]
        found[name].append(F.cross_entropy(logits[targets != IGNORED], targets[targets != IGNORED], reduction="none"))
    return found


@pytest.mark.parametrize("rows", [1, 8])
def test_the_losses_are_those_of_two_plain_models_sample_by_sample(
    tiny_world: TinyWorld, tmp_path: Path, rows: int
) -> None:
    config = unifork_config(tiny_world, tmp_path, training={"rows_per_micro_batch": rows, "tokens_per_row": 640})
    stage, samples = first_step(config)
    assert isinstance(stage, UniForkStage)
    with torch.no_grad():
        slow = slow_losses(stage, samples)
    counts = stage.counts(samples)
    assert counts == {task: sum(len(one) for one in terms) for task, terms in slow.items()}
    assert counts["t2i"] == 4 * 16 * 3
    expected = sum(torch.cat(terms).mean() for terms in slow.values())
    loss, _ = loss_and_gradients(stage, samples)
    assert loss == pytest.approx(float(expected), rel=1e-5)


def test_packing_and_micro_batches_change_no_gradient(tiny_world: TinyWorld, tmp_path: Path) -> None:
    found = []
    for name, training in {"alone": {"tokens_per_row": 274, "rows_per_micro_batch": 1}, "packed": {}}.items():
        config = unifork_config(tiny_world, tmp_path / name, training={"tokens_per_row": 640, **training})
        loss, gradients = loss_and_gradients(*first_step(config))
        # Without positions a key's bias moves all scores of a softmax alike: its gradient is rounding.
        found.append((loss, {name: one for name, one in gradients.items() if not name.endswith("attn.key.bias")}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert_equal_gradients(found[0][1], found[1][1])


def test_a_run_learns_and_leaves_a_checkpoint_that_loads_bit_by_bit(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = unifork_config(tiny_world, tmp_path, training={"steps": 12}, optimizer={"learning_rate": 0.01})
    before = weights_of_tokenizer(tmp_path)
    assert train(config) == 0
    lines = metrics(tmp_path / "run")
    for task in ("t2i", "mmu", "lm"):
        assert lines[-1][f"loss/{task}"] < lines[0][f"loss/{task}"]
    folder = find_model(tmp_path / "run")
    model, saved = load_unifork(folder), weights(tmp_path / "run")
    assert set(model.state_dict()) - set(saved) == {"lm_head.weight"}
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in saved.items())
    assert model.config.num_image_codes == 16
    tokenizer = load_image_tokenizer(find_model(model.config.image_tokenizer, near=folder))
    assert all(torch.equal(tokenizer.state_dict()[name], tensor) for name, tensor in before.items())
    more = unifork_config(
        tiny_world, tmp_path / "more", model={"pretrained": str(folder), "initialization": "pretrained"}
    )
    assert train(more) == 0


def weights_of_tokenizer(folder: Path) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in load_image_tokenizer(folder / "rqvae").state_dict().items()}


def test_an_interrupted_run_ends_with_the_same_weights(tiny_world: TinyWorld, tmp_path: Path) -> None:
    whole = unifork_config(tiny_world, tmp_path / "whole", training={"steps": 4})
    assert train(whole) == 0
    parts = unifork_config(tiny_world, tmp_path / "parts", training={"steps": 4})
    assert train(parts, "training.steps=2", "schedule.name=constant") == 0
    assert train(parts) == 0
    found, expected = weights(tmp_path / "parts" / "run"), weights(tmp_path / "whole" / "run")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("freeze", "moves"),
    [
        (
            r"^model\.(?!model\.(gen_fork_layers|norm_gen|vision_tower))",
            ("gen_fork_layers", "norm_gen", "rqtransformer"),
        ),
        (r"^model\.(?!model\.(layers\.1\.|norm\.))", ("model.layers.1.", "model.norm.")),
    ],
    ids=["generation alone", "understanding alone"],
)
def test_what_is_frozen_keeps_every_bit_and_the_rest_moves(
    tiny_world: TinyWorld, tmp_path: Path, freeze: str, moves: tuple[str, ...]
) -> None:
    config = unifork_config(tiny_world, tmp_path, training={"steps": 1})
    assert train(config) == 0
    start = {"pretrained": str(tmp_path / "run"), "initialization": "pretrained"}
    tuned = unifork_config(tiny_world, tmp_path / "tuned", model=start, training={"steps": 2, "freeze": [freeze]})
    assert train(tuned) == 0
    before, after = weights(tmp_path / "run"), weights(tmp_path / "tuned" / "run")
    for name in before:
        is_moved = not torch.equal(before[name], after[name])
        assert is_moved == any(part in name for part in moves), name


@pytest.mark.parametrize(
    ("fork", "samples"),
    [
        ({"branches": "generation"}, {"t2i": 4}),
        ({"branches": "understanding"}, {"mmu": 2, "lm": 2}),
        ({"num_shared_layers": 0}, {"t2i": 4, "mmu": 2}),
        ({"num_shared_layers": 2}, {"t2i": 4, "mmu": 2}),
        (
            {"num_shared_layers": 1, "num_generation_layers": 2, "draw_format": "bare", "read_format": "plain"},
            {"t2i": 4},
        ),
    ],
)
def test_every_way_of_forking_trains(
    tiny_world: TinyWorld, tmp_path: Path, fork: dict[str, Any], samples: dict[str, int]
) -> None:
    config = unifork_config(tiny_world, tmp_path, fork, training={"samples_per_step": samples, "steps": 2})
    assert train(config) == 0
    assert set(metrics(tmp_path / "run")[-1]) >= {f"loss/{task}" for task in samples}


def dry_run(path: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> dict[str, Any]:
    assert main(["train", str(path), *overrides, "--dry-run", "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def full_size(folder: Path) -> Path:
    """The released sizes; no folder of any of its parts is here."""
    source = {"format": "webdataset", "paths": ["a.tar"], "num_samples": 1000}
    content = {
        "stage": "pretrain",
        "experiment": {"name": "full", "output_dir": "run"},
        "model": {
            "family": "unifork",
            "language_model": "Qwen2.5-0.5B-Instruct",
            "image_tokenizer": "vila-u-7b-256",
            "image_resolution": 384,
            "max_text_tokens": 772,
        },
        "data": {"sources": {"draw": {**source, "task": "t2i"}, "read": {**source, "task": "mmu"}}},
        "training": {"samples_per_step": {"t2i": 192, "mmu": 192}, "num_gpus": 16, "tokens_per_row": 4050},
    }
    path = folder / "full.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_dry_run_has_the_released_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = dry_run(full_size(tmp_path), capsys)
    parameters = plan["parameters"]
    assert parameters["language_model"] == 672_982_272
    assert parameters["connector"] == 1_723_904
    assert parameters["depth_transformer"] == 401_936_896
    assert parameters["trained"] == 672_982_272 + 1_723_904 + 401_936_896
    assert parameters["frozen"] == parameters["image_tokenizer"]
    assert (plan["row_length"], plan["vocabulary_size"], plan["text_ids"]) == (1350, 151_936, 151_936)
    assert set(plan["flops_per_step"]) == {
        "language_model",
        "connector",
        "depth_transformer",
        "image_tokenizer",
        "total",
    }
    narrow = dry_run(
        full_size(tmp_path),
        capsys,
        "model.fork.depth_transformer.attention_width=896",
        "model.fork.depth_transformer.num_heads=14",
        "model.fork.num_shared_layers=24",
    )
    assert narrow["parameters"]["depth_transformer"] == 74_296_576
    assert narrow["parameters"]["language_model"] == 672_982_272 - 178_948_608
    assert narrow["flops_per_step"]["depth_transformer"] < plan["flops_per_step"]["depth_transformer"] / 4
    assert narrow["flops_per_step"]["language_model"] == plan["flops_per_step"]["language_model"]


def test_the_dry_run_of_a_checkpoint_has_its_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    released = released_unifork(tmp_path / "released")
    words = ["convert", "model", str(released), "--output", str(tmp_path / "ours"), "--to", "ours"]
    assert main(words) == 0
    capsys.readouterr()
    changes = [
        f"model.pretrained={tmp_path / 'ours'}",
        f"model.image_tokenizer={tmp_path / 'ours' / 'image_tokenizer'}",
        "model.image_resolution=16",
    ]
    plan = dry_run(full_size(tmp_path), capsys, *changes)
    expected = sum(parameter.numel() for parameter in load_unifork(released).parameters())
    assert plan["parameters"]["trained"] == expected


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["model.family=unigen"], ("model.fork", "unigen")),
        (["model.fork.branches=generation"], ("training.samples_per_step.mmu", "generation")),
        (["model.fork.num_shared_layers=99"], ("num_shared_layers", "99")),
        (["model.image_tokenizer=magvitv2"], ("model.image_tokenizer", "magvitv2", "vila-u-7b-256")),
        (["model.image_resolution=380"], ("model.image_resolution", "380", "16")),
        (["training.tokens_per_row=1000"], ("training.tokens_per_row", "1350")),
        (["training.mask_schedule=linear"], ("training.mask_schedule", "unifork")),
        (["model.vision_tower=siglip"], ("model.vision_tower", "unifork")),
    ],
)
def test_a_mistake_is_one_clear_line(
    words: list[str], named: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = full_size(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["model"]["fork"] = {"draw_format": "bare"}
    path.write_text(yaml.safe_dump(content))
    assert main(["train", str(path), *words, "--dry-run"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert [word for word in named if word not in captured.err] == []
