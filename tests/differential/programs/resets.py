"""Deleting runs, and resetting workflows to a point of their history."""

from __future__ import annotations

from typing import Any

from temporalio.api.common.v1 import message_pb2 as common
from temporalio.api.enums.v1 import reset_pb2 as reset_enums
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import Tape, application_failure, seconds
from programs import program


def _reset(
    t: Tape,
    finish: int,
    request_id: str,
    run_id: str | None = None,
    fails: bool | None = False,
    **fields: Any,
) -> Any:
    """Resets to the workflow task that event `finish` ends."""
    execution = common.WorkflowExecution(workflow_id=t.workflow_id, run_id=run_id or "")
    return t.call(
        "ResetWorkflowExecution",
        api.ResetWorkflowExecutionRequest(
            namespace=t.namespace,
            workflow_execution=execution,
            workflow_task_finish_event_id=finish,
            request_id=request_id,
            reason="because",
            **fields,
        ),
        fails=fails,
    )


def _delete(
    t: Tape, execution: common.WorkflowExecution | None, fails: bool | None = False
) -> None:
    """Deletes a run."""
    request = api.DeleteWorkflowExecutionRequest(
        namespace=t.namespace, workflow_execution=execution
    )
    t.call("DeleteWorkflowExecution", request, fails=fails)


def _gone(t: Tape, run_id: str) -> None:
    """Waits until nothing tells of the run, as the real server takes a moment."""
    execution = common.WorkflowExecution(workflow_id=t.workflow_id, run_id=run_id)
    request = api.DescribeWorkflowExecutionRequest(namespace=t.namespace, execution=execution)

    def is_missing() -> bool:
        with t.muted():
            return t.call("DescribeWorkflowExecution", request, fails=None) is None

    # A closed run takes the real server long.
    t.await_condition(is_missing, "the run is gone", timeout=100.0)
    t.call("DescribeWorkflowExecution", request, fails=True)
    history = api.GetWorkflowExecutionHistoryRequest(namespace=t.namespace, execution=execution)
    t.call("GetWorkflowExecutionHistory", history, fails=True)


MISSING = "7f6a1f0e-7a3c-4d1c-9b1e-111111111111"


@program
def bad_deletes(t: Tape) -> None:
    """What cannot be deleted."""
    _delete(t, None, fails=True)
    _delete(t, common.WorkflowExecution(), fails=True)
    _delete(t, common.WorkflowExecution(workflow_id="no such"), fails=True)
    _delete(t, common.WorkflowExecution(workflow_id="no such", run_id="bad"), fails=True)
    _delete(t, common.WorkflowExecution(workflow_id="no such", run_id=MISSING), fails=True)


@program
def delete_open(t: Tape) -> None:
    """An open run, and again."""
    run_id = t.start()
    _delete(t, t.execution())
    _gone(t, run_id)
    _delete(t, t.execution(run_id), fails=True)
    _delete(t, common.WorkflowExecution(workflow_id=t.workflow_id), fails=True)


@program
def delete_closed(t: Tape) -> None:
    """A closed run; its workflow ID is free."""
    run_id = t.start()
    t.complete(t.poll(), c.complete("end"))
    _delete(t, t.execution())
    _gone(t, run_id)
    t.start(request_id=f"again-{t.unique}")
    t.describe()


@program
def bad_resets(t: Tape) -> None:
    """What cannot be reset, and where to."""
    for execution, request_id in (
        (None, "r"),
        (common.WorkflowExecution(workflow_id="no such"), ""),
        (common.WorkflowExecution(workflow_id="no such"), "r"),
        (common.WorkflowExecution(workflow_id="no such", run_id="bad"), "r"),
        (common.WorkflowExecution(workflow_id="no such", run_id=MISSING), "r"),
    ):
        request = api.ResetWorkflowExecutionRequest(
            namespace=t.namespace,
            workflow_execution=execution,
            workflow_task_finish_event_id=3,
            request_id=request_id,
        )
        t.call("ResetWorkflowExecution", request, fails=True)
    t.start()
    t.complete(t.poll(), c.activity("a", t.queue), c.timer("t", 100))
    t.signal("s")
    for finish in (-1, 0, 1, 2, 5, 6, 7, 9, 10, 99):
        _reset(t, finish, f"r{finish}", fails=None)
    _reset(t, 3, "missing", run_id=MISSING, fails=True)
    t.history()


