# SPDX-License-Identifier: Apache-2.0
"""`unigen study`: the reports of comparisons over several stages and training seeds."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from unigen.cli import judge_options
from unigen.cli.model_options import with_options

OPTIONS = (
    click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False)),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object, that of report.json."),
)


@click.group(name="study", help="Write the report of a comparison over stages and training seeds.")
def command() -> None:
    pass


@command.command(
    help="What preference optimisation and Best-of-N bring: report.json and report.html of the folder DIR that "
    "scripts/reproduce_shapes.sh filled."
)
@with_options(OPTIONS)
def alignment(folder: Path, as_json: bool) -> None:
    from unigen.evaluation.alignment_study import PAGE_NAME, write_alignment_report

    summary = write_alignment_report(folder)
    _say(summary, _paired(summary), folder / PAGE_NAME, as_json)


@command.command(
    help="What learning from rewards brings to UAE: report.json and report.html of the folder DIR that "
    "scripts/reproduce_uae_shapes.sh filled."
)
@with_options(OPTIONS)
def uae(folder: Path, as_json: bool) -> None:
    from unigen.evaluation.uae_study.report import PAGE_NAME, write_uae_report

    summary = write_uae_report(folder)
    findings = (f"{one['title']}. {one['text']}" for one in summary["findings"])
    _say(summary, findings, folder / PAGE_NAME, as_json)


@command.command(
    help="Where a UniFork should fork: report.json and report.html of the folder DIR that "
    "scripts/reproduce_unifork_shapes.sh filled."
)
@with_options(OPTIONS)
def unifork(folder: Path, as_json: bool) -> None:
    from unigen.evaluation.unifork_study.report import PAGE_NAME, write_unifork_report

    summary = write_unifork_report(folder)
    findings = (f"{one['title']}. {one['text']}" for one in summary["findings"])
    _say(summary, findings, folder / PAGE_NAME, as_json)


EVALUATION = click.Path(path_type=Path, file_okay=False, exists=True)


@command.command(
    help="What learning from rewards brings: report.json and report.html over BEFORE and AFTER, the folders of `unigen evaluate` "
    "over geneval_shapes before training and after it, one AFTER a training seed."
)
@click.argument("before", type=EVALUATION)
@click.argument("after", nargs=-1, required=True, type=EVALUATION)
@click.option("--control", multiple=True, type=EVALUATION, help="The same after training with shuffled advantages.")
@click.option("--run", "runs", multiple=True, type=EVALUATION, help="Output folder of a training run, for its curves.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the report."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, that of report.json.")
def policy(
    before: Path,
    after: tuple[Path, ...],
    control: tuple[Path, ...],
    runs: tuple[Path, ...],
    output: Path,
    as_json: bool,
) -> None:
    from unigen.evaluation.policy_study import PAGE_NAME, PolicyStudy, write_policy_report

    summary = write_policy_report(PolicyStudy.read(before, after, control, runs), output)
    _say(summary, _paired(summary), output / PAGE_NAME, as_json)


def _paired(summary: dict[str, Any]) -> Iterator[str]:
    """A line for each difference, with its interval."""
    for name, found in summary["paired"].items():
        yield f"{name:<28} {found['mean']:+.3f}   {found['low']:+.3f} – {found['high']:+.3f}"


@command.command(
    help="Whose captions a judge prefers, those of file A or of file B: each image is shown with both, in either order. A and B "
    "are JSON lines with image and caption, as `unigen reconstruct` (captions.jsonl) and the benchmark unified_bench "
    "(images.jsonl) write them. Writes DIR/verdicts.jsonl and DIR/report.json; goes on where it stopped; exits with 1 if an "
    "image could not be judged."
)
@click.argument("first", metavar="A", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("second", metavar="B", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--output", required=True, metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--images", type=click.Path(path_type=Path, file_okay=False), help="Where the images lie.  [where A says they do]"
)
@judge_options.options("endpoint", "transformers", "unigen", max_tokens=512)
@OPTIONS[1]
def captions(first: Path, second: Path, output: Path, images: Path | None, as_json: bool, **judge: Any) -> int:
    from unigen.annotation.caption_duels import CaptionDuels, read_duels
    from unigen.annotation.step import run_step
    from unigen.data.json_files import write_json
    from unigen.data.ranks import Ranks
    from unigen.evaluation.unified_bench.win_rate import score_duels

    ranks = Ranks.from_environment()
    asked = judge_options.load(**judge)
    outcome = run_step(CaptionDuels(read_duels(first, second, images), asked), output / "verdicts.jsonl", ranks)
    if ranks.is_first:
        for failure in outcome.failures:
            click.echo(f"unigen: error: {failure}", err=True)
        scores = score_duels(outcome.lines)
        about = {
            "a": str(first),
            "b": str(second),
            "judge": dict(asked.identity()),
            "num_failed": len(outcome.failures),
        }
        summary = {**scores, **about}
        write_json(summary, output / "report.json")
        _say(summary, _duel_lines(scores), output / "report.json", as_json)
    return 1 if outcome.failures else 0


def _duel_lines(scores: dict[str, Any]) -> Iterable[str]:
    rate = scores["win_rate"]
    yield f"A is preferred: {rate['mean']:.3f}   {rate['low']:.3f} – {rate['high']:.3f}"
    names = ("wins", "losses", "ties", "order_dependent", "num_unparseable_replies")
    yield ", ".join(f"{name.removeprefix('num_').replace('_', ' ')} {scores[name]}" for name in names)
    if scores["num_judged"] < scores["num_images"]:
        yield f"{scores['num_images'] - scores['num_judged']} of {scores['num_images']} images have no verdict in both orders"


def _say(summary: dict[str, Any], lines: Iterable[str], page: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(summary))
        return
    for line in lines:
        click.echo(line)
    click.echo(f"report: {page.resolve()}")
