"""What operators do to activities: pause, unpause, reset, options. And eager activities."""

from __future__ import annotations

from typing import Any, Callable

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from temporalio.api.activity.v1 import message_pb2 as activity
from temporalio.api.common.v1 import message_pb2 as common
from temporalio.api.taskqueue.v1 import message_pb2 as taskqueue
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import IDENTITY, Tape, application_failure, payloads, seconds
from programs import program
from programs.activities import begin, finish

QUICK = c.retry_policy(initial=0.1, coefficient=1)


def pause(t: Tape, fails: bool = False, **fields: Any) -> None:
    """Pauses activities; `id` or `type` says which."""
    request = api.PauseActivityRequest(
        namespace=t.namespace, execution=t.execution(), identity=IDENTITY, **fields
    )
    t.call("PauseActivity", request, fails=fails)


def unpause(t: Tape, fails: bool = False, **fields: Any) -> None:
    """Unpauses activities."""
    request = api.UnpauseActivityRequest(
        namespace=t.namespace, execution=t.execution(), identity=IDENTITY, **fields
    )
    t.call("UnpauseActivity", request, fails=fails)


def reset(t: Tape, fails: bool = False, **fields: Any) -> None:
    """Resets activities."""
    request = api.ResetActivityRequest(
        namespace=t.namespace, execution=t.execution(), identity=IDENTITY, **fields
    )
    t.call("ResetActivity", request, fails=fails)


def update(
    t: Tape,
    options: activity.ActivityOptions | None,
    *paths: str,
    fails: bool = False,
    **fields: Any,
) -> None:
    """Changes options of activities."""
    request = api.UpdateActivityOptionsRequest(
        namespace=t.namespace,
        execution=t.execution(),
        identity=IDENTITY,
        activity_options=options,
        update_mask=FieldMask(paths=paths) if paths else None,
        **fields,
    )
    t.call("UpdateActivityOptions", request, fails=fails)


def pending(t: Tape, activity_id: str = "a") -> Any:
    """One pending activity, unrecorded."""
    response = t.stub.DescribeWorkflowExecution(
        api.DescribeWorkflowExecutionRequest(namespace=t.namespace, execution=t.execution())
    )
    return next(a for a in response.pending_activities if a.activity_id == activity_id)


def await_pending(t: Tape, is_so: Callable[[Any], bool], what: str) -> None:
    """Waits until the pending activity `a` is so."""
    t.await_condition(lambda: is_so(pending(t)), what)


def nothing_for_activities(t: Tape) -> None:
    """Polls activities for a moment, and finds none."""
    request = api.PollActivityTaskQueueRequest(
        namespace=t.namespace,
        task_queue=taskqueue.TaskQueue(name=t.queue),
        identity=IDENTITY,
    )
    t.note("an activity for the worker", found(t.stub.PollActivityTaskQueue, request))


def found(poll: Callable[..., Any], request: Any) -> bool:
    """Whether a short poll finds a task."""
    try:
        return bool(poll(request, timeout=3).task_token)
    except grpc.RpcError as error:
        # A busy machine may be late with the empty answer.
        if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
        return False


@program
def pause_waiting(t: Tape) -> None:
    """An activity that no worker has is not given to one while it is paused."""
    begin(t, c.activity("a", t.queue))
    pause(t, id="a", reason="why", request_id="one")
    t.describe()
    nothing_for_activities(t)
    pause(t, id="a", reason="again", request_id="one")
    pause(t, id="a", reason="again", request_id="two", fails=True)
    pause(t, type="act", request_id="two", fails=True)
    unpause(t, id="a")
    t.describe()
    unpause(t, id="a")
    t.complete_activity(t.poll_activity())
    t.describe()
    finish(t)


@program
def pause_started(t: Tape) -> None:
    """An attempt that a worker has goes on, and hears of the pause; no other follows."""
    begin(t, c.activity("a", t.queue, heartbeat=30, retry=c.retry_policy(initial=0.1, attempts=2)))
    task = t.poll_activity()
    pause(t, id="a")
    t.heartbeat(task, "half")
    t.describe()
    t.fail_activity(task, application_failure("one", "E"))
    t.describe()
    nothing_for_activities(t)
    unpause(t, id="a")
    task = t.poll_activity()
    t.heartbeat(task)
    t.describe()
    pause(t, id="a")
    # The policy allows no third attempt; a paused activity does not ask it.
    t.fail_activity(task, application_failure("two", "E"))
    t.describe()
    unpause(t, id="a", reset_attempts=True, reset_heartbeat=True)
    task = t.poll_activity()
    t.complete_activity(task, "done")
    finish(t)


