"""Signals and timers: order, buffering behind a started task, duplicates."""

from __future__ import annotations

from temporalio.api.common.v1 import message_pb2 as common
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import IDENTITY, Tape, payload, payloads
from programs import program


@program
def timer_fires(t: Tape) -> None:
    """A timer fires and its task follows."""
    t.start()
    t.complete(t.poll(), c.timer("t1", 0.05))
    t.complete(t.poll(), c.complete())
    t.history()


@program
def timer_of_no_time(t: Tape) -> None:
    """Timers of no time and of zero are taken."""
    t.start()
    t.complete(t.poll(), c.timer("none", None))
    t.complete(t.poll(), c.timer("zero", 0))
    t.complete(t.poll(), c.complete())
    t.history()


@program
def timers_in_order(t: Tape) -> None:
    """Two timers, the later started first; each fires in a task of its own."""
    t.start()
    t.complete(t.poll(), c.timer("late", 1.2), c.timer("soon", 0.05))
    t.complete(t.poll())
    t.complete(t.poll(), c.complete())
    t.history()


@program
def timer_canceled(t: Tape) -> None:
    """A timer cancelled by a signal's task, and one cancelled in the task it started in."""
    t.start()
    t.complete(t.poll(), c.timer("t1", 60), c.timer("t2", 60), c.cancel_timer("t2"))
    t.signal("stop")
    t.complete(t.poll(), c.cancel_timer("t1"), c.complete())
    t.history()


@program
def timer_fires_while_started(t: Tape) -> None:
    """A timer that fires behind a started task is buffered, and can still be cancelled."""
    t.start()
    t.complete(t.poll(), c.timer("t1", 0.05), c.timer("t3", 60))
    task = t.poll()
    t.history()
    t.complete(task, c.timer("t4", 0.05))
    task = t.poll()
    t.signal("s")
    t.complete(task, c.cancel_timer("t3"))
    t.complete(t.poll(), c.complete())
    t.history()


@program
def timer_fired_buffered_then_canceled(t: Tape) -> None:
    """Cancelling a timer whose firing is buffered removes the firing from the buffer."""
    t.start()
    t.signal("one")
    task = t.poll()
    t.complete(task, c.timer("t1", 1), force=True)
    task = t.poll()
    t.note("waiting", "until t1 is due while the task is started")
    t.await_condition(lambda: _due(t), "the timer's time")
    t.complete(task, c.cancel_timer("t1"), c.timer("t2", 0.05))
    t.complete(t.poll(), c.complete())
    t.history()


def _due(t: Tape) -> bool:
    """Whether two seconds have passed since the last event, on the server's clock.

    The signal that asks is not recorded: a query of the clock only.
    """
    import time

    started = next(
        e.event_time for e in reversed(t.events()) if e.HasField("timer_started_event_attributes")
    )
    return time.time() > started.seconds + started.nanos / 1e9 + 2


@program
def signal_before_first_task(t: Tape) -> None:
    """Signals while the first task waits: in the history at once, one task."""
    t.start()
    t.signal("a", 1)
    t.signal("b", 2, "two")
    t.history()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def signal_while_started(t: Tape) -> None:
    """Signals behind a started task are buffered and keep their order."""
    t.start()
    task = t.poll()
    for n in range(5):
        t.signal("s", n)
    t.history()
    t.describe()
    t.complete(task, c.timer("t", 60))
    t.history()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def signal_after_task(t: Tape) -> None:
    """A signal to an idle run makes a task."""
    t.start()
    t.complete(t.poll())
    t.signal("go", run_id="")
    t.complete(t.poll(), c.complete())
    t.history()


@program
def signal_duplicates(t: Tape) -> None:
    """One request ID is taken once, while idle and while buffered."""
    t.start()
    t.signal("a", 1, request_id="same")
    t.signal("a", 1, request_id="same")
    task = t.poll()
    t.signal("b", 2, request_id="other")
    t.signal("b", 2, request_id="other")
    t.complete(task)
    t.complete(t.poll(), c.complete())
    t.history()


@program
def signal_header(t: Tape) -> None:
    """A signal's header and links travel with it."""
    t.start()
    header = common.Header()
    header.fields["trace"].CopyFrom(payload("id"))
    t.call(
        "SignalWorkflowExecution",
        api.SignalWorkflowExecutionRequest(
            namespace=t.namespace,
            workflow_execution=t.execution(),
            signal_name="h",
            input=payloads(1),
            header=header,
            identity=IDENTITY,
        ),
    )
    t.complete(t.poll(), c.complete())
    t.history()


@program
def signal_errors(t: Tape) -> None:
    """Signals that are refused: unknown, closed, without a name."""
    t.run_id = ""
    t.signal("s", fails=True)
    t.run_id = "00000000-0000-4000-8000-000000000000"
    t.signal("s", fails=True)
    t.run_id = "not-a-uuid"
    t.signal("s", fails=True)
    t.start()
    t.signal("", fails=True)
    t.complete(t.poll(), c.complete())
    t.signal("s", fails=True)
    t.signal("s", fails=True, run_id="")
    t.history()


@program
def unhandled_signal_at_close(t: Tape) -> None:
    """A signal behind the closing task: UNHANDLED_COMMAND, then a task that sees it."""
    t.start()
    task = t.poll()
    t.signal("wait", 1)
    t.complete(task, c.complete("too early"), fails=True)
    t.history()
    t.complete(t.poll(), c.complete("now"))
    t.history()


@program
def unhandled_commands_are_dropped(t: Tape) -> None:
    """With UNHANDLED_COMMAND none of the completion's commands leaves an event."""
    t.start()
    task = t.poll()
    t.signal("wait", 1)
    t.complete(task, c.timer("t", 60), c.marker("m"), c.fail(None), fails=True)
    t.complete(t.poll(), c.timer("t", 60), c.complete("now"))
    t.history()


@program
def signal_while_closing(t: Tape) -> None:
    """After an UNHANDLED_COMMAND signals are held off while the next attempt is started."""
    t.start()
    task = t.poll()
    t.signal("first")
    t.complete(task, c.complete("too early"), fails=True)
    t.signal("between")
    task = t.poll()
    t.signal("held off", fails=True)
    t.cancel()
    t.complete(task, c.timer("t", 60))
    t.signal("again")
    t.complete(t.poll(), c.complete("now"))
    t.history()
