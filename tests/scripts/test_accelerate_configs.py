# SPDX-License-Identifier: Apache-2.0
"""configs/accelerate: accelerate itself reads each file and understands by it what its name says."""

from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "accelerate"
# name: (use_deepspeed, zero stage or None, use_fsdp, processes)
MEANING = {
    "single_process": (False, None, False, 1),
    "multi_gpu": (False, None, False, 8),
    "zero2": (True, 2, False, 8),
    "zero3": (True, 3, False, 8),
    "fsdp2": (False, None, True, 8),
    "multi_node": (False, None, False, 32),
}


@pytest.mark.parametrize("name", MEANING)
def test_accelerate_reads_the_file_as_it_is_meant(name: str) -> None:
    parser = launch_command_parser()
    arguments, _, _ = _validate_launch_command(parser.parse_args(["--config_file", str(CONFIGS / f"{name}.yaml"), "x"]))
    read = (arguments.use_deepspeed, arguments.zero_stage, arguments.use_fsdp, arguments.num_processes)
    assert read == MEANING[name]
    assert arguments.mixed_precision == "bf16"
    # Clipping and accumulation belong to the run's own configuration.
    assert arguments.gradient_clipping is None
    assert arguments.gradient_accumulation_steps is None


def test_every_file_is_covered() -> None:
    assert {file.stem for file in CONFIGS.glob("*.yaml")} == set(MEANING)


def test_fsdp2_is_the_second_version_and_wraps_the_layers_that_the_model_names() -> None:
    parser = launch_command_parser()
    arguments, _, _ = _validate_launch_command(parser.parse_args(["--config_file", str(CONFIGS / "fsdp2.yaml"), "x"]))
    assert str(arguments.fsdp_version) == "2"
    assert arguments.fsdp_auto_wrap_policy == "TRANSFORMER_BASED_WRAP"
    assert arguments.fsdp_transformer_layer_cls_to_wrap is None
