"""Commands that the server refuses: the cause, the message, what is left in the history."""

from __future__ import annotations

from temporalio.api.command.v1 import message_pb2 as command

import commands as c
from driver import Tape, application_failure, payload
from programs import program


def refused(t: Tape, what: str, *commands: command.Command, setup: tuple = ()) -> None:
    """In a run of its own: completes a task with `commands` and records the refusal."""
    t.note("refused", what)
    with t.muted():
        t.start(request_id=f"{what}-{t.unique}")
        task = t.poll()
        if setup:
            t.complete(task, *setup, force=True)
            task = t.poll()
        first = task.started_event_id + 1
    t.complete(task, *commands, fails=True)
    t.history_from(first)
    with t.muted():
        t.terminate()


@program
def bad_activities(t: Tape) -> None:
    """BAD_SCHEDULE_ACTIVITY_ATTRIBUTES and SCHEDULE_ACTIVITY_DUPLICATE_ID."""
    q = t.queue
    bare = c.activity("a", q)
    bare.ClearField("schedule_activity_task_command_attributes")
    refused(t, "no attributes", bare)
    refused(t, "no queue", c.activity("a"))
    refused(t, "no id", c.activity("", q))
    refused(t, "no type", c.activity("a", q, type=""))
    refused(t, "no timeout", c.activity("a", q, start_to_close=None))
    refused(
        t, "only schedule-to-start", c.activity("a", q, start_to_close=None, schedule_to_start=5)
    )
    refused(t, "negative timeout", c.activity("a", q, start_to_close=-1))
    refused(t, "negative heartbeat", c.activity("a", q, heartbeat=-1))
    refused(t, "long id", c.activity("a" * 1001, q))
    refused(t, "long type", c.activity("a", q, type="t" * 1001))
    refused(t, "negative interval", c.activity("a", q, retry=c.retry_policy(initial=-1)))
    refused(t, "small coefficient", c.activity("a", q, retry=c.retry_policy(coefficient=0.5)))
    refused(t, "negative attempts", c.activity("a", q, retry=c.retry_policy(attempts=-1)))
    refused(t, "maximum too small", c.activity("a", q, retry=c.retry_policy(initial=5, maximum=1)))
    refused(t, "one id twice", c.activity("a", q), c.activity("a", q))
    refused(t, "id of a pending one", c.activity("a", q), setup=(c.activity("a", q),))


@program
def bad_activity_cancels(t: Tape) -> None:
    """BAD_REQUEST_CANCEL_ACTIVITY_ATTRIBUTES."""
    bare = c.cancel_activity(5)
    bare.ClearField("request_cancel_activity_task_command_attributes")
    refused(t, "no attributes", bare)
    refused(t, "no event", c.cancel_activity(0))
    refused(t, "unknown event", c.cancel_activity(77))
    refused(t, "not an activity", c.cancel_activity(5), setup=(c.timer("t", 60),))


@program
def bad_timers(t: Tape) -> None:
    """BAD_START_TIMER_ATTRIBUTES, START_TIMER_DUPLICATE_ID, BAD_CANCEL_TIMER_ATTRIBUTES."""
    bare = c.timer("t", 1)
    bare.ClearField("start_timer_command_attributes")
    refused(t, "no attributes", bare)
    refused(t, "no id", c.timer("", 1))
    refused(t, "long id", c.timer("t" * 1001, 1))
    refused(t, "negative time", c.timer("t", -1))
    refused(t, "one id twice", c.timer("t", 60), c.timer("t", 60))
    refused(t, "id of a pending one", c.timer("t", 60), setup=(c.timer("t", 60),))
    bare = c.cancel_timer("t")
    bare.ClearField("cancel_timer_command_attributes")
    refused(t, "cancel without attributes", bare)
    refused(t, "cancel without id", c.cancel_timer(""))
    refused(t, "cancel of an unknown one", c.cancel_timer("unknown"))
    refused(t, "cancel twice", c.timer("t", 60), c.cancel_timer("t"), c.cancel_timer("t"))


@program
def bad_closes(t: Tape) -> None:
    """Closing commands without attributes, and the rest of a failed completion's commands."""
    for name, close in (
        ("complete", c.complete()),
        ("fail", c.fail(None)),
        ("cancel", c.cancel()),
    ):
        bare = command.Command(command_type=close.command_type)
        refused(t, f"{name} without attributes", bare)
    refused(t, "fail without a failure", c.fail(None))
    refused(t, "good, then bad", c.timer("t", 60), c.marker("m"), c.timer("", 1))


@program
def bad_markers(t: Tape) -> None:
    """BAD_RECORD_MARKER_ATTRIBUTES."""
    refused(t, "no attributes", command.Command(command_type=c.TYPE.COMMAND_TYPE_RECORD_MARKER))
    refused(t, "no name", c.marker(""))
    refused(t, "long name", c.marker("m" * 1001))


@program
def bad_search_attributes(t: Tape) -> None:
    """BAD_SEARCH_ATTRIBUTES."""
    kind = c.TYPE.COMMAND_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES
    refused(t, "no attributes", command.Command(command_type=kind))
    refused(t, "empty", c.search_attributes())
    refused(t, "unknown name", c.search_attributes(NobodyKnowsMe=payload("x")))
    refused(t, "wrong type", c.search_attributes(EverspanInt=payload("not a number")))
    refused(t, "system name", c.search_attributes(WorkflowId=payload("mine")))


@program
def bad_memo(t: Tape) -> None:
    """BAD_MODIFY_WORKFLOW_PROPERTIES_ATTRIBUTES."""
    kind = c.TYPE.COMMAND_TYPE_MODIFY_WORKFLOW_PROPERTIES
    refused(t, "no attributes", command.Command(command_type=kind))
    empty = command.Command(
        command_type=kind,
        modify_workflow_properties_command_attributes=(
            command.ModifyWorkflowPropertiesCommandAttributes()
        ),
    )
    refused(t, "no memo", empty)


@program
def bad_command_types(t: Tape) -> None:
    """A command of no type and of a type that does not exist."""
    refused(t, "no type", command.Command())
    refused(t, "unknown type", command.Command(command_type=999))  # type: ignore[arg-type]


@program
def commands_after_close(t: Tape) -> None:
    """Commands behind a closing one."""
    refused(t, "marker", c.marker("before"), c.complete("one"), c.marker("after"))
    refused(t, "second close", c.complete("one"), c.cancel())


@program
def refused_then_good(t: Tape) -> None:
    """After a refused completion the next attempt is transient and can complete."""
    t.start()
    t.complete(t.poll(), c.timer("", 1), fails=True)
    task = t.poll()
    t.complete(task, c.timer("", 1), fails=True)
    t.history()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def refused_with_signal_buffered(t: Tape) -> None:
    """A refused completion with a signal behind it."""
    t.start()
    task = t.poll()
    t.signal("behind")
    t.complete(task, c.fail(application_failure("x")), c.timer("", 1), fails=True)
    t.history()
    t.complete(t.poll(), c.complete())
    t.history()
