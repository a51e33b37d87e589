# SPDX-License-Identifier: Apache-2.0
"""UniFork's stages as a chain of jobs on a real SLURM: who waits for whom, and a first job on two nodes that is told to stop,
requeued and killed, ends with the weights of an undisturbed run and lets the next begin."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.slurm.conftest import SECONDS, Cluster, TrainingProcess
from tests.unifork_world import ORIGINS, RECIPES, UniForkWorld, write_unifork_world
from tests.world import metrics, quiet_environment, weights
from unigen.training.status import read_status

SCRIPT = "scripts/slurm/unifork_all.sh"
FIRST, SECOND = "s1_imagenet", "s1_laion_coyo"
STEPS = 40


def submit(cluster: Cluster, *words: str) -> dict[str, str]:
    """Stage -> number of its job."""
    *lines, merging = cluster.call("bash", SCRIPT, *words).splitlines()
    assert "unigen convert model" in merging
    assert "--generation-branch" in merging
    return {line.split(":")[0]: line.split()[2].rstrip(",") for line in lines}


def test_every_stage_waits_for_the_one_that_it_starts_from(cluster: Cluster, tmp_path: Path) -> None:
    words = ["--hold", "-p", "gpus", f"--output-dir={tmp_path}", "training.epochs=2", "s2_sft.optimizer.epsilon=1e-6"]
    jobs = submit(cluster, *words)
    facts = {stage: cluster.job(job) for stage, job in jobs.items()}
    lines = {stage: cluster.call("scontrol", "--oneliner", "show", "job", job) for stage, job in jobs.items()}
    cluster.call("scancel", *jobs.values())
    assert list(jobs) == list(ORIGINS)
    for stage, origin in ORIGINS.items():
        awaited = "(null)" if origin is None else f"afterok:{jobs[origin]}(unfulfilled)"
        assert facts[stage]["Dependency"] == awaited
        assert (facts[stage]["JobName"], facts[stage]["Requeue"]) == (f"unifork_{stage}", "1")
        assert (facts[stage]["NumNodes"], facts[stage]["TresPerNode"]) == ("2-2", "gres:gpu:8")
        start = "" if origin is None else f" model.pretrained={tmp_path / origin}"
        extra = " optimizer.epsilon=1e-6" if stage == "s2_sft" else ""
        command = f"scripts/train/{stage}.sh experiment.output_dir={tmp_path / stage}{start} training.epochs=2{extra} "
        assert command in lines[stage]


@pytest.mark.timeout(5 * SECONDS)
def test_a_job_that_is_told_to_stop_requeued_and_killed_ends_with_the_same_weights_and_the_next_starts_from_them(
    cluster: Cluster, tmp_path: Path
) -> None:
    world, runs = write_unifork_world(tmp_path / "data"), tmp_path / "runs"
    log = tmp_path / f"unifork_{FIRST}.log"
    words = [
        f"{FIRST}.experiment.checkpoint_every=10",
        *small(world, FIRST, runs, STEPS),
        *small(world, SECOND, runs, 1),
    ]
    jobs = submit(cluster, f"--output-dir={runs}", f"--output={tmp_path}/%x.log", "--gpus-per-node=0", *words)
    first, second = jobs[FIRST], jobs[SECOND]
    cluster.call("scancel", *(job for stage, job in jobs.items() if stage not in (FIRST, SECOND)))

    ranks = wait_for_a_step(cluster, first, runs / FIRST, log, start=0)
    assert [(process.rank, process.node) for process in ranks] == [(0, "n1"), (1, "n2")]
    cluster.call("scancel", "--signal=USR1", first)  # as SLURM itself does before the time limit
    wait_for_a_step(cluster, first, runs / FIRST, log, start=1)
    cluster.call("scontrol", "requeue", first)
    _, victim = wait_for_a_step(cluster, first, runs / FIRST, log, start=2)
    os.kill(victim.pid, signal.SIGKILL)
    facts, said = cluster.wait(first, log), log.read_text()
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "3"), said
    assert said.count("requeue: the run saved itself") == 1
    assert said.count("requeue: the run ended with exit code") == 1
    assert said.count(f"going on from {runs / FIRST / 'checkpoint-'}") == 3
    status = read_status(runs / FIRST)
    assert status is not None
    assert (status.state, status.num_processes, status.job) == ("done", 2, first)
    assert {line["step"] for line in metrics(runs / FIRST)} == set(range(1, STEPS + 1))

    train_undisturbed(world, tmp_path / "whole")
    found, expected = weights(runs / FIRST), weights(tmp_path / "whole" / FIRST)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)

    second_log = tmp_path / f"unifork_{SECOND}.log"
    facts = cluster.wait(second, second_log)
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "0"), second_log.read_text()
    after = weights(runs / SECOND)
    untrained = [name for name in after if "mm_projector" not in name and "vision_tower" not in name]
    assert len(untrained) > 0
    assert all(torch.equal(found[name], after[name]) for name in untrained)


def small(world: UniForkWorld, stage: str, runs: Path, steps: int) -> list[str]:
    """The world's overrides for one stage, but those that the script gives itself."""
    own = ("experiment.output_dir", "model.pretrained")
    return [f"{stage}.{word}" for word in world.overrides(stage, runs, steps) if not word.startswith(own)]


def train_undisturbed(world: UniForkWorld, runs: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = ["-m", "unigen", "train", str(RECIPES / f"{FIRST}.yaml"), *world.overrides(FIRST, runs, STEPS)]
    finished = subprocess.run(
        [*launcher, *words], env=quiet_environment(), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert finished.returncode == 0, finished.stderr


def wait_for_a_step(cluster: Cluster, job: str, run: Path, log: Path, start: int) -> list[TrainingProcess]:
    """The ranks of the given start of a job, once they have made a step."""

    def has_ranks() -> bool:
        state = cluster.job(job)["JobState"]
        assert state in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED"), log.read_text()
        return [process.start for process in cluster.processes(job)] == [start, start]

    wait_until(has_ranks, log)
    ranks, before = cluster.processes(job), num_lines(run / "metrics.jsonl")
    wait_until(lambda: num_lines(run / "metrics.jsonl") > before, log)
    return ranks


def num_lines(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.is_file() else 0


def wait_until(holds: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
        time.sleep(0.2)
