# SPDX-License-Identifier: Apache-2.0
"""How an answer is to be written: from the `generation_kwargs` of a task to the settings of a pipeline."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unigen.errors import EvaluationError

DEFAULT_NEW_TOKENS = 100
"""Of tasks that give no length."""
ONLY_ONE = ("num_beams", "num_return_sequences", "n", "best_of", "repetition_penalty")
"""What would change the answer and is not done: only the value 1 is taken."""
BETWEEN_EXAMPLES = ["\n\n"]
"""What lmms-eval itself puts under `until` where a task has none: it stands between few-shot examples, not after an answer."""


@dataclass(frozen=True)
class Writing:
    """Settings for `Pipeline.ask_requests`, and the strings at which an answer ends."""

    settings: tuple[tuple[str, Any], ...]
    stops: tuple[str, ...] = ()

    def cut(self, answer: str) -> str:
        """The answer up to the first of the stop strings."""
        ends = [place for stop in self.stops if (place := answer.find(stop)) >= 0]
        return answer[: min(ends)].rstrip() if ends else answer

    @property
    def is_random(self) -> bool:
        return dict(self.settings)["temperature"] > 0


def read_writing(generation: Mapping[str, Any], most_new_tokens: int) -> Writing:
    """The writing that a task asks for; what only other models know (`image_aspect_ratio`) is passed over.

    `do_sample: false` is greedy whatever the temperature; a temperature without `do_sample` is a wish to sample.

    Args:
        most_new_tokens: no answer is longer, whatever the task allows.
    Raises:
        EvaluationError: beam search, several sequences or a repetition penalty, or a value of the wrong kind.
    """
    for name in ONLY_ONE:
        value = generation.get(name)
        if value is not None and value != 1:
            raise EvaluationError(f"generation_kwargs ask for {name}={value}, which is not done here; only 1 is taken")
    length = _first(generation, ("max_new_tokens", "max_gen_toks", "max_tokens"), DEFAULT_NEW_TOKENS)
    settings = {"max_new_tokens": min(_number(int, "max_new_tokens", length), most_new_tokens), **_choice(generation)}
    if settings["max_new_tokens"] < 1:
        raise EvaluationError(f"generation_kwargs ask for max_new_tokens={length}; at least 1 is needed")
    return Writing(tuple(settings.items()), _stops(generation.get("until")))


def _choice(generation: Mapping[str, Any]) -> dict[str, Any]:
    """How a token is chosen; `top_p` is a probability and `top_k` a count, each under its own name."""
    wants_sampling = generation.get("do_sample")
    default = 1.0 if wants_sampling else 0.0
    temperature = _number(float, "temperature", _first(generation, ("temperature",), default))
    if wants_sampling is False or temperature == 0:
        return {"temperature": 0.0}
    chosen: dict[str, Any] = {"temperature": temperature}
    if generation.get("top_p") is not None:
        chosen["top_p"] = _number(float, "top_p", generation["top_p"])
    if generation.get("top_k") is not None:
        chosen["top_k"] = max(0, _number(int, "top_k", generation["top_k"]))  # -1 is how some say `all`
    return chosen


def _stops(until: Any) -> tuple[str, ...]:
    stops = [until] if isinstance(until, str) else list(until or [])
    return () if stops == BETWEEN_EXAMPLES else tuple(stop for stop in stops if stop)


def _first(generation: Mapping[str, Any], names: tuple[str, ...], default: Any) -> Any:
    return next((generation[name] for name in names if generation.get(name) is not None), default)


def _number(kind: type[Any], name: str, value: Any) -> Any:
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"generation_kwargs give {name}={value!r}, which is not a number") from error
