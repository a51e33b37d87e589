# SPDX-License-Identifier: Apache-2.0
"""What UAE's decoder costs: floating-point operations of an SD3 transformer, from its configuration alone.

Multiply and add count as two.
"""

from unigen.models.uae_config import UaeConfig, latent_side

TIME_FEATURES = 256
"""Sines and cosines that the decoder knows a time by."""
KEPT_WIDTHS = {"none": 21, "selective": 11, "full": 1}
"""What a layer keeps of a token for the backward pass, in widths, by what is computed again. All of it: the input of its two
halves and what their norms make of it (4), queries, keys and values (3), the first two normalised (2), what attention and the
product after it give (2), the feed-forward part before and after its activation (8), what it gives, and gates (2). No attention
matrix: kernels never store it. `selective` keeps what products and attention give, and the layer's input; `full` the input."""


def num_image_tokens(config: UaeConfig, resolution: int | None = None) -> int:
    """Patches of the latents of a square image, of the model's own resolution where none is given."""
    assert config.decoder_config is not None
    side = latent_side(config, resolution or config.image_resolution) // config.decoder_config["patch_size"]
    return side**2


def decoder_forward_flops(config: UaeConfig, text_tokens: int, resolution: int | None = None) -> float:
    """One image and one text through the decoder; guidance takes two of these.

    Args:
        text_tokens: padding included.
    """
    sizes, image_tokens = config.decoder_config, num_image_tokens(config, resolution)
    assert sizes is not None
    layers, width = sizes["num_layers"], sizes["attention_head_dim"] * sizes["num_attention_heads"]
    dual = len(sizes.get("dual_attention_layers") or ())
    patch = sizes["patch_size"] ** 2 * width
    of_image = layers * 12 * width**2 + dual * 4 * width**2
    of_image += patch * (sizes["in_channels"] + (sizes.get("out_channels") or sizes["in_channels"]))
    # The last layer takes queries, keys and values of the text, and gives nothing back to it.
    of_text = (layers - 1) * 12 * width**2 + 3 * width**2 + sizes["joint_attention_dim"] * width
    modulations = (12 * layers - 4 + 3 * dual + 2) * width**2
    of_sample = modulations + (TIME_FEATURES + sizes["pooled_projection_dim"] + 2 * width) * width
    attended = layers * (image_tokens + text_tokens) ** 2 + dual * image_tokens**2
    return 2.0 * (image_tokens * of_image + text_tokens * of_text + of_sample + 2 * width * attended)


def decoder_activation_bytes(config: UaeConfig, text_tokens: int, bytes_per_number: int, recompute: str) -> int:
    """What the forward pass of one image and one text keeps; of layers that are computed again, one layer at a time on top."""
    sizes = config.decoder_config
    assert sizes is not None
    widths = sizes["num_layers"] * KEPT_WIDTHS[recompute]
    if recompute != "none":
        widths += KEPT_WIDTHS["none"]
    width = sizes["attention_head_dim"] * sizes["num_attention_heads"]
    return (num_image_tokens(config) + text_tokens) * width * widths * bytes_per_number
