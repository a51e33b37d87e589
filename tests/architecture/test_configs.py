# SPDX-License-Identifier: Apache-2.0
"""Every shipped configuration loads and dry-runs without weights and network, through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unigen.cli.main import main
from unigen.config.load import load_config
from unigen.config.schema import ROW_STAGES
from unigen.data.shapes.tokenizer import train_tokenizer

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "configs"
RECIPES = [path for path in sorted(CONFIGS.glob("*/*.yaml")) if any(line.startswith("stage:") for line in path.open())]
FULL_SIZE = CONFIGS / "unigen_1_5b"
UNIFORK = CONFIGS / "unifork_0_5b"

NAMES = [str(path.relative_to(CONFIGS)) for path in RECIPES]


PLANS: dict[tuple[str, ...], dict[str, Any]] = {}
"""By the words that ask for them; each is made once."""


def _dry_run(capsys: pytest.CaptureFixture[str], path: Path, *overrides: str) -> dict[str, Any]:
    words = (str(path), *overrides)
    if words not in PLANS:
        assert main(["train", *words, "--dry-run", "--json"]) == 0, capsys.readouterr().err
        PLANS[words] = json.loads(capsys.readouterr().out)
    return PLANS[words]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Away from any unigen_data or runs folder of the machine."""
    monkeypatch.chdir(tmp_path)


def test_there_are_recipes_of_every_world() -> None:
    assert {"unigen_1_5b/unigen_pt1.yaml", "unigen_1_5b/unigen_pt2.yaml", "unigen_1_5b/unigen_sft.yaml"} <= set(NAMES)
    assert {f"unifork_0_5b/{stage}.yaml" for stage in UNIFORK_STAGES} <= set(NAMES)
    assert {"uae/longcap.yaml", "uae/coldstart.yaml", "shapes/uae_vae.yaml", "shapes/uae_captioner.yaml"} <= set(NAMES)
    assert {"shapes/tokenizer.yaml", "shapes/vision.yaml", "shapes/pt1.yaml"} <= set(NAMES)


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_every_shipped_configuration_dry_runs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = _dry_run(capsys, path)
    assert plan["parameters"]["trained"] > 0
    assert plan["flops_per_step"]["total"] > 0
    assert plan["memory_per_gpu"]["total"] > 0
    assert plan["steps"] > 0
    assert plan["gpu_days"] > 0


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_the_lanes_suit_the_gpus_and_workers_of_the_recipe(path: Path) -> None:
    config = load_config(path)
    assert config.data.lanes % (config.training.num_gpus * max(1, config.data.num_workers)) == 0


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_the_tie_of_embeddings_is_stated_in_yaml(path: Path) -> None:
    if load_config(path).stage in ROW_STAGES:
        texts = path.read_text() + (path.parent / "base.yaml").read_text()
        assert "tie_word_embeddings:" in texts


def test_pretraining_1_has_its_exact_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    plan = _dry_run(capsys, FULL_SIZE / "unigen_pt1.yaml")
    assert plan["parameters"] == {
        "language_model": 1_555_896_320,
        "image_tokenizer": 95_387_004,
        "total": 1_651_283_324,
        "trained": 1_555_896_320,
        "frozen": 95_387_004,
    }
    assert (plan["vocabulary_size"], plan["text_ids"], plan["row_length"]) == (159_867, 151_674, 387)
    assert plan["samples_per_step"] == {"t2i": 128, "mmu": 64}
    assert plan["tokens_per_step"] == 192 * 387
    assert plan["flops_per_step"]["image_tokenizer"] == pytest.approx(192 * 355e9, rel=0.01)
    assert plan["steps"] == 150_000


def test_pretraining_2_and_fine_tuning_have_their_exact_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    second = _dry_run(capsys, FULL_SIZE / "unigen_pt2.yaml")
    assert (second["row_length"], second["steps"], second["vocabulary_size"]) == (835, 400_000, 159_867)
    assert second["samples_per_step"] == {"t2i": 64, "lm": 16, "mmu": 48}
    third = _dry_run(capsys, FULL_SIZE / "unigen_sft.yaml")
    assert (third["row_length"], third["steps"], third["vocabulary_size"]) == (1603, 145_824, 159_867)
    assert third["samples_per_step"] == {"t2i": 24, "lm": 8, "mmu": 32}
    assert third["parameters"]["projector"] == 4_131_840
    assert third["parameters"]["image_tokenizer"] == 95_387_004
    assert third["parameters"]["trained"] == 1_555_896_320 + 4_131_840


