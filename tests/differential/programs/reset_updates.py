"""Resets with updates after the point, and what the run that goes on makes of them."""

from __future__ import annotations

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from temporalio.api.common.v1 import message_pb2 as common
from temporalio.api.enums.v1 import reset_pb2 as reset_enums
from temporalio.api.workflow.v1 import message_pb2 as workflow
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import Tape, seconds
from programs import program
from programs.updates import (
    ACCEPTED,
    ADMITTED,
    COMPLETED,
    accept,
    ask,
    asked,
    poll_update,
    reject,
    respond,
    say,
)


def _reset(t: Tape, finish: int, request_id: str = "r", fails: bool = False, **fields: Any) -> None:
    """Resets the run to the workflow task that event `finish` ends, and goes on with the new."""
    request = api.ResetWorkflowExecutionRequest(
        namespace=t.namespace,
        workflow_execution=common.WorkflowExecution(workflow_id=t.workflow_id, run_id=t.run_id),
        workflow_task_finish_event_id=finish,
        request_id=request_id,
        reason="because",
        **fields,
    )
    answer = t.call("ResetWorkflowExecution", request, fails=fails)
    if answer is not None:
        t.run_id = answer.run_id


def _updated(t: Tape, *ids: str, completed: bool = True) -> None:
    """A run whose second workflow task took updates in; the first ended with event 4."""
    t.start(workflow_task_timeout=seconds(60))
    t.complete(t.poll(), c.timer("t", 100))
    for id in ids:
        answer = ask(t, id, stage=COMPLETED if completed else ACCEPTED, request_id=f"of-{id}")
        messages = [accept(id, asked(t, id, request_id=f"of-{id}").request)]
        words = [say(f"{id}/accept")]
        if completed:
            messages.append(respond(id))
            words.append(say(f"{id}/respond"))
        t.complete(t.poll(), *words, messages=messages)
        answer()


@program
def reset_updates_taken_over(t: Tape) -> None:
    """An update completed after the point is admitted anew; the worker takes it in again."""
    _updated(t, "u")
    _reset(t, 4)
    t.history()
    poll_update(t)
    poll_update(t, run_id=t.run_id)
    poll_update(t, stage=ADMITTED)
    waiting = ask(t, "u")
    t.complete(t.poll(), say("u/accept"), say("u/respond"), messages=[accept(), respond()])
    waiting()
    poll_update(t, stage=COMPLETED)
    t.history_from(4)
    t.describe()


@program
def reset_updates_accepted(t: Tape) -> None:
    """One that was only accepted; it is accepted in one task and answered in another."""
    _updated(t, "u", completed=False)
    _reset(t, 4)
    t.complete(t.poll(), say("u/accept"), messages=[accept()])
    t.history_from(4)
    poll_update(t, stage=ACCEPTED)
    t.signal("s")
    t.complete(t.poll(), say("u/respond"), messages=[respond(failure=True)])
    poll_update(t, stage=COMPLETED)
    t.history_from(4)


@program
def reset_updates_with_request(t: Tape) -> None:
    """The worker's acceptance repeats the request."""
    _updated(t, "u")
    _reset(t, 4)
    again = asked(t, "u", request_id="of-u").request
    t.complete(
        t.poll(), say("u/accept"), say("u/respond"), messages=[accept("u", again), respond()]
    )
    t.history_from(4)
    t.describe()


@program
def reset_updates_refused(t: Tape) -> None:
    """The worker's validator refuses it in the run that goes on."""
    _updated(t, "u")
    _reset(t, 4)
    t.complete(t.poll(), messages=[reject()])
    t.signal("s")
    t.complete(t.poll(), c.complete("end"))
    t.history_from(4)


@program
def reset_updates_unanswered(t: Tape) -> None:
    """The worker says nothing of it."""
    _updated(t, "u")
    _reset(t, 4)
    t.complete(t.poll(), c.timer("t", 100))
    t.history_from(4)


@program
def reset_updates_closed(t: Tape) -> None:
    """The run that goes on closes before the worker takes it in."""
    _updated(t, "u")
    _reset(t, 4)
    t.complete(t.poll(), c.complete("end"))
    t.history_from(4)
    poll_update(t)


@program
def reset_updates_terminated(t: Tape) -> None:
    """The run that goes on is terminated while it waits."""
    _updated(t, "u")
    _reset(t, 4)
    t.terminate("enough")
    poll_update(t)
    t.history_from(4)


@program
def reset_updates_twice(t: Tape) -> None:
    """Reset again: what was admitted is, once more; of two, in their order."""
    _updated(t, "u", "v")
    _reset(t, 4)
    t.history_from(4)
    _reset(t, 4, "r2")
    t.history_from(4)
    t.complete(
        t.poll(),
        say("v/accept"),
        say("u/accept"),
        messages=[accept("v"), accept("u")],
    )
    t.history_from(4)
    _reset(t, 4, "r3")
    t.history_from(4)


