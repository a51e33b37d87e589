# SPDX-License-Identifier: Apache-2.0
"""The rules of MME, POPE, SEED-Bench, VQAv2 and GQA, case by case, malformed answers included."""

import json
from pathlib import Path
from typing import Any

import pytest

from unigen.errors import EvaluationError
from unigen.evaluation.llava_questions import gqa, mme, pope, seed, vqav2
from unigen.evaluation.llava_questions.answers import Answered, Files


def answered(question_id: Any, text: str, image: str = "a.jpg", asked: str = "What?", **fields: Any) -> Answered:
    return Answered({"question_id": question_id, "image": image, "text": asked, **fields}, text)


def files(truth: Path | None, output: Path) -> Files:
    return Files(output / "q.jsonl", output / "images", truth, output)


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_an_answer_line_is_the_protocols_and_its_id_is_that_of_the_answer() -> None:
    line = answered(3, "Yes").line("m")
    assert list(line) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert (line["question_id"], line["prompt"], line["model_id"], line["metadata"]) == (3, "What?", "m", {})
    others = [answered(3, "No"), answered(3, "Yes", asked="Why?"), answered(4, "Yes")]
    assert line["answer_id"] == answered(3, "Yes").line("m")["answer_id"]
    assert line["answer_id"] not in [one.line("m")["answer_id"] for one in others], (
        "two questions may share a question_id"
    )


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("Yes", True),
        ("No", False),
        ("no, there is not", False),
        ("There is not a dog", False),
        ("Yes. No, wait", True),
        ("NO", True),  # the protocol knows No, no and not alone
        ("nothing", True),
        ("", True),
        ("Yes, no", False),
    ],
)
def test_pope_takes_the_first_sentence_for_a_yes_unless_it_says_no(text: str, yes: bool) -> None:
    assert pope.says_yes(text) is yes


@pytest.mark.parametrize("text", ["", "perhaps", "NO", "No!", "nothing", "yesterday", "It is hard to say. Yes"])
def test_pope_counts_what_is_taken_for_a_yes_without_saying_so(text: str) -> None:
    assert pope.says_yes(text)
    assert pope.is_unclear(text)
    assert not pope.is_unclear("YES!")
    assert not pope.is_unclear("no")


