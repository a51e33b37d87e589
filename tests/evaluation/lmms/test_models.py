# SPDX-License-Identifier: Apache-2.0
"""The models that lmms-eval asks: as one would answer one at a time, in order, and once."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.lmms.rows import picture
from tests.tiny import tiny_unigen
from tests.tiny_uae import tiny_uae
from unigen.errors import DataError, EvaluationError
from unigen.generation.pipeline import AskRequest

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed; run: bash scripts/setup.sh eval")

from lmms_eval.api.instance import Instance
from lmms_eval.models.registry_v2 import ModelRegistryV2

from unigen.evaluation.lmms.models import ChatModel, SimpleModel

Row = dict[str, Any]
ROWS = [
    {"text": f"What is in {number}?", "images": [picture(number + shown) for shown in range(number % 3 + 1)]}
    for number in range(7)
]
SHORT, LONG = {"max_new_tokens": 4, "until": ["\n\n"]}, {"max_new_tokens": 7, "until": ["\n\n"]}


@dataclass
class Task:
    """What a request knows of its task: lmms-eval hands out bound methods."""

    metrics: Sequence[str] = ("exact_match",)
    config: SimpleNamespace = field(init=False)

    def __post_init__(self) -> None:
        self.config = SimpleNamespace(metric_list=[{"metric": metric} for metric in self.metrics])

    def doc_to_visual(self, row: Row) -> list[Image.Image]:
        return list(row["images"])

    def doc_to_messages(self, row: Row) -> list[dict[str, Any]]:
        shown = [{"type": "image", "url": image} for image in row["images"]]
        return [{"role": "user", "content": [*shown, {"type": "text", "text": row["text"]}]}]


TASK = Task()


def _request(
    model: SimpleModel, number: int, generation: Row = SHORT, name: str = "mine", task: Task = TASK
) -> Instance:
    row = model.task_dict.setdefault(name, {"test": ROWS})["test"][number]
    arguments: tuple[Any, ...] = (row["text"], generation, task.doc_to_visual, number, name, "test")
    if not model.is_simple:
        arguments = (row["text"], task.doc_to_messages, generation, number, name, "test")
    metadata = {"task": name, "doc_id": number, "repeats": 1}
    return Instance(request_type="generate_until", arguments=arguments, idx=0, metadata=metadata)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_unigen(tmp_path_factory.mktemp("model"), reads_features=True))


@pytest.fixture(scope="module")
def code_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_unigen(tmp_path_factory.mktemp("model")))


@pytest.fixture(params=[SimpleModel, ChatModel])
def kind(request: pytest.FixtureRequest) -> type[SimpleModel]:
    return request.param


def test_a_uae_answers_as_a_task_wants_and_not_as_it_writes_captions(kind: type[SimpleModel], tmp_path: Path) -> None:
    model = kind(pretrained=str(tiny_uae(tmp_path / "uae")), batch_size=2, device="cpu")
    expected = [
        model.pipeline.ask(ROWS[number]["images"], ROWS[number]["text"], max_new_tokens=4, temperature=0.0)
        for number in range(3)
    ]
    assert model.generate_until([_request(model, number) for number in range(3)]) == expected


def _count_asked(model: SimpleModel, stop_after: int | None = None) -> list[AskRequest]:
    """The requests that reach the pipeline, as they come; breaks off after so many."""
    asked: list[AskRequest] = []
    original: Callable[..., Iterator[str]] = model.pipeline.ask_requests

    def ask_requests(requests: Iterable[AskRequest], **settings: Any) -> Iterator[str]:
        for request in requests:
            if stop_after is not None and len(asked) >= stop_after:
                raise KeyboardInterrupt
            asked.append(request)
            yield from original([request], **settings)

    model.pipeline.ask_requests = ask_requests  # type: ignore[method-assign]
    return asked


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("reads_features", [True, False])
def test_answers_are_those_of_asking_one_at_a_time(
    kind: type[SimpleModel], batch_size: int, reads_features: bool, checkpoint: str, code_checkpoint: str
) -> None:
    model = kind(pretrained=checkpoint if reads_features else code_checkpoint, batch_size=batch_size, device="cpu")
    requests = [_request(model, number) for number in range(7)]
    requests += [_request(model, number, LONG, "other") for number in range(3)]
    lengths = [4] * 7 + [7] * 3
    expected = [
        model.pipeline.ask(ROWS[number]["images"], ROWS[number]["text"], max_new_tokens=length)
        for number, length in zip([*range(7), *range(3)], lengths, strict=True)
    ]
    assert model.generate_until(requests) == expected
    assert len(set(expected)) > 5


def test_the_number_of_images_matters(checkpoint: str) -> None:
    model = SimpleModel(pretrained=checkpoint, device="cpu")
    asked = _count_asked(model)
    model.generate_until([_request(model, number) for number in range(3)])
    assert [len(request.images) for request in asked] == [1, 2, 3]


def test_a_run_that_broke_off_goes_on_and_no_question_is_asked_twice(
    kind: type[SimpleModel], checkpoint: str, tmp_path: Path
) -> None:
    def run(stop_after: int | None, folder: Path | None) -> tuple[list[str], int]:
        model = kind(pretrained=checkpoint, batch_size=2, device="cpu", answers=folder and str(folder))
        asked = _count_asked(model, stop_after)
        try:
            return model.generate_until([_request(model, number) for number in range(7)]), len(asked)
        except KeyboardInterrupt:
            return [], len(asked)

    expected, everything = run(None, None)
    assert run(4, tmp_path) == ([], 4)
    assert run(None, tmp_path) == (expected, everything - 4)
    assert run(None, tmp_path) == (expected, 0)


def test_other_weights_at_the_same_path_are_asked_anew(checkpoint: str, code_checkpoint: str, tmp_path: Path) -> None:
    numbers = []
    for folder in (checkpoint, code_checkpoint):
        model = SimpleModel(pretrained=folder, device="cpu", answers=str(tmp_path))
        asked = _count_asked(model)
        model.generate_until([_request(model, 0)])
        numbers.append(len(asked))
    assert numbers == [1, 1]


def test_a_repeated_request_is_drawn_anew_and_the_same_next_time(checkpoint: str) -> None:
    model = SimpleModel(pretrained=checkpoint, batch_size=4, device="cpu")
    request = _request(model, 1, {"max_new_tokens": 8, "temperature": 1.0, "until": ["\n\n"]})
    first = model.generate_until([request] * 4)
    assert len(set(first)) > 1
    assert model.generate_until([request] * 4) == first
    other = SimpleModel(pretrained=checkpoint, batch_size=4, device="cpu", seed=1)
    assert other.generate_until([_request(other, 1, request.args[1])] * 4) != first


def test_words_alone_are_answered_by_a_model_that_can(kind: type[SimpleModel], checkpoint: str) -> None:
    model = kind(pretrained=checkpoint, device="cpu")
    model.task_dict["words"] = {"test": [{"text": "2 + 2?", "images": []}]}
    assert model.generate_until([_request(model, 0, SHORT, "words")]) == [
        model.pipeline.ask([], "2 + 2?", max_new_tokens=4)
    ]


def test_words_alone_are_refused_by_a_model_that_cannot(code_checkpoint: str) -> None:
    model = SimpleModel(pretrained=code_checkpoint, device="cpu")
    model.task_dict["words"] = {"test": [{"text": "2 + 2?", "images": []}]}
    with pytest.raises(DataError, match="at least one image"):
        model.generate_until([_request(model, 0, SHORT, "words")])


def test_a_judged_task_is_refused_before_it_is_answered(
    kind: type[SimpleModel], checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("API_TYPE", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    model = kind(pretrained=checkpoint, device="cpu")
    asked = _count_asked(model)
    with pytest.raises(EvaluationError, match="mine cannot be scored without a judge"):
        model.generate_until([_request(model, 0, task=Task(["gpt_eval_score"]))])
    assert asked == []


def test_it_stops_when_the_process_that_started_it_is_gone(checkpoint: str) -> None:
    model = SimpleModel(pretrained=checkpoint, device="cpu", parent=1)
    with pytest.raises(EvaluationError, match="has ended"):
        model.generate_until([_request(model, 0)])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"chekpoint": "x"}, "no argument 'chekpoint'"),
        ({"batch_size": "auto"}, "--batch_size auto"),
        ({"weights": "sha256-0"}, "the checkpoint's are sha256-"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: Row, complaint: str, checkpoint: str) -> None:
    with pytest.raises(EvaluationError, match=complaint):
        SimpleModel(pretrained=checkpoint, device="cpu", **arguments)


def test_the_cache_of_lmms_eval_is_only_for_who_names_the_weights(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["lmms-eval", "--use_cache", "somewhere"])
    with pytest.raises(EvaluationError, match="add weights=sha256-") as caught:
        SimpleModel(pretrained=checkpoint, device="cpu")
    weights = str(caught.value).partition("weights=")[2].partition(" ")[0]
    SimpleModel(pretrained=checkpoint, device="cpu", weights=weights)


@pytest.mark.parametrize("ask", ["loglikelihood", "generate_until_multi_round"])
def test_what_it_does_not_offer_names_the_task(ask: str, checkpoint: str) -> None:
    model = SimpleModel(pretrained=checkpoint, device="cpu")
    with pytest.raises(EvaluationError, match="mine"):
        getattr(model, ask)([_request(model, 0)])


def test_lmms_eval_finds_both_by_the_entry_point() -> None:
    assert "unigen" in {entry.name for entry in entry_points(group="lmms_eval.models")}
    registry = ModelRegistryV2()
    registry.load_entrypoint_manifests()
    assert registry.get_model_class("unigen") is ChatModel
    assert registry.get_model_class("unigen", force_simple=True) is SimpleModel
