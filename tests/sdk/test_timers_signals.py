"""Timers and signals."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any, Sequence

import pytest
from temporalio import activity, workflow
from temporalio.api.workflowservice.v1 import SignalWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.service import RPCError, RPCStatusCode

from helpers import await_event, events, execution, kind, kinds, working


@workflow.defn
class Sleeps:
    @workflow.run
    async def run(self, milliseconds: list[int]) -> list[int]:
        """Sleeps one after the other; gives what workflow time each took."""
        took = []
        for sleep in milliseconds:
            before = workflow.now()
            await workflow.sleep(timedelta(milliseconds=sleep))
            took.append(round((workflow.now() - before) / timedelta(milliseconds=1)))
        return took


@workflow.defn
class Races:
    @workflow.run
    async def run(self, milliseconds: list[int]) -> list[int]:
        """Timers side by side; gives them in the order in which they fired."""
        order: list[int] = []

        async def one(sleep: int) -> None:
            await workflow.sleep(timedelta(milliseconds=sleep))
            order.append(sleep)

        await asyncio.gather(*(one(sleep) for sleep in milliseconds))
        return order


@workflow.defn
class CancelsTimer:
    @workflow.run
    async def run(self) -> str:
        long = asyncio.create_task(workflow.sleep(timedelta(days=365 * 3)))
        await workflow.sleep(timedelta(milliseconds=5))
        long.cancel()
        try:
            await long
        except asyncio.CancelledError:
            return "cancelled"
        return "fired"


@workflow.defn
class TimesOut:
    def __init__(self) -> None:
        self.go = False

    @workflow.run
    async def run(self) -> str:
        try:
            await workflow.wait_condition(lambda: self.go, timeout=timedelta(milliseconds=50))
        except asyncio.TimeoutError:
            return "timed out"
        return "went"


GATES: dict[str, asyncio.Event] = {}


@activity.defn
async def hold(name: str) -> None:
    """Keeps the workflow task that runs it open until the test lets go."""
    await GATES[name].wait()


@workflow.defn
class Listens:
    def __init__(self) -> None:
        self.heard: list[Any] = []

    @workflow.run
    async def run(self, count: int, hold_first: bool) -> list[Any]:
        if hold_first:
            await workflow.execute_local_activity(
                hold, workflow.info().workflow_id, start_to_close_timeout=timedelta(seconds=20)
            )
        await workflow.wait_condition(lambda: len(self.heard) >= count)
        return self.heard

    @workflow.signal
    async def word(self, word: str) -> None:
        self.heard.append(word)

    @workflow.signal(dynamic=True)
    async def anything(self, name: str, args: Sequence[RawValue]) -> None:
        values = [workflow.payload_converter().from_payload(a.payload, str) for a in args]
        self.heard.append([name, *values])


ALL = [Sleeps, Races, CancelsTimer, TimesOut, Listens]


async def test_timers_from_a_millisecond(client: Client, name: str) -> None:
    """Short timers fire, none early."""
    asked = [1, 10, 250]
    async with working(client, name, ALL):
        begun = time.monotonic()
        took = await client.execute_workflow(Sleeps.run, asked, id=name, task_queue=name)
        assert time.monotonic() - begun >= sum(asked) / 1000
    assert all(got >= wanted for got, wanted in zip(took, asked, strict=True)), took


async def test_timers_fire_in_order(client: Client, name: str) -> None:
    """Timers side by side fire by their time, not by their start."""
    async with working(client, name, ALL):
        order = await client.execute_workflow(Races.run, [2500, 5, 1250], id=name, task_queue=name)
    assert order == [5, 1250, 2500]


async def test_many_timers_of_one_moment(client: Client, name: str) -> None:
    """Two hundred timers of one moment all fire once."""
    async with working(client, name, ALL):
        handle = await client.start_workflow(Races.run, [20] * 200, id=name, task_queue=name)
        assert len(await handle.result()) == 200
    assert (await kinds(handle)).count("TIMER_FIRED") == 200


async def test_timer_of_years_is_cancelled(client: Client, name: str) -> None:
    """A timer of three years can be cancelled."""
    async with working(client, name, ALL):
        handle = await client.start_workflow(CancelsTimer.run, id=name, task_queue=name)
        assert await handle.result() == "cancelled"
    found = await events(handle)
    started = [
        event.timer_started_event_attributes.start_to_fire_timeout.seconds
        for event in found
        if kind(event) == "TIMER_STARTED"
    ]
    assert max(started) == 3 * 365 * 24 * 3600
    assert "TIMER_CANCELED" in [kind(e) for e in found]


async def test_wait_with_timeout(client: Client, name: str) -> None:
    """A wait condition's timeout is a timer."""
    async with working(client, name, ALL):
        assert await client.execute_workflow(TimesOut.run, id=name, task_queue=name) == "timed out"


