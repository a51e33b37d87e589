# SPDX-License-Identifier: Apache-2.0
"""`unigen encode` through the command line, and training from what it wrote."""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.archives import png, question, write_jsonl
from tests.tiny_unifork import save_tiny_rqvae
from tests.training.steps import first_step
from tests.world import SOURCES, TinyWorld, command, metrics, quiet_environment, train, weights
from unigen.cli.main import main
from unigen.config.folders import weights_hash
from unigen.data.codes import SUFFIX, read_shard
from unigen.models.image_tokenizers.registry import load_image_tokenizer

BOTH = {"t2i": 4, "mmu": 4}
READING = {name: SOURCES[name] for name in ("draw", "read", "text")}


@pytest.fixture(scope="module")
def encoded(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The codes of the tiny world, and the configuration that reads them."""
    folder = tmp_path_factory.mktemp("encoded")
    config = tiny_world.config(folder, data={"sources": READING})
    assert encode(config, folder / "codes") == 0
    return folder / "codes"


def encode(config: Path, output: Path, *arguments: str) -> int:
    return main(["encode", str(config), "--output", str(output), "--batch-size", "5", "--num-threads", "2", *arguments])


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob(f"*{SUFFIX}"))


def test_every_tar_becomes_one_shard_with_the_codes_of_its_images(tiny_world: TinyWorld, encoded: Path) -> None:
    assert len(shards(encoded)) == 16, "two sources read the same 16 tars"
    tokenizer_folder = tiny_world.root / "checkpoints" / "tiny-magvitv2"
    _, samples = first_step(tiny_world.config(encoded.parent / "images", data={"sources": READING}))
    drawn = next(one for one in samples if one.code_images)
    tar, _, key = drawn.key.removeprefix("draw/").removeprefix("read/").rpartition("/")
    shard = read_shard(str(encoded / tar.replace(".tar", SUFFIX)))
    assert shard.spec.tokenizer == weights_hash(tokenizer_folder)
    assert (shard.spec.resolution, shard.source) == (32, tar)
    assert shard.codes_NKI.shape == (4, 1, 16)
    place = [shard.keys[index] for index in range(shard.num_samples)].index(key.encode())
    pixels = drawn.code_images[0].content
    assert isinstance(pixels, torch.Tensor)
    codes = load_image_tokenizer(tokenizer_folder).encode(pixels[None])[0]
    assert shard.codes_NKI[place, 0].tolist() == codes.tolist()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_training_from_codes_is_training_from_images(
    tiny_world: TinyWorld, encoded: Path, tmp_path: Path, workers: str
) -> None:
    config = tiny_world.config(tmp_path / "images", data={"sources": READING})
    options = [f"data.num_workers={workers}", "training.steps=12"]
    assert train(config, *options) == 0
    assert train(encoded / "test.yaml", *options, f"experiment.output_dir={tmp_path / 'codes'}") == 0
    images, codes = (metrics(folder) for folder in (tmp_path / "images" / "run", tmp_path / "codes"))
    for name in ("loss/t2i", "loss/mmu", "loss/lm"):
        assert [line[name] for line in codes] == [line[name] for line in images]
    first, second = (weights(folder) for folder in (tmp_path / "images" / "run", tmp_path / "codes"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_from_codes_is_resumed_exactly(encoded: Path, tmp_path: Path) -> None:
    options = ["training.steps=6", "experiment.checkpoint_every=3", "experiment.keep_last=0", "data.num_workers=2"]
    whole, cut = (f"experiment.output_dir={tmp_path / name}" for name in ("whole", "cut"))
    config = encoded / "test.yaml"
    assert train(config, *options, whole) == 0
    assert train(config, *options, cut) == 0
    shutil.rmtree(tmp_path / "cut" / "checkpoint-6")
    assert train(config, *options, cut) == 0
    first, second = (weights(tmp_path / name / "checkpoint-6" / "unwrapped_model") for name in ("whole", "cut"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_damaged_image_keeps_its_place_and_training_counts_it(tiny_world: TinyWorld, tmp_path: Path) -> None:
    root = _damaged_copy(tiny_world, tmp_path)
    config = tiny_world.config(
        tmp_path,
        data={"root": str(root), "sources": {"draw": SOURCES["draw"]}, "max_bad_fraction": 0.5},
        training={"samples_per_step": {"t2i": 8}, "steps": 20},
    )
    assert encode(config, tmp_path / "codes") == 0
    assert train(config) == 0
    assert train(tmp_path / "codes" / "test.yaml", f"experiment.output_dir={tmp_path / 'coded'}") == 0
    images, codes = metrics(tmp_path / "run"), metrics(tmp_path / "coded")
    assert codes[-1]["data/bad/unreadable_image"] == images[-1]["data/bad/unreadable_image"] > 0
    assert [line["loss/t2i"] for line in codes] == [line["loss/t2i"] for line in images]


def test_what_is_there_is_kept_and_what_is_damaged_is_made_again(
    tiny_world: TinyWorld, encoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(encoded, tmp_path / "codes")
    first, second, *_ = shards(tmp_path / "codes")
    content = first.read_bytes()
    first.write_bytes(content[:-1])
    left_over = second.with_name(f"{second.name}.77.tmp")
    left_over.write_bytes(b"half")
    second.unlink()
    config = tiny_world.config(tmp_path, data={"sources": READING})
    assert encode(config, tmp_path / "codes", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["num_written"], printed["num_kept"]) == (2, 14)
    assert first.read_bytes() == content
    assert not left_over.exists()


@pytest.mark.timeout(600)
def test_a_run_that_is_killed_leaves_only_whole_shards_and_goes_on(
    tiny_world: TinyWorld, encoded: Path, tmp_path: Path
) -> None:
    config = tiny_world.config(tmp_path, data={"sources": READING})
    arguments = command("encode", config, "--output", tmp_path / "codes", "--batch-size", "5", "--num-threads", "2")
    process = subprocess.Popen(arguments, env=quiet_environment())
    until = time.monotonic() + 240
    while not shards(tmp_path / "codes") and process.poll() is None and time.monotonic() < until:
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert shards(tmp_path / "codes")
    assert encode(config, tmp_path / "codes") == 0
    assert [path.read_bytes() for path in shards(tmp_path / "codes")] == [path.read_bytes() for path in shards(encoded)]


def test_two_processes_share_the_tars(tiny_world: TinyWorld, encoded: Path, tmp_path: Path) -> None:
    config = tiny_world.config(tmp_path, data={"sources": READING})
    written = []
    for rank in ("1", "0"):
        assert encode(config, tmp_path / "codes", "--rank", rank, "--world-size", "2") == 0
        written.append(len(shards(tmp_path / "codes")))
    assert written == [8, 16]
    assert [path.read_bytes() for path in shards(tmp_path / "codes")] == [path.read_bytes() for path in shards(encoded)]
    assert (tmp_path / "codes" / "test.yaml").is_file()


def test_several_crops_are_kept_and_one_is_drawn_at_each_visit(tiny_world: TinyWorld, tmp_path: Path) -> None:
    """Images wider than high, else all crops are one."""
    root = _wide_copy(tiny_world, tmp_path)
    one_source = {"root": str(root), "sources": {"draw": SOURCES["draw"]}, "image_crops": 3}
    config = tiny_world.config(tmp_path, data=one_source, training={"samples_per_step": {"t2i": 8}, "steps": 12})
    assert encode(config, tmp_path / "codes") == 0
    shard = read_shard(str(shards(tmp_path / "codes")[0]))
    assert shard.codes_NKI.shape[1] == 3
    assert len({crop.tobytes() for crop in shard.codes_NKI[0]}) == 3
    assert train(config) == 0
    assert train(tmp_path / "codes" / "test.yaml", f"experiment.output_dir={tmp_path / 'coded'}") == 0
    images, codes = metrics(tmp_path / "run"), metrics(tmp_path / "coded")
    assert [line["loss/t2i"] for line in codes] == [line["loss/t2i"] for line in images]
    assert train(tmp_path / "codes" / "test.yaml", "data.image_crops=1", "experiment.resume=false") == 2


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["model.image_tokenizer=other"], ("image tokenizer", "unigen encode")),
        (["model.image_resolution=64"], ("model.image_resolution 32", "has 64")),
        (["data.image_decoding=approximate_draft"], ("the transform", "approximate draft")),
        (
            ["stage=sft", "model.vision_tower=tiny-siglip-vision"],
            ("data.sources.read.format", "name what they were made of"),
        ),
    ],
)
def test_training_refuses_codes_that_are_not_its_own_in_one_line(
    tiny_world: TinyWorld,
    encoded: Path,
    tmp_path: Path,
    overrides: list[str],
    named: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    _other_tokenizer(tiny_world, tmp_path)
    overrides = [one.replace("=other", f"={tmp_path / 'other'}") for one in overrides]
    assert train(encoded / "test.yaml", *overrides, f"experiment.output_dir={tmp_path / 'run'}") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert [words for words in named if words not in error] == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (["data.image_decoding=approximate_draft"], "give another --output"),
        (["stage=tokenizer", "training.samples_per_step={t2i: 4}"], "nothing to encode"),
        (["--rank", "2", "--world-size", "2"], "--rank is 2"),
        (["--device", "warp"], "--device warp"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    tiny_world: TinyWorld,
    encoded: Path,
    tmp_path: Path,
    change: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(encoded, tmp_path / "codes")
    sources: dict[str, Any] = {"data": {"sources": READING}}
    assert encode(tiny_world.config(tmp_path, **sources), tmp_path / "codes", *change) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("unigen: error: ")
    assert complaint in error


def test_a_tar_that_is_not_there_is_named_and_the_exit_code_is_1(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = {**SOURCES["draw"], "paths": ["shapes_short/train-{00014..00016}.tar"]}
    config = tiny_world.config(tmp_path, data={"sources": {"draw": source}}, training={"samples_per_step": {"t2i": 4}})
    assert encode(config, tmp_path / "codes") == 1
    assert "train-00016.tar: missing_shard" in capsys.readouterr().err
    assert len(shards(tmp_path / "codes")) == 2


def _other_tokenizer(tiny_world: TinyWorld, folder: Path) -> None:
    tokenizer = load_image_tokenizer(tiny_world.root / "checkpoints" / "tiny-magvitv2")
    next(tokenizer.parameters()).data += 0.01
    tokenizer.save_pretrained(folder / "other")


def _copy(tiny_world: TinyWorld, folder: Path) -> Path:
    root = folder / "root"
    shutil.copytree(tiny_world.root, root)
    return root


def _damaged_copy(tiny_world: TinyWorld, folder: Path) -> Path:
    """One image of a tar is no image, another tar breaks off."""
    root = _copy(tiny_world, folder)
    tar, broken = (root / "datasets" / "shapes_short" / f"train-0000{number}.tar" for number in (2, 5))
    content = bytearray(tar.read_bytes())
    place = content.index(b"\x89PNG")
    content[place : place + 8] = b"not a PN"
    tar.write_bytes(content)
    broken.write_bytes(broken.read_bytes()[:-1100])
    return root


def _wide_copy(tiny_world: TinyWorld, folder: Path) -> Path:
    import io
    import tarfile

    from PIL import Image

    from tests.data.archives import write_tar

    root = _copy(tiny_world, folder)
    for path in sorted((root / "datasets" / "shapes_short").glob("*.tar")):
        samples: dict[str, dict[str, bytes]] = {}
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                samples.setdefault(key, {})[extension] = file.read()
        for members in samples.values():
            buffer = io.BytesIO()
            with Image.open(io.BytesIO(members["png"])) as image:
                image.resize((64, 32)).save(buffer, "PNG")
            members["png"] = buffer.getvalue()
        write_tar(path, samples.items())
    return root


def test_the_dry_run_leaves_out_the_image_tokenizer_of_codes(
    tiny_world: TinyWorld, encoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flops = []
    for config in (tiny_world.config(tmp_path, data={"sources": READING}), encoded / "test.yaml"):
        assert main(["train", str(config), "--dry-run", "--json"]) == 0
        flops.append(json.loads(capsys.readouterr().out)["flops_per_step"])
    assert flops[0]["image_tokenizer"] > flops[1]["image_tokenizer"] == 0
    assert flops[0]["language_model"] == flops[1]["language_model"]


def unifork_config(
    tiny_world: TinyWorld, folder: Path, sources: dict[str, Any], samples_per_step: dict[str, int] = BOTH, **data: Any
) -> Path:
    """A run of UniFork on sources of both tasks."""
    save_tiny_rqvae(folder / "rqvae")
    fork = {"depth_transformer": {"attention_width": 16, "num_heads": 2, "num_layers": 1}}
    names = {"image_tokenizer": folder / "rqvae", "language_model": tiny_world.root / "checkpoints" / "tiny-qwen2"}
    return tiny_world.config(
        folder / "images",
        model={"family": "unifork", "fork": fork, **{name: str(place) for name, place in names.items()}},
        data={"sources": sources, **data},
        training={"tokens_per_row": 640, "steps": 3, "samples_per_step": samples_per_step},
    )


def test_unifork_trains_the_same_from_codes_of_cropped_and_of_padded_images(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    config = unifork_config(tiny_world, tmp_path, {name: SOURCES[name] for name in ("draw", "read")})
    assert encode(config, tmp_path / "codes") == 0
    padded = [shard for shard in shards(tmp_path / "codes") if shard.name.endswith(f".padded{SUFFIX}")]
    assert len(padded) == len(shards(tmp_path / "codes")) // 2
    assert "padded" in read_shard(str(padded[0])).spec.transform
    assert read_shard(str(padded[0])).codes_NKI.shape[1:] == (1, 16, 3)
    assert train(config) == 0
    assert train(tmp_path / "codes" / "test.yaml", f"experiment.output_dir={tmp_path / 'coded'}") == 0
    first, second = (weights(folder) for folder in (tmp_path / "images" / "run", tmp_path / "coded"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_unifork_trains_the_same_from_codes_of_class_folders_captions_and_conversations(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    """With texts about no image, about two, a file that is read twice, and records that cannot be used."""
    config = unifork_config(
        tiny_world, tmp_path, write_records(tmp_path), lanes=2, max_bad_fraction=0.5, root=str(tmp_path / "root")
    )
    assert encode(config, tmp_path / "codes", "training.steps=12") == 0
    shutil.rmtree(tmp_path / "root" / "datasets" / "net")
    assert train(tmp_path / "codes" / "test.yaml", f"experiment.output_dir={tmp_path / 'coded'}") == 0
    write_records(tmp_path)
    assert train(config, "training.steps=12") == 0
    first, second = (weights(folder) for folder in (tmp_path / "images" / "run", tmp_path / "coded"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    images, codes = (metrics(folder)[-1] for folder in (tmp_path / "images" / "run", tmp_path / "coded"))
    bad = {name: count for name, count in images.items() if name.startswith("data/bad/")}
    assert set(bad) == {"data/bad/missing_image", "data/bad/bad_conversation", "data/bad/cjk_caption"}
    assert bad == {name: count for name, count in codes.items() if name.startswith("data/bad/")}


def test_records_that_changed_are_encoded_again_and_others_kept(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {name: source for name, source in write_records(tmp_path).items() if name in ("net", "talk")}
    config = unifork_config(tiny_world, tmp_path, sources, lanes=2, root=str(tmp_path / "root"))
    talks = tmp_path / "root" / "datasets" / "talks.jsonl"
    for added, expected in (("", (5, 0)), ("", (0, 5)), (json.dumps(question(30, "fox/0.png")) + "\n", (2, 3))):
        talks.write_text(talks.read_text() + added)
        assert encode(config, tmp_path / "codes", "--json") == 0
        printed = json.loads(capsys.readouterr().out)
        assert (printed["num_written"], printed["num_kept"]) == expected


def write_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Class folders, captions and conversations below `folder/root/datasets`, and their sources."""
    root = folder / "root" / "datasets"
    for number, name in enumerate(("fox", "owl", "old oak")):
        (root / "net" / name).mkdir(parents=True, exist_ok=True)
        for image in range(4):
            (root / "net" / name / f"{image}.png").write_bytes(png(10 * number + image))
    pictures = [f"{name}/{image}.png" for name in ("fox", "owl") for image in range(4)]
    captions = [{"image": image, "caption": f"A field, {image}."} for image in pictures]
    captions += [{"image": "fox/9.png", "caption": "Nothing."}, {"image": "owl/1.png", "caption": "\u7ea2\u8272"}]
    write_jsonl(root / "captions" / "0.txt", captions)
    talks: list[Any] = [question(number, image) for number, image in enumerate(pictures)]
    talks += [question(8), question(9, ["owl/1.png", "fox/2.png"]), {"image": "owl/1.png", "conversations": []}]
    write_jsonl(root / "talks.jsonl", talks)
    (root / "talks.json").write_text('{"mine": {"annotation": "talks.jsonl", "root": "net", "repeat_time": 2}}')
    return {
        "net": {"format": "imagefolder", "task": "t2i", "paths": ["net"]},
        "web": {"format": "captions", "task": "t2i", "paths": ["captions"], "images": "net", "skip_cjk": True},
        "describe": {"format": "imagefolder", "task": "mmu", "paths": ["net"]},
        "talk": {"format": "conversations", "task": "mmu", "paths": ["talks.json"]},
    }