def test_pope_scores_each_category_and_their_mean(tmp_path: Path) -> None:
    labels = {"random": ["yes", "no", "no", "yes"], "popular": ["yes", "no"]}
    for category, truth in labels.items():
        lines = [{"question_id": n, "image": f"{n}.jpg", "text": "?", "label": label} for n, label in enumerate(truth)]
        (tmp_path / f"coco_pope_{category}.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = {"random": ["Yes", "Yes", "No", "No"], "popular": ["Yes", "perhaps"]}
    answers = [
        answered(f"{category}{n}", text, f"{n}.jpg", category=category)
        for category, texts in said.items()
        for n, text in enumerate(texts)
    ]
    content = pope.score_pope(answers, files(tmp_path, tmp_path)).content()
    metrics = content["metrics"]
    assert (metrics["random accuracy"], metrics["popular accuracy"], metrics["accuracy"]) == (0.5, 0.5, 0.5)
    low, high = content["intervals"]["accuracy"]
    assert low < 0.5 < high
    assert (metrics["random precision"], metrics["random recall"], metrics["random f1"]) == (0.5, 0.5, 0.5)
    assert metrics["popular precision"] == 0.5, "perhaps counts as a yes, as in the protocol"
    assert metrics["f1"] == pytest.approx((0.5 + 2 / 3) / 2)
    assert metrics["yes_ratio"] == pytest.approx((0.5 + 1.0) / 2)
    assert content["unclear"] == 1
    with pytest.raises(EvaluationError, match="3 questions, but 4 labels"):
        pope.score_pope(answers[:3], files(tmp_path, tmp_path))
    with pytest.raises(EvaluationError, match=r"question random0 is about z\.jpg"):
        pope.score_pope(
            [answered("random0", "Yes", "z.jpg", category="random"), *answers[1:]], files(tmp_path, tmp_path)
        )
    with pytest.raises(EvaluationError, match=r"no coco_pope_adversarial\.json"):
        pope.score_pope([answered(1, "Yes", category="adversarial")], files(tmp_path, tmp_path))


def test_mme_adds_the_images_with_both_questions_right_and_sums_categories(tmp_path: Path) -> None:
    truth = {"count/questions_answers_YN": "count", "OCR": "OCR", "code_reasoning": "code_reasoning"}
    for place in truth:
        for name in ("1", "2"):
            file = tmp_path / place / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("Is it one?  Please answer yes or no.\tYes\nIs it two? Please answer yes or no.\tNo\n")
    request = "\nAnswer the question using a single word or phrase."

    def pair(category: str, name: str, first: str, second: str) -> list[Answered]:
        return [
            answered(
                f"{category}/{name}.jpg",
                text,
                f"{category}/{name}.jpg",
                f"Is it {n}? Please answer yes or no.{request}",
            )
            for n, text in (("one", first), ("two", second))
        ]

    answers = [
        *pair("count", "1", "Yes", "No"),
        *pair("count", "2", "Yes", "Yes"),
        *pair("OCR", "1", "Yes", "maybe"),
        *pair("code_reasoning", "1", "yes", "no"),
    ]
    content = mme.score_mme(answers, files(tmp_path, tmp_path)).content()
    assert content["categories"]["count"] == {"accuracy": 3 / 4, "accuracy_plus": 1 / 2}
    assert content["metrics"]["count"] == 100 * (3 / 4 + 1 / 2)
    assert content["metrics"]["OCR"] == 100 * (1 / 2 + 0)
    assert content["metrics"]["perception"] == 125 + 50
    assert content["metrics"]["cognition"] == 200
    assert content["unclear"] == 1
    assert "existence" in content["categories_missing"]
    alone = mme.score_mme(answers[:1], files(tmp_path, tmp_path)).content()
    assert alone["categories"]["count"] == {"accuracy": 1.0, "accuracy_plus": 0.0}, "half a pair is no pair"
    stranger = answered("count/1.jpg", "Yes", asked="Is it three?")
    with pytest.raises(EvaluationError, match="count/1/Is it three"):
        mme.score_mme([stranger], files(tmp_path, tmp_path))


def test_seed_takes_the_very_letter_by_kind_and_by_image_and_video(tmp_path: Path) -> None:
    questions = [
        {"question_id": "1", "answer": "A", "question_type_id": 1, "data_type": "image"},
        {"question_id": 2, "answer": "B", "question_type_id": 1, "data_type": "image"},
        {"question_id": "3", "answer": "C", "question_type_id": 9, "data_type": "video"},
        {"question_id": "4", "answer": "D"},
    ]
    truth = write(tmp_path / "SEED-Bench.json", {"questions": questions, "question_type": {"Scene": 1, "Action": 9}})
    said = {"1": " A\n", 2: "B. a dog", 3: "C", "4": "d"}
    answers = [answered(question_id, text, str(question_id)) for question_id, text in said.items()]
    metrics = seed.score_seed(answers, files(truth, tmp_path)).content()["metrics"]
    assert metrics == {"accuracy": 0.5, "image": 0.5, "Scene": 0.5, "video": 1.0, "Action": 1.0}
    with pytest.raises(EvaluationError, match="no answer of 1 questions"):
        seed.score_seed([answered("9", "A")], files(truth, tmp_path))
    with pytest.raises(EvaluationError, match="has no `questions`"):
        seed.score_seed(answers, files(write(tmp_path / "other.json", {"a": 1}), tmp_path))


def test_gqa_compares_small_letters_without_a_full_stop_and_writes_the_official_file(tmp_path: Path) -> None:
    types = {"structural": "verify"}
    truth = write(tmp_path / "q.json", {"1": {"answer": "yes", "types": types}, "2": {"answer": "Left"}})
    answers = [answered("1", "Yes.", "a"), answered("2", "on the left", "b")]
    content = gqa.score_gqa(answers, files(truth, tmp_path)).content()
    assert content["metrics"] == {"accuracy": 0.5, "verify": 1.0}
    written = json.loads((tmp_path / gqa.PREDICTIONS_NAME).read_text())
    assert written == [
        {"questionId": "1", "prediction": "yes"},
        {"questionId": "2", "prediction": "on the left"},
    ]


def test_vqav2_writes_what_evalai_takes_and_scores_against_people_where_it_can(tmp_path: Path) -> None:
    answers = [answered(1, "The two dogs.", "a"), answered(2, "dont know", "b")]
    assert vqav2.score_vqav2(answers, files(None, tmp_path)).content()["metrics"] == {}
    written = json.loads((tmp_path / vqav2.SUBMISSION_NAME).read_text())
    assert written == [{"question_id": 1, "answer": "2 dogs"}, {"question_id": 2, "answer": "don't know"}]
    everything = [*(one.question for one in answers), {"question_id": 9}]
    (tmp_path / vqav2.ALL_QUESTIONS_NAME).write_text("".join(json.dumps(one) + "\n" for one in everything))
    assert vqav2.score_vqav2(answers, files(None, tmp_path)).content()["num_unasked"] == 1
    assert json.loads((tmp_path / vqav2.SUBMISSION_NAME).read_text()) == [*written, {"question_id": 9, "answer": ""}]
    (tmp_path / vqav2.ALL_QUESTIONS_NAME).write_text('{"question_id": 9}\n')
    assert vqav2.score_vqav2(answers, files(None, tmp_path)).content()["num_unasked"] == 0, "questions of another split"
    people = [{"answer": "2 dogs"}] * 2 + [{"answer": "dogs"}] * 8
    annotations = [
        {"question_id": 1, "answers": people, "answer_type": "other"},
        {"question_id": 2, "answers": [{"answer": "no"}] * 10, "answer_type": "yes/no"},
    ]
    truth = write(tmp_path / "annotations.json", {"annotations": annotations})
    metrics = vqav2.score_vqav2(answers, files(truth, tmp_path)).content()["metrics"]
    assert metrics["other"] == pytest.approx(0.6)  # left out: one of the two in 2 of 10 choices (1/3), else 2/3
    assert (metrics["yes/no"], metrics["accuracy"]) == (0.0, pytest.approx(0.3))
    assert vqav2.agreement("a", ["a"] * 4 + ["b"] * 6) == 1.0