@program
def pause_in_backoff(t: Tape) -> None:
    """A pause during the backoff; the unpause ends the backoff."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(initial=60)))
    t.fail_activity(t.poll_activity(), application_failure("one", "E"))
    pause(t, id="a", request_id="p")
    t.describe()
    unpause(t, id="a")
    task = t.poll_activity()
    t.describe()
    t.complete_activity(task)
    finish(t)


@program
def pause_final_failure(t: Tape) -> None:
    """What is final stays final in a paused activity."""
    begin(t, c.activity("a", t.queue), c.activity("b", t.queue))
    tasks = t.poll_activities(2)
    pause(t, type="act")
    t.fail_activity(tasks["a"], application_failure("final", "E", non_retryable=True))
    t.complete_activity(tasks["b"], "fine")
    t.describe()
    finish(t)


@program
def pause_canceled(t: Tape) -> None:
    """A paused activity is cancelled like any other."""
    begin(t, c.activity("a", t.queue), c.activity("b", t.sticky, type="other"))
    task = t.poll_activity()
    pause(t, type="act")
    pause(t, id="b")
    t.describe()
    t.signal("s")
    t.complete(t.poll(), c.cancel_activity(5), c.cancel_activity(6))
    t.heartbeat(task)
    t.describe()
    t.cancel_activity(task)
    finish(t)


@program
def pause_by_type(t: Tape) -> None:
    """By type, all at once, and who is not paused is left alone."""
    begin(
        t,
        c.activity("a", t.queue),
        c.activity("b", t.queue, type="other"),
        c.activity("c", t.queue),
    )
    pause(t, type="act")
    t.describe()
    unpause(t, type="other")
    unpause(t, unpause_all=True)
    t.describe()
    t.poll_activities(3)
    t.terminate()


@program
def pause_no_timeouts(t: Tape) -> None:
    """None of a paused activity's timeouts runs; they count again from the unpause on."""
    begin(
        t,
        c.activity("a", t.queue, start_to_close=1, heartbeat=1, retry=c.retry_policy(attempts=1)),
    )
    t.poll_activity()
    pause(t, id="a")
    nothing_for_activities(t)
    t.describe()
    unpause(t, id="a")
    t.await_event("ACTIVITY_TASK_TIMED_OUT")
    finish(t)


@program
def pause_errors(t: Tape) -> None:
    """What is refused."""
    begin(t, c.activity("a", t.queue))
    pause(t, id="no", fails=True)
    pause(t, type="no", fails=True)
    pause(t, fails=True)
    unpause(t, id="no", fails=True)
    unpause(t, fails=True)
    reset(t, id="no", fails=True)
    reset(t, fails=True)
    update(t, activity.ActivityOptions(), "heartbeat_timeout", fails=True)
    update(t, activity.ActivityOptions(), "heartbeat_timeout", id="no", fails=True)
    nobody = common.WorkflowExecution(workflow_id="no-" + t.unique)
    for execution in (nobody, common.WorkflowExecution()):
        for request in (
            api.PauseActivityRequest(id="a"),
            api.UnpauseActivityRequest(id="a"),
            api.ResetActivityRequest(id="a"),
            api.UpdateActivityOptionsRequest(id="a"),
        ):
            request.namespace = t.namespace
            request.execution.CopyFrom(execution)
            method = request.DESCRIPTOR.name.removesuffix("Request")
            t.call(method, request, fails=True)
    t.terminate()
    pause(t, id="a", fails=True)
    unpause(t, id="a", fails=True)
    reset(t, id="a", fails=True)
    update(t, activity.ActivityOptions(), "heartbeat_timeout", id="a", fails=True)


