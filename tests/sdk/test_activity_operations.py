"""Activities paused, unpaused, reset and given other options while real workers run them."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from temporalio import activity, workflow
from temporalio.api.activity.v1 import ActivityOptions
from temporalio.api.common.v1 import RetryPolicy as ApiRetryPolicy
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import (
    PauseActivityRequest,
    ResetActivityRequest,
    UnpauseActivityRequest,
    UpdateActivityOptionsRequest,
)
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from harness import Process
from helpers import eventually, execution, working

PAUSED = PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED
PAUSE_REQUESTED = PendingActivityState.PENDING_ACTIVITY_STATE_PAUSE_REQUESTED


@workflow.defn
class OneActivity:
    """Runs one activity, by name, on a queue."""

    @workflow.run
    async def run(self, name: str, queue: str, interval: float) -> Any:
        return await workflow.execute_activity(
            name,
            task_queue=queue or None,
            activity_id="the-activity",
            start_to_close_timeout=timedelta(seconds=30),
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=interval)),
        )


async def pending(handle: WorkflowHandle) -> PendingActivityInfo | None:
    description = await handle.describe()
    found = description.raw_description.pending_activities
    return found[0] if found else None


async def await_state(handle: WorkflowHandle, state: Any) -> PendingActivityInfo:
    async def so() -> PendingActivityInfo | None:
        info = await pending(handle)
        return info if info and info.state == state else None

    return await eventually(so, f"state {state}")


async def pause(client: Client, handle: WorkflowHandle, **fields: Any) -> None:
    fields = fields or {"id": "the-activity"}
    await client.workflow_service.pause_activity(
        PauseActivityRequest(
            namespace="default", execution=execution(handle), identity="me", reason="why", **fields
        )
    )


async def unpause(client: Client, handle: WorkflowHandle, **fields: Any) -> None:
    await client.workflow_service.unpause_activity(
        UnpauseActivityRequest(
            namespace="default", execution=execution(handle), id="the-activity", **fields
        )
    )


async def reset(client: Client, handle: WorkflowHandle, **fields: Any) -> None:
    await client.workflow_service.reset_activity(
        ResetActivityRequest(
            namespace="default", execution=execution(handle), id="the-activity", **fields
        )
    )


async def start(client: Client, name: str, interval: float, queue: str = "") -> WorkflowHandle:
    return await client.start_workflow(
        OneActivity.run, args=["flaky", queue, interval], id=name, task_queue=name
    )


class Flaky:
    """An activity that fails for as long as it is told to."""

    def __init__(self) -> None:
        self.attempts: list[int] = []
        self.broken = True

    @activity.defn(name="flaky")
    async def flaky(self) -> int:
        self.attempts.append(activity.info().attempt)
        if self.broken:
            raise ApplicationError("not yet")
        return activity.info().attempt


async def test_a_paused_activity_is_not_retried(client: Client, name: str) -> None:
    flaky = Flaky()
    async with working(client, name, [OneActivity], [flaky.flaky]):
        handle = await start(client, name, 0.1)
        await eventually(lambda: flaky.attempts, "a first attempt")
        await pause(client, handle)
        info = await await_state(handle, PAUSED)
        assert info.paused
        assert (info.pause_info.manual.identity, info.pause_info.manual.reason) == ("me", "why")
        made = len(flaky.attempts)
        await asyncio.sleep(1)
        assert len(flaky.attempts) == made
        flaky.broken = False
        await unpause(client, handle)
        assert await handle.result() == flaky.attempts[-1] == made + 1


async def test_a_worker_hears_of_a_pause_and_of_a_reset(client: Client, name: str) -> None:
    told: list[str] = []
    begun = threading.Event()

    @activity.defn(name="flaky")
    async def beating() -> int:
        begun.set()
        try:
            while activity.info().attempt == 1 and len(told) < 2:
                activity.heartbeat("on")
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            assert details is not None
            told.append("paused" if details.paused else "reset" if details.reset else "other")
            raise
        return activity.info().attempt

    async with working(client, name, [OneActivity], [beating]):
        handle = await start(client, name, 0.1)
        await eventually(begun.is_set, "the activity's start")
        await pause(client, handle)
        await eventually(lambda: told == ["paused"], "the worker to hear of the pause")
        await await_state(handle, PAUSED)
        begun.clear()
        await unpause(client, handle, reset_attempts=True)
        await eventually(begun.is_set, "the second start")
        await reset(client, handle)
        await eventually(lambda: told == ["paused", "reset"], "the worker to hear of the reset")
        assert await handle.result() >= 1


async def test_a_reset_ends_a_long_backoff(client: Client, name: str) -> None:
    flaky = Flaky()
    async with working(client, name, [OneActivity], [flaky.flaky]):
        handle = await start(client, name, 3600)
        await eventually(lambda: flaky.attempts, "a first attempt")

        async def waits() -> bool:
            info = await pending(handle)
            return bool(info and info.attempt == 2)

        await eventually(waits, "the backoff")
        flaky.broken = False
        await reset(client, handle, jitter=timedelta(milliseconds=200))
        assert await handle.result() == 1
        assert flaky.attempts == [1, 1]


async def test_options_move_an_activity_to_another_queue(client: Client, name: str) -> None:
    flaky = Flaky()
    flaky.broken = False
    async with working(client, name, [OneActivity]):
        handle = await start(client, name, 1, queue="nobody-" + name)

        async def there() -> bool:
            return await pending(handle) is not None

        await eventually(there, "the activity")
        response = await client.workflow_service.update_activity_options(
            UpdateActivityOptionsRequest(
                namespace="default",
                execution=execution(handle),
                id="the-activity",
                activity_options=ActivityOptions(
                    task_queue=TaskQueue(name="other-" + name),
                    retry_policy=ApiRetryPolicy(maximum_attempts=7),
                ),
                update_mask=FieldMask(paths=["task_queue.name", "retry_policy.maximum_attempts"]),
            )
        )
        assert response.activity_options.task_queue.name == "other-" + name
        assert response.activity_options.retry_policy.maximum_attempts == 7
        info = await pending(handle)
        assert info and info.maximum_attempts == 7
        async with working(client, "other-" + name, activities=[flaky.flaky]):
            assert await handle.result() == 1


async def test_unknown_activities_are_not_found(client: Client, name: str) -> None:
    async with working(client, name, [OneActivity]):
        handle = await start(client, name, 1, queue="nobody-" + name)
        await eventually(lambda: pending(handle), "the activity")
        for which in ({"id": "no"}, {"type": "no"}):
            with pytest.raises(RPCError) as caught:
                await pause(client, handle, **which)
            assert caught.value.status == RPCStatusCode.NOT_FOUND
        await handle.terminate()


async def test_lists_find_what_is_paused(client: Client, name: str) -> None:
    async with working(client, name, [OneActivity]):
        handle = await start(client, name, 1, queue="nobody-" + name)
        await eventually(lambda: pending(handle), "the activity")
        query = f'TemporalPauseInfo = "property:activityType=flaky" AND WorkflowId = "{name}"'

        async def count() -> int:
            return (await client.count_workflows(query)).count

        assert await count() == 0
        await pause(client, handle, type="flaky")
        await eventually(count, "the list to show the pause")
        await unpause(client, handle)

        async def none() -> bool:
            return await count() == 0

        await eventually(none, "the list to forget the pause")
        await handle.terminate()


async def test_a_pause_survives_a_kill(durable_server: Process, name: str) -> None:
    client = await Client.connect(durable_server.address)
    flaky = Flaky()
    flaky.broken = False
    async with working(client, name, [OneActivity]):
        handle = await start(client, name, 1, queue="other-" + name)
        await eventually(lambda: pending(handle), "the activity")
        await pause(client, handle)
        durable_server.restart()
        info = await await_state(handle, PAUSED)
        assert info.pause_info.manual.reason == "why"
        async with working(client, "other-" + name, activities=[flaky.flaky]):
            await asyncio.sleep(1)
            assert not flaky.attempts
            await unpause(client, handle)
            durable_server.restart()
            # The kill may have taken the answer to the poll with it: then there is another.
            assert await handle.result() == flaky.attempts[-1]
