# SPDX-License-Identifier: Apache-2.0
"""What preferences are compared with, and how a run holds on to it: the folder `<experiment.output_dir>/reference`.

`weights.json` there has the hash of the reference's weights: the same run started again with others is refused, as it would go
on towards another goal. Log-probabilities that were computed ahead are lines of `log_probs.jsonl`, one for each visit to each
pair: masks and prompt drops are a function of (seed, key, visit), so a visit has one number for each image.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from unigen.config.folders import find_model, weights_hash
from unigen.config.schema import Config
from unigen.data.batch import Sample
from unigen.data.json_files import numbered_lines, write_json, write_lines
from unigen.errors import CheckpointError

WEIGHTS_FILE, TABLE_FILE = "weights.json", "log_probs.jsonl"


@contextmanager
def adapter_off(model: PeftModel) -> Iterator[None]:
    """The model without its adapter. peft freezes an adapter that it switches off and thaws all of it; here what is trained stays
    the same."""
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with model.disable_adapter():
        yield
    for parameter, is_trained in trained:
        parameter.requires_grad_(is_trained)


def hold_reference(folder: Path, config: Config) -> None:
    """Note which weights are the reference of the run, or see that they are those of the beginning.

    Raises:
        CheckpointError: they are others.
    """
    root, named = config.data.root, config.model.pretrained
    assert named is not None, "the configuration's check asks for it"
    model = find_model(named, root)
    here = {
        "model": weights_hash(model),
        "image_tokenizer": weights_hash(find_model(config.model.image_tokenizer, root)),
    }
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        write_json({**here, "path": str(model)}, file)
        return
    then = json.loads(file.read_text(encoding="utf-8"))
    for part, digest in here.items():
        if then[part] != digest:
            raise CheckpointError(
                f"{file}: this run began with {part} {then[part][:12]} of {then['path']} as its reference, but the weights found "
                f"for model.pretrained={named} have {digest[:12]}; name the old ones, or start in a new experiment.output_dir"
            )


@dataclass(frozen=True)
class ReferenceTable:
    """Log-probabilities of the chosen and the rejected image of every visit to every pair of a run."""

    rows: dict[tuple[str, int], tuple[float, float]]

    def look_up(self, samples: Sequence[Sample]) -> Tensor:
        """(P, 2) in float32."""
        return torch.tensor([self.rows[sample.key, sample.visit] for sample in samples], dtype=torch.float32)

    def write(self, folder: Path, num_steps: int, config: Config) -> None:
        """For `read`: a first line with what the numbers depend on, then one for each visit."""
        visits = (
            {"key": key, "visit": visit, "chosen": chosen, "rejected": rejected}
            for (key, visit), (chosen, rejected) in self.rows.items()
        )
        write_lines([{"num_steps": num_steps, "settings": _settings(config)}, *visits], folder / TABLE_FILE)

    @classmethod
    def read(cls, folder: Path, num_steps: int, config: Config) -> "ReferenceTable | None":
        """The table of an earlier start of this run; None where there is none, or one of fewer steps.

        Raises:
            CheckpointError: it was computed with other settings.
        """
        file = folder / TABLE_FILE
        if not file.is_file():
            return None
        head, *lines = (json.loads(line) for _, line in numbered_lines(file.read_text(encoding="utf-8")))
        here = _settings(config)
        other = sorted(key for key in here | head["settings"] if here.get(key) != head["settings"].get(key))
        if other:
            raise CheckpointError(
                f"{file} was computed with {other[0]}={head['settings'].get(other[0])}, but it is {here.get(other[0])} now; set "
                "it back, remove the file to compute it again, or start in a new experiment.output_dir"
            )
        if head["num_steps"] < num_steps:
            return None
        return cls({(line["key"], line["visit"]): (line["chosen"], line["rejected"]) for line in lines})


def _settings(config: Config) -> dict[str, Any]:
    """The keys that say which pairs a run visits, what is drawn of them, and what counts as a log-probability."""
    keys = {
        "experiment": ("seed",),
        "model": ("image_resolution", "max_text_tokens", "task_token_first"),
        "data": ("sources", "lanes", "shuffle_block", "image_decoding", "image_crops"),
        "training": (
            *("samples_per_step", "precision", "prompt_drop_prob", "mask_schedule", "min_mask_ratio", "image_softmax"),
        ),
        "dpo": ("normalization", "pairing"),
    }
    whole = asdict(config)
    return {f"{room}.{name}": whole[room][name] for room, names in keys.items() for name in names}
