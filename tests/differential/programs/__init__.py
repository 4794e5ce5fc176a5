"""The programs whose recordings are compared: each a function of a `driver.Tape`.

A program is short, makes the same calls on every run, and waits only for what the
server says, so that two recordings of it on one server are equal.
"""

from __future__ import annotations

from typing import Callable

from driver import Tape

Program = Callable[[Tape], None]

PROGRAMS: dict[str, Program] = {}


def program(function: Program) -> Program:
    """Registers a program under its function's name."""
    name = function.__name__
    if name in PROGRAMS:
        raise ValueError(f"two programs are named {name}")
    PROGRAMS[name] = function
    return function


def load() -> dict[str, Program]:
    """All programs by name."""
    # Imported for their registration.
    from programs import (  # noqa: F401
        activities,
        activity_executions,
        activity_operations,
        activity_timeouts,
        bad_commands,
        chains,
        closing,
        execution_operations,
        families,
        lifecycle,
        overrides,
        paused_runs,
        queries,
        reset_updates,
        resets,
        sdk_workers,
        signals_timers,
        starts,
        task_queues,
        tasks,
        updates,
        updates_with_start,
        walks,
    )

    return dict(sorted(PROGRAMS.items()))
