# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning of UniGen: it draws through codes, and reads through a frozen vision tower and a projector."""

from dataclasses import replace

import torch

from unigen.data.batch import Batch
from unigen.generation.unigen import vision_features
from unigen.training.stages.pretrain import PretrainStage


class SftStage(PretrainStage):
    @torch.no_grad()
    def encode(self, batch: Batch) -> Batch:
        tower = self._frozen[1]
        assert tower is not None, "the configuration asks for a vision tower in this stage"
        features_KF = vision_features(tower, batch.feature_images, batch.input_ids_RL.device)
        return replace(super().encode(batch), features_KF=features_KF)
