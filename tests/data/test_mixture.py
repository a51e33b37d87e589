# SPDX-License-Identifier: Apache-2.0
"""The stream of a run: the same at any number of ranks and workers, resumable at any step, fair, and never endless in vain."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest

from tests.data.archives import captioned, write_shards, write_tar
from unigen.config.schema import DataConfig, SourceConfig
from unigen.data.draws import Draws
from unigen.data.faults import SampleRefused
from unigen.data.loader import StepLoader, merge_states
from unigen.data.mixture import SampleStream, epoch_steps
from unigen.data.sample import RawSample
from unigen.data.sources import open_mixture, task_sizes
from unigen.errors import CheckpointError, ConfigError, DataError, DataWorkerError

STEP = {"t2i": 8, "mmu": 4}


def name_and_draw(sample: RawSample, draws: Draws) -> tuple[str, str, int, int]:
    """What a run sees of a sample, the draws about it included."""
    return sample.task, sample.key, draws.visit, int(draws.generator("mask").integers(1 << 30))


def number_of(sample: RawSample, draws: Draws) -> int:
    return int((sample.text or sample.turns[1].text).rsplit(" ", 1)[1])


def data_config(root: Path, **changes: Any) -> DataConfig:
    sources = {
        "draw": SourceConfig("t2i", "webdataset", ["draw"]),
        "read": SourceConfig("mmu", "webdataset", ["read"]),
    }
    return DataConfig(**{"root": str(root), "sources": sources, "shuffle_block": 5, **changes})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    write_shards(root / "datasets/draw", [7, 9, 8, 6, 11, 7, 9, 10, 5])
    write_shards(root / "datasets/read", [13, 12])
    return root


def loader(
    config: DataConfig,
    step: dict[str, int] = STEP,
    prepare: Any = name_and_draw,
    timeout_seconds: float = 60.0,
    **changes: Any,
) -> StepLoader:
    options = {"rank": 0, "world_size": 1, "num_workers": 0, "seed": 3, **changes}
    limits = {"max_bad_fraction": config.max_bad_fraction, "timeout_seconds": timeout_seconds}
    stream = SampleStream(
        open_mixture(config, 3), step, prepare, lanes=config.lanes, shuffle_block=config.shuffle_block, **options
    )
    return StepLoader(stream, **limits)


def take(steps: int, of: StepLoader) -> list[list[Any]]:
    return list(islice(of, steps))


def all_ranks(config: DataConfig, steps: int, world: int, workers: int) -> list[list[Any]]:
    """The samples of every global step, put together from its ranks."""
    ranks = [take(steps, loader(config, rank=rank, world_size=world, num_workers=workers)) for rank in range(world)]
    served = SampleStream(open_mixture(config, 3), STEP, name_and_draw, lanes=config.lanes, seed=3)
    # Every `world`-th place of a step belongs to one rank.
    return [
        [ranks[served.lane_of(step, place) % world][step][place // world] for place in range(12)]
        for step in range(steps)
    ]


def test_every_lane_serves_every_place_of_a_step_though_they_share_divisors(root: Path) -> None:
    served = SampleStream(open_mixture(data_config(root), 3), STEP, name_and_draw, lanes=8, seed=3)
    for place in range(12):
        assert {served.lane_of(step, place) for step in range(8)} == set(range(8))


@pytest.mark.parametrize(("world", "workers"), [(1, 2), (2, 0), (2, 2), (4, 0), (4, 2)])
def test_the_stream_does_not_depend_on_ranks_and_workers(root: Path, world: int, workers: int) -> None:
    config = data_config(root)
    assert all_ranks(config, 9, world, workers) == all_ranks(config, 9, 1, 0)


def test_every_rank_gets_the_same_number_of_each_task_in_every_step(root: Path) -> None:
    for rank in range(4):
        for step in take(5, loader(data_config(root), rank=rank, world_size=4)):
            assert Counter(task for task, *_ in step) == {"t2i": 2, "mmu": 1}


def test_a_step_that_is_no_multiple_of_the_lanes_is_the_same_for_any_workers(root: Path) -> None:
    step = {"t2i": 3, "mmu": 2}
    expected = take(11, loader(data_config(root), step))
    assert [len(samples) for samples in expected] == [5] * 11
    for workers in (2, 4, 8):
        assert take(11, loader(data_config(root), step, num_workers=workers)) == expected


@pytest.mark.parametrize("consumed", [1, 4, 7])
def test_resuming_goes_on_after_the_last_consumed_step_whatever_was_read_ahead(root: Path, consumed: int) -> None:
    config = data_config(root)
    expected = take(consumed + 8, loader(config))
    first = loader(config, num_workers=2)
    steps = iter(first)
    assert [next(steps) for _ in range(consumed)] == expected[:consumed]
    time.sleep(0.05)  # lets the workers run ahead
    state = json.loads(json.dumps(first.state_dict()))
    steps.close()  # type: ignore[attr-defined]
    second = loader(config, num_workers=4)
    second.load_state_dict(state)
    assert take(8, second) == expected[consumed:]
    assert second.step == consumed + 8


def test_a_run_on_four_ranks_goes_on_with_one(root: Path) -> None:
    config = data_config(root)
    ranks = [loader(config, rank=rank, world_size=4) for rank in range(4)]
    for rank in ranks:
        take(6, rank)
    resumed = loader(config)
    resumed.load_state_dict(json.loads(json.dumps(merge_states(rank.state_dict() for rank in ranks))))
    assert take(5, resumed) == take(11, loader(config))[6:]


def test_one_loader_may_be_iterated_in_pieces(root: Path) -> None:
    pieces = loader(data_config(root))
    assert take(3, pieces) + take(4, pieces) == take(7, loader(data_config(root)))


def test_a_state_of_other_lanes_or_of_one_rank_alone_is_refused(root: Path) -> None:
    state = loader(data_config(root), rank=1, world_size=2).state_dict()
    with pytest.raises(CheckpointError, match=r"lacks lanes \[0, 2, 4, 6\]"):
        loader(data_config(root)).load_state_dict(state)
    with pytest.raises(CheckpointError, match="num_lanes 8, this run 16"):
        loader(data_config(root, lanes=16)).load_state_dict(state)


@pytest.mark.parametrize("sizes", [[40], [7, 9], [10] * 8, [5, 6, 7, 4, 5, 6, 7, 4, 6, 7, 8]])
def test_two_epochs_visit_each_sample_exactly_once_per_epoch(tmp_path: Path, sizes: list[int]) -> None:
    write_shards(tmp_path / "datasets/draw", sizes)
    config = data_config(tmp_path, sources={"draw": SourceConfig("t2i", "webdataset", ["draw"])}, lanes=4)
    visits: dict[int, Counter[str]] = {0: Counter(), 1: Counter()}
    for samples in take(3 * sum(sizes), loader(config, {"t2i": 4})):
        for _, key, visit, _ in samples:
            visits.setdefault(visit, Counter())[key] += 1
    for visit in (0, 1):
        assert len(visits[visit]) == sum(sizes)
        assert set(visits[visit].values()) == {1}


def test_lanes_get_the_same_share_of_few_shards(tmp_path: Path) -> None:
    write_shards(tmp_path / "datasets/draw", [24, 24, 24])
    config = data_config(tmp_path, sources={"draw": SourceConfig("t2i", "webdataset", ["draw"])}, lanes=8)
    (first, second) = (
        take(9, loader(config, {"t2i": 8}, number_of)),
        take(18, loader(config, {"t2i": 8}, number_of))[9:],
    )
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(72))
    assert first != second


def test_samples_come_in_another_order_for_another_seed(root: Path) -> None:
    assert take(4, loader(data_config(root), seed=3)) != take(4, loader(data_config(root), seed=4))


def test_weights_set_the_shares_of_the_sources(root: Path) -> None:
    write_shards(root / "datasets/other", [20, 20])
    sources = {
        "draw": SourceConfig("t2i", "webdataset", ["draw"], weight=3.0),
        "other": SourceConfig("t2i", "webdataset", ["other"], weight=1.0),
        "never": SourceConfig("t2i", "webdataset", ["read"], weight=0.0),
    }
    steps = take(250, loader(data_config(root, sources=sources), {"t2i": 8}))
    names = Counter(key.split("/")[0] for samples in steps for _, key, *_ in samples)
    assert names["never"] == 0
    assert 0.70 < names["draw"] / 2000 < 0.80  # 3/4 with a standard deviation of 0.01


def test_bad_samples_are_passed_over_counted_and_do_not_change_on_resume(tmp_path: Path) -> None:
    samples = captioned(0, 64)
    for number in (3, 20, 41):
        samples[number][1]["png"] = b"no image"
    samples[50][1]["txt"] = b"  "
    write_tar(tmp_path / "datasets/draw/0.tar", samples)
    sources = {"draw": SourceConfig("t2i", "webdataset", ["draw"])}
    config = data_config(tmp_path, sources=sources, lanes=4, max_bad_fraction=0.5)
    whole = loader(config, {"t2i": 4}, number_of)
    steps = take(15, whole)
    assert sorted(chain(*steps)) == [number for number in range(64) if number not in (3, 20, 41, 50)]
    assert whole.faults.counts == {"unreadable_image": 3, "empty_caption": 1}
    for consumed in range(15):
        first = loader(config, {"t2i": 4}, number_of)
        take(consumed, first)
        second = loader(config, {"t2i": 4}, number_of)
        second.load_state_dict(first.state_dict())
        assert take(15 - consumed, second) == steps[consumed:]


def refuse_sevenths(sample: RawSample, draws: Draws) -> int:
    if number_of(sample, draws) % 7 == 0:
        raise SampleRefused("bad_conversation", "no answer")
    return number_of(sample, draws)


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_samples_stop_the_run_and_name_a_file(root: Path, workers: int) -> None:
    config = data_config(root, sources={"draw": SourceConfig("t2i", "webdataset", ["draw"])}, max_bad_fraction=0.05)
    steps = loader(config, {"t2i": 8}, refuse_sevenths, num_workers=workers)
    with pytest.raises(DataError, match=r"bad_conversation \(such as draw/draw/\d{4}.tar/\d+, no answer\)"):
        take(40, steps)
    assert steps.faults.seen >= 100


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("bad", [20, 3000])
def test_nothing_hangs_when_all_samples_are_bad(tmp_path: Path, workers: int, bad: int) -> None:
    write_tar(tmp_path / "datasets/draw/0.tar", [(f"{n:05d}", {"png": b"", "txt": b"words"}) for n in range(bad)])
    sources = {"draw": SourceConfig("t2i", "webdataset", ["draw"])}
    steps = loader(data_config(tmp_path, sources=sources, lanes=4), {"t2i": 4}, num_workers=workers)
    with pytest.raises(DataError, match=r"unreadable_image \(such as draw/draw/0.tar/"):
        take(1, steps)


def test_fewer_samples_than_lanes_is_said_in_so_many_words(tmp_path: Path) -> None:
    write_shards(tmp_path / "datasets/draw", [3])
    config = data_config(tmp_path, sources={"draw": SourceConfig("t2i", "webdataset", ["draw"])})
    with pytest.raises(DataError, match=r"fewer records than data\.lanes=8; lower"):
        take(1, loader(config, {"t2i": 8}))


def test_lanes_that_cannot_be_dealt_out_are_refused_with_values_that_can(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"set data.lanes=12 .* or data.num_workers=1 or 2 or 4"):
        loader(data_config(root), world_size=2, num_workers=3)


def test_a_task_without_a_source_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="asks for lm"):
        loader(data_config(root), {"lm": 1})


def fail_on_a_mistake(sample: RawSample, draws: Draws) -> int:
    raise ZeroDivisionError("a mistake of ours")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_in_the_code_is_not_counted_as_bad_data(root: Path, workers: int) -> None:
    with pytest.raises(ZeroDivisionError):
        take(1, loader(data_config(root), prepare=fail_on_a_mistake, num_workers=workers))


def die(sample: RawSample, draws: Draws) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def test_a_worker_that_dies_is_reported_and_is_no_users_mistake(root: Path) -> None:
    with pytest.raises(DataWorkerError, match="a data worker died or hangs") as caught:
        take(1, loader(data_config(root), prepare=die, num_workers=2))
    assert not caught.value.is_mistake


def test_the_program_ends_at_once_though_workers_are_reading(root: Path) -> None:
    script = f"""
