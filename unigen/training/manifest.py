# SPDX-License-Identifier: Apache-2.0
"""Which run wrote a backend's own state files, and what is in them.

Such files may hold pickles, which run code when they are loaded. So they are opened only where the manifest beside them names
the run whose folder they lie in, and the hash of every file. All ranks make the calls together.
"""

import hashlib
import json
import uuid
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from unigen.errors import CheckpointError

FILE = "manifest.json"
RUN_ID = "run_id"


def write_manifest(folder: Path, run_folder: Path, accelerator: Accelerator) -> None:
    """Describe the files of `folder`, whole by now on every rank, as those of the run in `run_folder`."""
    accelerator.wait_for_everyone()
    hashes = _hashes(folder, accelerator)
    if accelerator.is_main_process:
        content = {"run": _run_id(run_folder), "world_size": accelerator.num_processes, "sha256": hashes}
        (folder / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    accelerator.wait_for_everyone()


def check_manifest(folder: Path, run_folder: Path, accelerator: Accelerator) -> None:
    """Nothing in `folder` is opened as more than bytes.

    Raises:
        CheckpointError: no manifest, another run's, another number of ranks, or a file that is not as it was written.
    """
    path = folder / FILE
    anew = "start anew from its weights with model.pretrained=.../unwrapped_model in a new experiment.output_dir"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {FILE}, so its files are not opened; {anew}")
    content = json.loads(path.read_text(encoding="utf-8"))
    id_file = run_folder / RUN_ID
    here = id_file.read_text(encoding="utf-8").strip() if id_file.is_file() else None
    if content["run"] != here:
        raise CheckpointError(
            f"{path} names run {content['run']}, but {id_file} is {here}: its files are another run's and are not opened; {anew}"
        )
    if content["world_size"] != accelerator.num_processes:
        raise CheckpointError(
            f"{folder} was written by {content['world_size']} ranks, this run has {accelerator.num_processes}, and DeepSpeed "
            f"cannot deal its state out again; start as many ranks as then, or {anew}"
        )
    found = _hashes(folder, accelerator)
    changed = sorted(
        name for name in found.keys() | content["sha256"] if found.get(name) != content["sha256"].get(name)
    )
    if changed:
        raise CheckpointError(
            f"{folder / changed[0]} is not as {FILE} says, so nothing in {folder} is opened; take an older checkpoint, or {anew}"
        )


def _hashes(folder: Path, accelerator: Accelerator) -> dict[str, str]:
    """SHA-256 of every file but the manifest, each read by one rank."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)
    own = files[accelerator.process_index :: accelerator.num_processes]
    told = gather_object([(str(path.relative_to(folder)), _sha256(path)) for path in own])
    return dict(told)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run_id(run_folder: Path) -> str:
    """The id of a run, made when it first writes such files."""
    path = run_folder / RUN_ID
    if not path.is_file():
        path.write_text(uuid.uuid4().hex + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
