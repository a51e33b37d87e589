# SPDX-License-Identifier: Apache-2.0
"""The losses of packed rows: one forward pass of the model, logits at supervised positions alone.

Legend: R rows, L positions, D width, T supervised positions.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from unigen.config.schema import TASKS
from unigen.data.batch import Batch
from unigen.models.unigen import UniGen
from unigen.objectives.cross_entropy import linear_cross_entropy
from unigen.objectives.loss_kernels import LossKernel
from unigen.objectives.token_prediction import token_prediction_loss


def supervised_states(model: UniGen, batch: Batch) -> Tensor:
    """Hidden states (T, D) at the supervised positions of a batch, which is filled in and on the model's device."""
    hidden_RLD = model(
        batch.input_ids_RL, batch.positions_RL, batch.visible.mask(), batch.features_KF, batch.feature_slots_K
    )
    return hidden_RLD.flatten(0, 1)[batch.supervised_T]


def row_losses(
    model: UniGen,
    batch: Batch,
    scales: Mapping[str, float],
    image_softmax: Literal["full", "codes"] = "full",
    kernel: LossKernel = linear_cross_entropy,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum over tasks of scale * sum of losses, with gradient; and the plain sum of each task of `scales`, without.

    Args:
        batch: with its codes (and features) filled in, on the model's device.
    """
    tasks_T = batch.tasks_RL.flatten()[batch.supervised_T]
    scale_of_task = torch.tensor([scales.get(task, 0.0) for task in TASKS], device=tasks_T.device)
    total, losses_T = token_prediction_loss(
        supervised_states(model, batch),
        model.output_embedding_VD,
        batch.targets_RL.flatten()[batch.supervised_T],
        scale_of_task[tasks_T],
        slice(model.config.code_offset, model.config.mask_token_id),
        image_softmax,
        kernel,
    )
    sums = torch.zeros(len(TASKS), device=losses_T.device).index_add(0, tasks_T, losses_T)
    return total, {task: sums[index] for index, task in enumerate(TASKS) if task in scales}
