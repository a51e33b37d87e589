# SPDX-License-Identifier: Apache-2.0
"""The world as files, and its tokenizer."""

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image
from transformers import AutoTokenizer

from unigen.data.shapes.export import MANIFEST_NAME, WorldSize, write_world
from unigen.data.shapes.tokenizer import train_tokenizer
from unigen.errors import DataError

SMALL = WorldSize(
    num_images=40, num_question_images=30, num_text_lines=40, num_held_out_questions=60, num_held_out_captions=50
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "world"
    write_world(folder, seed=3, size=SMALL)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def images_of(folder: Path) -> set[bytes]:
    return {Image.open(file).convert("RGB").tobytes() for file in folder.glob("*.png")}


def test_shards_hold_the_same_images_with_short_and_long_captions(world: Path) -> None:
    texts: dict[str, dict[str, str]] = {}
    for name in ("shapes_short", "shapes_long"):
        shards = sorted(str(shard) for shard in (world / name).glob("train-*.tar"))
        assert len(shards) >= 8
        samples = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode("pil")
        texts[name] = {sample["__key__"]: sample["txt"] for sample in samples}
        with tarfile.open(shards[0]) as tar:
            member = tar.extractfile(next(name for name in tar.getnames() if name.endswith(".png")))
            assert member is not None
            assert Image.open(io.BytesIO(member.read())).size == (32, 32)
    assert len(texts["shapes_short"]) == SMALL.num_images
    assert texts["shapes_short"].keys() == texts["shapes_long"].keys()
    assert all(len(texts["shapes_long"][key]) > len(text) for key, text in texts["shapes_short"].items())


def test_conversations_are_llavas_and_every_image_is_there(world: Path) -> None:
    conversations = json.loads((world / "conversations" / "shapes.json").read_text())
    assert len(conversations) == SMALL.num_question_images
    for entry in conversations:
        assert (world / "conversations" / entry["image"]).is_file()
        turns = entry["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert turns[0]["value"].startswith("<image>\n")
        assert sum("<image>" in turn["value"] for turn in turns) == 1


def test_text_and_benchmarks_have_the_announced_sizes(world: Path) -> None:
    tables = [pq.read_table(file) for file in (world / "text").glob("*.parquet")]
    assert sum(table.num_rows for table in tables) == SMALL.num_text_lines
    assert all(table.column_names == ["content"] for table in tables)
    prompts = (world / "evaluation" / "geneval_shapes.jsonl").read_text().splitlines()
    assert len(prompts) >= 300
    questions = [json.loads(line) for line in (world / "evaluation" / "vqa_shapes.jsonl").read_text().splitlines()]
    assert len(questions) == SMALL.num_held_out_questions
    assert all((world / "evaluation" / line["image"]).is_file() for line in questions)
    assert all(len(line["answer"].split()) == 1 for line in questions)


def test_held_out_images_are_not_training_images(world: Path) -> None:
    trained = images_of(world / "conversations" / "images")
    for shard in (world / "shapes_short").glob("*.tar"):
        with tarfile.open(shard) as tar:
            for member in tar.getmembers():
                content = tar.extractfile(member)
                if member.name.endswith(".png") and content is not None:
                    trained.add(Image.open(io.BytesIO(content.read())).convert("RGB").tobytes())
    for name in ("images", "captioned"):
        held_out = images_of(world / "evaluation" / name)
        assert held_out
        assert not held_out & trained


def test_every_held_out_image_with_a_caption_is_another_one_and_so_is_its_caption(world: Path) -> None:
    folder = world / "evaluation" / "captioned"
    captions = [file.read_text() for file in folder.glob("*.txt")]
    assert len(captions) == len(set(captions)) == len(images_of(folder)) == SMALL.num_held_out_captions
    assert all(file.with_suffix(".png").is_file() for file in folder.glob("*.txt"))
    assert all(caption.startswith("There ") for caption in captions)


def test_the_captioned_images_move_nothing_else(world: Path, tmp_path: Path) -> None:
    write_world(tmp_path / "fewer", seed=3, size=replace(SMALL, num_held_out_captions=5))
    more, fewer = digests(world), digests(tmp_path / "fewer")
    other = {name for name in more if more[name] != fewer.get(name)}
    assert {name for name in other if not name.startswith("evaluation/captioned/")} == {MANIFEST_NAME}


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(world: Path, tmp_path: Path) -> None:
    write_world(tmp_path / "again", seed=3, size=SMALL)
    write_world(tmp_path / "other", seed=4, size=SMALL)
    assert digests(tmp_path / "again") == digests(world)
    assert digests(tmp_path / "other")["shapes_short/train-00000.tar"] != digests(world)["shapes_short/train-00000.tar"]


def test_a_matching_world_is_left_alone_and_another_one_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "world"
    tiny = WorldSize(
        num_images=16, num_question_images=2, num_text_lines=2, num_held_out_questions=5, num_held_out_captions=5
    )
    first = write_world(folder, seed=0, size=tiny)
    written = (folder / MANIFEST_NAME).stat().st_mtime_ns
    assert write_world(folder, seed=0, size=tiny) == first
    assert (folder / MANIFEST_NAME).stat().st_mtime_ns == written
    assert write_world(folder, seed=1, size=tiny)["seed"] == 1
    assert json.loads((folder / MANIFEST_NAME).read_text())["seed"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["world"]


def test_a_folder_with_other_things_in_it_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(DataError, match="name another folder"):
        write_world(tmp_path, seed=0, size=SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "ten years of work"


def test_impossible_sizes_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="num_text_lines is 0"):
        write_world(tmp_path / "world", seed=0, size=WorldSize(num_text_lines=0))
    with pytest.raises(DataError, match="num_held_out_captions is 5000, it must be at most"):
        write_world(tmp_path / "world", seed=0, size=WorldSize(num_held_out_captions=5000))


def test_tokenizer_is_deterministic_lossless_and_knows_the_chat_roles(world: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(world / "tokenizer")
    assert tokenizer.get_vocab() == train_tokenizer().get_vocab()
    assert len(tokenizer) <= 640
    for text in ("a photo of a red circle", "Zażółć 漢字 😀 don't  a . b ,x\n\t é ", "<html>&amp;"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    for word in ("user", "assistant", "system", "<|endoftext|>", "<|im_start|>", "<|im_end|>"):
        assert len(tokenizer(word).input_ids) == 1
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    message = [{"role": "user", "content": "how many circles?"}]
    assert tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\nhow many circles?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_everyday_captions_take_one_token_a_word() -> None:
    caption = "a photo of a red circle left of a blue square"
    assert len(train_tokenizer()(caption).input_ids) == len(caption.split())
