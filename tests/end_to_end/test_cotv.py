# SPDX-License-Identifier: Apache-2.0
"""CoT-V end to end with the shipped configuration and a tiny model: train on verdicts, then keep the best of N."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.tiny import tiny_unigen
from tests.world import TinyWorld, metrics, train
from unigen.cli.main import main
from unigen.rewards.rating_text import think_prompt
from unigen.sequence.templates.rating import think_answer

CONFIG = Path(__file__).resolve().parents[2] / "configs/shapes/cotv.yaml"
PROMPT = "a photo of a red circle"


def write_verdicts(folder: Path) -> None:
    """Of a red picture all is true, of a blue one it is not."""
    records = []
    for color, is_right in (("red", True), ("blue", False)) * 8:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), color).save(folder / f"images/{color}.png")
        answer = think_answer(["is there a circle?", "is it red?"], [True, is_right])
        turns = [("human", f"<image>\n{think_prompt(PROMPT)}"), ("gpt", answer)]
        said = [{"from": role, "value": value} for role, value in turns]
        records.append({"id": color, "image": f"images/{color}.png", "conversations": said})
    (folder / "think.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def root(tiny_world: TinyWorld, tmp_path: Path) -> Path:
    """A data root of its own, with the tiny world's data and a few verdicts beside them."""
    (tmp_path / "datasets").mkdir()
    for part in (tiny_world.root / "datasets").iterdir():
        (tmp_path / "datasets" / part.name).symlink_to(part)
    write_verdicts(tmp_path / "datasets/cotv")
    return tmp_path


def test_a_model_learns_to_think_and_then_rates_its_own_images(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_unigen(root / "dpo", reads_features=True)
    settings = {
        "data.root": root,
        "model.pretrained": model,
        "model.image_tokenizer": root / "dpo/image_tokenizer",
        "model.vision_tower": root / "dpo/vision_tower",
        "training.steps": 6,
        "training.samples_per_step": "{t2i: 2, mmu: 8}",
        "schedule.warmup_steps": 0,
        "optimizer.learning_rate": 0.01,
        "experiment.log_every": 1,
        "model.max_text_tokens": 450,
        "training.tokens_per_row": 480,
    }
    assert train(CONFIG, *(f"{key}={value}" for key, value in settings.items())) == 0
    losses = [line["loss/mmu"] for line in metrics(root / "cotv") if "loss/mmu" in line]
    assert len(losses) == 6
    assert losses[-1] < losses[0] / 1.5
    capsys.readouterr()
    command = ["sample", "--model", str(root / "cotv"), "--prompt", PROMPT, "--steps", "2", "--device", "cpu", "--json"]
    assert main([*command, "--best-of", "3", "--verifier", "think", "--output", str(root / "images")]) == 0
    assert json.loads(capsys.readouterr().out)["selection"] == "3 drawn, best 1 kept"
    ratings = [json.loads(line) for line in (root / "images/ratings.jsonl").read_text().splitlines()]
    assert [rating["sample"] for rating in ratings] == [0, 1, 2]
    assert all(isinstance(rating["texts"][0], str) and rating["num_questions"] >= 1 for rating in ratings)
