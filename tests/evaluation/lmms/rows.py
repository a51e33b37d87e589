# SPDX-License-Identifier: Apache-2.0
"""A few made-up rows for each of the READMEs' tasks, in the schema of its own data set, and task files that point there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

PREFIX = "tiny_"
"""A task of lmms-eval's own name would be lmms-eval's own."""
SIDE = 40

MMMU_IMAGES = {f"image_{number}": None for number in range(3, 8)}
MATHVISTA_METADATA = {
    "split": "testmini",
    "language": "english",
    "source": "made up",
    "category": "math-targeted-vqa",
    "task": "geometry problem solving",
    "context": "geometry diagram",
    "grade": "high school",
    "skills": ["geometry reasoning"],
}


def picture(number: int) -> Image.Image:
    """An image unlike that of any other number below 36."""
    return Image.new("RGB", (SIDE, SIDE), (number * 7, 255 - number * 7, number % 6 * 40))


def _pope(number: int) -> dict[str, Any]:
    answer = ["yes", "no"][number % 2]
    question = f"Is there a snowboard in the image? {number}"
    return {
        "question_id": str(number),
        "question": question,
        "answer": answer,
        "image": picture(number),
        "category": "random",
    }


def _mmmu(number: int) -> dict[str, Any]:
    is_choice = number < 2
    return {
        "id": f"validation_{['Art', 'Math', 'Physics'][number]}_{number}",
        "question": f"What links <image 1> to <image 2> in case {number}?",
        "options": "['a circle', 'a square', 'a line']" if is_choice else "[]",
        "answer": "B" if is_choice else "4",
        "question_type": "multiple-choice" if is_choice else "open",
        "subfield": "Drawing",
        "image_1": picture(number),
        "image_2": picture(number + 10),
        **MMMU_IMAGES,
    }


def _gqa(number: int) -> dict[str, Any]:
    return {"id": str(number), "imageId": f"n{number}", "question": f"What color is case {number}?", "answer": "red"}


def _ai2d(number: int) -> dict[str, Any]:
    options = ["leaf", "root", "stem", "flower"]
    return {"question": f"What is {number}?", "options": options, "answer": str(number), "image": picture(number)}


def _mme(number: int) -> dict[str, Any]:
    return {
        "question_id": f"{number // 2}.png",
        "question": f"Is it red ({number})? Please answer yes or no.",
        "answer": ["Yes", "No"][number % 2],
        "category": ["color", "code_reasoning"][number // 2 % 2],
        "image": picture(number // 2),
    }


def _mathvista(number: int) -> dict[str, Any]:
    is_choice = number < 2
    return {
        "pid": str(number),
        "question": f"How large is angle {number}?",
        "decoded_image": picture(number),
        "choices": ["30", "60", "90"] if is_choice else None,
        "unit": None,
        "precision": None,
        "answer": "60" if is_choice else "4",
        "question_type": "multi_choice" if is_choice else "free_form",
        "answer_type": "text" if is_choice else "integer",
        "metadata": MATHVISTA_METADATA,
        "query": f"Question: How large is angle {number}?",
    }


def _mmvet(number: int) -> dict[str, Any]:
    return {
        "question_id": f"v1_{number}",
        "question": f"What is x in equation {number}?",
        "answer": "-1<AND>-5",
        "capability": ["ocr,math", "rec"][number % 2],
        "image": picture(number),
    }


def _realworldqa(number: int) -> dict[str, Any]:
    advice = "Please answer directly with only the letter of the correct option and nothing else."
    question = f"Which way in {number}?\nA. Left\nB. Right\n{advice}"
    return {"image": picture(number), "image_path": f"{number}.webp", "question": question, "answer": "AB"[number % 2]}


def _scienceqa(number: int) -> dict[str, Any]:
    hint = ["", "Look closely."][number % 2]
    return {
        "image": picture(number),
        "question": f"Which is heavier ({number})?",
        "choices": ["a", "b"],
        "answer": 1,
        "hint": hint,
    }


def _seedbench(number: int) -> dict[str, Any]:
    num_frames = 1 if number < 2 else 3
    return {
        "question_id": str(number),
        "question": f"How many are there in {number}?",
        "choice_a": "One",
        "choice_b": "Two",
        "choice_c": "Three",
        "choice_d": "Four",
        "answer": "C",
        "data_type": "image" if number < 2 else "video",
        "image": [picture(number + frame) for frame in range(num_frames)],
    }


ROWS: dict[str, tuple[Callable[[int], dict[str, Any]], int, str]] = {
    "pope": (_pope, 4, "test"),
    "mmmu_val": (_mmmu, 3, "validation"),
    "gqa": (_gqa, 3, "testdev"),
    "ai2d": (_ai2d, 3, "test"),
    "mme": (_mme, 8, "test"),
    "mathvista_testmini": (_mathvista, 3, "testmini"),
    "mmvet": (_mmvet, 2, "test"),
    "realworldqa": (_realworldqa, 2, "test"),
    "scienceqa_img": (_scienceqa, 2, "test"),
    "seedbench": (_seedbench, 3, "test"),
}
"""Task -> how a row is made, how many there are, and the split of it that is asked."""

FOLDERS = {"mmmu_val": "mmmu", "mathvista_testmini": "mathvista", "scienceqa_img": "scienceqa"}
GROUPS = {"mathvista_testmini": [f"mathvista_testmini_{style}" for style in ("cot", "solution", "format")]}

GQA_FUNCTIONS = """
from pathlib import Path

