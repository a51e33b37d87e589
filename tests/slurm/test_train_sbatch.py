# SPDX-License-Identifier: Apache-2.0
"""scripts/slurm/train.sbatch on a real SLURM of two nodes: one run a seed, and mistakes. test_unifork_all.py has
jobs on two nodes, requeued and killed."""

from pathlib import Path

import pytest

from tests.slurm.conftest import SECONDS, Cluster
from tests.world import TinyWorld, metrics

SCRIPT = "scripts/slurm/train.sbatch"


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
