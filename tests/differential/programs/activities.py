"""Activities: completion, failure and retry, heartbeats, cancellation, by ID."""

from __future__ import annotations

from typing import Any

from temporalio.api.failure.v1 import message_pb2 as failure_pb2
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import IDENTITY, Tape, application_failure, payloads
from programs import program


def begin(t: Tape, *commands: Any, **start: Any) -> None:
    """Starts the run and completes its first task with `commands`."""
    t.start(**start)
    t.complete(t.poll(), *commands)


def finish(t: Tape) -> None:
    """Takes the next task, completes the run, records the history."""
    t.complete(t.poll(), c.complete())
    t.history()


@program
def activity_defaults(t: Tape) -> None:
    """What the server fills in when little is given: one timeout, no policy."""
    begin(
        t,
        c.activity("a", t.queue, schedule_to_close=20, start_to_close=None),
        c.activity("b", t.queue, start_to_close=5, heartbeat=9),
        c.activity("c", t.queue, retry=c.retry_policy(attempts=3)),
        c.activity("d", t.queue, retry=c.retry_policy(initial=2, coefficient=1.5)),
        c.activity("e", t.queue, schedule_to_start=99, schedule_to_close=10, start_to_close=50),
        c.activity("f", t.queue, retry=c.retry_policy(initial=3, maximum=3)),
        c.activity("g", t.queue, schedule_to_close=10, start_to_close=4, schedule_to_start=3),
    )
    t.history()
    t.describe()
    t.terminate()


@program
def activity_defaults_capped(t: Tape) -> None:
    """Activity timeouts are capped by the run's timeout."""
    from driver import seconds

    begin(
        t,
        c.activity("a", t.queue, start_to_close=500),
        c.activity("b", t.queue, schedule_to_close=500, start_to_close=None, heartbeat=400),
        workflow_run_timeout=seconds(60),
        workflow_execution_timeout=seconds(90),
    )
    t.history()
    t.terminate()


@program
def activity_non_retryable(t: Tape) -> None:
    """A failure marked non-retryable closes the activity at once."""
    begin(t, c.activity("a", t.queue))
    t.fail_activity(t.poll_activity(), application_failure("no", "Fatal", True, details=["why"]))
    finish(t)


@program
def activity_non_retryable_type(t: Tape) -> None:
    """A failure whose type the policy names is not retried."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(non_retryable=["Bad"])))
    t.fail_activity(t.poll_activity(), application_failure("no", "Bad"))
    finish(t)


@program
def activity_retry_succeeds(t: Tape) -> None:
    """Two failures, then success: one started event, with the last failure."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(initial=0.5)))
    t.fail_activity(t.poll_activity(), application_failure("one", "E"))
    t.describe()
    second = t.poll_activity()
    t.describe()
    t.history()
    t.fail_activity(second, application_failure("two", "E"))
    t.complete_activity(t.poll_activity(), "third time")
    finish(t)


@program
def activity_maximum_attempts(t: Tape) -> None:
    """Attempts run out: the closing event says so."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(initial=0.05, attempts=2)))
    t.fail_activity(t.poll_activity(), application_failure("one", "E"))
    t.fail_activity(t.poll_activity(), application_failure("two", "E"))
    finish(t)


@program
def activity_next_retry_delay(t: Tape) -> None:
    """The failure's own delay goes before the policy's interval."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(initial=60)))
    t.fail_activity(t.poll_activity(), application_failure("one", "E", next_retry_delay=0.5))
    t.describe()
    t.complete_activity(t.poll_activity())
    finish(t)


@program
def activity_retry_past_expiration(t: Tape) -> None:
    """No retry whose interval ends past schedule-to-close."""
    begin(
        t,
        c.activity(
            "a", t.queue, schedule_to_close=5, start_to_close=4, retry=c.retry_policy(initial=30)
        ),
    )
    t.fail_activity(t.poll_activity(), application_failure("one", "E"))
    finish(t)


