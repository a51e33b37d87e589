# SPDX-License-Identifier: Apache-2.0
"""Images of a fixed list of prompts along the run, drawn with the weights of the moment."""

from importlib.resources import files
from pathlib import Path

import torch

from unigen.config.schema import Config
from unigen.errors import ConfigError
from unigen.training.backend import Backend
from unigen.training.stages.stage import Stage

SHIPPED_PROMPTS = files("unigen.data") / "prompts" / "validation.txt"


class ValidationImages:
    """`validation/step-<n>/<prompt number>.png`, and the trackers that show images."""

    def __init__(self, config: Config, stage: Stage, backend: Backend, output_dir: Path) -> None:
        self._settings = config.training.validation
        self._stage, self._accelerator = stage, backend.accelerator
        self._folder = output_dir / "validation"
        self._prompts = self._read_prompts() if self._settings.every else []
        if self._settings.every and type(stage).draw_validation is Stage.draw_validation:
            raise ConfigError(f"stage {config.stage} draws no images from prompts; set training.validation.every to 0")
        if self._settings.every and not backend.has_whole_weights:
            raise ConfigError(
                "training.validation.every needs whole weights on a rank; set it to 0 with FSDP or ZeRO-3"
            )

    def _read_prompts(self) -> list[str]:
        path = self._settings.prompts
        try:
            content = SHIPPED_PROMPTS.read_text() if path is None else Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"training.validation.prompts: cannot read {path} ({error.strerror})") from error
        return [line.strip() for line in content.splitlines() if line.strip()]

    def draw_if_due(self, step: int) -> None:
        """Each rank draws its share of the prompts."""
        if not self._settings.every or step % self._settings.every:
            return
        rank, world = self._accelerator.process_index, self._accelerator.num_processes
        folder = self._folder / f"step-{step}"
        folder.mkdir(parents=True, exist_ok=True)
        was_training = self._stage.training
        self._stage.eval()
        with self._accelerator.autocast(), torch.no_grad():
            images = self._stage.draw_validation(
                self._prompts[rank::world], guidance_scale=self._settings.guidance_scale, steps=self._settings.steps
            )
            for number, image in zip(range(rank, len(self._prompts), world), images, strict=True):
                image.save(folder / f"{number:03d}.png")
        self._stage.train(was_training)
        self._accelerator.wait_for_everyone()
        self._show(folder, step)

    def _show(self, folder: Path, step: int) -> None:
        from PIL import Image

        for tracker in self._accelerator.trackers:
            if tracker.name == "wandb" and self._accelerator.is_main_process:
                images = [Image.open(path) for path in sorted(folder.glob("*.png"))]
                tracker.log_images({"validation/images": images}, step=step)