@program
def reset_updates_between(t: Tape) -> None:
    """To the task that accepted one: it is accepted still, and the next is admitted anew."""
    _updated(t, "u", "v")
    t.history()
    _reset(t, 8)
    t.history_from(4)
    poll_update(t, "u")
    poll_update(t, "v")
    t.describe()


@program
def reset_updates_left_behind(t: Tape) -> None:
    """Left behind, by each way to say so."""
    exclude = reset_enums.RESET_REAPPLY_EXCLUDE_TYPE_UPDATE
    ways: tuple[dict[str, Any], ...] = (
        {"reset_reapply_type": reset_enums.RESET_REAPPLY_TYPE_NONE},
        {"reset_reapply_type": reset_enums.RESET_REAPPLY_TYPE_SIGNAL},
        {"reset_reapply_type": reset_enums.RESET_REAPPLY_TYPE_ALL_ELIGIBLE},
        {"reset_reapply_exclude_types": [exclude]},
    )
    for number, fields in enumerate(ways):
        with t.other(f"w{number}"):
            _updated(t, "u")
            t.signal("s")
            _reset(t, 4, **fields)
            t.history_from(4)


@program
def reset_updates_in_flight(t: Tape) -> None:
    """One on its way when the run is reset, with a worker and without."""
    for number, is_sent in enumerate((False, True)):
        with t.other(f"w{number}"):
            t.start(workflow_task_timeout=seconds(60))
            t.complete(t.poll(), c.timer("t", 100))
            waiting = ask(t, "u")
            if is_sent:
                t.poll()
            _reset(t, 4)
            waiting()
            t.history_from(4)
            poll_update(t)


@program
def reset_with_cancel(t: Tape) -> None:
    """A request to cancel after the point."""
    exclude = reset_enums.RESET_REAPPLY_EXCLUDE_TYPE_CANCEL_REQUEST
    ways: tuple[dict[str, Any], ...] = ({}, {"reset_reapply_exclude_types": [exclude]})
    for number, fields in enumerate(ways):
        with t.other(f"w{number}"):
            t.start(workflow_task_timeout=seconds(60))
            t.complete(t.poll(), c.timer("t", 100))
            t.cancel("stop")
            _reset(t, 4, **fields)
            t.history_from(4)
            t.describe()


@program
def reset_then(t: Tape) -> None:
    """Options changed right after the reset, in the same change; nothing else can be."""
    operation = workflow.PostResetOperation

    def options(path: str) -> workflow.PostResetOperation:
        return operation(
            update_workflow_options=operation.UpdateWorkflowOptions(
                workflow_execution_options=workflow.WorkflowExecutionOptions(
                    priority=common.Priority(priority_key=2)
                ),
                update_mask=FieldMask(paths=[path]),
            )
        )

    signal = operation(signal_workflow=operation.SignalWorkflow(signal_name="after"))
    fine = options("priority")
    ways = ([fine, fine], [fine, signal], [operation()], [options("nothing")])
    for number, ops in enumerate(ways):
        with t.other(f"w{number}"):
            t.start(workflow_task_timeout=seconds(60))
            t.complete(t.poll(), c.timer("t", 100))
            t.signal("s")
            _reset(t, 4, fails=number > 0, post_reset_operations=ops)
            t.history_from(4)
            t.describe()


@program
def reset_takes_over_in_order(t: Tape) -> None:
    """Signals, updates and a child's close after the point: what comes first in the new run."""
    t.start(workflow_task_timeout=seconds(60))
    t.complete(t.poll(), c.child(t.named("child"), t.named("child")))
    t.await_event("CHILD_WORKFLOW_EXECUTION_STARTED")
    t.complete(t.poll())
    with t.other("child"):
        t.complete(t.poll(), c.complete("done"))
    t.await_event("CHILD_WORKFLOW_EXECUTION_COMPLETED")
    t.signal("before")
    t.complete(t.poll())
    answer = ask(t, "u", stage=COMPLETED)
    t.complete(t.poll(), say("u/accept"), say("u/respond"), messages=[accept(), respond()])
    answer()
    t.signal("after")
    finish = [e.event_id for e in t.events() if e.event_type == 7][1]
    _reset(t, finish)
    t.history()


@program
def reset_with_child_gone(t: Tape) -> None:
    """A child that closed when its parent had: the run that goes on from before waits for it."""
    t.start(workflow_task_timeout=seconds(60))
    t.complete(t.poll(), c.child(t.named("child"), t.named("child"), close=2))
    t.await_event("CHILD_WORKFLOW_EXECUTION_STARTED")
    t.complete(t.poll(), c.complete("before the child"))
    with t.other("child"):
        t.complete(t.poll(), c.complete("done"))
        t.await_event("WORKFLOW_EXECUTION_COMPLETED")
    _reset(t, 9)
    t.complete(t.poll())
    t.signal("s")
    t.complete(t.poll())
    t.history()
    t.describe()
