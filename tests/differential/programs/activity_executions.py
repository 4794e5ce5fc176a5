"""The newer forms of calls on activities of a workflow: pause, unpause, reset, options."""

from __future__ import annotations

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from temporalio.api.activity.v1 import message_pb2 as activity
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import IDENTITY, Tape, application_failure, seconds
from programs import program
from programs.activities import begin, finish
from programs.activity_operations import nothing_for_activities


def on(t: Tape, method: str, fails: bool = False, **fields: Any) -> None:
    """Calls `{method}` on activity `a` of the run, or on the one of the fields."""
    request_type = getattr(api, f"{method}Request")
    named = {"workflow_id": t.execution().workflow_id, "activity_id": "a", **fields}
    request = request_type(namespace=t.namespace, identity=IDENTITY, **named)
    t.call(method, request, fails=fails)


@program
def newer_pause(t: Tape) -> None:
    """Pauses an activity, also twice by the same request, and lets it go on."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(initial=60)))
    on(t, "PauseActivityExecution", reason="why", request_id="one")
    t.describe()
    nothing_for_activities(t)
    on(t, "PauseActivityExecution", reason="again", request_id="one")
    on(t, "PauseActivityExecution", reason="again", request_id="two", fails=True)
    on(t, "UnpauseActivityExecution", reason="enough", request_id="three")
    task = t.poll_activity()
    t.describe()
    t.complete_activity(task)
    finish(t)


@program
def newer_reset(t: Tape) -> None:
    """Begins an activity anew: its attempts, what it told, its options."""
    begin(t, c.activity("a", t.queue, heartbeat=30, retry=c.retry_policy(initial=60)))
    task = t.poll_activity()
    t.heartbeat(task, "half")
    t.fail_activity(task, application_failure("one", "E"))
    options = activity.ActivityOptions(heartbeat_timeout=seconds(40))
    mask = FieldMask(paths=["heartbeat_timeout"])
    on(t, "UpdateActivityExecutionOptions", activity_options=options, update_mask=mask)
    t.describe()
    on(t, "ResetActivityExecution", reset_heartbeat=True, restore_original_options=True)
    t.describe()
    t.complete_activity(t.poll_activity())
    finish(t)


@program
def newer_reset_paused(t: Tape) -> None:
    """A paused activity stays paused through a reset if that is asked for."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(initial=60)))
    t.fail_activity(t.poll_activity(), application_failure("one", "E"))
    on(t, "PauseActivityExecution")
    on(t, "ResetActivityExecution", keep_paused=True)
    t.describe()
    nothing_for_activities(t)
    on(t, "ResetActivityExecution")
    t.describe()
    t.complete_activity(t.poll_activity())
    finish(t)


@program
def newer_options(t: Tape) -> None:
    """Changes options, and takes the first ones back."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(initial=60)))
    options = activity.ActivityOptions(start_to_close_timeout=seconds(7))
    mask = FieldMask(paths=["start_to_close_timeout"])
    on(t, "UpdateActivityExecutionOptions", activity_options=options, update_mask=mask)
    t.describe()
    on(t, "UpdateActivityExecutionOptions", restore_original=True)
    t.describe()
    t.complete_activity(t.poll_activity())
    finish(t)


@program
def newer_refused(t: Tape) -> None:
    """What is missing, too long or unknown."""
    begin(t, c.activity("a", t.queue))
    for method in ("PauseActivityExecution", "UnpauseActivityExecution", "ResetActivityExecution"):
        on(t, method, fails=True, activity_id="")
        on(t, method, fails=True, activity_id="x" * 1001)
        on(t, method, fails=True, activity_id="other")
        on(t, method, fails=True, run_id="no uuid")
        on(t, method, fails=True, request_id="x" * 1001)
        on(t, method, fails=True, workflow_id="no such workflow")
    method = "UpdateActivityExecutionOptions"
    options = activity.ActivityOptions(start_to_close_timeout=seconds(7))
    mask = FieldMask(paths=["start_to_close_timeout"])
    on(t, method, fails=True)
    on(t, method, fails=True, activity_options=options)
    on(t, method, fails=True, activity_options=options, update_mask=FieldMask())
    on(t, method, fails=True, activity_options=options, update_mask=mask, restore_original=True)
    on(t, method, fails=True, activity_options=options, update_mask=mask, activity_id="other")
    t.complete_activity(t.poll_activity())
    finish(t)
    on(t, "PauseActivityExecution", fails=True)