def test_preference_optimisation_has_its_exact_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    plan = _dry_run(capsys, FULL_SIZE / "unigen_dpo.yaml")
    assert (plan["row_length"], plan["steps"], plan["vocabulary_size"]) == (387, 213, 159_867)
    assert plan["samples_per_step"] == {"t2i": 80}
    assert plan["tokens_per_step"] == 2 * 80 * 387
    assert plan["parameters"]["trained"] == 1_555_896_320
    assert plan["parameters"]["reference_model"] == 1_555_896_320 + 4_131_840
    assert plan["flops_per_step"]["language_model"] == pytest.approx(3 * plan["flops_per_step"]["reference_model"])
    assert plan["flops_per_step"]["image_tokenizer"] == pytest.approx(160 * 355e9, rel=0.01)
    lighter = _dry_run(capsys, FULL_SIZE / "unigen_dpo.yaml", "dpo.reference=precomputed")
    assert plan["memory_per_gpu"]["total"] - lighter["memory_per_gpu"]["total"] == 4 * 1_560_028_160


@pytest.mark.parametrize(
    ("stage", "trained"),
    [("longcap", 8_056_627_520 + 50_343_936), ("coldstart", 3_754_622_976 - 668_684_288 + 8_056_627_520 + 50_343_936)],
)
def test_a_stage_of_uae_has_its_exact_sizes(stage: str, trained: int, capsys: pytest.CaptureFixture[str]) -> None:
    plan = _dry_run(capsys, CONFIGS / "uae" / f"{stage}.yaml")
    parameters = plan["parameters"]
    assert (parameters["decoder"], parameters["language_model"]) == (8_056_627_520, 3_754_622_976)
    assert (parameters["projector"], parameters["trained"]) == (50_343_936, trained)
    assert plan["steps"] == {"longcap": 2735, "coldstart": 1000}[stage]


ALL, CONNECTOR, DEPTH_TRANSFORMER, BRANCH = 1_076_643_072, 1_723_904, 401_936_896, 12 * 14_912_384 + 896
"""Weights of UniFork: all, and those of its parts; a branch has twelve layers and a norm."""
UNIFORK_STAGES: dict[str, tuple[int, int, dict[str, int], tuple[float, str, float, str, str, float]]] = {
    "s1_imagenet": (
        CONNECTOR + DEPTH_TRANSFORMER,
        26_692,
        {"t2i": 192, "mmu": 192},
        (1e-4, "cosine", 0.03, "opened", "caption", 0.0),
    ),
    "s1_laion_coyo": (
        CONNECTOR + DEPTH_TRANSFORMER,
        52_084,
        {"t2i": 192, "mmu": 192},
        (1e-4, "constant", 0.0, "bare", "plain", 0.1),
    ),
    "s2_pretrain": (ALL, 52_084, {"t2i": 192, "mmu": 192}, (5e-5, "constant", 0.0, "conversation", "plain", 0.1)),
    "s2_sft": (ALL, 20_834, {"t2i": 192, "mmu": 192}, (5e-5, "constant", 0.0, "conversation", "conversation", 0.1)),
    "s3_gen": (
        BRANCH + DEPTH_TRANSFORMER,
        10_417,
        {"t2i": 384},
        (3e-5, "constant", 0.0, "conversation", "conversation", 0.1),
    ),
    "s3_und": (BRANCH, 10_417, {"mmu": 384}, (2e-5, "cosine", 0.03, "conversation", "conversation", 0.1)),
}
"""What each trains, its steps, its samples a step, and what differs between the settings."""


