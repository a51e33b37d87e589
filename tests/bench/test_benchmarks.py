# SPDX-License-Identifier: Apache-2.0
"""Every CPU benchmark runs at small sizes, and all that does not depend on time holds."""

import importlib

import pytest
import torch

from unigen.bench.figures import Figure, Setting
from unigen.bench.mixes import PT2, SFT, Mix, Texts
from unigen.bench.models import FULL_CODEBOOK, FULL_VOCABULARY, made_up_vocabulary, miniature_config, proportional_sizes
from unigen.bench.run import BENCHMARKS
from unigen.models.cost import LanguageModelCost

CPU_BENCHMARKS = [name for name, (device, _, _) in BENCHMARKS.items() if device == "cpu"]
JUDGED = {
    "maskgit": ("difference", "flop_ratio", "fast_flops_off_formula", "twin_flops_off_formula"),
    "reading": ("difference", "flop_ratio", "fast_flops_off_formula", "twin_flops_off_formula"),
    "rating": ("difference", "flop_ratio", "fast_flops_off_formula", "twin_flops_off_formula"),
    "packing": (
        "difference",
        "flop_ratio",
        "fast_flops_off_formula",
        "twin_flops_off_formula",
        "useful_tokens",
        "useful_tokens_dealt_out",
    ),
    "unifork_trunk": ("difference", "flop_ratio", "fast_flops_off_formula", "twin_flops_off_formula"),
    "unifork_drawing": ("difference", "flop_ratio", "fast_flops_off_formula", "twin_flops_off_formula"),
    "loss": ("peak_memory_ratio", "loss_difference", "hidden_gradient_difference", "weight_gradient_difference"),
    "loader": (),
}


def quick_figures(name: str) -> list[Figure]:
    module = importlib.import_module(BENCHMARKS[name][1])
    return list(module.measure(Setting(torch.device("cpu"), is_quick=True)))


@pytest.mark.parametrize("name", CPU_BENCHMARKS)
def test_results_operations_and_bytes_are_right_at_small_sizes(name: str) -> None:
    figures = quick_figures(name)
    assert [figure for figure in figures if figure.is_met is False] == []
    judged = {figure.name.rpartition("/")[2] for figure in figures if figure.is_met}
    assert set(JUDGED[name]) <= judged
    assert all(figure.value > 0 for figure in figures if figure.unit)


def test_there_is_an_expectation_for_every_cpu_benchmark() -> None:
    assert set(JUDGED) == set(CPU_BENCHMARKS)


def test_the_miniature_gives_its_head_the_share_of_1_5b() -> None:
    vocab_size, codebook_size = proportional_sizes(miniature_config(FULL_VOCABULARY))
    config = miniature_config(vocab_size)
    share = config.hidden_size * vocab_size / LanguageModelCost(config).matrix_parameters
    assert share == pytest.approx(1536 * 159_867 / 1.310e9, rel=0.01)
    assert codebook_size / vocab_size == pytest.approx(FULL_CODEBOOK / FULL_VOCABULARY, rel=0.01)


@pytest.mark.parametrize(("mix", "drawn_length"), [(PT2, 467), (SFT, 321)], ids=["pt2", "sft"])
def test_a_mix_fits_its_rows_and_is_the_same_for_the_same_seed(mix: Mix, drawn_length: int) -> None:
    vocabulary = made_up_vocabulary(FULL_VOCABULARY, FULL_CODEBOOK)
    samples, again = mix.samples(vocabulary, 3, steps=8), mix.samples(vocabulary, 3, steps=8)
    assert [sample.document for sample in samples] == [sample.document for sample in again]
    drawn = [sample.document.length for sample in samples if sample.key == "t2i"]
    assert sum(drawn) / len(drawn) == pytest.approx(drawn_length, abs=1)
    assert max(sample.document.length for sample in samples) <= mix.row_length
    assert len(samples) == 8 * sum(mix.counts.values())


def test_lengths_at_even_quantiles_have_their_median_and_their_limit() -> None:
    lengths = Texts(median=100, spread=0.5, most=150).lengths(101)
    assert lengths[50] == 100
    assert max(lengths) == 150
    assert lengths == sorted(lengths)
