# SPDX-License-Identifier: Apache-2.0
"""scripts/slurm/train.sbatch on a real SLURM of two nodes: the launcher, the requeue, the seeds."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.slurm.conftest import SECONDS, Cluster
from tests.world import TinyWorld, metrics, quiet_environment, weights
from unigen.training.status import read_status

SCRIPT = "scripts/slurm/train.sbatch"
STEPS = 40


@pytest.mark.timeout(2 * SECONDS)
def test_a_job_on_two_nodes_that_is_told_to_stop_goes_on_and_ends_with_the_same_weights(
    cluster: Cluster, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    sections = {"training": {"steps": STEPS}, "data": {"num_workers": 1}}
    stopped, whole = (tiny_world.config(tmp_path / name, **sections) for name in ("stopped", "whole"))
    run, log = tmp_path / "stopped" / "run", tmp_path / "job.log"
    job = cluster.submit(log, "--nodes=2", SCRIPT, stopped)
    deadline = time.monotonic() + SECONDS
    while not (run / "metrics.jsonl").is_file():
        facts = cluster.job(job)
        assert facts["JobState"] in ("PENDING", "RUNNING"), log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    assert sorted(cluster.processes(job).items()) == [(0, "n1"), (1, "n2")]
    cluster.call("scancel", "--signal=USR1", job)  # as SLURM itself does before the time limit
    facts = cluster.wait(job, log)
    said = log.read_text()
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1"), said
    assert said.count("requeue: the run saved itself") == 1
    assert f"going on from {run / 'checkpoint-'}" in said
    status = read_status(run)
    assert status is not None
    assert (status.state, status.num_processes, status.job) == ("done", 2, job)

    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    undisturbed = [*launcher, "-m", "unigen", "train", str(whole)]
    finished = subprocess.run(
        undisturbed, env=quiet_environment(), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert finished.returncode == 0, finished.stderr
    found, expected = weights(run), weights(tmp_path / "whole" / "run")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert {line["step"] for line in metrics(run)} == set(range(1, STEPS + 1))


@pytest.mark.timeout(2 * SECONDS)
def test_an_array_is_one_run_a_seed(cluster: Cluster, tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = tiny_world.config(tmp_path, training={"steps": 2})
    job = cluster.submit(tmp_path / "job-%a.log", "--array=0-1", SCRIPT, config, "experiment.log_every=1")
    for seed in (0, 1):
        log = tmp_path / f"job-{seed}.log"
        facts = cluster.wait(f"{job}_{seed}", log)
        assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "0"), log.read_text()
        assert f"seed: {seed}\n" in (tmp_path / "run" / f"seed-{seed}" / "config.yaml").read_text()
    losses = [metrics(tmp_path / "run" / f"seed-{seed}")[0]["loss/total"] for seed in (0, 1)]
    assert losses[0] != losses[1]


def test_a_mistake_ends_the_job_with_one_clear_line_and_is_not_queued_again(
    cluster: Cluster, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    log = tmp_path / "job.log"
    job = cluster.submit(log, "--nodes=2", SCRIPT, tiny_world.config(tmp_path), "training.stepz=3")
    facts = cluster.wait(job, log)
    assert (facts["JobState"], facts["Restarts"], facts["ExitCode"]) == ("FAILED", "0", "2:0")
    assert "unigen: error: " in log.read_text()
    assert "training.stepz" in log.read_text()
