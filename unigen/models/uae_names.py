# SPDX-License-Identifier: Apache-2.0
"""Names of Qwen2.5-VL's weights through the versions of transformers, with and without an adapter of peft around its layers.

transformers 4.50 kept the vision tower beside the language model (`visual.*`, `model.layers.*`), today's keeps both inside of the
model (`model.visual.*`, `model.language_model.layers.*`). A released UAE has the projector as one more part of it.
"""

import re

LANGUAGE_MODEL = "llm.model.language_model."
PROJECTOR = "projector."
_WRAPPING = re.compile(r"base_model\.model\.|^module\.")
_OLD_LANGUAGE_MODEL = re.compile(r"^model\.(?!language_model\.|visual\.)")
_PROJECTOR_LAYER = re.compile(r"^(?:model\.)?projector\.(.+)\.(weight|bias)$")


def uae_name(name: str) -> str:
    """The name in our own checkpoints of a weight of a saved language model, of any version; parts of adapters keep their ends,
    `.lora_A.weight` and `.lora_B.weight`."""
    plain = _WRAPPING.sub("", name).replace(".base_layer.", ".")
    plain = re.sub(r"\.(lora_[AB])\.[^.]+\.weight$", r".\1.weight", plain)
    if _PROJECTOR_LAYER.match(plain):
        return plain.removeprefix("model.")
    if plain.startswith("visual."):
        plain = f"model.{plain}"
    return f"llm.{_OLD_LANGUAGE_MODEL.sub('model.language_model.', plain)}"


def projector_names(names: list[str]) -> dict[str, str]:
    """Names of the projector's weights as saved -> ours: its two layers in their order, whatever they are called."""
    found = {name: match for name in names if (match := _PROJECTOR_LAYER.match(name))}
    layers = sorted({match[1] for match in found.values()})
    places = {layer: 2 * number for number, layer in enumerate(layers)}
    return {name: f"{PROJECTOR}{places[match[1]]}.{match[2]}" for name, match in found.items()}
