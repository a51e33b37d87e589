# SPDX-License-Identifier: Apache-2.0
"""An answer is taken again only for the same weights, words, pixels and settings."""

from dataclasses import replace
from pathlib import Path

from tests.evaluation.lmms.rows import picture
from unigen.evaluation.lmms.answers import AnswerLedger, answer_key, weights_key
from unigen.evaluation.lmms.writing import read_writing
from unigen.generation.pipeline import AskRequest

REQUEST = AskRequest("How many?", (picture(0), picture(1)), (("What?", "A dog."),), seed=3)
GREEDY, RANDOM = read_writing({"max_new_tokens": 8}, 64), read_writing({"max_new_tokens": 8, "temperature": 0.5}, 64)
KEY = answer_key("sha256-0", REQUEST, GREEDY)


def test_another_question_image_history_setting_or_checkpoint_has_another_key() -> None:
    others = [
        answer_key("sha256-1", REQUEST, GREEDY),
        answer_key("sha256-0", REQUEST, read_writing({"max_new_tokens": 9}, 64)),
        answer_key("sha256-0", replace(REQUEST, question="How many? "), GREEDY),
        answer_key("sha256-0", replace(REQUEST, images=REQUEST.images[::-1]), GREEDY),
        answer_key("sha256-0", replace(REQUEST, images=REQUEST.images[:1]), GREEDY),
        answer_key("sha256-0", replace(REQUEST, history=()), GREEDY),
    ]
    assert len({KEY, *others}) == len(others) + 1


def test_the_seed_is_part_of_the_key_only_where_it_matters() -> None:
    other = replace(REQUEST, seed=4)
    assert answer_key("sha256-0", other, GREEDY) == KEY
    assert answer_key("sha256-0", other, RANDOM) != answer_key("sha256-0", REQUEST, RANDOM)


def test_stop_strings_cut_a_kept_answer_and_do_not_ask_again() -> None:
    assert answer_key("sha256-0", REQUEST, read_writing({"max_new_tokens": 8, "until": ["."]}, 64)) == KEY


def test_weights_or_number_format_change_the_name_of_a_model() -> None:
    model = {"weights": {"model": "a", "vision_tower": "b"}, "dtype": "torch.float32", "device": "cpu"}
    name = weights_key(model)
    assert name == weights_key({**model, "device": "cuda:1", "model": "/elsewhere"})
    assert name != weights_key({**model, "dtype": "torch.bfloat16"})
    assert name != weights_key({**model, "weights": {"model": "a", "vision_tower": "c"}})


def test_answers_of_all_ranks_are_there_next_time_and_a_torn_line_is_not(tmp_path: Path) -> None:
    for rank, answer in enumerate(["a dog", "zwei Hunde"]):
        AnswerLedger(tmp_path, rank).add(f"key-{rank}", answer, {"task": "pope"})
    with (tmp_path / "records-0.jsonl").open("a") as file:
        file.write('{"item_id": "key-2", "ans')
    again = AnswerLedger(tmp_path, 0)
    assert (again["key-0"], again["key-1"], "key-2" in again) == ("a dog", "zwei Hunde", False)


def test_without_a_folder_nothing_is_kept() -> None:
    ledger = AnswerLedger(None, 0)
    ledger.add("key", "answer", {})
    assert "key" not in ledger
