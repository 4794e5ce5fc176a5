"""Compares two servers on random walks: `python walk.py ADDRESS ADDRESS [--first N] [--count N]`.

Prints how each seed went, and the difference where there is one. Given one server twice, it
shows whether the walks themselves are the same each time.
"""

from __future__ import annotations

import argparse
import difflib
import json
import pathlib
import sys
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from harness import add_search_attributes  # noqa: E402
from programs.walks import walk  # noqa: E402
from record import run, text  # noqa: E402


def main() -> int:
    """Runs the walks asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first_server")
    parser.add_argument("second_server")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--context", type=int, default=3)
    arguments = parser.parse_args()
    servers = (arguments.first_server, arguments.second_server)
    for server in servers:
        add_search_attributes(server)

    def both(seed: int) -> tuple[int, list, list]:
        name = f"walk_{seed:03}"
        first, second = (run(server, name, walk(seed)) for server in servers)
        return seed, first, second

    different = 0
    seeds = range(arguments.first, arguments.first + arguments.count)
    with ThreadPoolExecutor(arguments.at_once) as pool:
        for seed, first, second in pool.map(both, seeds):
            cut = [step for step in first if {"stopped", "broken", "never"} & set(step)]
            verdict = "same" if first == second else "DIFFERENT"
            if cut:
                verdict += ", stopped: " + json.dumps(cut[-1])
            different += first != second or bool(cut)
            print(f"{seed}: {verdict} ({len(text(first))} bytes)", flush=True)
            if first != second:
                lines = difflib.unified_diff(
                    text(first).splitlines(),
                    text(second).splitlines(),
                    *servers,
                    n=arguments.context,
                    lineterm="",
                )
                print("\n".join(lines), flush=True)
    print(f"{different} of {arguments.count} differ or stopped")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