from pathlib import Path
from tests.data.test_mixture import data_config, loader
steps = iter(loader(data_config(Path({str(root)!r})), num_workers=2))
print(len(next(steps)))
"""
    folder = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "12\n", "")


def sleep(sample: RawSample, draws: Draws) -> int:
    time.sleep(30)
    return 0


def test_a_worker_that_hangs_is_reported_and_one_that_waits_is_left_alone(root: Path) -> None:
    with pytest.raises(DataWorkerError, match="a data worker died or hangs"):
        take(1, loader(data_config(root), prepare=sleep, num_workers=2, timeout_seconds=0.2))
    steps = iter(loader(data_config(root), num_workers=2, timeout_seconds=0.2))
    next(steps)
    time.sleep(0.5)
    for _ in range(6):
        next(steps)
    steps.close()  # type: ignore[attr-defined]


def own_process(sample: RawSample, draws: Draws) -> int:
    return os.getpid()


def test_workers_outlive_a_signal_to_the_whole_job(root: Path) -> None:
    steps = iter(loader(data_config(root), prepare=own_process, num_workers=2))
    workers = set(next(steps))
    assert len(workers) == 2
    send = f"import os; [os.kill(worker, number) for worker in {workers} for number in (10, 15)]"  # SIGUSR1, SIGTERM
    subprocess.run([sys.executable, "-c", send], check=True)
    for _ in range(6):  # more than was read ahead
        assert set(next(steps)) == workers
    steps.close()  # type: ignore[attr-defined]


def test_an_epoch_ends_with_the_largest_or_the_smallest_task(root: Path) -> None:
    sizes = task_sizes(open_mixture(data_config(root), 3))
    assert sizes == {"t2i": 72, "mmu": 25}
    assert epoch_steps(sizes, STEP, "max_size_cycle") == 9
    assert epoch_steps(sizes, STEP, "min_size") == 6
    assert epoch_steps({"t2i": 13_000_000, "mmu": 32_000_000}, {"t2i": 128, "mmu": 64}) == 500_000
    with pytest.raises(ConfigError, match="task mmu hold is not known"):
        epoch_steps({"t2i": 5, "mmu": None}, STEP)