async def test_signals_in_order(client: Client, name: str) -> None:
    """Signals of one client arrive in the order in which they were acknowledged."""
    words = [str(n) for n in range(30)]
    async with working(client, name, ALL):
        handle = await client.start_workflow(
            Listens.run, args=[len(words), False], id=name, task_queue=name
        )
        for word in words:
            await handle.signal(Listens.word, word)
        assert await handle.result() == words


async def test_signals_before_the_worker(client: Client, name: str) -> None:
    """Signals sent before any worker came are all there."""
    handle = await client.start_workflow(Listens.run, args=[3, False], id=name, task_queue=name)
    for word in "abc":
        await handle.signal(Listens.word, word)
    async with working(client, name, ALL):
        assert await handle.result() == ["a", "b", "c"]


async def test_signals_buffered_during_a_task(client: Client, name: str) -> None:
    """Signals behind a started task come after it, in order."""
    GATES[name] = asyncio.Event()
    async with working(client, name, ALL, [hold]):
        handle = await client.start_workflow(Listens.run, args=[3, True], id=name, task_queue=name)
        await await_event(handle, "WORKFLOW_TASK_STARTED")
        for word in "abc":
            await handle.signal(Listens.word, word)
        # Buffered: not in the history while the task is started.
        assert "WORKFLOW_EXECUTION_SIGNALED" not in await kinds(handle)
        GATES[name].set()
        assert await handle.result() == ["a", "b", "c"]
    found = await kinds(handle)
    first = found.index("WORKFLOW_EXECUTION_SIGNALED")
    assert found[first : first + 3] == ["WORKFLOW_EXECUTION_SIGNALED"] * 3
    assert "WORKFLOW_TASK_COMPLETED" in found[:first]


async def test_dynamic_signal(client: Client, name: str) -> None:
    """A signal that no handler names, with several arguments."""
    async with working(client, name, ALL):
        handle = await client.start_workflow(Listens.run, args=[1, False], id=name, task_queue=name)
        await handle.signal("unheard-of", args=["x", "y"])
        assert await handle.result() == [["unheard-of", "x", "y"]]


async def test_signal_request_id_is_taken_once(client: Client, name: str) -> None:
    """The same signal request is in the history once, idle or behind a task."""
    handle = await client.start_workflow(Listens.run, args=[2, False], id=name, task_queue=name)
    for request_id in ("one", "one", "two", "one", "two"):
        await client.workflow_service.signal_workflow_execution(
            SignalWorkflowExecutionRequest(
                namespace="default",
                workflow_execution=execution(handle),
                signal_name="unheard-of",
                request_id=request_id,
                identity="raw",
            )
        )
    async with working(client, name, ALL):
        await handle.result()
    signals = [e for e in await events(handle) if kind(e) == "WORKFLOW_EXECUTION_SIGNALED"]
    assert [e.workflow_execution_signaled_event_attributes.request_id for e in signals] == [
        "one",
        "two",
    ]


async def test_signal_to_a_closed_run(client: Client, name: str) -> None:
    """NOT_FOUND, and nothing in the history."""
    async with working(client, name, ALL):
        handle = await client.start_workflow(Sleeps.run, [1], id=name, task_queue=name)
        await handle.result()
    before = await kinds(handle)
    with pytest.raises(RPCError) as caught:
        await handle.signal("late")
    assert caught.value.status == RPCStatusCode.NOT_FOUND
    assert caught.value.message == "workflow execution already completed"
    assert await kinds(handle) == before


async def test_signals_race_the_close(client: Client, name: str) -> None:
    """Whatever was acknowledged before the close is seen by the workflow."""
    async with working(client, name, [Drains]):
        handle = await client.start_workflow(Drains.run, id=name, task_queue=name)
        sent = 0
        try:
            while sent < 200:
                await handle.signal(Drains.word, str(sent))
                sent += 1
        except RPCError as error:
            # Over, or closing just now.
            assert error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.RESOURCE_EXHAUSTED)
        heard = await handle.result()
    assert heard >= min(sent, 5)
    assert (await kinds(handle)).count("WORKFLOW_EXECUTION_SIGNALED") == heard


@workflow.defn
class Drains:
    """Closes as soon as it has heard five: with more behind it, it must hear them too."""

    def __init__(self) -> None:
        self.heard = 0

    @workflow.run
    async def run(self) -> int:
        await workflow.wait_condition(lambda: self.heard >= 5)
        return self.heard

    @workflow.signal
    def word(self, word: str) -> None:
        self.heard += 1
