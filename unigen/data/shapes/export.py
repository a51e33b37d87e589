# SPDX-License-Identifier: Apache-2.0
"""Writes the world of shapes as ordinary files: WebDataset shards, LLaVA conversations, parquet text, benchmarks, prompts.

Image paths in the JSON files are relative to the file's own folder.
"""

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from unigen.data.shapes.captions import long_caption, short_caption
from unigen.data.shapes.prompts import geneval_prompts, training_prompts
from unigen.data.shapes.questions import Question, QuestionBook
from unigen.data.shapes.render import render
from unigen.data.shapes.scene import (
    TAGS,
    Scene,
    SceneObject,
    is_held_out,
    is_withheld,
    sample_any_scene,
    sample_scene,
)
from unigen.data.shapes.tokenizer import train_tokenizer
from unigen.errors import DataError

FORMAT_VERSION = 6
MANIFEST_NAME = "manifest.json"
NUM_SHARDS = 16
NUM_TEXT_FILES = 4
MOST_CAPTIONED = 512
"""There are not many more scenes that training never shows."""

_IMAGES, _CONVERSATIONS, _TEXT, _EVALUATION, _PROMPTS, _CAPTIONED = range(6)  # independent streams of one seed
_TURNS_PER_IMAGE = 3
# Which colour belongs to which of two objects takes far longer to learn than one object does.
_ROUND_OF_TAGS = (*TAGS, "two_object", "position", "color_attr")
DESCRIPTION_REQUEST = "Describe this image in detail."
_DESCRIPTION_PERIOD = 6  # every sixth image of the conversations is described, the others are asked about


@dataclass(frozen=True)
class WorldSize:
    """How much of the world to write; the same images stand in the short and in the long shards."""

    resolution: int = 32
    num_images: int = 20_000
    num_question_images: int = 15_000
    num_text_lines: int = 20_000
    num_held_out_questions: int = 400
    num_held_out_captions: int = 512
    vocab_size: int = 640


def write_world(output_dir: Path, *, seed: int, size: WorldSize | None = None) -> dict[str, Any]:
    """Write the whole world into a folder and return its manifest.

    A folder that already holds this very world is left as it is; one that holds another world is replaced as a whole.
    The folder is written beside and renamed, so a half-written one is never taken for a whole one.

    Raises:
        DataError: the folder holds something else than a world of shapes, or the sizes are too small.
    """
    size = size or WorldSize()
    _check_size(size)
    identity = {"format_version": FORMAT_VERSION, "seed": seed, **asdict(size)}
    present = _read_manifest(output_dir)
    if present is not None and all(present.get(key) == value for key, value in identity.items()):
        return present
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}-", dir=output_dir.parent))
    try:
        manifest = {**identity, "counts": _write_all(partial, seed, size)}
        (partial / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n")
        partial.chmod(0o755)
        if output_dir.exists():
            shutil.rmtree(output_dir)
        partial.rename(output_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _check_size(size: WorldSize) -> None:
    for name, value in asdict(size).items():
        least = {"resolution": 16, "num_images": NUM_SHARDS, "vocab_size": 300}.get(name, 1)
        if value < least:
            raise DataError(f"world of shapes: {name} is {value}, it must be at least {least}")
    if size.num_held_out_captions > MOST_CAPTIONED:
        raise DataError(
            f"world of shapes: num_held_out_captions is {size.num_held_out_captions}, it must be at most {MOST_CAPTIONED}"
        )


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a world, None where there is no folder yet or an empty one."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text())
        return {"format_version": manifest["format_version"], **manifest}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} is in use and has no {MANIFEST_NAME} of a world of shapes: name another folder"
        ) from error


def _write_all(folder: Path, seed: int, size: WorldSize) -> dict[str, int]:
    counts = {
        "images": _write_shards(folder, _stream(seed, _IMAGES), size),
        "conversation_turns": _write_conversations(folder / "conversations", _stream(seed, _CONVERSATIONS), size),
        "text_lines": _write_text(folder / "text", _stream(seed, _TEXT), size),
        **_write_evaluation(folder / "evaluation", _stream(seed, _EVALUATION), size),
        "held_out_captions": _write_captioned(folder / "evaluation" / "captioned", _stream(seed, _CAPTIONED), size),
        "training_prompts": _write_prompts(folder / "prompts", _stream(seed, _PROMPTS)),
    }
    tokenizer = train_tokenizer(size.vocab_size)
    tokenizer.save_pretrained(folder / "tokenizer")
    return {**counts, "tokens": len(tokenizer)}


def _stream(seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose])


def _scenes(count: int, rng: np.random.Generator) -> Iterator[Scene]:
    """Training scenes: the tags of a round in a new order every round."""
    for index in range(count):
        if index % len(_ROUND_OF_TAGS) == 0:
            order = rng.permutation(_ROUND_OF_TAGS)
        yield sample_scene(str(order[index % len(_ROUND_OF_TAGS)]), rng)


