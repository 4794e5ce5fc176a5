"""What the Python SDK's guides say, heading by heading; each also with the server killed in
the middle. A test is named as the heading that it shows."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Awaitable, Callable

import pytest
from temporalio.client import (
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    TerminatedError,
    TimeoutError,
    TimeoutType,
    WorkflowAlreadyStartedError,
)
from temporalio.workflow import ParentClosePolicy

import flows
from flows import SECOND
from node import Node

PATIENCE = 30.0


async def until(reached: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Waits until `reached` gives something true."""
    deadline = time.monotonic() + PATIENCE
    while True:
        value = await reached()
        if value:
            return value
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.05)


async def result(handle: WorkflowHandle) -> Any:
    """A workflow's result, within a test's patience."""
    return await asyncio.wait_for(handle.result(), PATIENCE)


async def cause(handle: WorkflowHandle) -> BaseException | None:
    """What a workflow failed with."""
    with pytest.raises(WorkflowFailureError) as failed:
        await result(handle)
    return failed.value.cause


async def kinds(handle: WorkflowHandle) -> list[str]:
    """The types of a run's events."""
    events = [event async for event in handle.fetch_history_events()]
    return [event.WhichOneof("attributes").removesuffix("_event_attributes") for event in events]


def has(handle: WorkflowHandle, kind: str) -> Callable[[], Awaitable[bool]]:
    """Whether a run's history holds an event."""

    async def look() -> bool:
        return kind in await kinds(handle)

    return look


# Signals.


async def test_signals(node: Node) -> None:
    """Signals by name and by custom name are handled in their order."""
    async with node.working():
        handle = await node.start(flows.Greeting.run)
        await handle.signal(flows.Greeting.submit_greeting, "User 1")
        await node.midway()
        await handle.signal("Custom Signal Name", "User 2")
        await handle.signal(flows.Greeting.exit)
        assert await result(handle) == ["User 1", "custom User 2"]


async def test_send_signal_from_client(node: Node) -> None:
    """By a handle of the workflow's ID alone; it is in history once, whatever happens next."""
    async with node.working():
        started = await node.start(flows.Greeting.run)
        handle = node.client.get_workflow_handle_for(flows.Greeting.run, node.name)
        await handle.signal(flows.Greeting.submit_greeting, "User 1")
        await node.midway()
        # It waits behind a workflow task that is with a worker.
        await until(has(handle, "workflow_execution_signaled"), "the signal's event")
        await handle.signal(flows.Greeting.exit)
        assert await result(started) == ["User 1"]
        assert (await kinds(handle)).count("workflow_execution_signaled") == 2


async def test_send_signal_from_workflow(node: Node) -> None:
    """The sender tells of it in its history, the receiver has the signal."""
    async with node.working():
        receiver = await node.start(flows.Greeting.run, id=f"{node.name}-b")
        sender = await node.start(flows.SignalsAnother.run, receiver.id)
        await sender.signal(flows.SignalsAnother.go)
        await node.midway()
        await result(sender)
        assert await result(receiver) == ["from a workflow"]
        seen = await kinds(sender)
        assert seen.count("signal_external_workflow_execution_initiated") == 2
        assert seen.count("external_workflow_execution_signaled") == 2
        assert (await kinds(receiver)).count("workflow_execution_signaled") == 2


async def test_signal_with_start(node: Node) -> None:
    """Starts and signals; signals only when it runs."""
    async with node.working():
        options = {"start_signal": "submit_greeting"}
        first = await node.start(flows.Greeting.run, **options, start_signal_args=["one"])
        await node.midway()
        second = await node.start(flows.Greeting.run, **options, start_signal_args=["two"])
        assert second.first_execution_run_id == first.first_execution_run_id
        await first.signal(flows.Greeting.exit)
        assert await result(first) == ["one", "two"]


# Queries.


