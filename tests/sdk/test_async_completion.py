"""Activities completed from elsewhere: by token and by ID, in all four ways, across a kill."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import (
    AsyncActivityCancelledError,
    AsyncActivityHandle,
    Client,
    WorkflowFailureError,
)
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError
from temporalio.service import RPCError, RPCStatusCode

from harness import Process
from helpers import await_event, eventually, working

TOKENS: dict[str, bytes] = {}


@activity.defn
async def elsewhere() -> str:
    info = activity.info()
    TOKENS[info.workflow_id] = info.task_token
    activity.raise_complete_async()


@workflow.defn
class Waiter:
    """Waits for an activity that is completed elsewhere."""

    def __init__(self) -> None:
        self.give_up = False

    @workflow.run
    async def run(self) -> str:
        handle = workflow.start_activity(
            elsewhere,
            activity_id="the-activity",
            start_to_close_timeout=timedelta(seconds=60),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        waits = asyncio.ensure_future(workflow.wait_condition(lambda: self.give_up))
        await asyncio.wait([waits, handle], return_when=asyncio.FIRST_COMPLETED)
        if not handle.done():
            handle.cancel()
        try:
            return await handle
        except ActivityError as error:
            if isinstance(error.cause, CancelledError):
                return "cancelled " + str(error.cause.details[0])
            raise

    @workflow.signal
    def stop(self) -> None:
        self.give_up = True


@workflow.defn
class Local:
    """Runs local activities around a timer."""

    @workflow.run
    async def run(self) -> list[int]:
        numbers = []
        for n in range(3):
            numbers.append(
                await workflow.execute_local_activity(
                    numbered, n, start_to_close_timeout=timedelta(seconds=10)
                )
            )
            await workflow.sleep(0.5)
        return numbers


RAN: list[int] = []


@activity.defn
async def numbered(n: int) -> int:
    RAN.append(n)
    return n


async def outside(client: Client, name: str, form: str) -> AsyncActivityHandle:
    """A handle of the started activity, in one of the two forms."""
    await eventually(lambda: name in TOKENS, "the activity's start")
    if form == "token":
        return client.get_async_activity_handle(task_token=TOKENS[name])
    return client.get_async_activity_handle(
        workflow_id=name, run_id=None, activity_id="the-activity"
    )


async def refused(call: Any) -> None:
    with pytest.raises(RPCError) as caught:
        await call
    assert caught.value.status == RPCStatusCode.NOT_FOUND


@pytest.mark.parametrize("form", ["token", "id"])
async def test_four_ways_across_kills(durable_server: Process, name: str, form: str) -> None:
    client = await Client.connect(durable_server.address)
    async with working(client, name, [Waiter], [elsewhere]):
        runs = {}
        for way in ("complete", "fail", "cancel", "heartbeat"):
            runs[way] = await client.start_workflow(Waiter.run, id=f"{name}-{way}", task_queue=name)
        outsiders = {way: await outside(client, f"{name}-{way}", form) for way in runs}
        durable_server.restart()

        await outsiders["complete"].complete("done")
        assert await runs["complete"].result() == "done"
        await refused(outsiders["complete"].complete("again"))

        await outsiders["fail"].fail(ApplicationError("no", non_retryable=True))
        with pytest.raises(WorkflowFailureError) as failed:
            await runs["fail"].result()
        assert isinstance(failed.value.cause, ActivityError)
        assert str(failed.value.cause.cause) == "no"

        await runs["cancel"].signal(Waiter.stop)
        await await_event(runs["cancel"], "ACTIVITY_TASK_CANCEL_REQUESTED")
        with pytest.raises(AsyncActivityCancelledError):
            await outsiders["cancel"].heartbeat()
        durable_server.restart()
        await outsiders["cancel"].report_cancellation("enough")
        assert await runs["cancel"].result() == "cancelled enough"

        await outsiders["heartbeat"].heartbeat("half")
        durable_server.restart()
        description = (await runs["heartbeat"].describe()).raw_description
        assert description.pending_activities[0].heartbeat_details.payloads[0].data == b'"half"'
        await outsiders["heartbeat"].complete("late")
        assert await runs["heartbeat"].result() == "late"


async def test_local_activities_across_a_kill(durable_server: Process, name: str) -> None:
    client = await Client.connect(durable_server.address)
    RAN.clear()
    async with working(client, name, [Local], [numbered], max_cached_workflows=0):
        handle = await client.start_workflow(Local.run, id=name, task_queue=name)
        await await_event(handle, "MARKER_RECORDED")
        durable_server.restart()
        assert await handle.result() == [0, 1, 2]
    # What a marker recorded does not run again.
    assert sorted(set(RAN)) == [0, 1, 2]
    assert RAN.count(0) == 1
