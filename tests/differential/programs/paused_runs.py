"""Paused runs.

The real server has them switched off by default: recorded with `frontend.WorkflowPauseEnabled`.
A pause within a start delay is an INTERNAL error there, and not among these programs.
"""

from __future__ import annotations

from typing import Any

from temporalio.api.taskqueue.v1 import message_pb2 as taskqueue
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import IDENTITY, Tape, application_failure, payloads, seconds
from programs import program
from programs.activity_operations import found, nothing_for_activities
from programs.activity_operations import pause as pause_activity


def pause(t: Tape, fails: bool = False, **fields: Any) -> None:
    """Pauses the run."""
    _call(t, api.PauseWorkflowExecutionRequest(**fields), fails)


def unpause(t: Tape, fails: bool = False, **fields: Any) -> None:
    """Lets the run go on."""
    _call(t, api.UnpauseWorkflowExecutionRequest(**fields), fails)


def _call(t: Tape, request: Any, fails: bool) -> None:
    request.namespace = t.namespace
    request.identity = request.identity or IDENTITY
    request.workflow_id = request.workflow_id or t.workflow_id
    t.call(request.DESCRIPTOR.name.removesuffix("Request"), request, fails=fails)


def nothing_for_workflows(t: Tape) -> None:
    """Polls workflow tasks for a moment, and finds none."""
    request = api.PollWorkflowTaskQueueRequest(
        namespace=t.namespace, task_queue=taskqueue.TaskQueue(name=t.queue), identity=IDENTITY
    )
    t.note("a workflow task for the worker", found(t.stub.PollWorkflowTaskQueue, request))


@program
def paused_before_first_task(t: Tape) -> None:
    """The task that waits fails; signals and timers go on being recorded."""
    t.start()
    pause(t, reason="why", request_id="one")
    t.describe()
    pause(t, reason="why", request_id="one")
    pause(t, request_id="two", fails=True)
    t.signal("s", 1)
    nothing_for_workflows(t)
    t.query(reject=1)()
    unpause(t, reason="go")
    t.describe()
    unpause(t, fails=True)
    t.complete(t.poll(), c.complete())
    t.history()
    pause(t, fails=True)
    unpause(t, fails=True)


@program
def paused_while_started(t: Tape) -> None:
    """A worker's task is taken; no other follows until the run goes on."""
    t.start()
    task = t.poll()
    pause(t)
    t.describe()
    commands = [
        c.activity("a", t.queue),
        c.activity("b", t.queue, eager=True),
        c.timer("t", 0.2),
    ]
    t.complete(task, *commands, force=True, fails=True)
    t.complete(task, *commands)
    nothing_for_activities(t)
    t.await_event("TIMER_FIRED")
    t.describe()
    unpause(t)
    tasks = t.poll_activities(2)
    t.complete_activity(tasks["a"])
    t.complete_activity(tasks["b"])
    t.complete(t.poll())
    t.history()
    t.terminate()


@program
def paused_and_closing(t: Tape) -> None:
    """A workflow that would close finds the pause among what it has not seen."""
    t.start()
    task = t.poll()
    pause(t)
    t.complete(task, c.complete(), fails=None)
    t.describe()
    unpause(t)
    t.complete(t.poll(), c.complete())
    t.history()


@program
def paused_with_activities(t: Tape) -> None:
    """Activities of a paused run: waiting, with a worker, in backoff."""
    t.start()
    t.complete(
        t.poll(),
        c.activity("a", t.queue, retry=c.retry_policy(initial=0.1)),
        c.activity("b", t.queue, retry=c.retry_policy(initial=60)),
    )
    tasks = t.poll_activities(2)
    t.fail_activity(tasks["b"], application_failure("one", "E"))
    pause(t)
    t.heartbeat(tasks["a"], "half")
    t.describe()
    t.complete_activity(tasks["a"], "done")
    t.describe()
    unpause(t)
    t.complete(t.poll())
    t.describe()
    t.history()
    t.terminate()


@program
def paused_activity_fails(t: Tape) -> None:
    """A retry of an activity that a worker had when the run was paused."""
    t.start()
    t.complete(t.poll(), c.activity("a", t.queue, retry=c.retry_policy(initial=0.1)))
    task = t.poll_activity()
    pause(t)
    t.fail_activity(task, application_failure("one", "E"))
    nothing_for_activities(t)
    t.terminate()


@program
def paused_and_queried(t: Tape) -> None:
    """A paused run answers no query."""
    t.start()
    t.complete(t.poll())
    pause(t)
    for reject in (1, 2, 3):
        t.query(reject=reject)()
    t.describe()
    t.terminate()
    t.describe()


@program
def paused_twice_over(t: Tape) -> None:
    """A paused activity in a paused run stays paused when the run goes on."""
    t.start()
    t.complete(t.poll(), c.activity("a", t.queue))
    pause_activity(t, id="a", request_id="p")
    pause(t, reason="run")
    t.describe()
    unpause(t)
    t.describe()
    nothing_for_activities(t)
    t.terminate()


@program
def paused_task_fails(t: Tape) -> None:
    """A task that fails or times out while the run is paused is not tried again until later."""
    t.start(workflow_task_timeout=seconds(6))
    task = t.poll()
    pause(t)
    t.fail_task(task)
    t.describe()
    unpause(t)
    t.poll()
    pause(t)
    t.await_event("WORKFLOW_TASK_TIMED_OUT")
    nothing_for_workflows(t)
    t.describe()
    unpause(t)
    t.complete(t.poll(), c.complete())
    t.history()


@program
def paused_is_open(t: Tape) -> None:
    """To starts, signals with start, cancels and terminates a paused run is open."""
    t.start()
    t.complete(t.poll())
    pause(t)
    t.start(request_id="second-" + t.unique, fails=True)
    t.call("StartWorkflowExecution", t.start_request())
    request = t.start_request(request_id="third-" + t.unique)
    request.workflow_id_conflict_policy = 2
    t.call("StartWorkflowExecution", request)
    t.call(
        "SignalWithStartWorkflowExecution",
        api.SignalWithStartWorkflowExecutionRequest(
            namespace=t.namespace,
            workflow_id=t.workflow_id,
            workflow_type=request.workflow_type,
            task_queue=request.task_queue,
            signal_name="s",
            signal_input=payloads(1),
            identity=IDENTITY,
            request_id="fourth-" + t.unique,
        ),
    )
    t.cancel()
    t.describe()
    unpause(t)
    t.complete(t.poll(), c.cancel())
    t.history()


@program
def paused_errors(t: Tape) -> None:
    """What is refused."""
    t.start()
    for request in (api.PauseWorkflowExecutionRequest, api.UnpauseWorkflowExecutionRequest):
        _call(t, request(workflow_id="no-" + t.unique), True)
        _call(t, request(reason="r" * 2000), True)
        _call(t, request(request_id="r" * 2000), True)
        _call(t, request(identity="i" * 2000), True)
        _call(t, request(run_id="nonsense"), True)
    t.terminate()
