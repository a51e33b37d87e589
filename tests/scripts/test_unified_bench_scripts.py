# SPDX-License-Identifier: Apache-2.0
"""Unified-Bench's commands over two folders, by the flags of README and released script: result file, manifest, exit code."""

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.unified_bench.folders import tiny_encoders, write_pictures
from unigen.config.evaluation import UNIFIED_BENCH_METRICS

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "unified_bench"
FOUR = [f"--encoder={name}=tiny-{name}" for name in UNIFIED_BENCH_METRICS]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoders(tmp_path_factory.mktemp("scripts"))


@pytest.fixture
def run(data_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Runs a script as `python scripts/unified_bench/NAME.py words` does, here and in a folder with `ref` and `gen`."""
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "ref", 3)
    (tmp_path / "gen").mkdir()
    shutil.copy(tmp_path / "ref" / "0.png", tmp_path / "gen" / "0.png")
    Image.open(tmp_path / "ref" / "1.png").save(tmp_path / "gen" / "1.bmp")
    shutil.copy(tmp_path / "ref" / "0.png", tmp_path / "gen" / "recon_2.png")

    def script(name: str, *words: str) -> int:
        monkeypatch.setattr(sys, "argv", [name, *words, "--data-root", str(data_root), "--device", "cpu"])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        return int(end.value.code or 0)

    return script


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_readmes_flags_give_the_readmes_file_and_a_manifest_beside_it(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("Score_i2i", "--ref_path", "ref", "--gen_path", "gen", "--output_file", "scores.json", *FOUR) == 0
    found = read(tmp_path / "scores.json")
    assert list(found) == list(UNIFIED_BENCH_METRICS)
    for values in found.values():
        files = [values[f"{number}.png"] for number in range(3)]
        assert list(values) == ["0.png", "1.png", "2.png", "average", "min", "max"]
        assert files[:2] == pytest.approx([1.0, 1.0])
        assert files[2] < 0.999
        assert values["average"] == pytest.approx(sum(files) / 3)
        assert (values["min"], values["max"]) == (min(files), max(files))
    manifest = read(tmp_path / "scores.manifest.json")
    means = [manifest["similarity"][name]["mean"] for name in UNIFIED_BENCH_METRICS]
    assert means == pytest.approx([values["average"] for values in found.values()])
    assert manifest["overall"] == pytest.approx(100 * sum(means) / 4)
    assert manifest["interval"][0] <= manifest["overall"] <= manifest["interval"][1]
    assert manifest["pairing"] == {"same name": 1, "same stem": 1, "recon_ and the stem": 1}
    assert {"kind", "folder", "weights", "preprocessing", "size"} <= set(manifest["encoders"]["longclip"])
    assert f"overall    {manifest['overall']:.2f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "metric"),
    [("CLIP", "clip"), ("DINO_v2", "dinov2"), ("DINO_v3", "dinov3"), ("LongCLIP", "longclip")],
)
def test_the_released_scripts_flags_work_for_each_encoder_alone(
    script: str, metric: str, run: Callable[..., int], tmp_path: Path
) -> None:
    flags = ["--ref-image-path", "ref", "--gen_image_path", "gen", "--output", "new/folder/out.json"]
    assert run(script, *flags, "--model_path", f"tiny-{metric}") == 0
    assert list(read(tmp_path / "new" / "folder" / "out.json")) == [metric]
    assert "overall" not in read(tmp_path / "new" / "folder" / "out.manifest.json")


def test_an_original_that_has_no_partner_or_cannot_be_read_is_null_named_and_exit_code_1(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gen" / "0.png").unlink()
    (tmp_path / "gen" / "1.bmp").write_bytes(b"no image")
    words = ["--ref_path", "ref", "--gen_path", "gen", "--output", "out.json", "--models", "dinov2,dinov3", *FOUR]
    assert run("Score_i2i", *words) == 1
    error = capsys.readouterr().err
    assert "not compared: 0.png: no image of gen belongs to it" in error
    assert "not compared: 1.png: cannot read gen/1.bmp" in error
    assert "2 of 3 originals are in no mean" in error
    for values in read(tmp_path / "out.json").values():
        assert values["0.png"] is values["1.png"] is None
        assert values["average"] == values["2.png"]
    manifest = read(tmp_path / "out.manifest.json")
    assert manifest["num_compared"] == {"dinov2": 1, "dinov3": 1}
    assert (manifest["num_originals"], len(manifest["failed"])) == (3, 2)
    assert "overall" not in manifest
    assert run("Score_i2i", *words, "--allow_missing") == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "the encoder clip cannot be used"),
        (["--models", "clip,dino"], "there is no encoder 'dino'"),
        (["--encoder", "dino=x"], "--encoder dino=x: give NAME=DIR"),
        (["--gen_path", "nowhere", *FOUR], "there is no folder of images nowhere"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(
    words: list[str], complaint: str, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("Score_i2i", "--ref_path", "ref", "--gen_path", "gen", "--output", "out.json", *words) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("unigen: error") == 1
    assert not (tmp_path / "out.json").exists()
