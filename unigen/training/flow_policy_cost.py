# SPDX-License-Identifier: Apache-2.0
"""What a global step of UAE's stage grpo_generation takes at most, from models on the meta device.

Every prompt is taken to be as long as it may be.
"""

from unigen.config.schema import Config
from unigen.generation.flow import is_guided
from unigen.models.cost import LanguageModelCost
from unigen.models.uae_cost import decoder_activation_bytes, decoder_forward_flops
from unigen.training.caption_policy_cost import MARKUP, decode_image_flops, question_tokens, vision_flops
from unigen.training.uae_meta import MetaUae


def flow_policy_flops(config: Config, uae: MetaUae) -> dict[str, float]:
    """Operations by part: of a prompt, which may have to be written of an image, and of the drawings of its group.

    A drawing is one forward pass of the decoder for each of its steps, three to learn from each trained one, and one there by the
    reference if there is one; twice as many with guidance.
    """
    chosen, grpo, tokens = config.grpo.flow, config.grpo, _prompt_tokens(config)
    prompts = sum(config.training.samples_per_step.values())
    drawings, trained = prompts * grpo.group_size, chosen.trained_steps or chosen.steps - 1
    forward = _branches(config) * decoder_forward_flops(uae.sizes, tokens)
    language = LanguageModelCost(uae.sizes.llm_config.text_config)
    flops = {
        "prompt_states": prompts * language.forward_flops(tokens**2, tokens, 0),
        "drawing": drawings * chosen.steps * forward,
        "decoder": drawings * trained * (3 + bool(grpo.kl_weight)) * forward,
        "image_auto_encoder": drawings * decode_image_flops(uae),
    }
    if chosen.prompts == "written":
        written, words = grpo.caption.max_new_tokens, language.config.vocab_size
        flops["vision_tower"] = prompts * vision_flops(uae)
        flops["writing"] = prompts * language.reading_flops(question_tokens(uae), written, words)
    return flops


def flow_activation_bytes(config: Config, uae: MetaUae) -> int:
    """What the forward pass of a term holds for its backward pass."""
    size = 2 if config.training.precision == "bfloat16" else 4
    kept = decoder_activation_bytes(uae.sizes, _prompt_tokens(config), size, config.training.recompute)
    return _branches(config) * kept


def _prompt_tokens(config: Config) -> int:
    """Of the longest prompt."""
    is_written = config.grpo.flow.prompts == "written"
    return config.grpo.caption.max_new_tokens + MARKUP if is_written else config.model.max_text_tokens


def _branches(config: Config) -> int:
    """Texts that the decoder is led by at once."""
    return 2 if is_guided(config.grpo.flow.guidance_scale) else 1
