# SPDX-License-Identifier: Apache-2.0
"""The commands of UniFork's README, by their names, in dashes and underscores, on a tiny random model."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.tiny_unifork import released_unifork

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released_unifork(tmp_path_factory.mktemp("model") / "unifork")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Runs a script as `python script words` does, in this process and in an empty folder; gives its exit code."""
    monkeypatch.chdir(tmp_path)

    def script(name: str, *words: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
        return int(end.value.code or 0)

    return script


def test_infer_t2i_draws_to_the_released_place_and_honours_its_flags(
    model: Path, run: Callable[..., int], tmp_path: Path
) -> None:
    def pixels(*words: str) -> bytes:
        assert run("infer_t2i.py", "--model-path", model, "--prompt", "two", *words) == 0
        return Image.open(tmp_path / "output/generated_samples/image_0.png").tobytes()

    first = pixels()
    assert pixels() == first, "the same seed draws the same image"
    for flag in (
        ["--seed", "1"],
        ["--cfg_scale", "0"],
        ["--top-k", "1"],
        ["--top_p", "0.01"],
        ["--negative_prompt", "one"],
    ):
        assert pixels(*flag) != first, flag
    assert pixels("--temperature", "0") == pixels("--temperature", "0", "--seed", "5")


@pytest.mark.parametrize("flag", [["--precision", "fp16"], ["--from_fsdp"]])
def test_a_released_flag_without_a_meaning_here_is_refused(
    flag: list[str], model: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("infer_t2i.py", "--model_path", model, "--prompt", "two", *flag) == 2
    assert "drop the flag" in capsys.readouterr().err


def test_infer_mmu_answers_a_question_about_an_image(
    model: Path, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (20, 12), "red").save(tmp_path / "a.png")
    words = ["--model_path", model, "--image-path", tmp_path / "a.png", "--query", "what?", "--max_new_tokens", "4"]
    assert run("infer_mmu.py", *words, "--temperature", "0", "--num_beams", "1") == 0
    assert run("infer_mmu.py", *words, "--num_beams", "4") == 2
    assert "--num-beams 4" in capsys.readouterr().err


def test_sample_geneval_batch_writes_genevals_layout_with_a_partial_batch_and_goes_on(
    model: Path, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [{"tag": "single_object", "prompt": prompt} for prompt in ("one", "two", "three")]
    (tmp_path / "meta.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    words = ["--model-path", model, "--metadata-file", tmp_path / "meta.jsonl", "--outdir", tmp_path / "out"]
    assert run("eval_gen/sample_geneval_batch.py", *words, "--n_samples", "2", "--batch-size", "4") == 0
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out/00002").rglob("*.*")) == [
        "00002/grid.png",
        "00002/metadata.jsonl",
        "00002/samples/00000.png",
        "00002/samples/00001.png",
    ]
    assert json.loads((tmp_path / "out/00002/metadata.jsonl").read_text()) == entries[2]
    assert Image.open(tmp_path / "out/00002/grid.png").size == (32, 16)
    assert Image.open(tmp_path / "out/00002/samples/00000.png").info["prompt"] == "three."
    before = (tmp_path / "out/00000/samples/00001.png").read_bytes()
    (tmp_path / "out/00000/samples/00001.png").unlink()
    assert run("eval_gen/sample_geneval_batch.py", *words, "--n_samples", "2", "--batch-size", "1") == 0
    assert (tmp_path / "out/00000/samples/00001.png").read_bytes() == before
    assert "1 images drawn, 5 there already" in capsys.readouterr().out
    assert run("eval_gen/sample_geneval_batch.py", *words, "--n_samples", "2", "--cfg-scale", "1") == 2


def test_sample_mjhq_batch_writes_a_jpeg_by_category_and_id(
    model: Path, run: Callable[..., int], tmp_path: Path
) -> None:
    prompts = {"b1": {"category": "food", "prompt": "a pie"}, "a1": {"category": "art", "prompt": "a vase"}}
    (tmp_path / "meta.json").write_text(json.dumps(prompts))
    words = ["--model-path", model, "--metadata_file", tmp_path / "meta.json", "--outdir", tmp_path / "out"]
    assert run("eval_gen/sample_mjhq_batch.py", *words) == 0
    for place in ("food/b1.jpg", "art/a1.jpg"):
        assert Image.open(tmp_path / "out" / place).format == "JPEG"


def test_the_understanding_scripts_score_question_files(model: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 12)).save(tmp_path / "images/a.png")
    (tmp_path / "q.jsonl").write_text('{"question_id": "1", "image": "a.png", "text": "which?"}\n')
    truth = {"questions": [{"question_id": "1", "answer": "A", "data_type": "image", "question_type_id": 1}]}
    (tmp_path / "truth.json").write_text(json.dumps({**truth, "question_type": {"Scene": 1}}))
    places = {"questions": "q.jsonl", "images": "images", "truth": "truth.json"}
    finished = subprocess.run(
        [
            "bash",
            str(ROOT / "scripts/eval_und/seed.sh"),
            "--model_path",
            str(model),
            *(f"seed_bench.{name}={tmp_path / place}" for name, place in places.items()),
        ],
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    (results,) = (tmp_path / "output/eval_und").rglob("results.json")
    assert json.loads(results.read_text())["seed_bench"]["num_questions"] == 1


@pytest.mark.parametrize("name", ["mme", "pope", "seed", "vqav2", "gqa"])
def test_every_understanding_script_says_its_flags_and_what_it_needs(name: str) -> None:
    script = str(ROOT / "scripts/eval_und" / f"{name}.sh")
    told = subprocess.run(["bash", script, "--help"], capture_output=True, text=True, check=False)
    assert (told.returncode, f"Usage: bash scripts/eval_und/{name}.sh --model_path DIR" in told.stdout) == (0, True)
    refused = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "is required" in refused.stderr
