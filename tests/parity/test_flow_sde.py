# SPDX-License-Identifier: Apache-2.0
"""flow_sde*: the stochastic step of Flow-GRPO, its distribution and its log-probability."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.parity.golden import golden_parameters
from unigen.objectives.flow_matching import Transition, diffusion_scale, sampling_sigmas, stochastic_step

SHIFT = 3.0


@pytest.mark.parametrize("case", golden_parameters("flow_sde"))
def test_steps_have_the_golden_mean_scale_and_log_probability(case: Path) -> None:
    golden = load_file(case)
    sigmas, noise_level = golden["sigmas"], float(golden["noise_level"])
    torch.testing.assert_close(sampling_sigmas(len(sigmas) - 1, SHIFT), sigmas, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(1000 * sigmas[:-1], golden["timesteps"], rtol=1e-4, atol=1e-4)
    steps = sorted({int(name[4 : name.index(".")]) for name in golden if name.startswith("step")})
    assert steps
    for step in steps:
        part = {name: golden[f"step{step}.{name}"] for name in ("sample", "velocity", "prev_sample", "mean", "std")}
        sigma_B, next_B = (sigmas[place].expand(len(part["sample"])) for place in (step, step + 1))
        found = stochastic_step(part["sample"], part["velocity"], sigma_B, next_B, noise_level, sigmas[1])
        assert isinstance(found, Transition)
        torch.testing.assert_close(found.mean, part["mean"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            diffusion_scale(sigma_B, noise_level, sigmas[1]), part["std"].flatten(), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(
            found.log_prob(part["prev_sample"]), golden[f"step{step}.log_prob"], rtol=1e-3, atol=1e-3
        )