@program
def reset_in_backoff(t: Tape) -> None:
    """A reset in the backoff: the first attempt again, at once."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(initial=60)))
    task = t.poll_activity()
    t.heartbeat(task, "half")
    t.fail_activity(task, application_failure("one", "E"))
    reset(t, id="a")
    task = t.poll_activity()
    t.describe()
    t.fail_activity(task, application_failure("two", "E"))
    reset(t, id="a", reset_heartbeat=True)
    task = t.poll_activity()
    t.describe()
    t.complete_activity(task)
    finish(t)


@program
def reset_started(t: Tape) -> None:
    """A reset while a worker has the first attempt: heartbeats tell of it until the next."""
    begin(t, c.activity("a", t.queue, retry=QUICK))
    task = t.poll_activity()
    t.heartbeat(task, "half")
    reset(t, id="a", reset_heartbeat=True)
    t.heartbeat(task, "more")
    t.describe()
    t.fail_activity(task, application_failure("one", "E"))
    task = t.poll_activity()
    t.heartbeat(task)
    # The second attempt is of no use any more once the first is to be made again.
    reset(t, id="a")
    t.heartbeat(task, fails=True)
    t.complete_activity(task, fails=True)
    t.describe()
    t.terminate()


@program
def reset_paused(t: Tape) -> None:
    """A reset ends a pause unless it is to be kept."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(initial=60)))
    t.fail_activity(t.poll_activity(), application_failure("one", "E"))
    pause(t, id="a", request_id="p")
    reset(t, id="a", keep_paused=True)
    t.describe()
    reset(t, match_all=True)
    t.describe()
    t.complete_activity(t.poll_activity())
    finish(t)


