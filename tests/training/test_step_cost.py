# SPDX-License-Identifier: Apache-2.0
"""The memory formula of the dry run against numbers worked out by hand."""

from pathlib import Path

from unigen.config.load import load_config
from unigen.training.meta_model import build_on_meta
from unigen.training.step_cost import memory_per_gpu, sharded_totals, step_load

PT1 = Path(__file__).resolve().parents[2] / "configs/unigen_1_5b/unigen_pt1.yaml"
WEIGHTS = 1_555_896_320
LAYER = 2 * 1536 * (1536 + 256) + 3 * 1536 * 8960 + (1536 + 2 * 256) + 2 * 1536
"""Query and output, keys and values; the three matrices of the feed-forward part; biases; two norms."""
OUTSIDE = 159_867 * 1536 + 1536
"""The embedding, which is the head too, and the last norm."""
GPUS = 8


def _needs(*overrides: str) -> tuple[dict[str, int], dict[str, int]]:
    models = build_on_meta(load_config(PT1, overrides))
    needs = memory_per_gpu(models, step_load(models))
    return needs, sharded_totals(models, needs)


def test_fsdp2_holds_its_share_of_the_state_and_copies_of_two_layers_and_of_what_is_in_none() -> None:
    assert 28 * LAYER + OUTSIDE == WEIGHTS
    needs, totals = _needs()
    rest = needs["total"] - 16 * WEIGHTS - needs["bfloat16_weights"]
    assert totals["ddp"] == needs["total"]
    assert totals["fsdp2"] == rest + 16 * WEIGHTS // GPUS + 2 * (OUTSIDE + 2 * LAYER)
    assert totals["zero2"] == rest + 16 * WEIGHTS // GPUS + 2 * WEIGHTS
    assert totals["zero2"] - totals["fsdp2"] == 2 * 26 * LAYER == 2_433_486_848


def test_copies_are_as_precise_as_the_run() -> None:
    needs, totals = _needs("training.precision=float32")
    assert needs["bfloat16_weights"] == 0
    assert totals["fsdp2"] == needs["total"] - 16 * WEIGHTS + 16 * WEIGHTS // GPUS + 4 * (OUTSIDE + 2 * LAYER)


def test_muon_keeps_one_moment_less_of_the_matrices_of_layers() -> None:
    adamw, muon = (_needs(f"optimizer.name={name}")[0] for name in ("adamw", "muon"))
    matrices = 28 * (2 * 1536 * (1536 + 256) + 3 * 1536 * 8960)
    assert adamw["weights_gradients_optimizer"] == 16 * WEIGHTS
    assert muon["weights_gradients_optimizer"] == 16 * WEIGHTS - 4 * matrices
    assert adamw["total"] - muon["total"] == 4 * matrices == 5_240_782_848
