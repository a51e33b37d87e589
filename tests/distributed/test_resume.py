# SPDX-License-Identifier: Apache-2.0
"""kill -9 at any moment changes nothing: the run that goes on ends with the very bits of one that was left alone.

Two loader workers per rank, two tasks, several samples packed into a row. A row is packed from the samples of one global step,
never across steps, so a packer holds nothing between steps and there is nothing of it to save.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.ranks import Outcome, start_ranks
from tests.world import TinyWorld, metrics, weights

STEPS = 9
SECTIONS: dict[str, Any] = {
    "experiment": {"checkpoint_every": 3, "keep_last": 0},
    "training": {
        "steps": STEPS,
        "samples_per_step": {"t2i": 16, "lm": 8},  # 64 images and 64 lines: epochs of 4 and of 8 steps
        "rows_per_micro_batch": 2,
        "gradient_clipping": 0.5,
    },
    "data": {"num_workers": 2},
}
RANKS = {"single_process": 1, "multi_gpu": 2, "fsdp2": 2, "zero2": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


@dataclass(frozen=True)
class Job:
    """One run, whose processes are started again and again."""

    name: str
    config: Path

    @property
    def run(self) -> Path:
        return self.config.parent / "run"

    def start(self, *words: str, kill: str = "", ranks: int | None = None) -> Outcome:
        log = self.config.parent / "log.txt"
        number = ranks or RANKS[self.name]
        name = "multi_gpu" if self.name == "single_process" and number > 1 else self.name
        return start_ranks(f"{name}.yaml", number, log, "train", self.config, *words, kill=kill)


def job(name: str, folder: Path, world: TinyWorld) -> Job:
    return Job(name, world.config(folder, "pretrain", **SECTIONS))


@pytest.fixture(scope="module", params=RANKS)
def undisturbed(request: pytest.FixtureRequest, tiny_world: TinyWorld, folder: Path) -> Job:
    whole = job(request.param, folder / request.param / "whole", tiny_world)
    outcome = whole.start()
    assert set(outcome.codes) == {0}, outcome.output[-3000:]
    backend = {"single_process": "replicated", "multi_gpu": "replicated", "fsdp2": "fsdp2", "zero2": "zero-2"}[
        whole.name
    ]
    facts = [json.loads(path.read_text()) for path in whole.run.glob("rank-*.json")]
    assert [(one["world_size"], one["backend"]) for one in facts] == [(len(outcome.codes), backend)] * len(
        outcome.codes
    )
    return whole


def assert_same_bits(found: Path, expected: Path) -> None:
    first, second = weights(found), weights(expected)
    assert first.keys() == second.keys()
    assert [name for name in second if not torch.equal(first[name], second[name])] == []
    lines = [[(line["step"], line["loss/total"]) for line in metrics(run)] for run in (found, expected)]
    assert lines[0] == lines[1]
    generators = [load_file(run / f"checkpoint-{STEPS}" / "state" / "rng.safetensors") for run in (found, expected)]
    assert [name for name in generators[1] if not torch.equal(generators[0][name], generators[1][name])] == []


def test_a_run_killed_between_saves_during_a_save_and_after_an_epoch_ends_with_the_same_bits(
    undisturbed: Job, tiny_world: TinyWorld, folder: Path
) -> None:
    disturbed = job(undisturbed.name, folder / undisturbed.name / "killed", tiny_world)
    for moment in ("after:2", "saving:3", "after:5", "saving:6", "after:8"):
        # Before the last death checkpoint-6 has to be there; elsewhere a thread may still be writing one.
        words = ["experiment.async_save=false"] if moment == "after:8" else []
        outcome = disturbed.start(*words, kill=moment)
        assert set(outcome.codes) == {-9}, (moment, outcome.output[-3000:])
        step = int(moment.partition(":")[2])
        if moment.startswith("saving"):
            assert not (disturbed.run / f"checkpoint-{step}").exists(), "it had no name yet"
            assert list(disturbed.run.glob(f"checkpoint-{step}*")), "but it was being written"
    lanes = json.loads((disturbed.run / "checkpoint-6" / "state" / "trainer.json").read_text())["data"][
        "lanes"
    ].values()
    assert {epoch for lane in lanes for epoch, _, _ in lane["t2i"]["sources"].values()} == {1}, "the images began anew"
    outcome = disturbed.start()
    assert set(outcome.codes) == {0}, outcome.output[-3000:]
    assert f"going on from {disturbed.run / 'checkpoint-6'}" in outcome.output
    assert_same_bits(disturbed.run, undisturbed.run)


def continued(whole: Job, folder: Path, world: TinyWorld) -> Job:
    """A copy of a run as it was after 6 steps."""
    copy = job(whole.name, folder, world)
    shutil.copytree(whole.run, copy.run, ignore=shutil.ignore_patterns(f"checkpoint-{STEPS}", "rank-*"))
    return copy


def test_a_run_goes_on_with_another_number_of_ranks_where_its_state_can_be_dealt_out_again(
    undisturbed: Job, tiny_world: TinyWorld, folder: Path
) -> None:
    ranks = 3 - RANKS[undisturbed.name]
    other = continued(undisturbed, folder / undisturbed.name / "other", tiny_world)
    outcome = other.start("data.num_workers=0", ranks=ranks)
    if undisturbed.name == "zero2":
        assert set(outcome.codes) == {2}
        assert "was written by 2 ranks, this run has 1" in outcome.output
        return
    assert set(outcome.codes) == {0}, outcome.output[-3000:]
    assert len(list(other.run.glob("rank-*.json"))) == ranks
    for line, expected in zip(metrics(other.run), metrics(undisturbed.run), strict=True):
        assert line["loss/total"] == pytest.approx(expected["loss/total"], abs=1e-5)
    found = weights(other.run)
    for name, tensor in weights(undisturbed.run).items():
        assert (found[name] - tensor).abs().max() < 1e-5, name
