# SPDX-License-Identifier: Apache-2.0
"""What a policy that draws along a flow refuses before anything loads."""

from pathlib import Path

import pytest

from unigen.config.load import load_config
from unigen.errors import ConfigError

SHAPES = Path(__file__).resolve().parents[2] / "configs" / "shapes" / "uae_grpo_generation.yaml"
PROMPTS = "data.sources={asked: {task: t2i, format: prompts, paths: [prompts/train.jsonl]}}"
GIVEN = ("data.sources.images.weight=0", "grpo.flow.prompts=given", "training.samples_per_step={t2i: 4, mmu: 0}")
OF_WORDS = "grpo.rewards.siglip.compares=prompt"
NOT_WRITTEN = ("grpo.caption.max_new_tokens=512", "grpo.caption.temperature=1.0", "grpo.caption.batch_size=16")


def test_the_shipped_configuration_and_the_named_variants_of_it_are_sound() -> None:
    load_config(SHAPES)
    load_config(SHAPES, ["grpo.flow.kind=cps", "grpo.flow.noise_level=0.8", "grpo.flow.trained_steps=null"])
    load_config(SHAPES, ["grpo.kl_weight=0.04", "grpo.kl_form=released", "grpo.flow.window=start"])
    found = load_config(SHAPES, [*GIVEN, PROMPTS, OF_WORDS, *NOT_WRITTEN])
    assert list(found.data.sources) == ["images", "asked"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grpo.flow.steps=1"], r"grpo\.flow\.steps is 1, .* give 2 or more"),
        (["grpo.flow.trained_steps=6"], r"grpo\.flow\.trained_steps is 6; give 1 to 5"),
        (["grpo.flow.trained_steps=0"], r"grpo\.flow\.trained_steps is 0"),
        (["grpo.flow.trained_steps=null", "grpo.flow.window=start"], r"grpo\.flow\.window is start, but all steps"),
        (["grpo.flow.noise_level=0"], r"grpo\.flow\.noise_level is 0.*; give a number above 0$"),
        (["grpo.flow.kind=cps", "grpo.flow.noise_level=1.5"], r"grpo\.flow\.noise_level is 1\.5; .* up to 1"),
        (["grpo.flow.kind=cps", "grpo.kl_weight=0.1", "grpo.kl_form=released"], r"grpo\.kl_form is released"),
        (["grpo.kl_form=released"], r"grpo\.kl_form means nothing"),
        (["grpo.masked.steps=3"], r"grpo\.masked means nothing"),
        (["training.prompt_drop_prob=0.2"], r"training\.prompt_drop_prob means nothing"),
        (["grpo.caption.draw_steps=3"], r"grpo\.caption\.draw_steps means nothing"),
        (["grpo.caption.batch_size=0"], r"grpo\.caption\.batch_size is 0"),
        (["grpo.flow.prompts=given", *NOT_WRITTEN], r"data\.sources\.images\.task is mmu, .* set it to t2i"),
        ([PROMPTS], r"data\.sources\.asked has no images to write of"),
        ([*GIVEN, PROMPTS, *NOT_WRITTEN], r"grpo\.rewards\.siglip compares with an original"),
        (["grpo.rewards={found: {kind: detector}}"], r"grpo\.rewards\.found\.kind is detector"),
        ([*GIVEN, PROMPTS, OF_WORDS], r"grpo\.caption\.max_new_tokens means nothing"),
        (["training.lora.dropout=0.1"], r"training\.lora\.dropout is 0\.1"),
        (["training.lora=null", "grpo.kl_weight=0.1"], r"there is no training\.lora"),
    ],
)
def test_what_cannot_work_or_would_not_be_read_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(SHAPES, words)