@pytest.mark.parametrize("stage", UNIFORK_STAGES)
def test_a_stage_of_unifork_has_its_exact_sizes_and_settings(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    trained, steps, samples, settings = UNIFORK_STAGES[stage]
    plan = _dry_run(capsys, UNIFORK / f"{stage}.yaml")
    parameters = plan["parameters"]
    assert parameters["language_model"] == 672_982_272
    assert (parameters["connector"], parameters["depth_transformer"]) == (CONNECTOR, DEPTH_TRANSFORMER)
    assert (parameters["trained"], parameters["total"] - parameters["image_tokenizer"]) == (trained, ALL)
    assert (plan["row_length"], plan["vocabulary_size"], plan["num_gpus"]) == (1350, 151_936, 16)
    assert (plan["steps"], plan["samples_per_step"], sum(samples.values())) == (steps, samples, 384)
    config = load_config(UNIFORK / f"{stage}.yaml")
    fork, schedule, training, optimizer = config.model.fork, config.schedule, config.training, config.optimizer
    assert settings == (
        optimizer.learning_rate,
        schedule.name,
        schedule.warmup_ratio,
        fork.draw_format,
        fork.read_format,
        training.prompt_drop_prob,
    )
    assert (optimizer.weight_decay, optimizer.beta1, optimizer.beta2, optimizer.epsilon) == (0.0, 0.9, 0.999, 1e-8)
    assert (training.gradient_clipping, training.precision, schedule.warmup_steps) == (0.0, "bfloat16", 0)
    assert training.epochs == (4 if stage == "s1_imagenet" else 1)


def test_untied_embeddings_are_a_second_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    plan = _dry_run(capsys, FULL_SIZE / "unigen_pt2.yaml", "model.tie_word_embeddings=false")
    assert plan["parameters"]["language_model"] == 1_801_452_032


def test_parameters_change_with_the_number_of_layers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    content = json.loads((CONFIGS / "models/Qwen2.5-1.5B-Instruct/config.json").read_text())
    (tmp_path / "short").mkdir()
    (tmp_path / "short/config.json").write_text(json.dumps({**content, "num_hidden_layers": 27}))
    whole = _dry_run(capsys, FULL_SIZE / "unigen_pt1.yaml", "model.tie_word_embeddings=true")
    # A folder without a text tokenizer and without shipped numbers: the vocabulary is that of its config.json.
    short = _dry_run(capsys, FULL_SIZE / "unigen_pt1.yaml", f"model.language_model={tmp_path / 'short'}")
    extra_rows = short["vocabulary_size"] - whole["vocabulary_size"]
    layer = whole["parameters"]["language_model"] - short["parameters"]["language_model"] + extra_rows * 1536
    assert extra_rows == 151_936 - 151_665
    assert layer == 2 * 1536 * (1536 + 256) + 3 * 1536 * 8960 + (1536 + 2 * 256) + 2 * 1536


def test_the_adapters_of_lora_are_what_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    plan = _dry_run(capsys, FULL_SIZE / "unigen_pt2.yaml", "training.lora.rank=8")
    per_layer = 8 * (2 * (1536 + 1536) + 2 * (1536 + 256) + 3 * (1536 + 8960))
    assert plan["parameters"]["trained"] == plan["parameters"]["adapters"] == 28 * per_layer
    assert plan["parameters"]["language_model"] == 1_555_896_320


def test_frozen_patterns_leave_their_parameters_out(capsys: pytest.CaptureFixture[str]) -> None:
    plan = _dry_run(capsys, FULL_SIZE / "unigen_sft.yaml", r"training.freeze=['\.llm\.']")
    assert plan["parameters"]["trained"] == 4_131_840


def test_recomputation_and_sharding_save_memory(capsys: pytest.CaptureFixture[str]) -> None:
    path = FULL_SIZE / "unigen_sft.yaml"
    full, none = (_dry_run(capsys, path, f"training.recompute={kind}") for kind in ("full", "none"))
    assert full["memory_per_gpu"]["activations"] < none["memory_per_gpu"]["activations"] / 5
    backends = none["memory_per_gpu_by_backend"]
    assert backends["ddp"] == none["memory_per_gpu"]["total"]
    assert max(backends["zero2"], backends["zero3"], backends["fsdp2"]) < backends["ddp"]


def test_gpu_days_follow_the_use_of_the_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(FULL_SIZE / "unigen_pt1.yaml")
    days = []
    for mfu in ("0.2", "0.4"):
        assert main(["train", path, "--dry-run", "--json", "--mfu", mfu]) == 0
        days.append(json.loads(capsys.readouterr().out)["gpu_days"])
    assert days[0] == pytest.approx(2 * days[1])


def test_the_stand_in_of_the_shapes_tokenizer_has_its_size() -> None:
    stand_in = json.loads((CONFIGS / "models/shapes-qwen2/dry_run.json").read_text())
    assert stand_in["num_text_tokens"] == len(train_tokenizer())


def test_the_description_names_what_a_user_asks_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(FULL_SIZE / "unigen_sft.yaml"), "--dry-run"]) == 0
    text = capsys.readouterr().out
    for wanted in ("1,555,896,320", "159,867", "1,603", "145,824", "H200", "at most", "is not here"):
        assert wanted in text


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["optimizer.lerning_rate=1"], ("optimizer.lerning_rate", "learning_rate")),
        (["training.steps=many"], ("training.steps", "many")),
        (["training.samples_per_step.lm=4"], ("training.samples_per_step.lm", "data.sources")),
        (["training.tokens_per_row=300"], ("training.tokens_per_row", "387")),
        (["model.image_resolution=250"], ("model.image_resolution", "250", "16")),
        (["model.language_model=Qwen9"], ("Qwen9",)),
        (["training.freeze=[nothing]"], ("training.freeze", "nothing")),
        (["--mfu", "40"], ("--mfu", "40")),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(
    words: list[str], named: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(FULL_SIZE / "unigen_pt1.yaml"), *words, "--dry-run"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert [word for word in named if word not in captured.err] == []


def test_a_dry_run_in_a_process_of_its_own_needs_no_network(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "unigen", "train", str(FULL_SIZE / "unigen_pt1.yaml"), "--dry-run", "--json"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "https_proxy": "http://127.0.0.1:1"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=offline, check=True)
    assert json.loads(done.stdout)["row_length"] == 387
    assert list(tmp_path.iterdir()) == []
