"""What was acknowledged survives `kill -9`: the real binary, killed again and again."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from datetime import timedelta
from typing import Any, Awaitable, Callable

from temporalio import activity, workflow
from temporalio.api.enums.v1 import NamespaceState
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    RegisterNamespaceRequest,
    SignalWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
)
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.service import RPCError, RPCStatusCode

from helpers import events, eventually, execution, kind, working

# Says what is drawn, so that a failure can be had again: EVERSPAN_SEED=n.
SEED = int(os.environ.get("EVERSPAN_SEED", "0")) or random.randrange(1, 1 << 30)
KILLS = int(os.environ.get("EVERSPAN_KILLS", "4"))
CLIENTS = 3
SIGNALS = 4
TIMERS_MS = (50, 400, 1500)

RAN: Counter[str] = Counter()


@activity.defn
async def once(key: str) -> str:
    """Counts how often it ran: with one attempt allowed, at most once."""
    RAN[key] += 1
    await asyncio.sleep(0.05)
    return key


@activity.defn
async def often(key: str) -> str:
    """May run again."""
    if activity.info().attempt == 1:
        raise RuntimeError("the first attempt always fails")
    return key


@workflow.defn
class Journey:
    """Timers, activities and signals side by side; ends when all of them are through."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @workflow.run
    async def run(self) -> dict[str, Any]:
        key = workflow.info().workflow_id

        async def one_attempt() -> str:
            try:
                return await workflow.execute_activity(
                    once,
                    key,
                    start_to_close_timeout=timedelta(seconds=10),
                    retry_policy=RetryPolicy(maximum_attempts=1),
                )
            except ActivityError:
                # Its one attempt may be lost with the server; it must not be made twice.
                return "lost"

        said, again, *_ = await asyncio.gather(
            one_attempt(),
            workflow.execute_activity(
                often,
                key,
                start_to_close_timeout=timedelta(seconds=10),
                retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=200)),
            ),
            *(workflow.sleep(timedelta(milliseconds=ms)) for ms in TIMERS_MS),
        )
        await workflow.wait_condition(lambda: len(self.heard) >= SIGNALS)
        return {"once": said, "often": again, "heard": self.heard}

    @workflow.signal
    def word(self, word: str) -> None:
        self.heard.append(word)


GONE = (
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.RESOURCE_EXHAUSTED,
)


async def until_acknowledged(call: Callable[[], Awaitable[Any]]) -> Any:
    """Makes one call again and again until the server answers it."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return await call()
        except RPCError as error:
            assert error.status in GONE, f"{error.status}: {error.message}"
            assert time.monotonic() < deadline, "the server never came back"
            await asyncio.sleep(0.05)


async def drive(client: Client, queue: str, number: int, stop: asyncio.Event) -> list[str]:
    """One client: starts workflows and signals them until it is stopped."""
    started: list[str] = []
    while not stop.is_set():
        workflow_id = f"{queue}-{number}-{len(started)}"
        # The same request ID on every try: a start or signal is taken once.
        start = StartWorkflowExecutionRequest(
            namespace="default", workflow_id=workflow_id, request_id=workflow_id, identity="drive"
        )
        start.workflow_type.name = "Journey"
        start.task_queue.name = queue
        service = client.workflow_service
        await until_acknowledged(
            lambda: service.start_workflow_execution(start, timeout=timedelta(seconds=5))
        )
        started.append(workflow_id)
        for n in range(SIGNALS):
            signal = SignalWorkflowExecutionRequest(
                namespace="default",
                signal_name="word",
                request_id=f"{workflow_id}-{n}",
                identity="drive",
            )
            signal.workflow_execution.workflow_id = workflow_id
            payload = signal.input.payloads.add()
            payload.metadata["encoding"] = b"json/plain"
            payload.data = f'"{n}"'.encode()
            await until_acknowledged(
                lambda: service.signal_workflow_execution(signal, timeout=timedelta(seconds=5))
            )
        await asyncio.sleep(0.02)
    return started


async def check(client: Client, workflow_id: str) -> None:
    """One workflow's result and history hold all that was acknowledged, once."""
    handle = client.get_workflow_handle(workflow_id)
    result = await asyncio.wait_for(handle.result(), 90)
    words = [str(n) for n in range(SIGNALS)]
    assert result["heard"] == words, workflow_id
    assert result["often"] == workflow_id
    assert result["once"] in (workflow_id, "lost")
    assert RAN[workflow_id] <= 1, f"{workflow_id}: its one attempt ran {RAN[workflow_id]} times"
    found = await events(handle)
    assert [event.event_id for event in found] == list(range(1, len(found) + 1))
    signals = [
        event.workflow_execution_signaled_event_attributes.request_id
        for event in found
        if kind(event) == "WORKFLOW_EXECUTION_SIGNALED"
    ]
    assert signals == [f"{workflow_id}-{word}" for word in words]
    started = {
        event.timer_started_event_attributes.timer_id: event
        for event in found
        if kind(event) == "TIMER_STARTED"
    }
    fired = [event for event in found if kind(event) == "TIMER_FIRED"]
    assert len(started) == len(TIMERS_MS)
    assert sorted(e.timer_fired_event_attributes.timer_id for e in fired) == sorted(started)
    for event in fired:
        begun = started[event.timer_fired_event_attributes.timer_id]
        due = begun.event_time.ToNanoseconds() + (
            begun.timer_started_event_attributes.start_to_fire_timeout.ToNanoseconds()
        )
        assert event.event_time.ToNanoseconds() >= due, f"{workflow_id}: a timer fired early"
    closing = [e for e in found if kind(e).startswith("WORKFLOW_EXECUTION_COMPLETED")]
    assert len(closing) == 1 and found[-1] == closing[0]


