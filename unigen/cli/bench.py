# SPDX-License-Identifier: Apache-2.0
"""`unigen bench`: how fast this is here, each figure beside what it is judged by."""

import click


@click.command(
    help="Measure speed. Each figure is printed beside its floor or ceiling; the last line is one JSON object with all of them. "
    "NAMES choose benchmarks (on the CPU maskgit, reading, rating, packing, unifork_trunk, unifork_drawing, loss, loader; on a "
    "GPU ceilings, training, drawing, decoding, encoder). Exits with 1 if a bound is missed. Times need a quiet machine."
)
@click.argument("names", nargs=-1)
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="Where to measure.  [a GPU where there is one, else cpu]"
)
@click.option("--quick", is_flag=True, help="Small sizes, in a minute; times are not judged.")
@click.option("--seed", default=0, show_default=True, help="Seed of weights, texts and images.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON object alone.")
def command(names: tuple[str, ...], device: str | None, quick: bool, seed: int, as_json: bool) -> int:
    from unigen.bench.run import run_benchmarks

    is_met = run_benchmarks(names, device, is_quick=quick, is_json_only=as_json, seed=seed, write=click.echo)
    return 0 if is_met else 1
