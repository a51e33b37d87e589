# SPDX-License-Identifier: Apache-2.0
"""Which kernel computes the loss. Liger's own runs on CUDA alone; here a stand-in with its signature takes its place."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.world import TinyWorld, train
from unigen.errors import ConfigError
from unigen.objectives.cross_entropy import linear_cross_entropy
from unigen.objectives.loss_kernels import find_loss_kernel
from unigen.objectives.token_prediction import token_prediction_loss

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
MODULE = "liger_kernel.transformers.functional"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """liger-kernel 0.8.5 as its wheel documents it; the list gets the settings of every call."""
    calls: list[dict[str, Any]] = []

    def liger_fused_linear_cross_entropy(
        input: Tensor,
        weight: Tensor,
        target: Tensor,
        bias: Tensor | None = None,
        ce_weight: Tensor | None = None,
        ignore_index: int = -100,
        lse_square_scale: float = 0.0,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        softcap: float | None = None,
        return_z_loss: bool = False,
        accum_dtype: torch.dtype | None = None,
    ) -> Tensor:
        calls.append({"shapes": (input.shape, weight.shape, target.shape), "accum_dtype": accum_dtype})
        return F.cross_entropy(input @ weight.T, target, ignore_index=ignore_index, reduction=reduction)

    module = ModuleType(MODULE)
    module.liger_fused_linear_cross_entropy = liger_fused_linear_cross_entropy  # type: ignore[attr-defined]
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, MODULE, module)
    sys.modules["liger_kernel"].transformers = sys.modules["liger_kernel.transformers"]  # type: ignore[attr-defined]
    sys.modules["liger_kernel.transformers"].functional = module  # type: ignore[attr-defined]
    return calls


@pytest.mark.parametrize("image_softmax", ["full", "codes"])
def test_liger_gives_the_losses_and_gradients_of_the_chunks(stand_in: list[dict[str, Any]], image_softmax: str) -> None:
    generator = torch.Generator().manual_seed(0)
    targets_T, weights_T = torch.tensor([3, 24, 38, 39, 0]), torch.rand(5, generator=generator)
    hidden, embedding = torch.randn(5, 8, generator=generator), torch.randn(40, 8, generator=generator)
    found = []
    for kernel in (linear_cross_entropy, find_loss_kernel("liger", CUDA)):
        hidden_TD, embedding_VD = hidden.clone().requires_grad_(), embedding.clone().requires_grad_()
        total, losses_T = token_prediction_loss(
            hidden_TD,
            embedding_VD,
            targets_T,
            weights_T,
            slice(24, 39),
            image_softmax,  # type: ignore[arg-type]
            kernel,
        )
        total.backward()
        assert not losses_T.requires_grad
        found.append((total.detach(), losses_T, hidden_TD.grad, embedding_VD.grad))
    for ours, ligers in zip(*found, strict=True):
        torch.testing.assert_close(ligers, ours)
    assert {call["accum_dtype"] for call in stand_in} == {torch.float32}
    assert stand_in[-1]["shapes"] == ((5 if image_softmax == "full" else 3, 8), (40, 8), stand_in[-1]["shapes"][0][:1])


def test_the_chunks_are_the_default_everywhere() -> None:
    assert find_loss_kernel("chunked", CPU) is find_loss_kernel("chunked", CUDA) is linear_cross_entropy


def test_liger_without_its_package_is_refused_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(ConfigError, match=r"training\.loss_kernel is liger, .*bash scripts/setup\.sh liger"):
        find_loss_kernel("liger", CUDA)


def test_liger_away_from_cuda_is_refused_before_anything_trains(
    tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tiny_world.config(tmp_path), "training.loss_kernel=liger") == 2
    assert "training.loss_kernel is liger, which runs on CUDA, but this is cpu; take chunked" in capsys.readouterr().err
    assert train(tiny_world.config(tmp_path, "tokenizer"), "training.loss_kernel=liger") == 2
    assert "stage tokenizer does not use" in capsys.readouterr().err
