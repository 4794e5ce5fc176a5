"""Update-with-start: ExecuteMultiOperation of a start and an update."""

from __future__ import annotations

from typing import Any

from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import Tape, seconds
from programs import program
from programs.updates import (
    ADMITTED,
    COMPLETED,
    Ask,
    accept,
    ask,
    asked,
    idle,
    known,
    reject,
    respond,
)


def multi(t: Tape, id: str = "u", **fields: Any) -> api.ExecuteMultiOperationRequest:
    """A start and an update."""
    stage = fields.pop("stage", COMPLETED)
    request = api.ExecuteMultiOperationRequest(namespace=t.namespace)
    request.operations.add().start_workflow.CopyFrom(t.start_request(**fields))
    t.run_id = ""
    request.operations.add().update_workflow.CopyFrom(asked(t, id, stage=stage))
    return request


def ask_multi(t: Tape, id: str = "u", **fields: Any) -> Ask:
    """Asks for a start and an update, and waits until the server knows of the update."""
    call = Ask(t, "ExecuteMultiOperation", multi(t, id, **fields))
    t.await_condition(lambda: call.done() or known(t, id), f"update {id}")
    return call


@program
def multi_starts(t: Tape) -> None:
    """Nothing there: started and updated."""
    asking = ask_multi(t)
    t.complete(t.poll(), messages=[accept(), respond()])
    asking()
    t.history()


@program
def multi_starts_with_retries(t: Tape) -> None:
    """The run started would be tried again."""
    asking = ask_multi(t, retry_policy=c.retry_policy(1, attempts=3))
    t.complete(t.poll(), messages=[accept(), respond()])
    asking()
    t.history()


@program
def multi_same_request(t: Tape) -> None:
    """The same call again finds what it started."""
    asking = ask_multi(t)
    again = ask_multi(t)
    t.complete(t.poll(), messages=[accept(), respond()])
    asking()
    again()
    t.call("ExecuteMultiOperation", multi(t))
    t.signal("s", run_id="")
    t.complete(t.poll(), c.complete())
    t.call("ExecuteMultiOperation", multi(t))
    t.history()


@program
def multi_update_rejected(t: Tape) -> None:
    """The start stands."""
    asking = ask_multi(t)
    t.complete(t.poll(), messages=[reject()])
    asking()
    t.history()


@program
def multi_uses_existing(t: Tape) -> None:
    """An open run takes the update."""
    idle(t)
    asking = ask_multi(t, request_id="other", workflow_id_conflict_policy=2)
    t.complete(t.poll(), messages=[accept(), respond()])
    asking()
    t.history()


@program
def multi_fails_on_existing(t: Tape) -> None:
    """An open run is in the way, except for an update that it knows."""
    idle(t)
    t.call(
        "ExecuteMultiOperation",
        multi(t, request_id="other", workflow_id_conflict_policy=1),
        fails=True,
    )
    asking = ask(t)
    again = ask_multi(t, request_id="other", workflow_id_conflict_policy=1)
    t.complete(t.poll(), messages=[accept(), respond()])
    asking()
    again()
    t.history()


@program
def multi_terminates_existing(t: Tape) -> None:
    """An open run makes room."""
    idle(t)
    old = t.run_id
    asking = ask_multi(t, request_id="other", workflow_id_conflict_policy=3)
    t.complete(t.poll(), messages=[accept(), respond()])
    asking()
    t.history(old)
    t.history()


@program
def multi_after_close(t: Tape) -> None:
    """A closed run: its completed update is the answer, another starts a run."""
    idle(t)
    asking = ask(t)
    t.complete(t.poll(), messages=[accept(), respond()])
    asking()
    t.signal("end")
    t.complete(t.poll(), c.complete())
    t.call("ExecuteMultiOperation", multi(t, request_id="other"))
    t.call(
        "ExecuteMultiOperation",
        multi(t, "v", request_id="other", workflow_id_reuse_policy=3),
        fails=True,
    )
    asking = ask_multi(t, "v", request_id="other")
    t.complete(t.poll(), messages=[accept("v"), respond("v")])
    asking()
    t.history()


@program
def multi_meets_close(t: Tape) -> None:
    """The run that it found closes over the update: it starts another."""
    idle(t)
    t.signal("end")
    task = t.poll()
    asking = ask_multi(t, request_id="other", workflow_id_conflict_policy=2)
    t.complete(task, c.complete())
    t.complete(t.poll(), messages=[accept(), respond()])
    asking()
    t.history()


@program
def multi_bad_requests(t: Tape) -> None:
    """What is refused before anything is started."""
    for change in (
        lambda r: r.ClearField("operations"),
        lambda r: r.operations.pop(),
        lambda r: r.operations.reverse(),
        lambda r: r.operations[0].start_workflow.ClearField("workflow_id"),
        lambda r: setattr(r.operations[0].start_workflow, "namespace", "another"),
        lambda r: setattr(r.operations[0].start_workflow, "cron_schedule", "* * * * *"),
        lambda r: setattr(r.operations[0].start_workflow, "request_eager_execution", True),
        lambda r: r.operations[0].start_workflow.workflow_start_delay.CopyFrom(seconds(1)),
        lambda r: setattr(r.operations[1].update_workflow, "namespace", "another"),
        lambda r: r.operations[1].update_workflow.request.ClearField("meta"),
        lambda r: setattr(r.operations[1].update_workflow, "first_execution_run_id", "x"),
        lambda r: setattr(
            r.operations[1].update_workflow.workflow_execution,
            "run_id",
            "00000000-0000-0000-0000-000000000001",
        ),
        lambda r: setattr(
            r.operations[1].update_workflow.workflow_execution, "workflow_id", "another"
        ),
        lambda r: setattr(r.operations[1].update_workflow.wait_policy, "lifecycle_stage", ADMITTED),
    ):
        request = multi(t)
        change(request)
        t.call("ExecuteMultiOperation", request, fails=True)
