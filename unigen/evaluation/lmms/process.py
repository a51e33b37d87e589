# SPDX-License-Identifier: Apache-2.0
"""Running lmms-eval as a process of its own: one beside each of our processes, which then find each other as these did."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from unigen.errors import EvaluationError
from unigen.evaluation.job import Job
from unigen.evaluation.lmms.answers import weights_key
from unigen.evaluation.lmms.manifests import NAME

ANSWERS, OUTPUT = "answers", "lmms_eval"
"""Folders below the benchmark's: the answers that are kept, and what lmms-eval writes."""
_FAILED = "Error during evaluation: "
_ERROR = re.compile(
    rf"{_FAILED}([\s\S]*?)\.? Please set `--verbosity=DEBUG`|^(\w*(?:Error|Exception): .*)$", re.MULTILINE
)
_SECONDS_BETWEEN_LOOKS = 0.2


def run_lmms_eval(job: Job, tasks: Sequence[str]) -> str | None:
    """Run `tasks` over the job's model; all that is printed goes to a file.

    lmms-eval says that all is well (exit code 0) also where it failed: whether it wrote results is for the caller to see.

    Returns:
        what went wrong, or None where it ended as if nothing had.
    """
    log = job.folder / f"log-{job.ranks.rank}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            command_line(job, tasks),
            env=_environment(job),
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        with _ended(process):
            code = _wait(process, job)
    text = log.read_text(encoding="utf-8", errors="replace")
    if code != 0 or _FAILED in text:
        reason = last_error(text) or "it does not say why"
        return f"lmms-eval failed (exit code {code}): {reason}; all it said is in {log}"
    return None


def command_line(job: Job, tasks: Sequence[str]) -> list[str]:
    """The command of one process. It asks for the weights that our own process has seen."""
    options = job.options
    arguments = {
        "pretrained": job.pipeline.name,
        "data_root": options.data_root,
        "weights": weights_key(job.model),
        "answers": job.folder / ANSWERS,
        "most_new_tokens": options.lmms.most_new_tokens,
        "decoding": options.decoding,
        "seed": options.seed,
        "parent": os.getpid(),
    }
    # Scoring in several threads would draw from one random stream in any order (MMMU guesses where it cannot read an answer).
    command = [
        sys.executable,
        "-m",
        "lmms_eval",
        "--process_docs_parallel",
        "1",
        "--verbosity",
        "WARNING",
        "--log_samples",
    ]
    command += ["--model", NAME, "--model_args", _joined(arguments), "--tasks", ",".join(tasks)]
    command += [
        "--batch_size",
        str(options.batch_size),
        "--output_path",
        str(job.folder / OUTPUT),
        "--device",
        job.device,
    ]
    if options.lmms.include_path is not None:
        command += ["--include_path", str(options.lmms.include_path)]
    return command


def last_error(text: str) -> str | None:
    """The last error that lmms-eval printed, on one line."""
    found = [first or second for first, second in _ERROR.findall(text)]
    return " ".join(found[-1].split()) if found else None


def _joined(arguments: Mapping[str, object]) -> str:
    """`name=value,...` as lmms-eval takes it apart again.

    Raises:
        EvaluationError: a value that would come apart at the wrong place.
    """
    for name, value in arguments.items():
        if set(",=") & set(str(value)):
            raise EvaluationError(
                f"lmms-eval cannot be given {name} {str(value)!r}: rename it to have no comma and no '='"
            )
    return ",".join(f"{name}={value}" for name, value in arguments.items())


def _environment(job: Job) -> dict[str, str]:
    """The same ranks, meeting at another port: ours is taken by the processes that wait."""
    environment = {**os.environ, "LOGURU_LEVEL": "WARNING", "TOKENIZERS_PARALLELISM": "false"}
    if job.ranks.world_size > 1:
        ports = job.ranks.gather([str(_free_port())], at="the port of lmms-eval")
        environment |= {"MASTER_PORT": ports[0], "TORCHELASTIC_USE_AGENT_STORE": "False"}
    return environment


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


@contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Leaves no process behind, whatever happens inside."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", job: Job) -> int:
    """Wait for the end, counting the answers of all ranks on the first rank's stderr."""
    with tqdm(desc="lmms", unit="answer", disable=not job.ranks.is_first) as bar:
        while process.poll() is None:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            if more := _num_answers(job.folder / ANSWERS) - bar.n:
                bar.update(more)
    return int(process.returncode)


def _num_answers(folder: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("records-*.jsonl"))
