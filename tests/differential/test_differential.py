"""Every recording made from the real server, compared with what Everspan answers.

`expected/NAME.json` is what the real server (shared/reference) answered to the program
NAME; `record.py` writes it. A difference is shown as a diff, ours with `+`.
"""

from __future__ import annotations

import difflib
import json
import pathlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Iterator

import pytest

from programs import load
from record import EXPECTED, pretty, run

PROGRAMS = load()
# Programs run beside each other: each waits for the server most of its time.
AT_ONCE = 8
DIFF_LINES = 120


@pytest.fixture(scope="module")
def recordings(request: pytest.FixtureRequest, server) -> Iterator[dict[str, "Future[list]"]]:
    """The programs of this session's tests, running."""
    asked = {
        item.callspec.params["name"]
        for item in request.session.items
        if item.path == pathlib.Path(__file__) and hasattr(item, "callspec")
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            name: pool.submit(run, server.address, name, PROGRAMS[name]) for name in sorted(asked)
        }


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_as_the_real_server(name: str, recordings: dict[str, "Future[list]"]) -> None:
    """The program's recording is the one the real server gave."""
    expected = json.loads((EXPECTED / f"{name}.json").read_text())
    got = recordings[name].result(timeout=120)
    if got == expected:
        return
    diff = list(
        difflib.unified_diff(
            pretty(expected), pretty(got), "real server", "everspan", n=12, lineterm=""
        )
    )
    shown = "\n".join(diff[:DIFF_LINES])
    if len(diff) > DIFF_LINES:
        shown += f"\n… {len(diff) - DIFF_LINES} more lines"
    pytest.fail(f"{name}: {PROGRAMS[name].__doc__}\n{shown}", pytrace=False)


def test_every_recording_has_a_program() -> None:
    """No recording is left over from a program that is gone."""
    recorded = {path.stem for path in EXPECTED.glob("*.json")}
    assert recorded == set(PROGRAMS)
    for path in EXPECTED.glob("*.json"):
        assert json.loads(path.read_text()), path
