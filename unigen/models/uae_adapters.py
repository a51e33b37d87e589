# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters on either side of a UAE: on the layers of its language model, or on the attention of its decoder."""

from collections.abc import Sequence
from typing import Literal

from peft import LoraConfig, PeftModel, get_peft_model

from unigen.models.uae import Uae

Side = Literal["language_model", "decoder"]
TARGETS: dict[Side, str] = {
    "language_model": r"llm\.model\.language_model\.layers\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
    "decoder": r"decoder\.transformer_blocks\.\d+\.attn\."
    r"(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)",
}
"""Regular expressions over module names: all linear layers of the language model, as UAE adapts them, without vision tower and
head; the joint attention of the decoder, as Flow-GRPO adapts it."""


def add_adapter(
    model: Uae,
    side: Side,
    *,
    rank: int = 32,
    alpha: int = 64,
    dropout: float = 0.0,
    target_modules: str | None = None,
    trained_whole: Sequence[str] = (),
) -> PeftModel:
    """The model with a new adapter on one side, which alone is trained; at first it changes nothing.

    Args:
        target_modules: regular expression over module names, in the place of the side's own.
        trained_whole: parts that are trained and saved beside the adapter as they are, such as `projector`.
    """
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        init_lora_weights="gaussian",
        target_modules=target_modules or TARGETS[side],
        modules_to_save=list(trained_whole) or None,
    )
    found = get_peft_model(model, config)
    assert isinstance(found, PeftModel)
    return found
