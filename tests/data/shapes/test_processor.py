# SPDX-License-Identifier: Apache-2.0
"""The processor of the small Qwen2.5-VL of the world of shapes fits its shipped configuration."""

from pathlib import Path

from PIL import Image
from transformers import AutoProcessor

from unigen.config.folders import SHIPPED_CONFIGS
from unigen.data.shapes.processor import VISION_TOKENS, shapes_processor
from unigen.data.shapes.tokenizer import train_tokenizer
from unigen.models.weights import read_config


def test_its_ids_are_those_of_the_shipped_model() -> None:
    sizes = read_config(SHIPPED_CONFIGS / "shapes-qwen2-vl")
    tokenizer = shapes_processor().tokenizer
    assert len(tokenizer) == sizes["vocab_size"]
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    assert tokenizer.convert_tokens_to_ids(list(VISION_TOKENS)) == [sizes[name] for name in names]
    plain = train_tokenizer()
    assert tokenizer.encode("two red circles") == plain.encode("two red circles")


def test_an_image_is_as_many_tokens_as_the_tower_gives_and_the_processor_is_saved_whole(tmp_path: Path) -> None:
    shapes_processor().save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    messages = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, {"type": "image"}]}]
    words = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[words], images=[Image.new("RGB", (32, 32))], return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 8, 8]]
    assert inputs["pixel_values"].shape == (64, 3 * 2 * 4 * 4)
    assert int((inputs["mm_token_type_ids"] == 1).sum()) == 16
