"""Runs that the server closes by itself: run and execution timeouts, start delays."""

from __future__ import annotations

import commands as c
from driver import Tape, seconds
from programs import program


@program
def run_timeout(t: Tape) -> None:
    """The run's time is over, with everything pending."""
    t.start(workflow_run_timeout=seconds(2))
    t.complete(t.poll(), c.timer("t", 60), c.activity("a", t.queue))
    activity = t.poll_activity()
    t.await_event("WORKFLOW_EXECUTION_TIMED_OUT")
    t.history()
    t.describe()
    t.complete_activity(activity, fails=True)
    t.signal("late", fails=True)


@program
def run_timeout_while_started(t: Tape) -> None:
    """The run's time is over while a task is started and a signal is behind it."""
    t.start(workflow_run_timeout=seconds(2))
    task = t.poll()
    t.signal("behind")
    t.await_event("WORKFLOW_EXECUTION_TIMED_OUT")
    t.complete(task, c.complete(), fails=True)
    t.history()


@program
def execution_timeout(t: Tape) -> None:
    """The execution's time is over; no worker ever came."""
    t.start(workflow_execution_timeout=seconds(1))
    t.await_event("WORKFLOW_EXECUTION_TIMED_OUT")
    t.history()
    t.describe()


@program
def timeouts_capped(t: Tape) -> None:
    """Run timeout capped by the execution's, task timeout capped by the run's."""
    t.start(
        workflow_execution_timeout=seconds(30),
        workflow_run_timeout=seconds(50),
        workflow_task_timeout=seconds(40),
    )
    t.history()
    t.describe()
    t.terminate()
    t.start(request_id=f"second-{t.unique}", workflow_task_timeout=seconds(1000))
    t.history()
    t.terminate()


@program
def start_delay(t: Tape) -> None:
    """The first task waits for the delay."""
    t.start(workflow_start_delay=seconds(2))
    t.history()
    t.describe()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def start_delay_signal(t: Tape) -> None:
    """A signal does not end the delay."""
    t.start(workflow_start_delay=seconds(2))
    t.signal("early")
    t.history()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def start_delay_cancel(t: Tape) -> None:
    """A cancel request during the delay."""
    t.start(workflow_start_delay=seconds(2))
    t.cancel("early")
    t.history()
    t.complete(t.poll(), c.cancel())
    t.history()


@program
def start_delay_terminate(t: Tape) -> None:
    """Terminated during the delay."""
    t.start(workflow_start_delay=seconds(60))
    t.terminate("early")
    t.history()
    t.describe()
