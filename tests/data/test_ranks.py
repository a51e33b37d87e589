# SPDX-License-Identifier: Apache-2.0
"""Processes of one run wait for each other at the same places, or all learn that one of them is elsewhere."""

import multiprocessing
import os
import socket
from multiprocessing.queues import Queue
from typing import Any

from unigen.data.ranks import Ranks
from unigen.errors import RanksApartError

PLACES = [["start", "start"], ["drawn", "failed early"]]


def gather_at(rank: int, port: int, said: "Queue[Any]") -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    ranks = Ranks.from_environment()
    with ranks.together():
        said.put((rank, ranks.gather([f"line of {rank}"], at=PLACES[0][rank])))
        try:
            ranks.gather(["no judge"] if rank else [], at=PLACES[1][rank])
        except RanksApartError as error:
            said.put((rank, str(error)))


def test_lines_come_together_and_ranks_that_are_apart_end_together() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    context = multiprocessing.get_context("fork")
    said: Queue[Any] = context.Queue()
    processes = [context.Process(target=gather_at, args=(rank, port, said)) for rank in range(2)]
    for process in processes:
        process.start()
    found = sorted((said.get(timeout=60) for _ in range(4)), key=str)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [lines for _, lines in found if isinstance(lines, list)] == [["line of 0", "line of 1"]] * 2
    errors = [error for _, error in found if isinstance(error, str)]
    assert len(errors) == 2, "nobody waits for the other forever"
    for error in errors:
        assert "rank 0 is at drawn, rank 1 is at failed early ['no judge']" in error.replace(" []", "")


def test_a_single_process_waits_for_nobody() -> None:
    assert Ranks().gather(["one"], at="anywhere") == ["one"]
