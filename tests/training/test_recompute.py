# SPDX-License-Identifier: Apache-2.0
"""How much is computed again follows from the memory of the GPU, and is said."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.steps import first_step
from tests.world import TinyWorld, train
from unigen.cli.main import main
from unigen.config.load import load_config
from unigen.training.dry_run import GPU_BYTES
from unigen.training.meta_model import build_on_meta
from unigen.training.recompute import KINDS, USABLE_SHARE, choose_recompute, resolve_recompute
from unigen.training.step_cost import memory_per_gpu, sharded_totals, step_load

PT1 = Path(__file__).resolve().parents[2] / "configs/unigen_1_5b/unigen_pt1.yaml"


def test_a_smaller_gpu_recomputes_more_and_each_choice_fits() -> None:
    models = build_on_meta(load_config(PT1))
    load = step_load(models)
    needs = {}
    for kind in KINDS:
        training = replace(models.config.training, recompute=kind)
        like_this = replace(models, config=replace(models.config, training=training))
        needs[kind] = sharded_totals(like_this, memory_per_gpu(like_this, load))["ddp"]
    assert needs["none"] > needs["selective"] > needs["full"]
    for kind in KINDS:
        assert choose_recompute(models, "ddp", int(needs[kind] / USABLE_SHARE) + 1) == kind
    assert choose_recompute(models, "ddp", int(needs["full"] / 10)) == "full", "nothing keeps less"
    assert choose_recompute(models, "zero2", int(needs["full"] / USABLE_SHARE)) != "full", "sharding leaves room"


def test_the_dry_run_says_what_auto_comes_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(PT1), "training.recompute=auto", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["recompute"] == "none"
    assert plan["memory_per_gpu"]["total"] <= USABLE_SHARE * GPU_BYTES
    huge = ["training.recompute=auto", "training.tokens_per_row=65536", "training.num_gpus=1"]
    assert main(["train", str(PT1), *huge, "training.samples_per_step={t2i: 4096, mmu: 512}", "--dry-run"]) == 0
    assert "recompute full" in capsys.readouterr().out


@pytest.mark.parametrize("stage", ["pretrain", "tokenizer"])
def test_on_a_cpu_auto_keeps_everything_and_the_run_says_so(
    tiny_world: TinyWorld, tmp_path: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_world.config(tmp_path, stage, training={"recompute": "auto", "steps": 1})
    assert train(config) == 0
    assert "training.recompute=auto: none" in capsys.readouterr().out
    assert resolve_recompute(load_config(config), "replicated", 1, torch.device("cpu")) == "none"


def test_recomputing_is_asked_for_in_the_current_way(tiny_world: TinyWorld, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        first_step(tiny_world.config(tmp_path), "training.recompute=full")
