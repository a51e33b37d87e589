# SPDX-License-Identifier: Apache-2.0
"""From drawn images to the rows that a policy over masked tokens is trained on: one for each step of each image.

A row is the prompt and the image as it stood before the step; with guidance there is the row of the empty prompt beside it. What
is predicted there are the codes that the step fixed.

Legend: G steps of images, K rows of each (with prompt; without), R packed rows, L positions, T codes, I codes of an image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unigen.config.schema import TASKS
from unigen.data.batch import Batch, CodeImage, Sample, fill_codes
from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.groups import pack_groups
from unigen.data.sample import RawSample
from unigen.generation.trajectories import Trajectory
from unigen.sequence.layout import Document, Segment
from unigen.sequence.templates.unigen import UnigenTemplate
from unigen.sequence.vocabulary import Vocabulary
from unigen.training.stages.policy import PolicyBatch, PromptSample, Rollout

DRAWING = TASKS.index("t2i")


@dataclass(frozen=True)
class PromptPreparer:
    """Makes prompts ready in the loader's workers: those that have room in a row beside an image, whole."""

    template: UnigenTemplate

    def __call__(self, raw: RawSample, draws: Draws) -> PromptSample:
        beyond = self.template.num_beyond_row(raw.text)
        if beyond:
            raise SampleRefused("too_long", f"its prompt has {beyond} tokens more than fit into a row")
        return PromptSample(raw.key, draws.visit, raw)


@dataclass(frozen=True)
class DrawnImage:
    """What a policy learns from: its record of a rollout."""

    prompt: str
    trajectory: Trajectory


@dataclass(frozen=True)
class StepRows:
    """Makes the forward passes of an update."""

    template: UnigenTemplate
    vocabulary: Vocabulary
    has_guidance: bool
    tokens_per_row: int
    rows_per_batch: int
    length_multiple: int | None

    def batches(self, rollouts: Sequence[Rollout]) -> Iterator[PolicyBatch]:
        """All steps of all images that fixed a code, in order."""
        steps = [
            (rollout, step)
            for rollout in rollouts
            for step in sorted(set(rollout.record.trajectory.fixed_at_I.tolist()))
        ]
        prompts = {one.record.prompt for one in rollouts} | {""}
        documents = {prompt: Document(DRAWING, self._segments(prompt)) for prompt in prompts}
        groups = [self._rows(rollout, step, documents) for rollout, step in steps]
        packed = pack_groups(groups, self.tokens_per_row, self.rows_per_batch, length_multiple=self.length_multiple)
        for chosen, batch, images_GK in packed:
            yield self._policy_batch(steps[chosen], batch, images_GK)

    def _segments(self, prompt: str) -> tuple[Segment, ...]:
        return self.template.draw(prompt, supervised=False)

    def _rows(self, rollout: Rollout, step: int, documents: dict[str, Document]) -> list[Sample]:
        image: DrawnImage = rollout.record
        unknown_I = (image.trajectory.fixed_at_I >= step).numpy()
        content = CodeImage(image.trajectory.codes_I.numpy(), unknown_I)
        prompts = [image.prompt, ""] if self.has_guidance else [image.prompt]
        return [Sample(rollout.judged.key, documents[prompt], (content,)) for prompt in prompts]

    def _policy_batch(self, steps: Sequence[tuple[Rollout, int]], batch: Batch, images_GK: Tensor) -> PolicyBatch:
        filled = fill_codes(batch, torch.stack(batch.code_images), self.vocabulary)
        images = [rollout.record.trajectory for rollout, _ in steps]
        fixed_GI = torch.stack([image.fixed_at_I == step for image, (_, step) in zip(images, steps, strict=True)])
        advantages_G1 = torch.tensor([[rollout.advantage] for rollout, _ in steps])
        return PolicyBatch(
            batch.keys,
            {
                **_row_tensors(filled),
                "slots_KT": batch.code_slots_NI[images_GK].transpose(0, 1)[:, fixed_GI],
                "codes_T": torch.stack([image.codes_I for image in images])[fixed_GI],
                "old_log_probs_T": torch.stack([image.log_probs_I for image in images])[fixed_GI],
                "advantages_T": advantages_G1.expand_as(fixed_GI)[fixed_GI],
            },
            num_tokens=batch.num_tokens,
            num_slots=batch.num_slots,
            num_images=batch.num_images,
        )

    def empty(self, batch: Batch) -> PolicyBatch:
        """A batch of which nothing is predicted."""
        codes_T, values_T = torch.zeros(0, dtype=torch.long), torch.zeros(0)
        slots_KT = codes_T.expand(2 if self.has_guidance else 1, 0)
        values = {"slots_KT": slots_KT, "codes_T": codes_T, "old_log_probs_T": values_T, "advantages_T": values_T}
        return PolicyBatch(batch.keys, {**_row_tensors(batch), **values}, batch.num_tokens, batch.num_slots)


def _row_tensors(batch: Batch) -> dict[str, Tensor]:
    visible = batch.visible
    return {
        "input_ids_RL": batch.input_ids_RL,
        "positions_RL": batch.positions_RL,
        "documents_RL": visible.documents_RL,
        "blocks_RL": visible.blocks_RL,
        "open_RL": visible.open_RL,
    }
