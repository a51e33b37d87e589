# SPDX-License-Identifier: Apache-2.0
"""UniFork from a language model to drawings and answers through the command line: every stage, the two branches put together."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.unifork_stages import RECIPES, stage_config
from tests.world import TinyWorld, metrics, train, weights
from unigen.cli.main import main
from unigen.config.folders import find_model
from unigen.models.checkpoints import load_tokenizer
from unigen.models.unifork_checkpoints import load_unifork, save_unifork

ORIGINS = {"s1": None, "s2_pretrain": "s1", "s2_sft": "s2_pretrain", "s3_gen": "s2_sft", "s3_und": "s2_sft"}


@dataclass(frozen=True)
class Chain:
    folder: Path

    def run(self, stage: str) -> Path:
        return self.folder / stage / "run"

    @property
    def merged(self) -> Path:
        return self.folder / "merged"


@pytest.fixture(scope="module")
def chain(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """All stages, each from the one before it, then one model of both branches."""
    chain = Chain(tmp_path_factory.mktemp("chain"))
    for stage, origin in ORIGINS.items():
        start = None if origin is None else chain.run(origin)
        config = stage_config(tiny_world, chain.folder / stage, stage, start, training={"steps": 2})
        assert train(config) == 0
    branches = [str(chain.run("s3_und")), "--generation-branch", str(chain.run("s3_gen"))]
    root = ["--data-root", str(tiny_world.root)]
    assert main(["convert", "model", *branches, "--output", str(chain.merged), "--to", "ours", *root]) == 0
    return chain


@pytest.mark.parametrize("stage", ORIGINS)
def test_a_stage_logs_its_losses_and_its_weights_are_saved_and_loaded_bit_by_bit(
    chain: Chain, stage: str, tmp_path: Path
) -> None:
    lines = metrics(chain.run(stage))
    assert [line["step"] for line in lines] == [1, 2]
    assert {key.removeprefix("loss/") for key in lines[-1] if key.startswith("loss/")} - {"total"} == set(
        RECIPES[stage].samples
    )
    saved = find_model(chain.run(stage))
    save_unifork(load_unifork(saved), load_tokenizer(saved), tmp_path)
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (saved / name).read_bytes()


def test_the_merged_model_has_each_branch_from_the_stage_that_trained_it(chain: Chain) -> None:
    merged, drawing, reading = (weights(one) for one in (chain.merged, chain.run("s3_gen"), chain.run("s3_und")))
    before = weights(chain.run("s2_sft"))
    moved = {name: (not before[name].equal(drawing[name]), not before[name].equal(reading[name])) for name in before}
    assert {(True, False), (False, True), (False, False)} == set(moved.values())
    for name, (is_drawn, _) in moved.items():
        assert merged[name].equal(drawing[name] if is_drawn else reading[name]), name


def test_the_merged_model_draws_as_one_parent_and_answers_as_the_other(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (40, 20), (200, 0, 0)).save(picture)
    found = {}
    for name, folder in {"merged": chain.merged, "draws": chain.run("s3_gen"), "reads": chain.run("s3_und")}.items():
        words = ["--model", str(folder), "--device", "cpu", "--json"]
        capsys.readouterr()
        assert main(["sample", *words, "--prompt", "a red circle", "--output", str(tmp_path / name)]) == 0
        (image,) = json.loads(capsys.readouterr().out)["images"]
        assert main(["ask", *words, "--image", str(picture), "--question", "what?", "--max-new-tokens", "8"]) == 0
        answer = json.loads(capsys.readouterr().out)["turns"][0]["answer"]
        found[name] = (Image.open(image["path"]).tobytes(), answer)
    assert found["merged"] == (found["draws"][0], found["reads"][1])
