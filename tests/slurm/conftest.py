# SPDX-License-Identifier: Apache-2.0
"""A SLURM cluster of two nodes on this machine, in a temporary folder, where its programs are installed."""

import getpass
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
SECONDS = 900
"""For what takes a minute on an idle machine."""
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,sched_min_interval=0
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
JobRequeue=1
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]},{ports[2]}] CPUs=1 RealMemory=1000
NodeName=g[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[3]},{ports[4]}] CPUs=1 RealMemory=1000 Gres=gpu:8 State=DOWN
PartitionName=test Nodes=n[1-2] Default=YES MaxTime=60 State=UP
PartitionName=gpus Nodes=g[1-2] State=UP
"""


@dataclass(frozen=True)
class TrainingProcess:
    rank: int
    node: str
    pid: int
    start: int
    """How often its job had been started before."""


@dataclass(frozen=True)
class Cluster:
    """Two nodes, n1 and n2, with a core each, and in the partition `gpus` two of 8 GPUs each that never come up."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of a job that the tests themselves may run in."""
        outer = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        ours = {"SLURM_CONF": str(self.folder / "slurm.conf"), "VIRTUAL_ENV": sys.prefix}
        return {**outer, **ours, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}

    def call(self, *command: str | Path) -> str:
        finished = subprocess.run(
            [*map(str, command)],
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert finished.returncode == 0, f"{command}: {finished.stderr}"
        return finished.stdout.strip()

    def submit(self, log: Path, *arguments: str | Path) -> str:
        """Submit scripts/slurm/train.sbatch with options before and words after it; returns the job's number."""
        return self.call("sbatch", "--parsable", f"--output={log}", *arguments)

    def job(self, job: str) -> dict[str, str]:
        """What SLURM says of a job; asks it to start a requeued one without the usual two minutes' wait, but not at once: nodes
        refuse a job that is started in the second in which it was ended."""
        words = self.call("scontrol", "--oneliner", "show", "job", job).split()
        facts = dict(word.split("=", 1) for word in words if "=" in word)
        if facts["JobState"] == "PENDING" and facts["Reason"] == "BeginTime":
            wait = datetime.fromisoformat(facts["EligibleTime"]) - datetime.now()
            if wait.total_seconds() > 10:
                self.call("scontrol", "update", f"JobId={facts['JobId']}", "StartTime=now+3")
        return facts

    def wait(self, job: str, log: Path) -> dict[str, str]:
        """What SLURM says of a job when it has ended for good."""
        deadline = time.monotonic() + SECONDS
        while (facts := self.job(job))["JobState"] not in ENDED:
            assert time.monotonic() < deadline, f"{facts}\n{log.read_text() if log.exists() else 'no log'}"
            time.sleep(0.5)
        return facts

    def processes(self, job: str) -> list[TrainingProcess]:
        """The training processes of a job that runs now, by rank."""
        found = []
        for file in Path("/proc").glob("[0-9]*/environ"):
            try:
                entries = file.read_bytes().decode(errors="replace").split("\0")
            except OSError:  # gone, or someone else's
                continue
            values = dict(entry.split("=", 1) for entry in entries if "=" in entry)
            if values.get("SLURM_JOB_ID") == job and values.get("SLURM_CONF") == str(self.folder / "slurm.conf"):
                rank, node = values.get("RANK"), values.get("SLURMD_NODENAME")
                if rank is not None and node is not None:
                    start = int(values.get("SLURM_RESTART_COUNT", 0))
                    found.append(TrainingProcess(int(rank), node, int(file.parent.name), start))
        return sorted(found, key=lambda process: process.rank)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    missing = [program for program in PROGRAMS if _find(program) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: apt-get install --no-install-recommends slurm-wlm munge")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    facts = {
        "folder": folder,
        "host": platform.node().split(".")[0],
        "user": getpass.getuser(),
        "ports": _free_ports(5),
    }
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**facts))
    cluster = Cluster(folder)
    places = {name: f"--{name}={folder / file}" for name, file in MUNGE_FILES.items()}
    daemons = [_start(cluster, "munged", "--foreground", "--force", *places.values())]
    try:
        _wait_until(lambda: (folder / "munge.socket").exists(), "munged does not start", folder)
        daemons.append(_start(cluster, "slurmctld", "-D", "-i"))
        daemons += [_start(cluster, "slurmd", "-D", "-N", node) for node in ("n1", "n2")]
        _wait_until(lambda: _idle_nodes(cluster) == 2, "the nodes do not come up", folder)
        yield cluster
        subprocess.run(["scancel", "--user", getpass.getuser()], env=cluster.environment, timeout=60, check=False)
        _wait_until(lambda: cluster.call("squeue", "--noheader") == "", "jobs do not end", folder)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=60)


MUNGE_FILES = {
    "key-file": "munge.key",
    "socket": "munge.socket",
    "pid-file": "munged.pid",
    "log-file": "munged.log",
    "seed-file": "munge.seed",
}


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _start(cluster: Cluster, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
    path = _find(program)
    assert path is not None
    with (cluster.folder / f"{program}.out").open("ab") as log:
        return subprocess.Popen([path, *arguments], env=cluster.environment, stdout=log, stderr=subprocess.STDOUT)


def _idle_nodes(cluster: Cluster) -> int:
    command = ["sinfo", "--noheader", "--Node", "--format=%T"]
    found = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, timeout=60, check=False)
    return found.stdout.split().count("idle")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_until(holds, message: str, folder: Path) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 60
    while not holds():
        logs = "\n".join(file.read_text(errors="replace")[-1500:] for file in folder.glob("*.out"))
        assert time.monotonic() < deadline, f"{message}\n{logs}"
        time.sleep(0.2)
