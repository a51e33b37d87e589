# SPDX-License-Identifier: Apache-2.0
"""How alike images are, and how well they fit words: the cosine of an encoder's features.

Legend: N images, D width of the features.
"""

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from unigen.rewards.image_encoders.encoder import DEFAULT_BATCH_SIZE, ImageEncoder


def similarities(
    encoder: ImageEncoder,
    images: Sequence[Image.Image],
    originals: Sequence[Image.Image],
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> Tensor:
    """Cosines (N,) of each image with its original. An object that stands more than once, as the original of a group of
    drawings, is encoded once."""
    distinct = {id(image): image for image in [*images, *originals]}
    features_ND = encoder.encode(list(distinct.values()), batch_size)
    places = {name: place for place, name in enumerate(distinct)}
    features, references = (features_ND[[places[id(image)] for image in side]] for side in (images, originals))
    return (features * references).sum(-1)


def similarities_to_texts(
    encoder: ImageEncoder, images: Sequence[Image.Image], texts: Sequence[str], batch_size: int = DEFAULT_BATCH_SIZE
) -> Tensor:
    """Cosines (N,) of each image with its text; a text that stands more than once is encoded once.

    Raises:
        ConfigError: the encoder has no text half.
    """
    distinct = list(dict.fromkeys(texts))
    features_ND = encoder.encode_texts(distinct, batch_size)[[distinct.index(text) for text in texts]]
    return (encoder.encode(images, batch_size) * features_ND).sum(-1)
