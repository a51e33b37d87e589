# SPDX-License-Identifier: Apache-2.0
"""`unigen train`: run a stage, or only say what it would take."""

import json
from pathlib import Path

import click

from unigen.config.load import load_config


@click.command(name="train")
@click.argument("config_file", metavar="CONFIG.yaml", type=click.Path())
@click.argument("overrides", metavar="[key=value ...]", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Build the model without weights and say what the run takes.")
@click.option("--mfu", default=0.4, show_default=True, help="Dry run: model FLOPs utilisation for the GPU-days.")
@click.option("--json", "as_json", is_flag=True, help="Dry run: print one JSON object.")
def command(config_file: str, overrides: tuple[str, ...], dry_run: bool, mfu: float, as_json: bool) -> int:
    """Train the stage that CONFIG.yaml describes; `key=value` words override its values.

    The weights end up in `<experiment.output_dir>/checkpoint-<step>/unwrapped_model`. A run that finds checkpoints in its
    output folder goes on from the newest. Start several processes with scripts/run_pretraining.sh, accelerate or torchrun.
    """
    config = load_config(config_file, overrides)
    if dry_run:
        from unigen.training.dry_run import describe_run, plan_run

        plan = plan_run(config, mfu)
        click.echo(json.dumps(plan.as_dict()) if as_json else describe_run(plan))
        return 0
    from unigen.training.signals import StopRequest
    from unigen.training.status import FailureNoted

    # From here on, since to import and to load takes a while.
    with StopRequest() as stop, FailureNoted(Path(config.experiment.output_dir)):
        from unigen.training.loop import Trainer

        return Trainer(config).run(stop)
