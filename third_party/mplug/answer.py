#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Answers the questions of DPG-Bench with mPLUG, in an environment of its own: it needs modelscope, and nothing of UniGen.

    python -m venv .venv-mplug && .venv-mplug/bin/pip install -r third_party/mplug/requirements.txt
    .venv-mplug/bin/python third_party/mplug/answer.py <output>/dpg/answers-mplug-plain

Reads `questions-*.jsonl` of the folder ({"id", "image", "box", "question"}) and appends {"id", "answer"} to
`answers-<part>.jsonl` there, as the model says it. What is answered already is not asked again, so it can be stopped at any
time; `--part K --parts N` shares the questions among N processes.
"""

import argparse
import json
import os
from pathlib import Path

MODEL = "damo/mplug_visual-question-answering_coco_large_en"


def main() -> None:
    arguments = read_arguments()
    path = arguments.folder / f"answers-{arguments.part}.jsonl"
    end_last_line(path)
    pending = pending_questions(arguments.folder, arguments.part, arguments.parts)
    if not pending:
        print(f"all questions of {arguments.folder} are answered" if arguments.parts == 1 else "this part is answered")
        return
    ask = load_model(arguments.model, arguments.revision)
    with path.open("a", encoding="utf-8") as file:
        for done, question in enumerate(pending, start=1):
            answer = ask(question)
            file.write(json.dumps({"id": question["id"], "answer": answer}) + "\n")
            file.flush()
            if done % 500 == 0 or done == len(pending):
                print(f"{done} of {len(pending)} questions answered", flush=True)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of questions-*.jsonl")
    parser.add_argument("--model", default=MODEL, help="a model of modelscope, or its folder")
    parser.add_argument("--revision", help="its version")
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1)
    return parser.parse_args()


def end_last_line(path: Path) -> None:
    """Remove a line that an earlier run left unfinished."""
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def pending_questions(folder: Path, part: int, parts: int) -> list:
    """The questions of a part without an answer, each once, in order. Parts are of all questions, so that they stay the same
    whenever each of them is started."""
    answered = {record["id"] for record in read_lines(folder.glob("answers*.jsonl"))}
    questions = {record["id"]: record for record in read_lines(folder.glob("questions-*.jsonl"))}
    return [question for key, question in list(questions.items())[part::parts] if key not in answered]


def read_lines(paths) -> list:
    lines = []
    for path in sorted(paths):
        lines += [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    return lines


def load_model(name: str, revision):
    from modelscope.pipelines import pipeline
    from modelscope.utils.constant import Tasks
    from PIL import Image

    model = pipeline(Tasks.visual_question_answering, model=name, model_revision=revision)

    def ask(question: dict) -> str:
        with Image.open(question["image"]) as image:
            tile = image.convert("RGB").crop(question["box"])
        return model({"image": tile, "question": question["question"]})["text"]

    return ask


if __name__ == "__main__":
    main()