async def test_killed_again_and_again(durable_server, name: str) -> None:
    """Several clients and a worker go on while the server is killed at random moments."""
    print(f"EVERSPAN_SEED={SEED}")
    dice = random.Random(SEED)
    client = await Client.connect(durable_server.address)
    stop = asyncio.Event()
    async with working(client, name, [Journey], [once, often]):
        clients = [await Client.connect(durable_server.address) for _ in range(CLIENTS)]
        driving = [
            asyncio.create_task(drive(each, name, n, stop)) for n, each in enumerate(clients)
        ]
        for _ in range(KILLS):
            await asyncio.sleep(dice.uniform(0.2, 1.5))
            durable_server.kill9()
            await asyncio.sleep(dice.uniform(0, 0.3))
            await asyncio.to_thread(durable_server.start)
        stop.set()
        started = [one for ids in await asyncio.gather(*driving) for one in ids]
        assert len(started) >= CLIENTS, "nothing was driven"
        await asyncio.gather(*(check(client, workflow_id) for workflow_id in started))
    print(f"{len(started)} workflows over {KILLS} kills")


async def test_acknowledged_then_killed(durable_server, name: str) -> None:
    """Killed right after each acknowledgement: every one of them is there."""
    client = await Client.connect(durable_server.address)
    handle = await client.start_workflow(Journey.run, id=name, task_queue=name)
    durable_server.restart()
    for n in range(SIGNALS):
        await until_acknowledged(
            lambda: client.workflow_service.signal_workflow_execution(
                SignalWorkflowExecutionRequest(
                    namespace="default",
                    workflow_execution=execution(handle),
                    signal_name="word",
                    request_id=f"{name}-{n}",
                    input={
                        "payloads": [
                            {"metadata": {"encoding": b"json/plain"}, "data": f'"{n}"'.encode()}
                        ]
                    },
                )
            )
        )
        durable_server.restart()
    async with working(client, name, [Journey], [once, often]):
        await check(client, name)


@workflow.defn
class Sleeper:
    @workflow.run
    async def run(self, seconds: float) -> str:
        await workflow.sleep(timedelta(seconds=seconds))
        return "awake"


async def test_timer_that_fell_due_while_down(durable_server, name: str) -> None:
    """A timer whose time came while the server was down fires when it is back."""
    client = await Client.connect(durable_server.address)
    async with working(client, name, [Sleeper]):
        handle = await client.start_workflow(Sleeper.run, 1.5, id=name, task_queue=name)

        async def sleeping() -> bool:
            return any(kind(event) == "TIMER_STARTED" for event in await events(handle))

        await eventually(sleeping, "the timer")
        begun = time.monotonic()
        durable_server.kill9()
        # Down past the timer's time: the time of the test itself, not of luck.
        await asyncio.sleep(max(0.0, begun + 2 - time.monotonic()))
        await asyncio.to_thread(durable_server.start)
        assert await asyncio.wait_for(handle.result(), 30) == "awake"


async def test_clean_stop_and_start(durable_server, name: str) -> None:
    """SIGTERM, start: runs, closed histories, namespaces and the list are as before."""
    client = await Client.connect(durable_server.address)
    await client.workflow_service.register_namespace(
        RegisterNamespaceRequest(
            namespace="kept", workflow_execution_retention_period={"seconds": 24 * 3600}
        )
    )
    async with working(client, name, [Sleeper]):
        closed = await client.start_workflow(
            Sleeper.run, 0.01, id=f"{name}-closed", task_queue=name
        )
        assert await closed.result() == "awake"
    opened = await client.start_workflow(Sleeper.run, 0.01, id=f"{name}-open", task_queue=name)
    before = [await events(closed), await events(opened)]
    durable_server.stop()
    durable_server.start()
    client = await Client.connect(durable_server.address)
    closed = client.get_workflow_handle(closed.id)
    opened = client.get_workflow_handle(opened.id)
    assert [await events(closed), await events(opened)] == before
    assert await closed.result() == "awake"
    assert (await opened.describe()).status == WorkflowExecutionStatus.RUNNING
    rows = [row.id async for row in client.list_workflows(f"WorkflowId STARTS_WITH '{name}'")]
    assert rows == [opened.id, closed.id]
    kept = await client.workflow_service.describe_namespace(
        DescribeNamespaceRequest(namespace="kept")
    )
    assert kept.namespace_info.state == NamespaceState.NAMESPACE_STATE_REGISTERED
    async with working(client, name, [Sleeper]):
        assert await opened.result() == "awake"
