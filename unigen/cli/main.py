# SPDX-License-Identifier: Apache-2.0
"""The command `unigen`: a table of verbs, each imported only when it is called, and one way to end."""

from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

import click

from unigen.errors import UnigenError

# verb: (module that holds its `command`, one line of help)
VERBS: dict[str, tuple[str, str]] = {
    "train": ("unigen.cli.train", "Train the stage that a configuration describes."),
    "sample": ("unigen.cli.sample", "Draw images from prompts."),
    "ask": ("unigen.cli.ask", "Ask a model about images."),
    "reconstruct": ("unigen.cli.reconstruct", "Caption images and draw them again from their captions."),
    "evaluate": ("unigen.cli.evaluate", "Score a model on benchmarks."),
    "study": ("unigen.cli.study", "Write the report of a comparison."),
    "report": ("unigen.cli.report", "Write the report of a run."),
    "convert": ("unigen.cli.convert", "Convert models and data between formats."),
    "download": ("unigen.cli.download", "Fetch public weights and data from the hub."),
    "setup-eval": ("unigen.cli.setup_eval", "Fetch what the public benchmarks need."),
    "doctor": ("unigen.cli.doctor", "Say what is there and what is missing."),
    "annotate": ("unigen.cli.annotate", "Make training data: questions, candidates, answers, pairs, captions."),
    "encode": ("unigen.cli.encode", "Compute image codes ahead of training."),
    "data": ("unigen.cli.data", "Look at data as training sees it."),
    "runs": ("unigen.cli.runs", "List, diff and compare runs."),
    "bench": ("unigen.cli.bench", "Measure speed, each figure beside its bound."),
}
EXIT_FAILURE = 1
EXIT_USER_MISTAKE = 2
EXIT_INTERRUPTED = 130


class VerbGroup(click.Group):
    """Lists the verbs from the table; importing torch and the like is left to the verb that needs it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = import_module(VERBS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            near = get_close_matches(args[0], VERBS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(VERBS)}"
            ctx.fail(f"there is no command {args[0]}; {hint}")
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        click.echo(f"unigen {version('unigen')}")
        ctx.exit()


@click.group(
    cls=VerbGroup,
    help="Train, align and evaluate models that understand and draw images.",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print it.")
def unigen() -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 0 done, 1 not all of it, 2 a user's mistake (one line on stderr), 130 interrupted.

    A verb's function returns None, or the exit code itself.
    """
    try:
        code = unigen.main(arguments, prog_name="unigen", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_USER_MISTAKE
    except click.ClickException as error:
        return _fail(error.format_message())
    except UnigenError as error:
        return _fail(str(error), EXIT_USER_MISTAKE if error.is_mistake else EXIT_FAILURE)
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int = EXIT_USER_MISTAKE) -> int:
    click.echo("unigen: error: " + " ".join(message.split()), err=True)
    return code
