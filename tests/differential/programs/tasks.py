"""Workflow tasks: failures, timeouts, transient attempts, sticky queues, heartbeats."""

from __future__ import annotations

from temporalio.api.enums.v1 import failed_cause_pb2 as cause
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import IDENTITY, Tape, seconds
from programs import program


@program
def task_fails_then_completes(t: Tape) -> None:
    """Attempt 1 fails with an event, 2 and 3 are transient, 3 completes."""
    t.start()
    t.fail_task(t.poll())
    t.history()
    t.describe()
    task = t.poll()
    t.history()
    t.fail_task(task)
    t.history()
    task = t.poll()
    t.describe()
    t.complete(task, c.complete())
    t.history()


@program
def task_fails_non_determinism(t: Tape) -> None:
    """The cause that a worker gives is kept."""
    t.start()
    t.complete(t.poll(), c.timer("t", 60))
    t.signal("s")
    t.fail_task(t.poll(), cause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR)
    t.complete(t.poll(), c.complete())
    t.history()


@program
def transient_meets_signal(t: Tape) -> None:
    """A signal while a transient attempt waits: its events become real."""
    t.start()
    t.fail_task(t.poll())
    t.signal("in between")
    t.history()
    task = t.poll()
    t.history()
    t.complete(task, c.complete())
    t.history()


@program
def transient_meets_signal_while_started(t: Tape) -> None:
    """A signal while a transient attempt is started: buffered until it closes."""
    t.start()
    t.fail_task(t.poll())
    task = t.poll()
    t.signal("in between")
    t.history()
    t.complete(task, c.timer("t", 60))
    t.history()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def transient_fails_with_signal_buffered(t: Tape) -> None:
    """A started transient attempt fails with a signal behind it."""
    t.start()
    t.fail_task(t.poll())
    task = t.poll()
    t.signal("in between")
    t.fail_task(task)
    t.history()
    task = t.poll()
    t.history()
    t.complete(task, c.complete())
    t.history()


@program
def task_fails_with_signal_buffered(t: Tape) -> None:
    """The first attempt fails with a signal behind it: the next is a real first attempt."""
    t.start()
    task = t.poll()
    t.signal("behind")
    t.fail_task(task)
    t.history()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def task_times_out(t: Tape) -> None:
    """Attempt 1 times out with an event, attempt 2 is transient and times out without."""
    t.start(workflow_task_timeout=seconds(1))
    late = t.poll()
    t.poll()
    t.history()
    task = t.poll()
    t.complete(late, c.complete(), fails=True)
    t.complete(task, c.complete())
    t.history()


@program
def task_times_out_with_signal_buffered(t: Tape) -> None:
    """A timeout with a signal behind it."""
    t.start(workflow_task_timeout=seconds(1))
    task = t.poll()
    t.signal("behind")
    late = task
    task = t.poll()
    t.history()
    t.fail_task(late, fails=True)
    t.complete(task, c.complete())
    t.history()


@program
def stale_and_malformed_tokens(t: Tape) -> None:
    """Workflow task tokens: used twice, of a closed run, that no server made."""
    t.start()
    task = t.poll()
    t.complete(task)
    t.complete(task, c.complete(), fails=True)
    t.fail_task(task, fails=True)
    t.signal("s")
    second = t.poll()
    t.complete(task, c.complete(), fails=True)
    t.complete(second, c.complete())
    t.complete(second, c.complete(), fails=True)
    t.fail_task(second, fails=True)
    for token in (b"", b"\xff\xff not a token"):
        bad = api.PollWorkflowTaskQueueResponse(task_token=token)
        t.complete(bad, fails=True)
        t.fail_task(bad, fails=True)
    t.history()


@program
def force_create(t: Tape) -> None:
    """A completion that asks for a new task gets one, with and without commands."""
    t.start()
    t.complete(t.poll(), c.marker("m"), force=True)
    t.history()
    t.complete(t.poll(), force=True)
    t.history()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def heartbeats(t: Tape) -> None:
    """Completions without commands that ask for a new task and take it along."""
    t.start()
    task = t.poll()
    response = t.complete(task, force=True, return_new=True, sticky=10)
    t.history()
    response = t.complete(response.workflow_task, force=True, return_new=True, sticky=10)
    t.signal("while beating")
    t.history()
    response = t.complete(response.workflow_task, force=True, return_new=True, sticky=10)
    t.complete(response.workflow_task, c.complete())
    t.history()


@program
def return_new_task(t: Tape) -> None:
    """A completion takes along the task that buffered events make."""
    t.start()
    task = t.poll()
    t.signal("behind")
    response = t.complete(task, return_new=True)
    t.complete(response.workflow_task, c.complete())
    t.history()