import datasets

IMAGES = Path(__file__).parent / "data" / "gqa_images"


def process_docs(dataset):
    images = {row["id"]: row["image"] for row in datasets.load_from_disk(str(IMAGES))["testdev"]}
    return dataset.map(lambda row: {"image": images[row["imageId"]]})
"""


def write_tasks(folder: Path, built_in: Path) -> list[str]:
    """Write rows and task files for all of them into `folder`, for `--include_path`; returns the names of the tasks.

    Args:
        built_in: lmms-eval's own task files, which are included: prompts, filters and metrics are theirs.
    """
    for task, (make, count, split) in ROWS.items():
        _write_rows(folder / "data" / task, split, [make(number) for number in range(count)])
        for name in GROUPS.get(task, [task]):
            included = built_in / FOLDERS.get(task, task) / f"{name}.yaml"
            _write_task(folder, name, included, folder / "data" / task)
    for group, names in GROUPS.items():
        _write_yaml(
            folder, f"{PREFIX}{group}", {"group": f"{PREFIX}{group}", "task": [f"{PREFIX}{name}" for name in names]}
        )
    # GQA's own `process_docs` fetches the images from the hub whatever the task file says.
    _write_rows(
        folder / "data" / "gqa_images",
        "testdev",
        [{"id": f"n{number}", "image": picture(number)} for number in range(3)],
    )
    (folder / "gqa_functions.py").write_text(GQA_FUNCTIONS)
    return [f"{PREFIX}{task}" for task in ROWS]


def write_shapes_task(folder: Path, world: Path) -> str:
    """Write the world's held-out questions as a task; returns its name."""
    file = world / "evaluation" / "vqa_shapes.jsonl"
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [{**entry, "image": Image.open(file.parent / entry["image"]).convert("RGB")} for entry in entries]
    _write_rows(folder / "data" / "shapes", "test", rows)
    task = {
        "task": "vqa_shapes",
        "dataset_path": str(folder / "data" / "shapes"),
        "dataset_kwargs": {"load_from_disk": True},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "question",
        "doc_to_target": "answer",
        "generation_kwargs": {"max_new_tokens": 6},
        "metric_list": [
            {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True}
        ],
    }
    _write_yaml(folder, "vqa_shapes", task, "doc_to_visual: !function shapes_functions.images\n")
    (folder / "shapes_functions.py").write_text("def images(row):\n    return [row['image']]\n")
    return "vqa_shapes"


def _write_rows(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    from datasets import Dataset, DatasetDict

    DatasetDict({split: Dataset.from_list(rows)}).save_to_disk(folder)


def _write_task(folder: Path, name: str, included: Path, data: Path) -> None:
    content = {
        "include": str(included),
        "task": f"{PREFIX}{name}",
        "dataset_path": str(data),
        "dataset_name": None,
        "dataset_kwargs": {"load_from_disk": True},
    }
    functions = "process_docs: !function gqa_functions.process_docs\n" if name == "gqa" else ""
    _write_yaml(folder, f"{PREFIX}{name}", content, functions)


def _write_yaml(folder: Path, name: str, content: dict[str, Any], functions: str = "") -> None:
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content) + functions)
