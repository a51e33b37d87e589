# SPDX-License-Identifier: Apache-2.0
"""`unigen encode`: image codes ahead of training, so that no step runs the image tokenizer or decodes an image."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unigen.cli.model_options import check_device
from unigen.config.load import load_config, save_config
from unigen.errors import ConfigError

if TYPE_CHECKING:
    import torch


@click.command(name="encode")
@click.argument("config_file", metavar="CONFIG.yaml", type=click.Path())
@click.argument("overrides", metavar="[key=value ...]", nargs=-1)
@click.option("--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the shards.")
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(min=1), help="Images of one pass.")
@click.option("--num-threads", default=8, show_default=True, type=click.IntRange(min=1), help="Decode the images.")
@click.option("--rank", default=0, envvar="RANK", show_envvar=True, help="Which share of the shards to encode.")
@click.option("--world-size", default=1, envvar="WORLD_SIZE", show_envvar=True, help="How many shares there are.")
@click.option("--device", help="cpu, cuda, cuda:1, ...  [the GPU number LOCAL_RANK if there is one]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    config_file: str,
    overrides: tuple[str, ...],
    output: Path,
    batch_size: int,
    num_threads: int,
    rank: int,
    world_size: int,
    device: str | None,
    as_json: bool,
) -> int:
    """Run the image tokenizer over the images that CONFIG.yaml trains on through codes, and keep the codes.

    Writes one shard of codes for each tar, each class of an imagefolder and each thousand captions or conversations, and the
    same configuration reading them: OUTPUT/<experiment.name>.yaml. Shards that are there are kept, so the command can be
    stopped and started again. Several processes (torchrun, or --rank and --world-size in a job array) share the shards.
    """
    if not 0 <= rank < world_size:
        raise ConfigError(f"--rank is {rank} of --world-size {world_size}; give a rank from 0 to {world_size - 1}")
    from tqdm import tqdm

    from unigen.annotation.encoding_plan import coded_config, plan_encoding
    from unigen.annotation.image_codes import ShardEncoder

    config = load_config(config_file, overrides)
    plan = plan_encoding(config, output)
    lists = {name: output / f"{name}.json" for name in plan.jobs_of}
    target = output / f"{config.experiment.name}.yaml"
    if rank == 0:
        output.mkdir(parents=True, exist_ok=True)
        for name, jobs in plan.jobs_of.items():
            paths = [str(job.target.resolve()) for job in jobs]
            lists[name].write_text(json.dumps(paths, indent=1) + "\n", encoding="utf-8")
        save_config(coded_config(config, plan, {name: path.resolve() for name, path in lists.items()}), target)
    own = plan.jobs[rank::world_size]
    encoder = ShardEncoder(config, _device(device), batch_size, num_threads)
    with tqdm(total=len(own), desc="encoding", unit="shard") as bar:
        report = encoder.encode(own, on_job=lambda job: bar.update())
    for line in report.failed:
        click.echo(f"not encoded: {line}", err=True)
    if as_json:
        click.echo(json.dumps({"output": str(output), "config": str(target), **asdict(report)}))
    else:
        click.echo(
            f"{report.num_written} shards written, {report.num_kept} there already, {report.num_images} images, "
            f"{report.num_refused} unreadable; train with {target}"
        )
    return 1 if report.failed else 0


def _device(name: str | None) -> torch.device:
    import os

    import torch

    if name is None:
        return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    check_device(name)
    return torch.device(name)