@program
def sticky_task(t: Tape) -> None:
    """A sticky worker gets the history from its last task on."""
    t.start()
    t.complete(t.poll(), c.timer("t", 60), sticky=10)
    with t.polling_sticky() as sticky:
        t.signal("s", 1)
        task = sticky()
    t.history()
    t.describe()
    t.complete(task, sticky=10)
    t.signal("s", 2)
    t.complete(t.poll(sticky=True), c.complete())
    t.history()


@program
def sticky_without_poller(t: Tape) -> None:
    """A sticky queue that nobody ever polled is passed over at once."""
    t.start()
    t.complete(t.poll(), c.timer("t", 60), sticky=10)
    t.signal("s", 1)
    t.complete(t.poll(), c.complete())
    t.history()


@program
def sticky_times_out(t: Tape) -> None:
    """The sticky poller is gone: timed out, then on the normal queue with everything."""
    t.start()
    t.complete(t.poll(), c.timer("t", 60), sticky=10)
    with t.polling_sticky() as sticky:
        t.signal("s", 1)
        t.complete(sticky(), sticky=1)
    t.signal("s", 2)
    t.complete(t.poll(), c.complete())
    t.history()


@program
def sticky_reset(t: Tape) -> None:
    """ResetStickyTaskQueue sends the next task to the normal queue."""
    t.start()
    t.complete(t.poll(), sticky=30)
    t.call(
        "ResetStickyTaskQueue",
        api.ResetStickyTaskQueueRequest(namespace=t.namespace, execution=t.execution()),
    )
    t.signal("s", 1)
    t.complete(t.poll(), c.complete())
    t.history()
    t.call(
        "ResetStickyTaskQueue",
        api.ResetStickyTaskQueueRequest(namespace=t.namespace, execution=t.execution()),
        fails=True,
    )


@program
def sticky_task_fails(t: Tape) -> None:
    """A failure of a sticky task clears stickiness: the next attempt is on the normal queue."""
    t.start()
    t.complete(t.poll(), sticky=30)
    with t.polling_sticky() as sticky:
        t.signal("s", 1)
        t.fail_task(sticky())
    t.complete(t.poll(), c.complete())
    t.history()


@program
def sticky_task_times_out_started(t: Tape) -> None:
    """A started sticky task that times out clears stickiness."""
    t.start(workflow_task_timeout=seconds(1))
    t.complete(t.poll(), sticky=30)
    with t.polling_sticky() as sticky:
        t.signal("s", 1)
        sticky()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def poll_errors(t: Tape) -> None:
    """Polls that are refused: no deadline, no queue, unknown namespace."""
    from temporalio.api.taskqueue.v1 import message_pb2 as taskqueue

    queue = taskqueue.TaskQueue(name=t.queue)
    for method, kind in (
        ("PollWorkflowTaskQueue", api.PollWorkflowTaskQueueRequest),
        ("PollActivityTaskQueue", api.PollActivityTaskQueueRequest),
    ):
        whole = {"namespace": t.namespace, "task_queue": queue, "identity": IDENTITY}
        t.call(method, kind(**whole), fails=True, timeout=None)
        t.call(method, kind(**whole), fails=True, timeout=0.5)
        t.call(method, kind(**whole | {"task_queue": None}), fails=True)
        t.call(method, kind(**whole | {"namespace": "nowhere"}), fails=True)
        t.call(method, kind(**whole | {"namespace": ""}), fails=True)
        long = taskqueue.TaskQueue(name="q" * 1001)
        t.call(method, kind(**whole | {"task_queue": long}), fails=True)
        t.call(method, kind(**whole | {"identity": "i" * 1001}), fails=True)


@program
def sticky_unpolled_times_out(t: Tape) -> None:
    """A task passed over to the normal queue times out all the same where nobody takes it."""
    t.start()
    t.complete(t.poll(), c.timer("t", 60), sticky=1)
    t.signal("s", 1)
    t.await_event("WORKFLOW_TASK_TIMED_OUT")
    t.history()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def failed_as_too_large(t: Tape) -> None:
    """A completion that no message can hold ends the run."""
    t.start()
    task = t.poll()
    t.signal("behind")
    t.fail_task(task, cause=cause.WORKFLOW_TASK_FAILED_CAUSE_GRPC_MESSAGE_TOO_LARGE)
    t.history()


@program
def problems_are_reported(t: Tape) -> None:
    """After five failures in a row lists show what a run fails of, until a task is completed."""
    t.start()
    for _ in range(4):
        t.fail_task(t.poll())
    t.describe()
    t.fail_task(t.poll())
    t.describe()
    t.complete(t.poll())
    t.describe()
    t.terminate()
