# SPDX-License-Identifier: Apache-2.0
"""The command `unigen`: what it lists, how it ends, and that asking for help costs nothing."""

import subprocess
import sys
from importlib.metadata import version

import click
import pytest

from unigen.cli import main as cli
from unigen.errors import DataError, DataWorkerError

HEAVY = ("torch", "transformers", "accelerate", "omegaconf", "numpy", "huggingface_hub")


def _register(monkeypatch: pytest.MonkeyPatch, command: click.Command) -> None:
    """Make `command` the verb `data`."""
    module = type(sys)("a_verb")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_verb", module)
    monkeypatch.setitem(cli.VERBS, "data", ("a_verb", "A verb."))


def test_help_lists_every_verb_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from unigen.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules])\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in printed
    for verb in ("train", "sample", "ask", "evaluate", "report", "convert", "download", "doctor", "data"):
        assert f"\n  {verb} " in printed


def test_the_version_is_that_of_the_installed_package() -> None:
    finished = subprocess.run([sys.executable, "-m", "unigen", "--version"], capture_output=True, text=True, check=True)
    assert finished.stdout == f"unigen {version('unigen')}\n"


def test_an_unknown_verb_suggests_the_nearest_one_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dokter"]) == 2
    assert capsys.readouterr().err == "unigen: error: there is no command dokter; did you mean doctor?\n"


def test_an_unknown_flag_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--jsn"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("unigen: error: ")
    assert "--jsn" in error
    assert error.count("\n") == 1


def test_a_user_error_is_one_line_on_stderr_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def broken() -> None:
        raise DataError("train-0003.tar is cut off;\n  fetch it again")

    _register(monkeypatch, broken)
    assert cli.main(["data"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "unigen: error: train-0003.tar is cut off; fetch it again\n"
    assert captured.out == ""


def test_what_may_go_away_by_itself_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def broken() -> None:
        raise DataWorkerError("a data worker died")

    _register(monkeypatch, broken)
    assert cli.main(["data"]) == 1
    assert capsys.readouterr().err == "unigen: error: a data worker died\n"


def test_our_own_mistakes_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def broken() -> None:
        raise ZeroDivisionError

    _register(monkeypatch, broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["data"])


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def interrupted() -> None:
        raise KeyboardInterrupt

    _register(monkeypatch, interrupted)
    assert cli.main(["data"]) == 130


@pytest.mark.parametrize("flag", ["--output-dir", "--output_dir"])
def test_flags_are_read_with_dashes_and_with_underscores(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    @click.command()
    @click.option("--output-dir")
    @click.argument("overrides", nargs=-1)
    def command(output_dir: str, overrides: tuple[str, ...]) -> None:
        seen.append((output_dir, overrides))

    _register(monkeypatch, command)
    assert cli.main(["data", flag, "a_b-c", "training.samples_per_step={t2i: 1}"]) == 0
    assert seen == [("a_b-c", ("training.samples_per_step={t2i: 1}",))]


def test_a_verb_may_say_that_not_all_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def half() -> int:
        return 1

    _register(monkeypatch, half)
    assert cli.main(["data"]) == 1
