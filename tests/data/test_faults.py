# SPDX-License-Identifier: Apache-2.0
"""When bad records stop a run, and what is said then."""

import pytest

from unigen.data.faults import Fault, FaultLog
from unigen.errors import DataError


def test_one_bad_record_of_the_first_ten_does_not_stop_a_run() -> None:
    log = FaultLog(0.01)
    log.add([Fault("unreadable_image", "a.tar/1")], 10)
    log.check()
    log.add([], 90)
    log.check()  # 1 of 100 is not past 1 %


def test_past_the_fraction_the_error_names_share_causes_files_and_remedy() -> None:
    log = FaultLog(0.01)
    log.add([Fault("unreadable_image", f"a.tar/{number}") for number in range(3)], 100)
    log.add([Fault("truncated_shard", "b.tar", "no end marker")], 100)
    with pytest.raises(DataError) as error:
        log.check()
    assert str(error.value) == (
        "4 of 200 records are bad (2.0%, data.max_bad_fraction is 1.0%): 3 unreadable_image (such as a.tar/0); "
        "1 truncated_shard (such as b.tar, no end marker); mend the files or raise data.max_bad_fraction"
    )


def test_what_a_run_leaves_out_by_its_own_settings_is_counted_and_does_not_stop_it() -> None:
    log = FaultLog(0.01)
    log.add([Fault("too_long", "a.jsonl/1", "a row of 1400 tokens"), *[Fault("cjk_caption", "a.jsonl/2")] * 40], 100)
    log.check()
    assert log.summary() == {"data/records_seen": 100, "data/bad/cjk_caption": 40, "data/bad/too_long": 1}
    assert log.describe().startswith("40 cjk_caption (such as a.jsonl/2); 1 too_long")
    log.add([Fault("not_json", "a.jsonl/3"), Fault("not_json", "a.jsonl/4")], 1)
    with pytest.raises(DataError, match=r"2 of 101 records are bad \(2.0%.*: 2 not_json \(such as a.jsonl/3\); mend"):
        log.check()


def test_the_summary_has_one_number_per_cause() -> None:
    log = FaultLog(0.5)
    log.add([Fault("not_json", "a"), Fault("not_json", "b"), Fault("empty_caption", "c")], 50)
    assert log.summary() == {"data/records_seen": 50, "data/bad/empty_caption": 1, "data/bad/not_json": 2}


def test_examples_stay_few_however_many_faults_there_are() -> None:
    log = FaultLog(1.0)
    log.add([Fault("not_json", str(number)) for number in range(10_000)], 10_000)
    assert log.bad == 10_000
    assert [fault.place for fault in log.examples["not_json"]] == ["0", "1", "2", "3", "4"]
