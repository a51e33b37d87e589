# SPDX-License-Identifier: Apache-2.0
"""DPG-Bench's score: what counts, what is zeroed, what the published scorer drops, and both variants on real answers."""

import csv
from collections import defaultdict
from pathlib import Path

import pytest

from tests.evaluation.dpg.conftest import ROWS, write_csv
from unigen.evaluation.dpg.questions import read_question_file
from unigen.evaluation.dpg.scoring import Variant, score_dpg, tile_score

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
YES, NO = True, False
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the public question files are not in {DATA}")


def file_of(tmp_path: Path, *rows: tuple[str, str, str]) -> Path:
    """Questions of one prompt after a first row that the published scorer skips."""
    first = [("first", "1", "0", "entity - whole (x)", "Is there x?")]
    return write_csv(tmp_path / "q.csv", first + [("0", *row, "Is it so?") for row in rows])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({1: YES, 2: YES, 3: YES}, 1.0),
        ({1: YES, 2: YES, 3: NO}, 2 / 3),
        ({1: YES, 2: NO, 3: YES}, 1 / 3),
        ({1: NO, 2: YES, 3: YES}, 0.0),
    ],
)
@pytest.mark.parametrize("variant", ["compat", "fixed"])
def test_a_no_zeroes_all_that_depends_on_it_down_the_chain(
    answers: dict[int, bool], expected: float, variant: Variant, tmp_path: Path
) -> None:
    rows = [("1", "0", "entity - whole (a)"), ("2", "1", "attribute - color (a)"), ("3", "2", "other - text (a)")]
    asked = read_question_file(file_of(tmp_path, *rows)).by_item()["0"]
    assert tile_score(asked, answers, variant) == pytest.approx(expected)


def test_a_dependency_on_a_later_question_cascades_only_in_the_fixed_variant(tmp_path: Path) -> None:
    # 1 needs 2, 2 needs 3, 3 is no: in the order of the file 1 looks at 2 before that is zeroed.
    rows = [("1", "2", "a - b (x)"), ("2", "3", "a - b (x)"), ("3", "0", "a - b (x)")]
    asked = read_question_file(file_of(tmp_path, *rows)).by_item()["0"]
    answers = {1: YES, 2: YES, 3: NO}
    assert tile_score(asked, answers, "compat") == pytest.approx(1 / 3)
    assert tile_score(asked, answers, "fixed") == 0.0


def test_questions_that_depend_on_each_other_end(tmp_path: Path) -> None:
    asked = read_question_file(file_of(tmp_path, ("1", "2", "a (x)"), ("2", "1", "a (x)"))).by_item()["0"]
    assert tile_score(asked, {1: YES, 2: YES}, "fixed") == 1.0
    assert tile_score(asked, {1: YES, 2: NO}, "fixed") == 0.0


def test_compat_skips_the_first_row_and_drops_a_prompt_that_needs_it(tmp_path: Path) -> None:
    file = read_question_file(write_csv(tmp_path / "q.csv", ROWS))
    all_yes = {item: [dict.fromkeys(asked, YES)] * 4 for item, asked in file.by_item().items()}
    compat, fixed = score_dpg(file, all_yes, "compat"), score_dpg(file, all_yes, "fixed")
    assert compat is not None
    assert fixed is not None
    assert (compat.dropped, compat.num_prompts, compat.overall) == (["parti7"], 2, 100.0)
    assert (fixed.dropped, fixed.num_prompts, fixed.overall) == ([], 3, 100.0)


def test_compat_looks_up_a_missing_parent_only_until_a_no(tmp_path: Path) -> None:
    rows = [("2", "0", "a - b (x)"), ("3", "2,9", "a - b (x)")]
    asked = read_question_file(file_of(tmp_path, *rows)).by_item()["0"]
    assert tile_score(asked, {2: NO, 3: YES}, "compat") == 0.0
    with pytest.raises(KeyError):
        tile_score(asked, {2: YES, 3: YES}, "compat")
    assert tile_score(asked, {2: YES, 3: YES}, "fixed") == 1.0


def test_one_tile_without_its_parent_drops_the_whole_prompt(tmp_path: Path) -> None:
    file = read_question_file(file_of(tmp_path, ("2", "0", "a - b (x)"), ("3", "2,9", "a - b (x)")))
    tiles = [{2: NO, 3: YES}, {2: YES, 3: YES}]
    compat = score_dpg(file, {"0": tiles}, "compat")
    assert compat is None
    fixed = score_dpg(file, {"0": tiles}, "fixed")
    assert fixed is not None
    assert fixed.overall == pytest.approx(50.0)


