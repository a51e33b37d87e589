# SPDX-License-Identifier: Apache-2.0
"""`unigen doctor`: what is there, what is missing, and the command that brings it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from unigen.config.load import load_config
from unigen.config.schema import Config
from unigen.data.inventory import Finding, take_inventory
from unigen.environment import (
    Machine,
    explain_unusable_gpu,
    extras,
    git_commit,
    inspect_machine,
    missing_packages,
    package_versions,
)
from unigen.errors import DataError

GIBIBYTE = 2**30
SETUP = "bash scripts/setup.sh"


@click.command(
    help="Say what is there and what is missing: Python, torch against the driver, GPUs, memory, disk, extras, and "
    "with --config the checkpoints and datasets it will want, each with the command that brings it. Exits with 1 if "
    "something that is needed is missing."
)
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="A configuration to check for.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(config_path: Path | None, as_json: bool) -> int:
    config = load_config(config_path) if config_path is not None else None
    machine = inspect_machine(Path(config.data.root) if config is not None else Path("unigen_data"))
    findings = take_inventory(config) if config is not None else []
    staged = _staged(config) if config is not None else None
    missing = _missing(machine, findings)
    if as_json:
        click.echo(json.dumps({**_describe(machine, findings, missing), "staged": staged}))
    else:
        _print_machine(machine)
        _print_findings(findings)
        if staged is not None:
            size = f"{staged['num_files']} shards, {staged['num_bytes'] / 1e9:.2f} GB"
            click.echo(f"staged        {size} to {staged['stage_to']} of every node (data.stage_to)")
        _print_missing(missing)
    return 1 if missing else 0


def _staged(config: Config) -> dict[str, Any] | None:
    """How much the disk of a node has to hold; None where nothing is staged, or not all of it is here to be counted."""
    if config.data.stage_to is None:
        return None
    from unigen.data.staging import shards_to_stage

    try:
        files = shards_to_stage(config.data)
    except DataError:
        return None
    num_bytes = sum(file.stat().st_size for file in files)
    return {"stage_to": config.data.stage_to, "num_files": len(files), "num_bytes": num_bytes}


def _missing(machine: Machine, findings: list[Finding]) -> list[dict[str, str]]:
    """What is needed and not there: `what` and the `remedy`."""
    missing = [{"what": f"package {name}", "remedy": SETUP} for name in missing_packages()]
    unusable = explain_unusable_gpu(machine)
    if unusable is not None:
        missing.append({"what": "a usable GPU", "remedy": unusable})
    for finding in findings:
        if finding.is_missing:
            count = f" ({finding.total - finding.found} of {finding.total} files)" if finding.total > 1 else ""
            wanted = finding.wanted
            missing.append({"what": f"{wanted.key} {wanted.name}: {wanted.kind}{count}", "remedy": finding.remedy})
    return missing


def _describe(machine: Machine, findings: list[Finding], missing: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "versions": package_versions(),
        "git_commit": git_commit(),
        "machine": asdict(machine),
        "extras": extras(),
        "wanted": [asdict(finding) for finding in findings],
        "missing": missing,
    }


def _print_machine(machine: Machine) -> None:
    versions = package_versions()
    build = f"built for CUDA {machine.torch_cuda}" if machine.torch_cuda else "built for the CPU"
    driver = f"driver {machine.driver} (CUDA {machine.driver_cuda})" if machine.driver else "no NVIDIA driver"
    gpus = [f"{gpu.name} ({gpu.memory_bytes / GIBIBYTE:.0f} GiB)" for gpu in machine.gpus]
    click.echo(f"python        {versions['python']}")
    click.echo(f"unigen        {versions.get('unigen', 'not installed')}, commit {git_commit() or 'unknown'}")
    click.echo(f"torch         {versions.get('torch')}, {build}, {driver}")
    click.echo(f"transformers  {versions.get('transformers')}")
    click.echo(f"GPUs          {', '.join(gpus) or 'none'}")
    click.echo(f"memory        {machine.memory_bytes / GIBIBYTE:.0f} GiB, {machine.num_cpus} CPU cores")
    click.echo(f"disk          {machine.free_disk_bytes / GIBIBYTE:.0f} GiB free for data")
    for name, is_present in extras().items():
        click.echo(f"extra         {name}: {'installed' if is_present else f'not installed; {SETUP} {name}'}")


def _print_findings(findings: list[Finding]) -> None:
    for finding in findings:
        state = "missing" if finding.is_missing else "there"
        count = f" ({finding.found} of {finding.total})" if finding.total > 1 else ""
        click.echo(f"{state:<13} {finding.wanted.key}: {finding.wanted.name}{count}")


def _print_missing(missing: list[dict[str, str]]) -> None:
    if not missing:
        click.echo("Nothing that is needed is missing.")
    for item in missing:
        click.echo(f"missing: {item['what']}\n    {item['remedy']}")
