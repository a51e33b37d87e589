# SPDX-License-Identifier: Apache-2.0
"""`unigen download`: bring public weights and data from the hub."""

from pathlib import Path

import click

from unigen.config.assets import ASSETS, find_assets, wanted_by
from unigen.config.load import load_config
from unigen.data.hub import describe, fetch
from unigen.errors import ConfigError, DataError


@click.command(
    help="Fetch public weights and data, by NAME or those that a configuration names, from the Hugging Face hub at "
    "pinned revisions. Exits with 1 if anything was not fetched.\n\nNames: " + ", ".join(ASSETS)
)
@click.argument("names", nargs=-1)
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Fetch what this configuration wants.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Where to put it.  [data.root, else unigen_data]")
@click.option("--dry-run", is_flag=True, help="Only say what would go where.")
def command(names: tuple[str, ...], config_path: Path | None, data_root: Path | None, dry_run: bool) -> int:
    if not names and config_path is None:
        raise ConfigError(f"say what to download: --config FILE, or names out of {', '.join(ASSETS)}")
    assets = find_assets(names)
    if config_path is not None:
        config = load_config(config_path)
        data_root = data_root or Path(config.data.root)
        wanted = wanted_by(config)
        assets += [want.asset for want in wanted if want.asset is not None]
        for want in wanted:
            if want.asset is None:
                click.echo(f"not on the hub, see `unigen doctor`: {want.key} {want.name}", err=True)
    data_root = data_root or Path("unigen_data")
    num_failed = 0
    for asset in dict.fromkeys(assets):
        click.echo(("would fetch " if dry_run else "") + describe(asset, data_root))
        if not dry_run:
            try:
                fetch(asset, data_root)
            except DataError as error:
                num_failed += 1
                click.echo(f"unigen: error: {error}", err=True)
    return 1 if num_failed else 0
