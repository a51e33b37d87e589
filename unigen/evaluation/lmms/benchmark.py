# SPDX-License-Identifier: Apache-2.0
"""Understanding: tasks of lmms-eval, each scored once, over answers that are kept one by one."""

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from unigen.data.json_files import read_json, write_json
from unigen.data.manifest import open_run
from unigen.errors import EvaluationError
from unigen.evaluation.families import UAE, UNIFORK, UNIGEN
from unigen.evaluation.job import Job
from unigen.evaluation.lmms.judges import describe_judge, is_judged, require_judge, require_modules
from unigen.evaluation.lmms.process import OUTPUT, run_lmms_eval
from unigen.evaluation.lmms.results import LmmsResults, results_files

TASKS_FOLDER = "tasks"


class Lmms:
    name = "lmms"
    families = frozenset({UNIGEN, UNIFORK, UAE})

    def check(self, job: Job) -> None:
        open_run(job.folder, _identity(job), writes=False)
        require_judge([task for task in job.options.lmms.tasks if is_judged(task)], os.environ)
        require_modules(job.options.lmms.tasks)

    def run(self, job: Job) -> list[str]:
        tasks = job.options.lmms.tasks
        open_run(job.folder, _identity(job), writes=job.ranks.is_first)
        pending = [task for task in tasks if not _is_done(job, task)]
        if not pending:
            return []
        known = results_files(job.folder / OUTPUT)
        failure = run_lmms_eval(job, pending)
        if failure is not None:
            return [f"{self.name}, {', '.join(pending)}: {failure}"]
        return _keep(job, pending, known) if job.ranks.is_first else []

    def score(self, job: Job) -> dict[str, Any]:
        """All tasks that were ever scored in this folder."""
        found: dict[str, Any] = {}
        for path in sorted((job.folder / TASKS_FOLDER).glob("*.json")):
            found |= (read_json(path) or {})["scores"]
        missing = [task for task in job.options.lmms.tasks if not _is_done(job, task)]
        if missing and not (found and job.options.is_partial_allowed):
            raise EvaluationError(f"{self.name}: {', '.join(missing)} has no scores; run the same command again")
        about = {"lmms_eval": _installed_version(), **({"partial": True} if missing else {})}
        return {self.name: {**found, **about}}


def _identity(job: Job) -> dict[str, Any]:
    """What the answers depend on."""
    return job.identity(f"lmms-eval {_installed_version()}", most_new_tokens=job.options.lmms.most_new_tokens)


def _installed_version() -> str:
    try:
        return version("lmms-eval")
    except PackageNotFoundError as error:
        raise EvaluationError("lmms-eval is not installed; run: bash scripts/setup.sh eval") from error


def _keep(job: Job, tasks: Sequence[str], known: set[Path]) -> list[str]:
    """Keep the scores of the tasks that have them; one line for each that has none."""
    written = LmmsResults.newest(job.folder / OUTPUT, known)
    failures = []
    for task in tasks:
        names = written.names(task) if written is not None else []
        if written is None or not names:
            failures.append(f"lmms, {task}: lmms-eval wrote no result; all it said is in {job.folder / 'log-0.txt'}")
            continue
        try:
            scores = {name: written.scores(name) for name in names}
        except EvaluationError as error:
            failures.append(f"lmms, {error}")
            continue
        judge = describe_judge(os.environ) if any(map(written.is_judged, names)) else None
        write_json({"scores": scores, "judge": judge, "file": str(written.path)}, _file(job, task))
    return failures


def _is_done(job: Job, task: str) -> bool:
    """Whether a task has scores, and those of the judge that is configured now."""
    content = read_json(_file(job, task))
    return content is not None and content["judge"] in (None, describe_judge(os.environ))


def _file(job: Job, task: str) -> Path:
    return job.folder / TASKS_FOLDER / f"{task}.json"
