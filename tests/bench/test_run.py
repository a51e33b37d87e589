# SPDX-License-Identifier: Apache-2.0
"""The command: names, exit codes, the table, and the JSON object on the last line."""

import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from unigen.bench import __main__ as bench_main
from unigen.bench import run
from unigen.bench.figures import Figure, Setting
from unigen.cli.main import main

REPOSITORY = Path(__file__).resolve().parents[2]
NOT_THERE = [
    "accelerate",
    "braceexpand",
    "click",
    "datasets",
    "deepspeed",
    "matplotlib",
    "omegaconf",
    "pandas",
    "peft",
    "PIL",
    "pyarrow",
    "scipy",
    "tensorboard",
    "torchvision",
    "wandb",
    "webdataset",
]
"""Everything that this project needs and that torch and transformers do not."""
BLOCKING = f"""
import importlib, sys
from importlib.machinery import PathFinder

class WithoutThem(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {NOT_THERE!r} else PathFinder.find_spec(name, path, target)

sys.meta_path = [WithoutThem if finder is PathFinder else finder for finder in sys.meta_path]
"""
"""To a process that begins with this they are not installed: transformers asks for some before it imports them."""


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Figure]]:
    """Benchmarks that give the figures that a test puts here."""
    figures: dict[str, list[Figure]] = {"fine": [Figure("fine/ratio", 2.0, "x", at_least=1.5)]}

    def import_module(name: str) -> types.SimpleNamespace:
        if name == "needs":
            raise ModuleNotFoundError("No module named 'webdataset'", name="webdataset")

        def measure(setting: Setting) -> Iterator[Figure]:
            assert setting.device.type == "cpu"
            yield from figures[name]

        return types.SimpleNamespace(measure=measure)

    monkeypatch.setattr(run, "BENCHMARKS", {"fine": ("cpu", "fine", "it is"), "far": ("cuda", "far", "a GPU's")})
    monkeypatch.setattr(run, "import_module", import_module)
    return figures


def test_the_last_line_is_one_json_object_with_machine_and_figures(
    pretended: dict[str, list[Figure]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--device", "cpu", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    assert found["figures"] == [{"name": "fine/ratio", "value": 2.0, "unit": "x", "at_least": 1.5, "is_met": True}]
    assert found["missed"] == []
    assert found["machine"]["seed"] == 3
    assert set(found["machine"]) >= {"cpu", "threads", "torch", "commit", "date", "device", "quick"}
    assert any("fine/ratio" in line and ">= 1.5" in line for line in lines[:-1])


def test_json_alone_is_one_line(pretended: dict[str, list[Figure]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "fine", "--device", "cpu", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["figures"]


def test_a_missed_bound_is_named_and_is_exit_code_1(
    pretended: dict[str, list[Figure]], capsys: pytest.CaptureFixture[str]
) -> None:
    pretended["fine"].append(Figure("fine/slow", 0.5, "x", at_least=1.0))
    assert main(["bench", "--device", "cpu"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1])["missed"] == ["fine/slow"]
    assert "1 of 2 bounds are missed:" in lines
    assert bench_main.main(["--device", "cpu"]) == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["fin"], "did you mean fine"),
        (["far"], "--device cuda"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str], named: str, pretended: dict[str, list[Figure]], capsys: pytest.CaptureFixture[str]
) -> None:
    for start in (lambda given: main(["bench", *given]), bench_main.main):
        assert start([*words, "--device", "cpu"]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert named in captured.err


def test_a_gpu_that_is_not_there_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "--device", "cuda"]) == 2
    assert "torch sees no GPU" in capsys.readouterr().err


def test_a_benchmark_whose_packages_are_missing_is_skipped_unless_asked_for(
    pretended: dict[str, list[Figure]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(run.BENCHMARKS, "needs", ("cpu", "needs", "a package"))
    assert main(["bench", "--device", "cpu"]) == 0
    assert "webdataset" in json.loads(capsys.readouterr().out.splitlines()[-1])["skipped"]["needs"]
    assert main(["bench", "needs", "--device", "cpu"]) == 2
    assert "webdataset" in capsys.readouterr().err


def test_every_benchmark_but_the_loaders_imports_with_torch_and_transformers_alone() -> None:
    code = BLOCKING + (
        "from unigen.bench.run import BENCHMARKS\n"
        "for name, (_, module, _) in BENCHMARKS.items():\n"
        "    try:\n"
        "        importlib.import_module(module)\n"
        "    except ModuleNotFoundError as error:\n"
        "        print(name, error.name)\n"
    )
    done = _python("-c", code)
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = done.stdout.splitlines()
    assert line.split()[0] == "loader"
    assert line.split()[1] in NOT_THERE


def test_the_quick_command_runs_with_torch_and_transformers_alone() -> None:
    code = BLOCKING + (
        "import runpy\n"
        "sys.argv = ['unigen.bench', 'reading', 'loss', '--quick', '--device', 'cpu', '--json']\n"
        "runpy.run_module('unigen.bench', run_name='__main__')\n"
    )
    done = _python("-c", code)
    assert done.returncode == 0, done.stderr[-2000:]
    names = {figure["name"].split("/")[0] for figure in json.loads(done.stdout)["figures"]}
    assert names == {"reading", "loss"}


def _python(*words: str) -> "subprocess.CompletedProcess[str]":
    here = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=here, check=False, timeout=280, cwd=REPOSITORY
    )