def _write_shards(folder: Path, rng: np.random.Generator, size: WorldSize) -> int:
    """`shapes_short` and `shapes_long`: the same images under the same keys with either caption."""
    scenes = _scenes(size.num_images, rng)
    bounds = np.linspace(0, size.num_images, NUM_SHARDS + 1).astype(int)
    for name in ("shapes_short", "shapes_long"):
        (folder / name).mkdir()
    for shard in range(NUM_SHARDS):
        names = [folder / name / f"train-{shard:05d}.tar" for name in ("shapes_short", "shapes_long")]
        with tarfile.open(names[0], "w") as short_tar, tarfile.open(names[1], "w") as long_tar:
            for index in range(bounds[shard], bounds[shard + 1]):
                scene = next(scenes)
                png = _png(render(scene, size.resolution))
                for tar, caption in ((short_tar, short_caption(scene, rng)), (long_tar, long_caption(scene, rng))):
                    _add(tar, f"{index:08d}.png", png)
                    _add(tar, f"{index:08d}.txt", caption.encode())
    return size.num_images


def _write_conversations(folder: Path, rng: np.random.Generator, size: WorldSize) -> int:
    """LLaVA's list of conversations; returns how many turns they have in all."""
    (folder / "images").mkdir(parents=True)
    book = QuestionBook()
    conversations: list[dict[str, Any]] = []
    for index in range(size.num_question_images):
        if index % _DESCRIPTION_PERIOD:
            scene = book.sample_scene(rng)
            turns = _turns([(asked.question, asked.answer) for asked in book.ask(scene, _TURNS_PER_IMAGE, rng)])
        else:
            scene = sample_scene(TAGS[index // _DESCRIPTION_PERIOD % len(TAGS)], rng)
            turns = _turns([(DESCRIPTION_REQUEST, long_caption(scene, rng))])
        name = f"images/{index:06d}.png"
        (folder / name).write_bytes(_png(render(scene, size.resolution)))
        conversations.append({"id": f"shapes-{index:06d}", "image": name, "conversations": turns})
    (folder / "shapes.json").write_text(json.dumps(conversations, indent=1) + "\n")
    return sum(len(conversation["conversations"]) // 2 for conversation in conversations)


def _turns(exchanges: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    turns = []
    for index, (question, answer) in enumerate(exchanges):
        mark = "<image>\n" if index == 0 else ""
        turns += [{"from": "human", "value": mark + question}, {"from": "gpt", "value": answer}]
    return turns


def _write_text(folder: Path, rng: np.random.Generator, size: WorldSize) -> int:
    """Plain sentences about scenes that training may show."""
    folder.mkdir()
    lines = [long_caption(scene, rng) for scene in _scenes(size.num_text_lines, rng)]
    for index in range(NUM_TEXT_FILES):
        table = pa.table({"content": pa.array(lines[index::NUM_TEXT_FILES], pa.string())})
        pq.write_table(table, folder / f"shapes-{index:05d}.parquet")
    return len(lines)


def _write_evaluation(folder: Path, rng: np.random.Generator, size: WorldSize) -> dict[str, int]:
    """The two benchmarks; the questions are about held-out scenes."""
    (folder / "images").mkdir(parents=True)
    prompts = geneval_prompts()
    (folder / "geneval_shapes.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    book = QuestionBook()
    lines: list[str] = []
    num_images = 0
    while len(lines) < size.num_held_out_questions:
        scene = book.sample_scene(rng, held_out=True)
        questions = book.ask(scene, min(_TURNS_PER_IMAGE, size.num_held_out_questions - len(lines)), rng)
        name = f"images/{num_images:05d}.png"
        (folder / name).write_bytes(_png(render(scene, size.resolution)))
        num_images += 1
        lines += [json.dumps({"image": name, **_question_fields(asked)}) + "\n" for asked in questions]
    (folder / "vqa_shapes.jsonl").write_text("".join(lines))
    return {"prompts": len(prompts), "held_out_questions": len(lines), "held_out_images": num_images}


def _write_captioned(folder: Path, rng: np.random.Generator, size: WorldSize) -> int:
    """Scenes that training never shows, each once, as images with a long caption beside each."""
    folder.mkdir()
    written: set[tuple[SceneObject, ...]] = set()
    while len(written) < size.num_held_out_captions:
        scene = sample_any_scene(str(rng.choice(TAGS)), rng)
        if scene.objects in written or not (is_withheld(scene) or is_held_out(scene)):
            continue
        name = f"{len(written):05d}"
        (folder / f"{name}.png").write_bytes(_png(render(scene, size.resolution)))
        (folder / f"{name}.txt").write_text(long_caption(scene, rng), encoding="utf-8")
        written.add(scene.objects)
    return len(written)


def _write_prompts(folder: Path, rng: np.random.Generator) -> int:
    """Prompts that training data may be made from: none of them is the benchmark's."""
    folder.mkdir()
    prompts = training_prompts(rng)
    (folder / "train.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    return len(prompts)


def _question_fields(asked: Question) -> dict[str, str]:
    return {"question": asked.question, "answer": asked.answer, "kind": asked.kind}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file with no time and no owner, so that equal worlds are equal bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