@program
def reset_to_first_task(t: Tape) -> None:
    """An open run with a task in flight: signals before and while it is are taken over."""
    t.start()
    base = t.run_id
    t.complete(t.poll(), c.activity("a", t.queue), c.timer("t", 100))
    t.signal("s1", 1)
    t.poll()
    t.signal("s2", 2)
    t.run_id = _reset(t, 4, "r", run_id=base).run_id
    t.history(base)
    t.history()
    t.describe()
    t.complete(t.poll(), c.complete("end"))
    t.history_from(4)


@program
def reset_before_start(t: Tape) -> None:
    """To a task that was only scheduled."""
    t.start()
    t.poll()
    t.run_id = _reset(t, 3, "r").run_id
    t.history()


@program
def reset_later(t: Tape) -> None:
    """To the second task: an activity that waits is offered anew, a build is known."""
    t.start(workflow_task_timeout=seconds(60))
    base = t.run_id
    t.complete(t.poll(), c.activity("a", t.queue), c.timer("t", 100))
    t.signal("s1")
    t.complete(t.poll(), c.cancel_timer("t"))
    t.run_id = _reset(t, 10, "r", run_id=base).run_id
    t.history()
    t.describe()
    t.complete_activity(t.poll_activity(), "done")
    t.complete(t.poll(), c.complete("end"))
    t.history_from(10)


@program
def reset_closed(t: Tape) -> None:
    """A run that failed; then the first one again while the second is open."""
    t.start()
    base = t.run_id
    t.complete(t.poll(), c.fail(application_failure("no", "No")))
    t.run_id = _reset(t, 4, "r1", run_id=base).run_id
    t.history()
    second = t.run_id
    t.run_id = _reset(t, 4, "r2", run_id=base).run_id
    t.history(second)
    t.history()
    t.complete(t.poll(), c.complete("end"))
    t.history_from(4)


@program
def reset_without_signals(t: Tape) -> None:
    """Signals left behind, by either way to say so."""
    exclude = reset_enums.RESET_REAPPLY_EXCLUDE_TYPE_SIGNAL
    ways: tuple[dict[str, Any], ...] = (
        {"reset_reapply_type": reset_enums.RESET_REAPPLY_TYPE_NONE},
        {"reset_reapply_type": reset_enums.RESET_REAPPLY_TYPE_SIGNAL},
        {"reset_reapply_exclude_types": [exclude]},
    )
    for number, fields in enumerate(ways):
        with t.other(f"w{number}"):
            t.start()
            t.complete(t.poll())
            t.signal("s")
            t.run_id = _reset(t, 4, "r", **fields).run_id
            t.history_from(4)


@program
def reset_with_child(t: Tape) -> None:
    """A child goes on when its parent is reset, and tells the run that goes on of its close."""
    t.start(workflow_task_timeout=seconds(60))
    t.complete(t.poll(), c.child(t.named("child"), t.named("child")))
    t.await_event("CHILD_WORKFLOW_EXECUTION_STARTED")
    t.complete(t.poll())
    t.signal("s")
    t.complete(t.poll())
    t.run_id = _reset(t, 9, "r").run_id
    t.history_from(7)
    with t.other("child"):
        t.complete(t.poll(), c.complete("from the child"))
    t.await_event("CHILD_WORKFLOW_EXECUTION_COMPLETED")
    t.complete(t.poll(), c.complete("end"))
    t.history_from(7)
