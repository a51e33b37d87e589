# SPDX-License-Identifier: Apache-2.0
"""Restarts of unused codes: which, where to, and as part of a run."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_unifork import save_tiny_rqvae, tiny_rqvae
from tests.world import TinyWorld, metrics, train
from unigen.training.stages.code_restart import CodeRestart

NAME = "quantizer.codebooks.0.weight"


def test_codes_that_are_taken_stay_and_others_go_where_a_depth_looks_for_one() -> None:
    tokenizer = tiny_rqvae()
    codebook_KC, restart = tokenizer.quantizer.codebook_KC.detach(), CodeRestart(tokenizer.codebook_size)
    codebook_KC[10:20] += 1000  # too far for any feature
    before = tokenizer.state_dict()[NAME].clone()
    pixels = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    output = tokenizer(pixels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        restart(codebook_KC, output)
    taken = output.codes.unique()
    changed = torch.ne(tokenizer.state_dict()[NAME], before).any(1).nonzero()[:, 0]
    assert set(range(10, 20)) <= set(changed.tolist())
    assert not set(taken.tolist()) & set(changed.tolist())
    assert len(before) - 1 not in changed, "the row of no code is not restarted"
    sums = torch.cat([torch.zeros_like(output.partial_sums[:, :, :1]), output.partial_sums[:, :, :-1]], dim=2)
    places = (output.features.unsqueeze(2) - sums).flatten(0, 2)
    assert bool((codebook_KC[changed].unsqueeze(1) == places).all(2).any(1).all())
    assert tokenizer.encode(pixels).unique().numel() > taken.numel()


def test_a_code_has_time_before_it_is_restarted_again() -> None:
    tokenizer = tiny_rqvae()
    codebook_KC, restart = tokenizer.quantizer.codebook_KC.detach(), CodeRestart(tokenizer.codebook_size)
    output = tokenizer(torch.zeros(1, 3, 16, 16))
    restart(codebook_KC, output)
    first = codebook_KC.clone()
    for _ in range(21):
        restart(codebook_KC, output)
    assert torch.equal(codebook_KC, first)
    restart(codebook_KC, output)
    restart(codebook_KC, output)
    assert not torch.equal(codebook_KC, first)


def test_a_run_with_restarts_says_how_many_codes_are_in_use_and_resumes_bit_by_bit(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    def config(name: str) -> Path:
        model = {"image_tokenizer": str(save_tiny_rqvae(tmp_path / name / "rqvae"))}
        return tiny_world.config(tmp_path / name, "tokenizer", model=model, training={"steps": 6})

    restarts = "tokenizer_stage.enable_code_restart=true"
    assert train(config("whole"), restarts) == 0
    assert train(config("parts"), restarts, "training.steps=3") == 0
    assert train(config("parts"), restarts) == 0
    last = metrics(tmp_path / "whole" / "run")[-1]
    assert 1 < last["codebook/rows_in_use"] <= 20
    for file in ("unwrapped_model/model.safetensors", "state/stage.safetensors"):
        found, expected = (load_file(tmp_path / name / "run" / "checkpoint-6" / file) for name in ("parts", "whole"))
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert "code_restart.usage_K" in expected


def test_a_tokenizer_without_a_codebook_is_refused(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_world.config(tmp_path, "tokenizer")
    assert train(config, "tokenizer_stage.enable_code_restart=true") == 2
    assert "tiny-magvitv2 has no codebook of features" in capsys.readouterr().err
