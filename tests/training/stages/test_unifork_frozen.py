# SPDX-License-Identifier: Apache-2.0
"""What trains UniFork leaves its image tokenizer as it is."""

from pathlib import Path

import torch

from tests.training.stages.test_unifork import unifork_config
from tests.world import TinyWorld
from unigen.config.load import load_config
from unigen.training.loop import Trainer
from unigen.training.signals import StopRequest
from unigen.training.stages.unifork import UniForkStage


def test_a_hundred_steps_change_no_weight_and_no_buffer_of_the_frozen_tokenizer(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    training = {"steps": 100, "samples_per_step": {"t2i": 1, "mmu": 1}}
    trainer = Trainer(load_config(unifork_config(tiny_world, tmp_path, training=training), []))
    assert isinstance(trainer.stage, UniForkStage)
    (tokenizer,) = trainer.stage._frozen
    before = {name: tensor.clone() for name, tensor in tokenizer.state_dict().items()}
    head = trainer.stage.model.depth_transformer.output_embedding_KW.detach().clone()
    assert trainer.run(StopRequest()) == 0
    assert not torch.equal(trainer.stage.model.depth_transformer.output_embedding_KW, head)
    after = tokenizer.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not tokenizer.training
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())
