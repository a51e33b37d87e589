# SPDX-License-Identifier: Apache-2.0
"""`unigen setup-eval`: bring prompts, questions and judges of the public benchmarks to where `unigen evaluate` looks for them."""

from pathlib import Path

import click

from unigen.errors import ConfigError, DataError


@click.command(
    help="Fetch the files of the public benchmarks, by NAME (geneval, dpg, detector, inception, clip) or all of them, at "
    "pinned versions and checked by hash. What is there is only checked. Exits with 1 if anything is missing in the end."
)
@click.argument("names", nargs=-1)
@click.option("--data-root", type=click.Path(path_type=Path), default=Path("unigen_data"), show_default=True)
@click.option(
    "--third-party",
    type=click.Path(path_type=Path),
    default=Path("third_party"),
    show_default=True,
    help="Where prompts and questions go.",
)
@click.option(
    "--mirror", envvar="UNIGEN_EVAL_MIRROR", help="What stands for https:// in every address, such as file:///mirror."
)
def command(names: tuple[str, ...], data_root: Path, third_party: Path, mirror: str | None) -> int:
    from unigen.config.assets import ASSETS
    from unigen.data.hub import describe, fetch
    from unigen.evaluation.dpg.questions import EXPORT_NAME, export_questions, read_question_file
    from unigen.evaluation.fetching import bring
    from unigen.evaluation.sources import CLIP, QUESTIONS, SOURCES, Roots

    known = [*SOURCES, "clip"]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"there is nothing to set up under the name {unknown[0]}; choose from {', '.join(known)}")
    roots = Roots(third_party, data_root / "checkpoints")
    failures = []
    for name in dict.fromkeys(names or known):
        try:
            if name == "clip":
                click.echo(describe(ASSETS[CLIP], data_root))
                fetch(ASSETS[CLIP], data_root)
            for wanted in SOURCES.get(name, ()):
                bring(wanted, roots, mirror, click.echo)
            if name == "dpg":
                questions = roots.third_party / QUESTIONS
                export_questions(read_question_file(questions), questions.with_name(EXPORT_NAME))
        except DataError as error:
            failures.append(name)
            click.echo(f"unigen: error: {' '.join(str(error).split())}", err=True)
    if failures:
        click.echo(f"unigen: error: not set up: {', '.join(failures)}; run the same command again", err=True)
    return 1 if failures else 0
