# SPDX-License-Identifier: Apache-2.0
"""FSDP2: weights, gradients and optimizer state split over the ranks, layer by layer, with torch's `fully_shard`."""

import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from unigen.config.schema import Config
from unigen.errors import ConfigError, TrainingError
from unigen.training.backend import Backend, BuildOptimizer, host_copy


class Fsdp2Backend(Backend):
    """Each layer's weights are whole on a rank only while the layer runs; those outside of layers while the stage does."""

    name = "fsdp2"
    is_sharded = True
    has_whole_weights = False

    def __init__(self, accelerator: Accelerator, config: Config) -> None:
        super().__init__(accelerator, config)
        self._settings = FullyShardedDataParallelPlugin()  # what the launcher wrote into the environment
        _check_settings(self._settings)

    def _wrap(self, build_optimizer: BuildOptimizer) -> None:
        mesh = init_device_mesh(self.accelerator.device.type, (self.accelerator.num_processes,))
        compute = torch.bfloat16 if self._config.training.precision == "bfloat16" else None
        reshard = bool(self._settings.reshard_after_forward)
        for layer in self._layers():
            # Gradients are summed over ranks in float32 also where the layers compute in bfloat16.
            policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
            fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
        # What lies outside of layers (embeddings, norm, head, projector) is one group, whole from the stage's forward pass on:
        # the loss reads the head's weight itself. Losses are handed out in float32.
        policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32, output_dtype=torch.float32)
        fully_shard(self.stage, mesh=mesh, mp_policy=policy)
        self.wrapped = self.stage
        self._check()
        self.optimizer = build_optimizer(self.stage)

    def _layers(self) -> list[nn.Module]:
        """Modules of the classes that the launcher names, else of those that the model itself calls its layers."""
        named = self._settings.transformer_cls_names_to_wrap
        wanted = named or getattr(self.stage.model, "_no_split_modules", None) or ()
        found = [module for module in self.stage.modules() if type(module).__name__ in wanted]
        if named and not found:
            raise ConfigError(
                f"fsdp_transformer_layer_cls_to_wrap is {','.join(named)}, but the model of stage {self._config.stage} has no "
                "such layers; leave the key out to take the model's own"
            )
        return found

    def _check(self) -> None:
        whole = [name for name, parameter in self.stage.named_parameters() if not isinstance(parameter, DTensor)]
        if whole:
            raise TrainingError(
                f"the launcher asks for FSDP2, but {len(whole)} parameters are not sharded, such as {whole[0]}"
            )

    def _whole(self, tensor: Tensor) -> Tensor:
        return host_copy(tensor.full_tensor() if isinstance(tensor, DTensor) else tensor)


def _check_settings(settings: FullyShardedDataParallelPlugin) -> None:
    """Refuse what the launcher's file may say and this backend does not do."""
    refused = {
        f"fsdp_version: {settings.fsdp_version}": (settings.fsdp_version != 2, "set it to 2"),
        "fsdp_offload_params: true": (isinstance(settings.cpu_offload, CPUOffloadPolicy), "set it to false"),
        "fsdp_activation_checkpointing: true": (
            settings.activation_checkpointing,
            "set it to false; training.recompute is the run's own",
        ),
        "fsdp_cpu_ram_efficient_loading: true": (
            settings.cpu_ram_efficient_loading,
            "set it to false; every rank loads the weights and keeps its part",
        ),
    }
    for key, (is_set, remedy) in refused.items():
        if is_set:
            raise ConfigError(f"the accelerate configuration has {key}, which is not supported; {remedy}")
