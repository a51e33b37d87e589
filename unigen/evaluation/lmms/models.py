# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of any family as a model of lmms-eval, for tasks that give a text and images and for those that give messages.

    lmms-eval --model unigen --model_args pretrained=runs/quickstart/sft,data_root=runs/quickstart --tasks pope --batch_size 16

Whether it reads through image codes or through a vision tower is the checkpoint's affair. Started by torchrun or accelerate,
lmms-eval gives each process its share of a task.
"""

import os
import sys
from collections.abc import Sequence
from itertools import count, groupby
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from tqdm import tqdm

from unigen.data.ranks import Ranks
from unigen.errors import EvaluationError
from unigen.evaluation.lmms.answers import AnswerLedger, answer_key, weights_key
from unigen.evaluation.lmms.judges import is_judged, require_judge
from unigen.evaluation.lmms.messages import Message, read_messages, user_message
from unigen.evaluation.lmms.writing import Writing, read_writing
from unigen.generation.pipeline import AskRequest, load_pipeline
from unigen.generation.seeds import image_seed
from unigen.generation.steps import Decoding


class SimpleModel(lmms):
    """For tasks that give a text and the images before it.

    Args:
        pretrained: a checkpoint's folder, a run's folder, or a name under `<data_root>/checkpoints`.
        device: `cuda:<local rank>` if there is a GPU, else the CPU, when not given.
        decoding: how the steps of writing are run.
        weights: what `weights_key` says of the checkpoint; another checkpoint is refused.
        answers: a folder that keeps answers, so that they are never asked for twice.
        most_new_tokens: no answer is longer, whatever its task allows.
        parent: id of the process without which there is no use in going on.
    Raises:
        EvaluationError: an argument that does not exist, weights other than said, or lmms-eval's own cache without `weights`.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        data_root: str = "unigen_data",
        device: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        decoding: Decoding = "auto",
        weights: str | None = None,
        answers: str | None = None,
        most_new_tokens: int = 1024,
        seed: int = 0,
        parent: int | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown:
            raise EvaluationError(f"--model_args: there is no argument {next(iter(unknown))!r} of this model")
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise EvaluationError(f"--batch_size {batch_size}: give a number; it is not found by itself")
        ranks = Ranks.from_environment()
        self.device = torch.device(device or ranks.own_device())
        """Also where lmms-eval puts the tensors that its processes exchange."""
        self.pipeline = load_pipeline(str(pretrained), data_root=str(data_root), device=self.device, decoding=decoding)
        self._weights = _checked_weights(weights_key(self.pipeline.describe()), weights)
        self._answers = AnswerLedger(None if answers is None else Path(str(answers)), ranks.rank)
        self._batch_size, self._most_new_tokens = int(batch_size), int(most_new_tokens)
        self._seed, self._parent = int(seed), parent

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Answers in the order of the requests; those that are written alike are asked for in batches."""
        _require_judges(requests)
        writings = [read_writing(_generation(request), self._most_new_tokens) for request in requests]
        seeds = self._seeds(requests)
        found: list[str] = []
        with tqdm(total=len(requests), desc="answers", disable=self.rank != 0) as bar:
            for writing, group in groupby(range(len(requests)), key=writings.__getitem__):
                places = list(group)
                for start in range(0, len(places), self._batch_size):
                    some = places[start : start + self._batch_size]
                    found += self._answer(
                        [requests[place] for place in some], [seeds[place] for place in some], writing
                    )
                    bar.update(len(some))
        return found

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        raise EvaluationError(
            f"{requests[0].task_name} compares probabilities of given answers (multiple_choice, loglikelihood), which this "
            "model does not offer; take a task that has answers written (generate_until)"
        )

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        raise EvaluationError(f"{requests[0].task_name} asks in several rounds, which this model does not offer")

    def _messages(self, request: Instance) -> Sequence[Message]:
        text, _, to_visual, doc_id, task, split = request.args
        shown = to_visual(self.task_dict[task][split][doc_id]) if to_visual is not None else None
        images = shown if isinstance(shown, list | tuple) else [shown]
        return user_message([image for image in images if image is not None], text)

    def _answer(self, requests: Sequence[Instance], seeds: Sequence[int], writing: Writing) -> list[str]:
        """The answers of one batch, without those that are known."""
        if self._parent is not None and os.getppid() != self._parent:
            raise EvaluationError("the evaluation that started this process has ended")
        asked = [read_messages(self._messages(request), seed) for request, seed in zip(requests, seeds, strict=True)]
        keys = [answer_key(self._weights, request, writing) for request in asked]
        new: dict[str, tuple[AskRequest, Instance]] = {
            key: (ask, request)
            for key, ask, request in zip(keys, asked, requests, strict=True)
            if key not in self._answers
        }
        answers = {key: self._answers[key] for key in keys if key in self._answers}
        written = self.pipeline.ask_requests(
            [ask for ask, _ in new.values()], batch_size=self._batch_size, **dict(writing.settings)
        )
        for (key, (ask, request)), answer in zip(new.items(), written, strict=True):
            about = {"task": request.task_name, "document": request.doc_id, "question": ask.question}
            self._answers.add(key, answer, about)
            answers[key] = answer
        return [writing.cut(answers[key]) for key in keys]

    def _seeds(self, requests: Sequence[Instance]) -> list[int]:
        """One seed a request; a request that is repeated gets another each time, whichever rank it is on."""
        repeats: dict[tuple[str, Any, int], count[int]] = {}
        names = [(request.task_name, request.doc_id, request.idx) for request in requests]
        return [
            image_seed(self._seed, "|".join(map(str, name)), next(repeats.setdefault(name, count()))) for name in names
        ]


class ChatModel(SimpleModel):
    """For tasks that give messages, in which images stand between the words."""

    is_simple = False

    def _messages(self, request: Instance) -> Sequence[Message]:
        _, to_messages, _, doc_id, task, split = request.args
        messages: Sequence[Message] = to_messages(self.task_dict[task][split][doc_id])
        return messages


def _generation(request: Instance) -> dict[str, Any]:
    """The `generation_kwargs` of a request: the one mapping among its arguments."""
    return next(argument for argument in request.args if isinstance(argument, dict))


def _checked_weights(found: str, said: str | None) -> str:
    if said is not None and said != found:
        raise EvaluationError(
            f"--model_args weights={said}, but the checkpoint's are {found}; say that, or leave it out"
        )
    if said is None and any(word.startswith("--use_cache") for word in sys.argv):
        raise EvaluationError(
            "--use_cache goes by the path of a checkpoint and not by its weights; add "
            f"weights={found} to --model_args, or use answers=FOLDER there in place of --use_cache"
        )
    return found


def _require_judges(requests: Sequence[Instance]) -> None:
    """Refuse tasks whose judge is not configured, before a single answer is written."""
    tasks: dict[str, list[str]] = {}
    for request in requests:
        if request.task_name not in tasks:
            tasks[request.task_name] = _metrics(request)
    require_judge([task for task, metrics in tasks.items() if is_judged(task, metrics)], os.environ)


def _metrics(request: Instance) -> list[str]:
    """The names of the metrics of a request's task, found through the methods of the task that come with a request."""
    owners = [getattr(argument, "__self__", None) for argument in request.args]
    task = next((owner for owner in owners if hasattr(owner, "config")), None)
    return [str(metric["metric"]) for metric in task.config.metric_list or []] if task is not None else []