@program
def reset_restores_options(t: Tape) -> None:
    """A reset gives back the options that the workflow asked for, but for the priority."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(initial=60, attempts=5)))
    options = activity.ActivityOptions(
        task_queue=taskqueue.TaskQueue(name=t.sticky),
        start_to_close_timeout=seconds(7),
        retry_policy=common.RetryPolicy(maximum_attempts=9),
        priority=common.Priority(priority_key=1),
    )
    paths = ("task_queue.name", "start_to_close_timeout", "retry_policy.maximum_attempts")
    update(t, options, *paths, "priority", id="a")
    t.describe()
    reset(t, id="a", restore_original_options=True)
    t.describe()
    t.complete_activity(t.poll_activity())
    finish(t)


@program
def options_waiting(t: Tape) -> None:
    """New options of an activity that waits: it moves to the new queue."""
    begin(t, c.activity("a", t.sticky), c.activity("b", t.queue, type="other"))
    options = activity.ActivityOptions(
        task_queue=taskqueue.TaskQueue(name=t.queue),
        schedule_to_close_timeout=seconds(500),
        schedule_to_start_timeout=seconds(400),
        start_to_close_timeout=seconds(300),
        heartbeat_timeout=seconds(200),
        priority=common.Priority(priority_key=2),
        retry_policy=common.RetryPolicy(
            initial_interval=seconds(2),
            backoff_coefficient=3,
            maximum_interval=seconds(20),
            maximum_attempts=4,
            non_retryable_error_types=["E"],
        ),
    )
    update(
        t,
        options,
        "TaskQueue.Name",
        "schedule_to_close_timeout",
        "scheduleToStartTimeout",
        "StartToCloseTimeout",
        "heartbeat_timeout",
        "priority.priority_key",
        "retry_policy",
        "no_such_field",
        id="a",
    )
    t.describe()
    t.poll_activities(2)
    t.describe()
    update(t, None, match_all=True, restore_original=True)
    t.describe()
    t.terminate()


@program
def options_started(t: Tape) -> None:
    """New options of an activity that a worker has: its token stays good."""
    begin(t, c.activity("a", t.queue, retry=QUICK))
    task = t.poll_activity()
    options = activity.ActivityOptions(
        start_to_close_timeout=seconds(70),
        heartbeat_timeout=seconds(100),
        retry_policy=common.RetryPolicy(maximum_attempts=2),
    )
    update(
        t,
        options,
        "start_to_close_timeout",
        "heartbeat_timeout",
        "retry_policy.maximum_attempts",
        type="act",
    )
    t.heartbeat(task, "half")
    t.fail_activity(task, application_failure("one", "E"))
    task = t.poll_activity()
    t.fail_activity(task, application_failure("two", "E"))
    finish(t)


@program
def options_in_backoff(t: Tape) -> None:
    """A shorter interval ends a long backoff."""
    begin(t, c.activity("a", t.queue, retry=c.retry_policy(initial=60, attempts=5)))
    t.fail_activity(t.poll_activity(), application_failure("one", "E"))
    policy = common.RetryPolicy(initial_interval=seconds(0.2), maximum_interval=seconds(1))
    options = activity.ActivityOptions(retry_policy=policy)
    update(t, options, "retry_policy.initial_interval", "retry_policy.maximum_interval", id="a")
    task = t.poll_activity()
    t.describe()
    t.complete_activity(task)
    finish(t)


@program
def options_paused(t: Tape) -> None:
    """New options of a paused activity wait with it."""
    begin(t, c.activity("a", t.sticky))
    pause(t, id="a", request_id="p")
    options = activity.ActivityOptions(task_queue=taskqueue.TaskQueue(name=t.queue))
    update(t, options, "task_queue.name", id="a")
    nothing_for_activities(t)
    t.describe()
    unpause(t, id="a")
    t.complete_activity(t.poll_activity())
    finish(t)


@program
def options_refused(t: Tape) -> None:
    """Options that make no sense change nothing."""
    begin(t, c.activity("a", t.queue, schedule_to_close=50))
    options = activity.ActivityOptions

    def refused(given: activity.ActivityOptions | None, *paths: str, **fields: Any) -> None:
        update(t, given, *paths, id="a", fails=True, **fields)

    refused(None, "heartbeat_timeout")
    refused(options(heartbeat_timeout=seconds(1)))
    refused(options(), "task_queue.name")
    refused(options(task_queue=taskqueue.TaskQueue()), "task_queue.name")
    refused(options(task_queue=taskqueue.TaskQueue(name="q" * 2000)), "task_queue.name")
    refused(options(task_queue=taskqueue.TaskQueue(name="/_sys/q")), "task_queue.name")
    refused(options(heartbeat_timeout=seconds(-1)), "heartbeat_timeout")
    refused(options(), "schedule_to_close_timeout", "start_to_close_timeout")
    refused(options(), "retry_policy.maximum_attempts")
    refused(options(), "retry_policy")
    refused(options(), "priority.priority_key")
    policy = common.RetryPolicy
    refused(options(retry_policy=policy(maximum_attempts=-1)), "retry_policy.maximum_attempts")
    refused(options(retry_policy=policy(backoff_coefficient=0.5)), "retryPolicy.backoffCoefficient")
    refused(
        options(retry_policy=policy(maximum_interval=seconds(0.5))), "retry_policy.maximum_interval"
    )
    refused(options(priority=common.Priority(priority_key=-1)), "priority")
    refused(options(priority=common.Priority(fairness_key="k" * 65)), "priority")
    refused(options(priority=common.Priority(fairness_weight=-1)), "priority")
    refused(options(), "heartbeat_timeout", restore_original=True)
    t.describe()
    t.terminate()


@program
def eager_activities(t: Tape) -> None:
    """Activities that come back with the completion are started; others are polled."""
    t.start(priority=common.Priority(priority_key=4))
    t.complete(
        t.poll(),
        c.activity("a", t.queue, eager=True, input="x", heartbeat=5, header={"h": 1}, retry=QUICK),
        c.activity("b", t.queue),
        c.activity("c", t.queue, eager=True, schedule_to_close=9, start_to_close=None),
    )
    t.describe()
    t.poll_activity()
    t.terminate()


@program
def eager_activity_retries(t: Tape) -> None:
    """Only the first attempt of an eager activity is eager."""
    t.start()
    done = t.complete(t.poll(), c.activity("a", t.queue, eager=True, retry=QUICK))
    task = done.activity_tasks[0]
    t.heartbeat(task, "half")
    t.fail_activity(task, application_failure("one", "E"))
    task = t.poll_activity()
    t.complete_activity(task, "done")
    finish(t)


@program
def eager_activity_completes(t: Tape) -> None:
    """An eager activity's started event."""
    t.start()
    done = t.complete(t.poll(), c.activity("a", t.queue, eager=True))
    t.complete_activity(done.activity_tasks[0], "done")
    finish(t)


@program
def eager_activity_not_given(t: Tape) -> None:
    """Eager activities of a run that closes, or that are cancelled at once, are not given."""
    t.start()
    t.complete(
        t.poll(),
        c.activity("a", t.queue, eager=True),
        c.cancel_activity(5),
        c.activity("b", t.queue, eager=True),
    )
    t.complete(t.poll(), c.activity("c", t.queue, eager=True), c.complete())
    t.history()


@program
def activity_by_id_paused(t: Tape) -> None:
    """A paused activity is completed from outside as any other is."""
    begin(t, c.activity("a", t.queue))
    pause(t, id="a")
    t.call(
        "RespondActivityTaskCompletedById",
        api.RespondActivityTaskCompletedByIdRequest(
            namespace=t.namespace,
            workflow_id=t.workflow_id,
            activity_id="a",
            result=payloads("outside"),
            identity=IDENTITY,
        ),
    )
    t.describe()
    finish(t)
