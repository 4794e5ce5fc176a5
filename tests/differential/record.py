"""Records what a server answers to the programs: `python record.py ADDRESS [NAME…]`.

Writes expected/NAME.json. Record only from the real server (shared/reference); with
`--twice` each program runs twice and must give the same recording. `--raw DIR` also
writes the histories as they came.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from google.protobuf.json_format import MessageToDict  # noqa: E402

from driver import Stopped, Tape  # noqa: E402
from harness import add_search_attributes  # noqa: E402
from programs import Program, load  # noqa: E402

EXPECTED = HERE / "expected"


def run(address: str, name: str, program: Program, raw: pathlib.Path | None = None) -> list:
    """Runs one program and returns its recording."""
    tape = Tape(address, name)
    try:
        program(tape)
    except Stopped as stop:
        tape.note("stopped", tape.normaliser.text(str(stop)))
    except Exception:  # A program's own mistake is shown with the recording.
        tape.note("broken", traceback.format_exc())
    finally:
        tape.close()
    if raw is not None:
        for number, history in enumerate(tape.raw):
            shown = MessageToDict(history, always_print_fields_with_no_presence=True)
            path = raw / f"{name}{'' if number == len(tape.raw) - 1 else f'.{number}'}.json"
            path.write_text(json.dumps(shown, indent=1))
    return tape.steps


def text(steps: list) -> str:
    """A recording as it is kept: a line for each call and each event."""
    lines = []
    for step in steps:
        if isinstance(step.get("history"), list):
            events = ",\n".join("  " + _line(event) for event in step["history"])
            lines.append('{"history": [\n' + events + "\n]}")
        else:
            lines.append(_line(step))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _line(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def pretty(steps: list) -> list[str]:
    """A recording as lines to compare."""
    return json.dumps(steps, indent=1, sort_keys=True, ensure_ascii=False).splitlines()


def main() -> int:
    """Records the programs asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--twice", action="store_true")
    parser.add_argument("--raw", type=pathlib.Path)
    parser.add_argument("--print", action="store_true", help="print instead of writing")
    arguments = parser.parse_intermixed_args()
    add_search_attributes(arguments.address)
    programs = load()
    names = arguments.names or list(programs)
    wrong = []

    def one(name: str) -> tuple[str, list, list | None, float]:
        begun = time.monotonic()
        first = run(arguments.address, name, programs[name], arguments.raw)
        took = time.monotonic() - begun
        second = run(arguments.address, name, programs[name]) if arguments.twice else None
        return name, first, second, took

    with ThreadPoolExecutor(4) as pool:
        for name, first, second, took in pool.map(one, names):
            verdict = "ok"
            if any("stopped" in s or "broken" in s or "never" in s for s in first):
                verdict = "STOPPED " + json.dumps(first[-1])
            elif second is not None and text(first) != text(second):
                verdict = "UNSTABLE"
                (EXPECTED.parent / f"{name}.second.json").write_text(text(second))
            if verdict != "ok":
                wrong.append(name)
            print(f"{name}: {verdict} ({took:.1f} s)", flush=True)
            if arguments.print:
                print(text(first))
            else:
                EXPECTED.mkdir(exist_ok=True)
                (EXPECTED / f"{name}.json").write_text(text(first))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
