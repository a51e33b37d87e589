# SPDX-License-Identifier: Apache-2.0
"""The GPU's benchmarks, the same functions on the CPU at tiny sizes: they run, and count what they say."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import Qwen2Config

from tests.tiny import tiny_image_tokenizer
from unigen.bench.figures import Figure, Setting
from unigen.bench.gpu import ceilings, decoding, drawing, encoder, training
from unigen.bench.gpu.timing import Effort, Timed, time_runs
from unigen.bench.mixes import PT1, Texts
from unigen.bench.models import made_up_vocabulary
from unigen.models.language import use_our_attention
from unigen.sequence.layout import PADDING

CPU = torch.device("cpu")
QUICK = Setting(CPU, is_quick=True)
CODES = 32
SHORT = Effort(warm_ups=1, runs=2)
MIX = replace(PT1, row_length=64, texts={"t2i": Texts(8, 0.5, 20), "mmu": Texts(8, 0.5, 12)}, num_codes=16)


def tiny_config() -> Qwen2Config:
    return use_our_attention(
        Qwen2Config(
            vocab_size=200,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
    )


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    assert all(math.isfinite(figure.value) and figure.value > 0 for figure in figures)
    return {figure.name: figure for figure in figures}


def test_ceilings_are_measured_on_random_data() -> None:
    assert ceilings.matrix_product(32, CPU, SHORT).value > 0
    assert ceilings.copy(1 << 16, CPU, SHORT).value > 0


@pytest.mark.parametrize(
    "levers",
    [one for one in training.VARIANTS if not one.compile]
    + [
        training.Levers("recompute", compile=False, recompute="full"),
        training.Levers("padded", compile=False, pack=False),
    ],
)
def test_a_training_step_runs_with_each_lever(levers: training.Levers) -> None:
    found = by_name(
        list(
            training.measure_step(
                tiny_config(), "training/tiny", levers, QUICK, mix=MIX, codebook_size=CODES, tokens_per_row=256
            )
        )
    )
    assert set(found) == {"training/tiny/tokens_per_second"}, "no use of a hardware whose peak is not known"


def test_compiled_and_recomputed_layers_are_among_the_variants() -> None:
    assert training.JUDGED in training.VARIANTS
    assert training.JUDGED.compile
    assert {one.recompute for one in training.VARIANTS} == {"none", "selective", "full"}


def test_packed_batches_of_a_mix_are_full_and_padded_ones_hold_one_sample_a_row() -> None:
    vocabulary = made_up_vocabulary(200, CODES)
    packed = training._batches(MIX, vocabulary, 256, QUICK, is_packed=True)
    padded = training._batches(MIX, vocabulary, 256, QUICK, is_packed=False)
    assert len(packed) == len(padded) == training.NUM_BATCHES
    for batch in packed:
        assert batch.input_ids_RL.shape == (1, 256)
        assert batch.num_tokens > 128
    for batch in padded:
        documents = batch.visible.documents_RL
        assert documents.shape[1] == MIX.row_length
        assert int(documents.max()) == 0, "a second sample in a row that is meant to hold one"
        assert (documents == PADDING).any()


def test_drawing_is_measured_at_several_batches_and_ways() -> None:
    cases = [drawing.Case(1, "eager"), drawing.Case(3, "auto")]
    found = by_name(
        list(drawing.measure_cases(tiny_config(), CODES, cases, QUICK, steps=3, num_codes=16, prompt_tokens=8))
    )
    assert list(found) == ["drawing/batch_1/eager", "drawing/batch_3/auto"]


def test_decoding_is_measured_at_several_batches() -> None:
    cases = [decoding.Case(1, "eager"), decoding.Case(3, "eager")]
    found = by_name(list(decoding.measure_cases(tiny_config(), CODES, cases, QUICK, prompt_tokens=8, lengths=(2, 12))))
    assert list(found) == [
        "decoding/batch_1/eager",
        "decoding/batch_1/eager/whole_answer",
        "decoding/batch_3/eager",
        "decoding/batch_3/eager/whole_answer",
    ]


@pytest.mark.parametrize("case", [one for one in encoder.CASES if not one.compile], ids=lambda case: case.name)
def test_the_encoder_is_measured_in_each_precision(case: encoder.Case) -> None:
    figure = encoder.measure_case(tiny_image_tokenizer().config, case, QUICK, batch_size=2, side=32)
    assert figure.value > 0
    assert figure.name == f"encoder/{case.name}"


def test_what_is_accepted_of_a_gpu_is_what_was_agreed() -> None:
    accepted = {(case.batch_size, case.accept) for case in drawing.CASES if case.accept}
    assert accepted == {(1, 4.0), (32, 6.3)}
    assert {case.batch_size for case in drawing.CASES} == {1, 8, 32, 128}
    assert {(case.batch_size, case.accept) for case in decoding.CASES if case.accept} == {(1, 900), (64, 25_000)}
    assert {target.accept for target in training.TARGETS.values()} == {104e3, 41e3}
    assert [case.name for case in encoder.CASES if case.is_judged] == ["bfloat16_compiled"]


def test_timing_warms_up_in_every_repeat_and_reports_the_spread_of_repeats() -> None:
    calls: list[int] = []
    timed = time_runs(lambda: calls.append(1), CPU, Effort(warm_ups=3, runs=5, repeats=2))
    assert len(calls) == 2 * (3 + 5)
    assert len(timed.medians) == 2
    assert Timed((1.0, 1.1)).spread == pytest.approx(0.1 / 1.05)


@pytest.mark.parametrize(("steps", "warm_ups", "runs"), [(1, 10, 30), (50, 1, 2), (20, 1, 2), (4, 3, 8)])
def test_runs_of_many_steps_are_repeated_less_often(steps: int, warm_ups: int, runs: int) -> None:
    effort = Effort().of_steps(steps)
    assert (effort.warm_ups, effort.runs) == (warm_ups, runs)
    assert effort.warm_ups * steps >= 10
    assert effort.runs * steps >= 30
