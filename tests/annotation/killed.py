# SPDX-License-Identifier: Apache-2.0
"""A command that is killed in mid-run, without a chance to tidy up."""

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from unigen.cli.main import main
from unigen.data.ledger import LedgerWriter


def run_and_kill(words: Sequence[str], after: int) -> None:
    """Run `unigen words` in a fork of this process, which dies by SIGKILL in the middle of its record number `after`."""
    child = os.fork()
    if child == 0:
        try:
            _die_in_record(after)
            main(words)
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"it was not killed but ended with {os.waitstatus_to_exitcode(status)}"
    assert os.WTERMSIG(status) == signal.SIGKILL


def _die_in_record(after: int) -> None:
    append, num_written = LedgerWriter.append, 0

    def dying(writer: LedgerWriter, item_id: str, fields: Mapping[str, Any]) -> None:
        nonlocal num_written
        if num_written == after:
            with writer._path.open("a") as file:
                file.write('{"item_id": "' + item_id[:3])
            os.kill(os.getpid(), signal.SIGKILL)
        num_written += 1
        append(writer, item_id, fields)

    LedgerWriter.append = dying  # type: ignore[method-assign]
