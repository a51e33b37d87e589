# SPDX-License-Identifier: Apache-2.0
"""Tasks that need more than lmms-eval: whose answers another model judges, and whether one is configured, or another package.

lmms-eval prints a number for such a task without any judge: MM-Vet scores 0, MathVista takes the nearest choice. So it is asked
for first.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from urllib.parse import urlsplit

from unigen.errors import EvaluationError

JUDGED_TASKS = ("mmvet", "mathvista")
"""How the names of the READMEs' judged tasks begin."""
NEEDED_MODULES = {"mathvista": ("Levenshtein", "levenshtein")}
"""How names of tasks begin -> a module that lmms-eval imports for them without requiring it, and the package that has it.
Levenshtein is under the GPL, so it is in no extra of ours."""
_JUDGED_METRIC = re.compile(r"judge|gpt", re.IGNORECASE)

NEEDED: dict[str, Sequence[Sequence[str]]] = {
    "openai": [["OPENAI_API_KEY"]],
    "async_openai": [["OPENAI_API_KEY"]],
    "azure": [["AZURE_API_KEY"], ["AZURE_ENDPOINT"]],
    "async_azure": [["AZURE_API_KEY"], ["AZURE_ENDPOINT"]],
    "local": [["LLM_JUDGE_URL"]],
    "bedrock": [["AWS_BEARER_TOKEN_BEDROCK", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"]],
}
"""API_TYPE -> environment variables, of each list one."""
_ADDRESSES = ("LLM_JUDGE_URL", "OPENAI_API_URL", "AZURE_ENDPOINT")


def is_judged(task: str, metrics: Iterable[str] = ()) -> bool:
    """Whether a task needs a judge, by its name or by the names of its metrics."""
    return task.startswith(JUDGED_TASKS) or any(_JUDGED_METRIC.search(metric) for metric in metrics)


def require_judge(judged: Sequence[str], environment: Mapping[str, str]) -> None:
    """Whether the judge of these tasks is configured.

    Raises:
        EvaluationError: it is not; names the variables.
    """
    if not judged:
        return
    kind = environment.get("API_TYPE", "openai").lower()
    if kind not in NEEDED:
        missing = f"API_TYPE={kind} is none of {', '.join(NEEDED)}"
    else:
        absent = [" or ".join(names) for names in NEEDED[kind] if not any(environment.get(name) for name in names)]
        missing = f"API_TYPE={kind} needs {' and '.join(absent)} in the environment" if absent else ""
    if missing:
        raise EvaluationError(
            f"{', '.join(judged)} cannot be scored without a judge: {missing}. Set OPENAI_API_KEY (OPENAI_API_URL for another "
            "address), or API_TYPE=local and LLM_JUDGE_URL=http://HOST:PORT/v1/chat/completions for a server of your own, "
            "with its model in MODEL_VERSION; or leave these tasks out"
        )


def require_modules(tasks: Sequence[str]) -> None:
    """Whether what these tasks import besides is installed.

    Raises:
        EvaluationError: it is not; names the package.
    """
    for start, (module, package) in NEEDED_MODULES.items():
        needing = [task for task in tasks if task.startswith(start)]
        if needing and find_spec(module) is None:
            raise EvaluationError(
                f"{', '.join(needing)} needs the package {package}, which is under another licence than this project: "
                f"pip install {package}, or leave the task out with --lmms-tasks"
            )


def describe_judge(environment: Mapping[str, str]) -> dict[str, str]:
    """What results should say of the judge: kind, model, address without credentials. Never a key."""
    found = {"api_type": environment.get("API_TYPE", "openai").lower()}
    if environment.get("MODEL_VERSION"):
        found["model"] = environment["MODEL_VERSION"]
    address = next((environment[name] for name in _ADDRESSES if environment.get(name)), None)
    if address is not None:
        parts = urlsplit(address)
        found["address"] = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
    return found
