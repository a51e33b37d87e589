# SPDX-License-Identifier: Apache-2.0
"""Training of an image tokenizer: reconstruction, lookup-free (MAGVIT-v2) or residual quantisation (RQ-VAE), and captions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unigen.config.schema import Config
from unigen.data.batch import Batch, Sample, collate
from unigen.data.draws import Draws
from unigen.data.preparation import ImagePreparer, blank_image
from unigen.data.sample import RawSample
from unigen.models.discriminator import PatchDiscriminator
from unigen.models.image_tokenizers.magvitv2 import TokenizerOutput
from unigen.models.image_tokenizers.registry import AnyTokenizer, load_image_tokenizer
from unigen.models.image_tokenizers.rqvae_siglip import FeatureTokenizerOutput, RqVaeSiglip
from unigen.models.perceptual import PerceptualFeatures
from unigen.objectives import reconstruction
from unigen.training.stages.code_restart import CodeRestart
from unigen.training.stages.contrast import CaptionContrast, CaptionWords
from unigen.training.stages.stage import Stage, are_counted, in_chunks, weighted_mean_terms


class TokenizerStage(Stage):
    """The loss of an image is the weighted sum of its terms; the discriminator learns in the same pass, from its own term."""

    model: AnyTokenizer

    def __init__(
        self,
        config: Config,
        model: AnyTokenizer,
        contrast: CaptionContrast | None = None,
        words: CaptionWords | None = None,
    ) -> None:
        """`contrast` matches images with captions, of which `words` makes what it reads."""
        super().__init__()
        self.model = model
        self._config = config
        self._weights = config.tokenizer_stage
        self.contrast, self._words = contrast, words
        self.discriminator = PatchDiscriminator() if self._weights.adversarial_weight else None
        self.code_restart = CodeRestart(model.codebook_size) if self._weights.enable_code_restart else None
        self._perceptual = (PerceptualFeatures() if self._weights.perceptual_weight else None,)

    @property
    def prepare(self) -> Callable[[RawSample, Draws], Sample]:
        return ImagePreparer(self._config.model.image_resolution)

    def batches(self, samples: Sequence[Sample]) -> Iterator[Batch]:
        for chunk in in_chunks(samples, self._config.training.rows_per_micro_batch):
            yield collate([chunk])

    def counts(self, samples: Sequence[Sample]) -> dict[str, int]:
        return {"images": len(samples)}

    def empty_batch(self) -> Batch:
        side = self._config.model.image_resolution
        blank = self.prepare(RawSample("", "t2i", (blank_image(side),)), Draws(0, "", 0))
        return collate([[blank]])

    def forward(self, batch: Batch, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        pixels_B3HW = torch.stack(batch.target_images)
        counted_B = are_counted(batch).to(pixels_B3HW.device)
        output = self._rebuild(pixels_B3HW, batch)
        terms = self._terms(pixels_B3HW, output)
        if self.contrast is not None and self._words is not None:
            assert isinstance(output, FeatureTokenizerOutput)
            words_BL = self._words(batch.captions).to(pixels_B3HW.device)
            terms["contrastive"] = self.contrast(output.quantised, words_BL, batch)
        terms = {name: losses_B * counted_B for name, losses_B in terms.items()}
        if self.code_restart is not None:
            assert isinstance(self.model, RqVaeSiglip)
            assert isinstance(output, FeatureTokenizerOutput)
            self.code_restart(self.model.quantizer.codebook_KC.detach(), output)
        weights = {name: getattr(self._weights, f"{name}_weight", 1.0) for name in terms}
        total, sums = weighted_mean_terms(terms, weights, scales.get("images", 0.0))
        return total, {
            **sums,
            "images": sum((weights[name] * value for name, value in sums.items()), total.detach() * 0),
            **_usage(output, counted_B),
        }

    def _rebuild(self, pixels_B3HW: Tensor, batch: Batch) -> TokenizerOutput | FeatureTokenizerOutput:
        output: TokenizerOutput | FeatureTokenizerOutput = self.model(pixels_B3HW)
        return output

    def _latent_terms(self, output: TokenizerOutput | FeatureTokenizerOutput) -> dict[str, Tensor]:
        return _quantiser_terms(output, self._weights.entropy_inverse_temperature)

    def _terms(self, pixels_B3HW: Tensor, output: TokenizerOutput | FeatureTokenizerOutput) -> dict[str, Tensor]:
        made_B3HW = output.reconstruction
        terms = {
            "l1": reconstruction.absolute_error(made_B3HW, pixels_B3HW),
            "l2": reconstruction.squared_error(made_B3HW, pixels_B3HW),
            **self._latent_terms(output),
        }
        extract = self._perceptual[0]
        if extract is not None:
            terms["perceptual"] = reconstruction.perceptual_loss(made_B3HW, pixels_B3HW, extract.to(pixels_B3HW.device))
        if self.discriminator is not None:
            fixed = {name: value.detach() for name, value in self.discriminator.named_parameters()}
            judged = functional_call(self.discriminator, fixed, (made_B3HW,))
            terms["adversarial"] = reconstruction.generator_hinge_loss(judged)
            real, fake = self.discriminator(pixels_B3HW), self.discriminator(made_B3HW.detach())
            terms["discriminator"] = reconstruction.discriminator_hinge_loss(real, fake)
        return terms

    def directly_read_parameters(self) -> Sequence[nn.Parameter]:
        """Those of the discriminator, which is held fixed for the generator; scale and bias of the matching of captions."""
        judge = () if self.discriminator is None else tuple(self.discriminator.parameters())
        return judge if self.contrast is None else (*judge, self.contrast.logit_scale, self.contrast.logit_bias)

    def learning_rate_factors(self) -> dict[str, float]:
        return {"discriminator.": self._weights.discriminator_learning_rate / self._config.optimizer.learning_rate}

    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        self.model.save_pretrained(folder, state_dict=state)

    def load(self, folder: Path) -> None:
        self.model.load_state_dict(load_image_tokenizer(folder).state_dict())


def _usage(output: TokenizerOutput | FeatureTokenizerOutput, counted_B: Tensor) -> dict[str, Tensor]:
    """For each image that counts, how many rows of the codebook its batch takes: few, where most have died."""
    if not isinstance(output, FeatureTokenizerOutput):
        return {}
    return {"codebook/rows_in_use": output.codes[counted_B].unique().numel() * counted_B.sum()}


def _quantiser_terms(
    output: TokenizerOutput | FeatureTokenizerOutput, entropy_inverse_temperature: float
) -> dict[str, Tensor]:
    """A lookup-free quantiser has no weights; the codebook of a residual one follows the features."""
    if isinstance(output, FeatureTokenizerOutput):
        return {
            "commitment": reconstruction.residual_commitment_loss(output.features, output.partial_sums),
            "codebook": reconstruction.residual_codebook_loss(output.features, output.partial_sums),
        }
    return {
        "commitment": reconstruction.commitment_loss(output.latents, output.quantised),
        "entropy": reconstruction.entropy_loss(output.latents, entropy_inverse_temperature),
    }