async def test_define_query(node: Node) -> None:
    """A query by a custom name and with an argument."""
    async with node.working():
        handle = await node.start(flows.Greeting.run)
        await handle.signal(flows.Greeting.submit_greeting, "User 1")
        await node.midway()
        assert await handle.query("Custom Query Name", "names: ") == "names: 1"
        await handle.terminate()


async def test_handle_query(node: Node) -> None:
    """A query leaves no trace in history."""
    async with node.working():
        handle = await node.start(flows.Greeting.run)
        assert await handle.query(flows.Greeting.greeted) == []
        before = await kinds(handle)
        await node.midway()
        assert await handle.query(flows.Greeting.greeted) == []
        assert await kinds(handle) == before
        await handle.terminate()


async def test_send_query(node: Node) -> None:
    """It sees what was acknowledged before; a closed workflow answers, too."""
    async with node.working():
        handle = await node.start(flows.Greeting.run)
        await handle.signal(flows.Greeting.submit_greeting, "User 1")
        assert await handle.query(flows.Greeting.greeted) == ["User 1"]
        await handle.signal(flows.Greeting.exit)
        await result(handle)
        await node.midway()
        assert await handle.query(flows.Greeting.greeted) == ["User 1"]


# Workflow timeouts, retries, options.


@pytest.mark.parametrize("option", ["execution_timeout", "run_timeout"])
async def test_workflow_timeouts(node: Node, option: str) -> None:
    """A workflow that outlives one is closed, and its caller told."""
    async with node.working():
        handle = await node.start(flows.Forever.run, **{option: SECOND})
        await node.midway()
        assert isinstance(await cause(handle), TimeoutError)
        assert (await handle.describe()).status == WorkflowExecutionStatus.TIMED_OUT


async def test_workflow_retries(node: Node) -> None:
    """A failed workflow runs again by its policy, and not without one."""
    async with node.working():
        policy = RetryPolicy(initial_interval=0.4 * SECOND, backoff_coefficient=1.0)
        handle = await node.start(flows.FailsAtFirst.run, retry_policy=policy)
        await node.midway()
        assert await result(handle) == 3
        once = await node.start(flows.FailsAtFirst.run, id=f"{node.name}-once")
        assert str(await cause(once)) == "attempt 1"


async def test_workflow_id_reuse_policies(node: Node) -> None:
    """Of a closed workflow's ID."""
    async with node.working():
        first = await node.start(flows.Sleeps.run, 0.01)
        await result(first)
        await node.midway()
        for policy in (
            WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            WorkflowIDReusePolicy.REJECT_DUPLICATE,
        ):
            with pytest.raises(WorkflowAlreadyStartedError):
                await node.start(flows.Sleeps.run, 0.01, id_reuse_policy=policy)
        again = WorkflowIDReusePolicy.ALLOW_DUPLICATE
        second = await node.start(flows.Greeting.run, id_reuse_policy=again)
        with pytest.raises(WorkflowAlreadyStartedError):
            await node.start(flows.Greeting.run, id_reuse_policy=again)
        await second.terminate()
        failed = WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY
        third = await node.start(flows.Sleeps.run, 0.01, id_reuse_policy=failed)
        await result(third)


# Activities.


@pytest.mark.parametrize(
    "timeout, kind",
    [
        ("start_to_close_timeout", TimeoutType.START_TO_CLOSE),
        ("schedule_to_close_timeout", TimeoutType.SCHEDULE_TO_CLOSE),
        ("schedule_to_start_timeout", TimeoutType.SCHEDULE_TO_START),
    ],
)
async def test_activity_timeouts(node: Node, timeout: str, kind: TimeoutType) -> None:
    """Each ends an activity that outlives it, and the error says which."""
    async with node.working():
        options: dict[str, Any] = {timeout: 1.0, "attempts": 1}
        if kind == TimeoutType.SCHEDULE_TO_START:
            options |= {"schedule_to_close_timeout": 60, "task_queue": f"{node.name}-nobody"}
        handle = await node.start(flows.Calls.run, "never", "x", options)
        await until(has(handle, "activity_task_scheduled"), "the activity")
        await node.midway()
        error = await cause(handle)
        assert isinstance(error, ActivityError)
        assert isinstance(error.cause, TimeoutError)
        # An attempt that the schedule-to-close timeout cuts short is a start-to-close one.
        assert error.cause.type in (kind, TimeoutType.START_TO_CLOSE)