@program
def activity_stale_tokens(t: Tape) -> None:
    """A task token of an earlier attempt, and of a closed activity, is not found."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(initial=0.05)))
    first = t.poll_activity()
    t.fail_activity(first, application_failure("one", "E"))
    t.complete_activity(first, fails=True)
    second = t.poll_activity()
    t.heartbeat(first, fails=True)
    t.fail_activity(first, application_failure("again", "E"), fails=True)
    t.cancel_activity(first, fails=True)
    t.complete_activity(second)
    t.complete_activity(second, fails=True)
    t.heartbeat(second, fails=True)
    t.complete(t.poll(), c.complete())
    t.complete_activity(second, fails=True)
    t.heartbeat(second, fails=True)
    t.history()


@program
def activity_malformed_tokens(t: Tape) -> None:
    """Task tokens that no server made."""
    for token in (b"", b"\xff\xff not a token"):
        task = api.PollActivityTaskQueueResponse(task_token=token)
        t.complete_activity(task, fails=True)
        t.fail_activity(task, application_failure("one", "E"), fails=True)
        t.cancel_activity(task, fails=True)
        t.heartbeat(task, fails=True)


@program
def heartbeat_details(t: Tape) -> None:
    """Heartbeat details reach the next attempt, and the describe answer."""
    begin(t, c.activity("a", t.queue, heartbeat=30, retry=c.retry_policy(initial=0.05)))
    task = t.poll_activity()
    t.heartbeat(task, "progress", 1)
    t.heartbeat(task, "progress", 2)
    t.describe()
    t.fail_activity(task, application_failure("one", "E"))
    task = t.poll_activity()
    t.fail_activity(task, application_failure("two", "E"), last_heartbeat="from the failure")
    task = t.poll_activity()
    t.complete_activity(task)
    finish(t)


@program
def activity_cancel_before_start(t: Tape) -> None:
    """An activity that no worker took is cancelled by the server itself."""
    begin(t, c.activity("a", t.queue))
    t.signal("cancel it")
    t.complete(t.poll(), c.cancel_activity(5))
    t.history()
    finish(t)


@program
def activity_cancel_in_one_completion(t: Tape) -> None:
    """Scheduled and cancelled by one completion."""
    begin(t, c.activity("a", t.queue), c.cancel_activity(5))
    t.history()
    finish(t)


@program
def activity_cancel_after_start(t: Tape) -> None:
    """Cancellation is delivered on the heartbeat; the worker says it is cancelled."""
    begin(t, c.activity("a", t.queue, heartbeat=30))
    task = t.poll_activity()
    t.heartbeat(task, 1)
    t.signal("cancel it")
    t.complete(t.poll(), c.cancel_activity(5))
    t.describe()
    t.heartbeat(task, 2)
    t.cancel_activity(task, "cleaned up")
    finish(t)


@program
def activity_cancel_completes_anyway(t: Tape) -> None:
    """A cancelled activity may still complete."""
    begin(t, c.activity("a", t.queue))
    task = t.poll_activity()
    t.signal("cancel it")
    t.complete(t.poll(), c.cancel_activity(5))
    t.complete_activity(task, "anyway")
    finish(t)


@program
def activity_cancel_fails_anyway(t: Tape) -> None:
    """A cancelled activity that fails is not retried."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(initial=0.05)))
    task = t.poll_activity()
    t.signal("cancel it")
    t.complete(t.poll(), c.cancel_activity(5))
    t.fail_activity(task, application_failure("anyway", "E"))
    finish(t)


