# SPDX-License-Identifier: Apache-2.0
"""`python -m unigen.bench`: the command `unigen bench` where only torch and transformers are installed."""

import argparse
import sys

from unigen.bench.run import BENCHMARKS, run_benchmarks
from unigen.errors import UnigenError


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 if all bounds are met, 1 if one is missed, 2 for a user's mistake."""
    names = "\n".join(f"  {name:<10} ({device}) {line}" for name, (device, _, line) in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m unigen.bench",
        description=f"Measure speed, each figure beside its bound.\n\nbenchmarks:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="all of the device if none is given")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU where there is one, if not given")
    parser.add_argument("--quick", action="store_true", help="small sizes; times are not judged")
    parser.add_argument("--json", action="store_true", help="print the JSON object alone")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        is_met = run_benchmarks(
            given.names,
            given.device,
            is_quick=given.quick,
            is_json_only=given.json,
            seed=given.seed,
            write=_write,
        )
    except UnigenError as error:
        sys.stderr.write(f"unigen: error: {error}\n")
        return 2
    return 0 if is_met else 1


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