async def test_activity_retries(node: Node) -> None:
    """Attempts by the policy; none for an error type that it names."""
    async with node.working():
        options = {"start_to_close_timeout": 10, "attempts": 5}
        handle = await node.start(flows.Calls.run, "fails", "Flaky", options)
        await node.midway()
        assert await result(handle) == 3
        options = {"start_to_close_timeout": 10, "non_retryable": ["Fatal"]}
        fatal = await node.start(
            flows.Calls.run, "fails", "Fatal", options, id=f"{node.name}-fatal"
        )
        error = await cause(fatal)
        assert isinstance(error, ActivityError)
        assert isinstance(error.cause, ApplicationError)
        assert error.cause.message == "attempt 1"


async def test_next_retry_delay(node: Node) -> None:
    """The activity's word for the next interval counts, not the policy's."""
    async with node.working():
        options = {"start_to_close_timeout": 10, "interval": 3600}
        handle = await node.start(flows.Calls.run, "says_when", "x", options)
        await node.midway()
        assert await result(handle) == 2


async def test_activity_heartbeats(node: Node) -> None:
    """The next attempt has the details of the last heartbeat."""
    async with node.working():
        options = {"start_to_close_timeout": 10, "heartbeat_timeout": 5}
        handle = await node.start(flows.Calls.run, "heartbeats", "once", options)
        await node.midway()
        details = await result(handle)
        assert details[0] == "once"
        assert int(details[1]) >= 1


async def test_heartbeat_timeout(node: Node) -> None:
    """An attempt that says nothing is given up, and the next one made."""
    async with node.working():
        options = {"schedule_to_close_timeout": 60, "heartbeat_timeout": 0.5}
        handle = await node.start(flows.Calls.run, "silent", "x", options)
        await node.midway()
        assert await result(handle) == "the second attempt"


async def test_asynchronous_activity_completion(node: Node) -> None:
    """By the token that the activity left, after its function returned."""
    async with node.working():
        options = {"start_to_close_timeout": 60}
        handle = await node.start(flows.Calls.run, "completed_elsewhere", node.name, options)

        async def token() -> bytes | None:
            return flows.TOKENS.get(node.name)

        elsewhere = node.client.get_async_activity_handle(
            task_token=await until(token, "the token")
        )
        await elsewhere.heartbeat("half")
        await node.midway()
        await elsewhere.complete("Completion value.")
        assert await result(handle) == "Completion value."


async def test_cancel_an_activity(node: Node) -> None:
    """It learns of it by its heartbeat, and its workflow that it was canceled."""
    async with node.working():
        handle = await node.start(flows.CancelsActivity.run)

        async def beats() -> bool:
            pending = (await handle.describe()).raw_description.pending_activities
            return bool(pending) and pending[0].HasField("heartbeat_details")

        await until(beats, "a heartbeat")
        await handle.signal(flows.CancelsActivity.cancel_it)
        await node.midway()
        assert await result(handle) == "CancelledError"


# Interrupting workflows.


async def test_cancel_a_workflow_execution(node: Node) -> None:
    """Gracefully: it is told, and cleans up."""
    async with node.working():
        handle = await node.start(flows.Forever.run)
        await until(has(handle, "timer_started"), "its timer")
        await node.client.get_workflow_handle(node.name).cancel()
        await node.midway()
        assert isinstance(await cause(handle), CancelledError)
        seen = await kinds(handle)
        assert "workflow_execution_cancel_requested" in seen
        # The cleanup's timer.
        assert seen.count("timer_started") == 2