@program
def activity_cancel_in_backoff(t: Tape) -> None:
    """Cancelled while it waits for its next attempt."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(initial=60)))
    t.fail_activity(t.poll_activity(), application_failure("one", "E"))
    t.signal("cancel it")
    t.complete(t.poll(), c.cancel_activity(5))
    t.history()
    finish(t)


@program
def activity_canceled_unasked(t: Tape) -> None:
    """A worker that says cancelled when nobody asked is refused."""
    begin(t, c.activity("a", t.queue))
    task = t.poll_activity()
    t.cancel_activity(task, fails=True)
    t.complete_activity(task)
    finish(t)


@program
def activity_completes_while_started(t: Tape) -> None:
    """An activity that closes behind a started workflow task is buffered."""
    begin(t, c.activity("a", t.queue), c.activity("b", t.queue))
    activities = t.poll_activities(2)
    t.signal("s")
    task = t.poll()
    t.complete_activity(activities["a"], 1)
    t.fail_activity(activities["b"], application_failure("two", "E", True))
    t.history()
    t.complete(task)
    finish(t)


@program
def activity_started_while_task_started(t: Tape) -> None:
    """A cancel command for an activity whose completion is buffered."""
    begin(t, c.activity("a", t.queue))
    one = t.poll_activity()
    t.signal("s")
    task = t.poll()
    t.complete_activity(one, 1)
    t.complete(task, c.cancel_activity(5))
    finish(t)


@program
def activity_by_id(t: Tape) -> None:
    """Heartbeat, completion, failure and cancellation by workflow and activity ID."""
    begin(t, *(c.activity(name, t.queue, heartbeat=30) for name in "abcd"))
    t.poll_activities(4)
    key = {"namespace": t.namespace, "workflow_id": t.workflow_id, "identity": IDENTITY}
    t.call(
        "RecordActivityTaskHeartbeatById",
        api.RecordActivityTaskHeartbeatByIdRequest(
            activity_id="a", run_id=t.run_id, details=payloads("by id"), **key
        ),
    )
    t.call(
        "RespondActivityTaskCompletedById",
        api.RespondActivityTaskCompletedByIdRequest(
            activity_id="a", result=payloads("by id"), **key
        ),
    )
    t.call(
        "RespondActivityTaskFailedById",
        api.RespondActivityTaskFailedByIdRequest(
            activity_id="b", failure=application_failure("by id", "E", True), **key
        ),
    )
    t.call(
        "RespondActivityTaskCanceledById",
        api.RespondActivityTaskCanceledByIdRequest(activity_id="c", **key),
        fails=True,
    )
    t.complete(t.poll(), c.cancel_activity(7))
    t.call(
        "RespondActivityTaskCanceledById",
        api.RespondActivityTaskCanceledByIdRequest(
            activity_id="c", run_id=t.run_id, details=payloads("by id"), **key
        ),
    )
    for name in ("a", "unknown"):
        t.call(
            "RespondActivityTaskCompletedById",
            api.RespondActivityTaskCompletedByIdRequest(activity_id=name, **key),
            fails=True,
        )
    t.call(
        "RespondActivityTaskCompletedById",
        api.RespondActivityTaskCompletedByIdRequest(**key),
        fails=True,
    )
    t.call(
        "RecordActivityTaskHeartbeatById",
        api.RecordActivityTaskHeartbeatByIdRequest(activity_id="unknown", **key),
        fails=True,
    )
    finish(t)


@program
def activity_by_id_not_started(t: Tape) -> None:
    """By ID, an activity that no worker took."""
    begin(t, c.activity("a", t.queue))
    key = {"namespace": t.namespace, "workflow_id": t.workflow_id, "identity": IDENTITY}
    t.call(
        "RecordActivityTaskHeartbeatById",
        api.RecordActivityTaskHeartbeatByIdRequest(activity_id="a", **key),
        fails=True,
    )
    t.call(
        "RespondActivityTaskFailedById",
        api.RespondActivityTaskFailedByIdRequest(
            activity_id="a", failure=application_failure("by id", "E", True), **key
        ),
        fails=True,
    )
    t.call(
        "RespondActivityTaskCompletedById",
        api.RespondActivityTaskCompletedByIdRequest(
            activity_id="a", result=payloads("by id"), **key
        ),
    )
    finish(t)


@program
def activity_header(t: Tape) -> None:
    """Header and another queue reach the worker."""
    begin(t, c.activity("a", t.queue, header={"trace": "id"}, type="other", input=[1, 2]))
    t.complete_activity(t.poll_activity())
    finish(t)


@program
def timeout_reported(t: Tape) -> None:
    """A worker may report a timeout of its own: tried again like another failure."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(initial=60)))
    failure = failure_pb2.Failure(
        message="slow", timeout_failure_info=failure_pb2.TimeoutFailureInfo(timeout_type=1)
    )
    t.poll_activity()
    request = api.RespondActivityTaskFailedByIdRequest(
        namespace=t.namespace,
        workflow_id=t.execution().workflow_id,
        activity_id="a",
        failure=failure,
        identity=IDENTITY,
    )
    t.call("RespondActivityTaskFailedById", request)
    t.describe()
    t.terminate()
    t.history()