def test_kinds_are_means_of_answers_as_given_over_the_last_tile_or_over_all(tmp_path: Path) -> None:
    file = read_question_file(file_of(tmp_path, ("1", "0", "entity - whole (a)"), ("2", "1", "attribute - color (a)")))
    tiles = [{1: NO, 2: YES}, {1: NO, 2: YES}, {1: NO, 2: NO}, {1: YES, 2: NO}]
    compat, fixed = score_dpg(file, {"0": tiles}, "compat"), score_dpg(file, {"0": tiles}, "fixed")
    assert compat is not None
    assert fixed is not None
    assert compat.levels == {"entity": 100.0, "attribute": 0.0}
    assert fixed.levels == {"entity": 25.0, "attribute": 50.0}  # not zeroed, though 1 is no
    assert fixed.details == {"entity - whole": 25.0, "attribute - color": 50.0}
    assert fixed.overall == pytest.approx(100 * (0 + 0 + 0 + 0.5) / 4)


def test_prompts_weigh_the_same_whatever_their_number_of_questions(tmp_path: Path) -> None:
    rows = [("first", "1", "0", "a (x)", "?"), *[("0", str(n), "0", "a (x)", "?") for n in range(1, 10)]]
    file = read_question_file(write_csv(tmp_path / "q.csv", [*rows, ("coco1", "1", "0", "a (x)", "?")]))
    found = score_dpg(file, {"0": [dict.fromkeys(range(1, 10), YES)], "coco1": [{1: NO}]}, "fixed")
    assert found is not None
    assert found.overall == pytest.approx(50.0)
    assert found.interval[0] < found.overall < found.interval[1]


def plainly(rows: list[dict[str, str]], answers: dict[tuple[str, int], bool]) -> dict[str, float]:
    """Scores of prompts, written as plainly as can be: a question counts if it and all that it needs are yes."""
    needs = {
        (row["item_id"], int(row["proposition_id"])): [
            int(word) for word in row["dependency"].split(",") if word.strip().isdigit()
        ]
        for row in rows
    }

    def counts(
        item: str, number: int, seen: tuple[int, ...] = ()
    ) -> bool:  # one real prompt's questions go in a circle
        known = [parent for parent in needs[item, number] if (item, parent) in needs and parent not in seen]
        return answers[item, number] and all(counts(item, parent, (*seen, number)) for parent in known)

    scores: dict[str, list[bool]] = defaultdict(list)
    for item, number in needs:
        scores[item].append(counts(item, number))
    return {item: sum(found) / len(found) for item, found in scores.items()}


@needs_data
def test_real_questions_with_real_answers_of_mplug() -> None:
    path = DATA / "dsg1k_first100_items.csv"
    file = read_question_file(path)
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    given: dict[tuple[str, int], bool] = {}
    for row in csv.DictReader((DATA / "dsg1k_first100_mplug_answers.csv").open(encoding="utf-8")):
        given.setdefault((row["item_id"], int(row["question_id"])), row["answer"] == "yes")
    answers = {
        item: [{number: given[item, number] for number in asked}]
        for item, asked in file.by_item().items()
        if all((item, number) in given for number in asked)
    }
    assert len(answers) >= 95
    assert file.num_malformed == 1  # "5, right"
    expected = plainly([row for row in rows if row["item_id"] in answers], given)
    found = score_dpg(file, answers, "fixed")
    assert found is not None
    assert found.overall == pytest.approx(100 * sum(expected.values()) / len(expected))
    assert 60 < found.overall < 95
    compat = score_dpg(file, answers, "compat")
    assert compat is not None
    assert compat.overall == pytest.approx(found.overall, abs=2)
    assert set(found.levels) >= {"entity", "attribute", "relation"}


@needs_data
def test_other_real_questions_of_the_same_schema_are_read_whole() -> None:
    file = read_question_file(DATA / "dsg_tifa160_dev_anns.csv")
    assert (len(file.questions), len(file.by_item()), file.num_malformed) == (842, 160, 78)  # 78 rows have no question
    everything = {item: [dict.fromkeys(asked, YES)] for item, asked in file.by_item().items()}
    found = score_dpg(file, everything, "fixed")
    assert found is not None
    assert found.overall == 100.0