async def test_terminate_a_workflow_execution(node: Node) -> None:
    """At once, and nothing comes after."""
    async with node.working():
        handle = await node.start(flows.Forever.run)
        await until(has(handle, "timer_started"), "its timer")
        await node.client.get_workflow_handle(node.name).terminate()
        await node.midway()
        assert isinstance(await cause(handle), TerminatedError)
        seen = await kinds(handle)
        assert seen[-1] == "workflow_execution_terminated"
        assert seen.count("workflow_task_scheduled") == 1


# Children, chains, timers, cron.


async def test_child_workflows(node: Node) -> None:
    """Executed, signalled while it runs; its events are in the parent's history."""
    async with node.working():
        child = f"{node.name}-child"
        parent = await node.start(flows.Parent.run, child)
        await until(has(parent, "child_workflow_execution_started"), "the child")
        await node.midway()
        handle = node.client.get_workflow_handle(child)
        await handle.signal(flows.Greeting.submit_greeting, "User 1")
        await handle.signal(flows.Greeting.exit)
        assert await result(parent) == ["User 1"]
        seen = [kind for kind in await kinds(parent) if "child" in kind]
        assert seen == [
            "start_child_workflow_execution_initiated",
            "child_workflow_execution_started",
            "child_workflow_execution_completed",
        ]


@pytest.mark.parametrize(
    "policy, status",
    [
        (ParentClosePolicy.TERMINATE, WorkflowExecutionStatus.TERMINATED),
        (ParentClosePolicy.REQUEST_CANCEL, WorkflowExecutionStatus.CANCELED),
        (ParentClosePolicy.ABANDON, WorkflowExecutionStatus.RUNNING),
    ],
)
async def test_parent_close_policy(
    node: Node, policy: ParentClosePolicy, status: WorkflowExecutionStatus
) -> None:
    """What becomes of a child when its parent closes."""
    async with node.working():
        child = node.client.get_workflow_handle(f"{node.name}-child")
        parent = await node.start(flows.Closes.run, child.id, int(policy))
        await until(has(parent, "child_workflow_execution_started"), "the child")
        await until(has(child, "timer_started"), "the child's timer")
        await parent.signal(flows.Closes.close)
        await node.midway()
        await result(parent)

        async def ended() -> bool:
            return (await child.describe()).status == status

        await until(ended, f"the child is {status.name}")
        if policy == ParentClosePolicy.ABANDON:
            await child.terminate()


async def test_continue_as_new(node: Node) -> None:
    """The same ID, new runs, fresh histories, the last one's result."""
    async with node.working():
        handle = await node.start(flows.Looping.run, 0)
        await node.midway()
        assert await result(handle) == 5
        last = await node.client.get_workflow_handle(node.name).describe()
        assert last.run_id != handle.first_execution_run_id
        first = node.client.get_workflow_handle(node.name, run_id=handle.first_execution_run_id)
        assert (await first.describe()).status == WorkflowExecutionStatus.CONTINUED_AS_NEW


async def test_timers(node: Node) -> None:
    """A timer fires, not early, wherever the server was in between."""
    async with node.working():
        handle = await node.start(flows.Sleeps.run, 1.0)
        await until(has(handle, "timer_started"), "the timer")
        await node.midway()
        assert await result(handle) >= 1.0
        assert (await kinds(handle)).count("timer_fired") == 1


async def test_temporal_cron_jobs(node: Node) -> None:
    """Run after run by the schedule, each with the last one's result."""
    async with node.working():
        await node.start(flows.Cron.run, cron_schedule="@every 1s")
        await node.midway()

        async def third() -> bool:
            current = node.client.get_workflow_handle(node.name)
            events = [event async for event in current.fetch_history_events()]
            started = events[0].workflow_execution_started_event_attributes
            return [p.data for p in started.last_completion_result.payloads] == [b"2"]

        await until(third, "the third run")
        await node.client.get_workflow_handle(node.name).terminate()
