# SPDX-License-Identifier: Apache-2.0
"""The state of an optimizer, and of sharded weights, as one safetensors file per rank that holds a part.

A tensor is named `<kind>/<parameter's name>`. A part of a sharded tensor is a run of its rows: those of all files, in the order
of ranks, are the whole. So any number of ranks can read what any other number has written.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from unigen.errors import CheckpointError

FILE = "part-{rank:05d}.safetensors"
NUM_PARTS = "num_parts"
WEIGHT = "weight"
UNTOUCHED = "untouched"
"""Kind of the empty tensor of a trained parameter that has never had a gradient."""


def live_tensors(
    parameters: Iterable[tuple[str, nn.Parameter]],
    optimizer: torch.optim.Optimizer,
    num_parts: int,
    *,
    with_weights: bool,
) -> dict[str, Tensor]:
    """This rank's part of the optimizer's state (and of the weights), as tensors that training goes on to change."""
    found = {NUM_PARTS: torch.tensor(num_parts)}
    for name, parameter in parameters:
        if with_weights:
            found[f"{WEIGHT}/{name}"] = _local(parameter)
        state = optimizer.state.get(parameter, {})
        for kind, value in state.items():
            found[f"{kind}/{name}"] = _local(value)
        if parameter.requires_grad and not state:
            found[f"{UNTOUCHED}/{name}"] = torch.empty(0)
    return found


def write_part(tensors: Mapping[str, Tensor], folder: Path, rank: int) -> None:
    """Write the part of one rank."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / FILE.format(rank=rank))


@torch.no_grad()
def load_parts(
    parameters: Iterable[tuple[str, nn.Parameter]],
    optimizer: torch.optim.Optimizer,
    folder: Path,
    *,
    with_weights: bool,
) -> None:
    """Take this rank's share of what all ranks wrote, whatever their number was.

    Raises:
        CheckpointError: it belongs to other parameters, or a part is missing.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, framework="pt")) for path in _parts(folder)]
        kinds: dict[str, list[str]] = {}
        for stored in files[0].keys():  # noqa: SIM118 (a file of safetensors is no mapping)
            kind, _, name = stored.partition("/")
            kinds.setdefault(name, []).append(kind)
        for name, parameter in parameters:
            if (parameter.requires_grad or with_weights) != (name in kinds):
                raise _other_parameters(folder, name)
            for kind in kinds.get(name, ()):
                if kind == WEIGHT:
                    parameter.copy_(_read(files, f"{kind}/{name}", parameter, folder))
                elif kind != UNTOUCHED:
                    optimizer.state[parameter][kind] = _read(files, f"{kind}/{name}", parameter, folder)


def _parts(folder: Path) -> list[Path]:
    """The files of all parts, in order."""
    first = folder / FILE.format(rank=0)
    if not first.is_file():
        raise CheckpointError(f"{first} is missing; take an older checkpoint")
    with safe_open(first, framework="pt") as file:
        wanted = [folder / FILE.format(rank=rank) for rank in range(int(file.get_tensor(NUM_PARTS)))]
    missing = next((path for path in wanted if not path.is_file()), None)
    if missing is not None:
        raise CheckpointError(f"{missing}, one of {len(wanted)} parts, is missing; take an older checkpoint")
    return wanted


def _read(files: list[safe_open], stored: str, parameter: nn.Parameter, folder: Path) -> Tensor:
    """The rows of a stored tensor that belong to this rank's part of `parameter`, spread out like it."""
    parts = [file.get_slice(stored) for file in files]
    if not parts[0].get_shape():  # a number, such as the count of steps
        return files[0].get_tensor(stored).to(parameter.device)
    rows = sum(part.get_shape()[0] for part in parts)
    if (rows, *parts[0].get_shape()[1:]) != tuple(parameter.shape):
        raise _other_parameters(folder, stored)
    like = torch.empty_like(parameter, requires_grad=False)
    local = _local(like)
    start, filled = _first_row(like), 0
    first = 0  # of the part, in the whole
    for part in parts:
        length = part.get_shape()[0]
        low, high = max(start, first), min(start + len(local), first + length)
        if low < high:
            local[low - start : high - start] = part[low - first : high - first].to(local.device)
            filled += high - low
        first += length
    assert filled == len(local), f"{stored}: {filled} of {len(local)} rows"
    return like


def _first_row(tensor: Tensor) -> int:
    """Where this rank's rows begin. torch deals rows out in equal runs, the last ones shorter or empty."""
    if not isinstance(tensor, DTensor):
        return 0
    assert tuple(tensor.placements) == (Shard(0),), tensor.placements
    rows, ranks = tensor.shape[0], tensor.device_mesh.size()
    return min(rows, tensor.device_mesh.get_local_rank() * -(-rows // ranks))


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor.detach()


def _other_parameters(folder: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"{folder} was written with other trained parameters ({name}); start in a new experiment.output_dir"
    )
