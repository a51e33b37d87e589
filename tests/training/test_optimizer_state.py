# SPDX-License-Identifier: Apache-2.0
"""The optimizer's state comes back as it was, and only for the parameters that it belongs to."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unigen.errors import CheckpointError
from unigen.training.optimizer_state import live_tensors, load_parts, write_part


def trained(**changes: bool) -> tuple[nn.ModuleDict, torch.optim.AdamW]:
    """A model of which `used` has had two steps and `unused` none."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"used": nn.Linear(3, 5), "unused": nn.Linear(2, 2)})
    for name, is_trained in changes.items():
        model[name].requires_grad_(is_trained)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], fused=True)
    return model, optimizer


def steps(model: nn.ModuleDict, optimizer: torch.optim.AdamW) -> None:
    for _ in range(2):
        model["used"](torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def split_in_two(folder: Path, into: Path) -> None:
    """What two ranks would have written of the same state: three rows and two."""
    whole = load_file(folder / "part-00000.safetensors")
    for rank in range(2):
        part = {
            name: torch.tensor(2)
            if name == "num_parts"
            else (
                tensor if tensor.ndim == 0 else tensor.split(-(-len(tensor) // 2) or 1)[rank] if len(tensor) else tensor
            )
            for name, tensor in whole.items()
        }
        save_file({name: tensor.contiguous() for name, tensor in part.items()}, into / f"part-{rank:05d}.safetensors")


@pytest.mark.parametrize("num_parts", [1, 2])
def test_state_and_weights_come_back_from_any_number_of_parts(tmp_path: Path, num_parts: int) -> None:
    model, optimizer = trained()
    steps(model, optimizer)
    written = live_tensors(model.named_parameters(), optimizer, 1, with_weights=True)
    write_part(written, tmp_path, rank=0)
    folder = tmp_path
    if num_parts == 2:
        folder = tmp_path / "two"
        folder.mkdir()
        split_in_two(tmp_path, folder)
    other, other_optimizer = trained()
    load_parts(other.named_parameters(), other_optimizer, folder, with_weights=True)
    found = live_tensors(other.named_parameters(), other_optimizer, 1, with_weights=True)
    assert found.keys() == written.keys()
    assert "untouched/unused.weight" in found
    assert [name for name in written if not torch.equal(found[name], written[name])] == []
    for one, one_optimizer in ((model, optimizer), (other, other_optimizer)):
        torch.manual_seed(1)
        steps(one, one_optimizer)
    assert torch.equal(model["used"].weight, other["used"].weight)


@pytest.mark.parametrize("then", [True, False])
def test_the_state_of_other_trained_parameters_is_refused(tmp_path: Path, then: bool) -> None:
    model, optimizer = trained(unused=then)
    steps(model, optimizer)
    write_part(live_tensors(model.named_parameters(), optimizer, 1, with_weights=False), tmp_path, rank=0)
    other, other_optimizer = trained(unused=not then)
    with pytest.raises(CheckpointError, match=r"other trained parameters \(unused.weight\)"):
        load_parts(other.named_parameters(), other_optimizer, tmp_path, with_weights=False)


def test_parameters_of_another_size_are_refused(tmp_path: Path) -> None:
    model, optimizer = trained()
    steps(model, optimizer)
    write_part(live_tensors(model.named_parameters(), optimizer, 1, with_weights=False), tmp_path, rank=0)
    other, _ = trained()
    other["used"] = nn.Linear(3, 6)
    with pytest.raises(CheckpointError, match="used"):
        load_parts(other.named_parameters(), torch.optim.AdamW(other.parameters()), tmp_path, with_weights=False)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_missing_part_is_named(tmp_path: Path, rank: int) -> None:
    model, optimizer = trained()
    write_part(live_tensors(model.named_parameters(), optimizer, 2, with_weights=False), tmp_path, rank=1 - rank)
    with pytest.raises(CheckpointError, match=f"part-0000{rank}.safetensors.* is missing"):
        load_parts(model.named_parameters(), optimizer, tmp_path, with_weights=False)
