# SPDX-License-Identifier: Apache-2.0
"""What this machine and this installation are: versions, commit, GPUs, memory, disk, extras."""

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

COMMAND_SECONDS = 20


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Machine:
    """The hardware, and whether torch can use it."""

    num_cpus: int
    memory_bytes: int
    free_disk_bytes: int
    gpus: list[Gpu]
    driver: str | None
    """Version of the NVIDIA driver; None without one."""
    driver_cuda: str | None
    """Newest CUDA that the driver runs."""
    torch_cuda: str | None
    """CUDA that torch was built for; None for a CPU build."""
    is_cuda_usable: bool
    """Whether torch sees a GPU."""


def package_versions() -> dict[str, str]:
    """Version of Python and of every installed package that this one depends on, extras included."""
    found = {"python": platform.python_version()}
    for name in sorted({requirement.name for requirement in _requirements()} | {"unigen"}):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def extras() -> dict[str, bool]:
    """Name of every optional extra -> whether all of its packages are installed."""
    present: dict[str, bool] = {}
    for requirement in _requirements():
        named = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", str(requirement.marker or ""))
        if named and requirement.marker and requirement.marker.evaluate({"extra": named.group(1)}):
            present[named.group(1)] = present.get(named.group(1), True) and _is_installed(requirement.name)
    return present


def missing_packages() -> list[str]:
    """Requirements of the base installation that this environment does not meet."""
    missing = []
    for requirement in _requirements():
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if not _is_installed(requirement.name) or not requirement.specifier.contains(version(requirement.name), True):
            missing.append(f"{requirement.name}{requirement.specifier}")
    return missing


def git_commit() -> str | None:
    """The commit of the checkout that this package runs from; None where it is installed elsewhere or git is absent."""
    return _git("rev-parse", "HEAD")


def has_uncommitted_changes() -> bool | None:
    """Whether tracked files of that checkout are not those of its commit; None where there is no telling."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return None if changes is None else bool(changes)


def inspect_machine(data_root: Path) -> Machine:
    """Look at the hardware; `data_root` (which need not exist yet) says which disk is meant."""
    import torch  # here, because the versions and the commit are asked for by processes that have no need of it

    gpus, driver = _gpus()
    banner = _output(["nvidia-smi"]) or ""
    driver_cuda = re.search(r"CUDA Version:\s*([\d.]+)", banner)
    return Machine(
        num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        free_disk_bytes=shutil.disk_usage(_existing_parent(data_root)).free,
        gpus=gpus,
        driver=driver,
        driver_cuda=driver_cuda.group(1) if driver_cuda else None,
        torch_cuda=torch.version.cuda,
        is_cuda_usable=torch.cuda.is_available(),
    )


def explain_unusable_gpu(machine: Machine) -> str | None:
    """Why torch cannot use the GPUs that are there and what to do; None where it can, or where there is none."""
    if not machine.gpus or machine.is_cuda_usable:
        return None
    remedy = "uv pip install --torch-backend=auto torch torchvision"
    if machine.torch_cuda is None:
        return f"this torch is built without CUDA; install one that has it: {remedy}"
    if machine.driver_cuda and int(machine.driver_cuda.split(".")[0]) < int(machine.torch_cuda.split(".")[0]):
        return (
            f"torch is built for CUDA {machine.torch_cuda}, driver {machine.driver} runs CUDA {machine.driver_cuda} "
            f"at most; update the driver, or install a torch build for it: {remedy}"
        )
    return "torch sees none of the GPUs; look at CUDA_VISIBLE_DEVICES and at what `nvidia-smi` says of their health"


def _gpus() -> tuple[list[Gpu], str | None]:
    listing = _output(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"])
    gpus, driver = [], None
    for line in (listing or "").splitlines():
        name, mebibytes, driver = (field.strip() for field in line.rsplit(",", 2))
        gpus.append(Gpu(name, int(mebibytes) * 2**20 if mebibytes.isdigit() else 0))
    return gpus, driver


def _requirements() -> list[Requirement]:
    try:
        return [Requirement(line) for line in requires("unigen") or []]
    except PackageNotFoundError:  # run from a checkout that was never installed
        return []


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _git(*words: str) -> str | None:
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # a folder, or a file in a worktree
        return None
    return _output(["git", "-C", str(root), *words])


def _output(command: list[str]) -> str | None:
    """What `command` prints, stripped; None where it is absent, fails or hangs."""
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return finished.stdout.strip() if finished.returncode == 0 else None


def _existing_parent(path: Path) -> Path:
    path = path.resolve()
    return next(folder for folder in (path, *path.parents) if folder.exists())
