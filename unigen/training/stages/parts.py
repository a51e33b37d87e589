# SPDX-License-Identifier: Apache-2.0
"""What the stages of every family that trains on rows need besides their model: the text tokenizer, and room in the rows."""

from transformers import PreTrainedTokenizerBase

from unigen.config.folders import find_model, find_tokenizer
from unigen.config.schema import Config
from unigen.errors import ConfigError
from unigen.models.checkpoints import load_tokenizer


def text_tokenizer(config: Config) -> PreTrainedTokenizerBase:
    """The one that is named, else that of the checkpoint to start from, else the language model's."""
    wanted, root = config.model, config.data.root
    if wanted.text_tokenizer:
        return load_tokenizer(find_tokenizer(wanted.text_tokenizer, root))
    if wanted.pretrained:
        folder = find_model(wanted.pretrained, root)
        if (folder / "tokenizer.json").is_file():
            return load_tokenizer(folder)
    return load_tokenizer(find_model(wanted.language_model, root))


def image_positions(config: Config, downsample_factor: int) -> int:
    """How many positions an image takes.

    Raises:
        ConfigError: images that do not split into whole ones.
    """
    resolution = config.model.image_resolution
    if resolution % downsample_factor:
        raise ConfigError(
            f"model.image_resolution is {resolution}; the image tokenizer needs a multiple of {downsample_factor}"
        )
    return (resolution // downsample_factor) ** 2


def require_room(config: Config, row_length: int, num_codes: int) -> None:
    """Refuse samples that may be longer than the rows that they are packed into.

    Raises:
        ConfigError: naming how long they may be.
    """
    if config.training.tokens_per_row < row_length:
        text = config.model.max_text_tokens
        raise ConfigError(
            f"training.tokens_per_row is {config.training.tokens_per_row}, but a sample can have {row_length} tokens "
            f"(model.max_text_tokens={text} + {num_codes} codes + {row_length - text - num_codes}); "
            f"set training.tokens_per_row={row_length} or more"
        )
