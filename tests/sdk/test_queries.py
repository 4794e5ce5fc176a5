"""Queries: to open and closed runs, cached and not, rejected, failing, unknown."""

from __future__ import annotations

import asyncio

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import QueryRejectCondition as Reject
from temporalio.api.workflowservice.v1 import QueryWorkflowRequest
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.common import QueryRejectCondition
from temporalio.service import RPCError, RPCStatusCode

from helpers import await_event, execution, kinds, working


@workflow.defn
class Counter:
    def __init__(self) -> None:
        self.count = 0
        self.done = False

    @workflow.run
    async def run(self) -> int:
        await workflow.wait_condition(lambda: self.done)
        return self.count

    @workflow.signal
    def add(self, number: int) -> None:
        self.count += number

    @workflow.signal
    def finish(self) -> None:
        self.done = True

    @workflow.query
    def current(self) -> int:
        return self.count

    @workflow.query
    def plus(self, number: int) -> int:
        return self.count + number

    @workflow.query
    def broken(self) -> int:
        raise ValueError("cannot say")


async def test_open_run(client: Client, name: str) -> None:
    """A query to an open run, with arguments; it leaves no event."""
    async with working(client, name, [Counter]):
        handle = await client.start_workflow(Counter.run, id=name, task_queue=name)
        assert await handle.query(Counter.current) == 0
        await await_event(handle, "WORKFLOW_TASK_COMPLETED")
        before = await kinds(handle)
        assert await handle.query(Counter.plus, 5) == 5
        assert await kinds(handle) == before
        await handle.terminate()


async def test_sees_what_was_acknowledged(client: Client, name: str) -> None:
    """After a signal is acknowledged, a query sees it: on the sticky queue too."""
    async with working(client, name, [Counter]):
        handle = await client.start_workflow(Counter.run, id=name, task_queue=name)
        for n in range(1, 21):
            await handle.signal(Counter.add, 1)
            assert await handle.query(Counter.current) == n
        await handle.terminate()


async def test_closed_run(client: Client, name: str) -> None:
    """A query to a closed run replays its history."""
    async with working(client, name, [Counter]):
        handle = await client.start_workflow(Counter.run, id=name, task_queue=name)
        await handle.signal(Counter.add, 7)
        await handle.signal(Counter.finish)
        assert await handle.result() == 7
        assert await handle.query(Counter.current) == 7


async def test_after_cache_eviction(client: Client, name: str) -> None:
    """A worker that has forgotten the run, and another one, answer from the history."""
    async with working(client, name, [Counter]):
        handle = await client.start_workflow(Counter.run, id=name, task_queue=name)
        await handle.signal(Counter.add, 3)
        assert await handle.query(Counter.current) == 3
    async with working(client, name, [Counter], max_cached_workflows=0):
        assert await handle.query(Counter.current) == 3
        await handle.signal(Counter.add, 1)
        assert await handle.query(Counter.current) == 4
        await handle.terminate()


async def test_many_at_once(client: Client, name: str) -> None:
    """Queries side by side are all answered."""
    async with working(client, name, [Counter]):
        handle = await client.start_workflow(Counter.run, id=name, task_queue=name)
        assert await handle.query(Counter.current) == 0
        answers = await asyncio.gather(*(handle.query(Counter.plus, n) for n in range(20)))
        assert answers == list(range(20))
        await handle.terminate()


async def test_failing_query(client: Client, name: str) -> None:
    """The workflow's own error, and the run goes on."""
    async with working(client, name, [Counter]):
        handle = await client.start_workflow(Counter.run, id=name, task_queue=name)
        with pytest.raises(WorkflowQueryFailedError) as caught:
            await handle.query(Counter.broken)
        assert str(caught.value) == "cannot say"
        with pytest.raises(WorkflowQueryFailedError) as caught:
            await handle.query("unheard-of")
        assert "unheard-of" in str(caught.value)
        await handle.signal(Counter.finish)
        assert await handle.result() == 0


async def test_rejection_conditions(client: Client, name: str) -> None:
    """NOT_OPEN and NOT_COMPLETED_CLEANLY reject with the run's status."""
    async with working(client, name, [Counter]):
        handle = await client.start_workflow(Counter.run, id=name, task_queue=name)
        for condition in QueryRejectCondition:
            assert await handle.query(Counter.current, reject_condition=condition) == 0
        await handle.signal(Counter.finish)
        await handle.result()
        with pytest.raises(WorkflowQueryRejectedError) as caught:
            await handle.query(Counter.current, reject_condition=QueryRejectCondition.NOT_OPEN)
        assert caught.value.status == WorkflowExecutionStatus.COMPLETED
        clean = QueryRejectCondition.NOT_COMPLETED_CLEANLY
        assert await handle.query(Counter.current, reject_condition=clean) == 0
        second = await client.start_workflow(Counter.run, id=name, task_queue=name)
        await second.terminate()
        with pytest.raises(WorkflowQueryRejectedError) as caught:
            await second.query(Counter.current, reject_condition=clean)
        assert caught.value.status == WorkflowExecutionStatus.TERMINATED


async def test_rejected_without_a_worker(client: Client, name: str) -> None:
    """A rejection needs no worker."""
    handle = await client.start_workflow(Counter.run, id=name, task_queue=name)
    await handle.terminate()
    request = QueryWorkflowRequest(
        namespace="default",
        query_reject_condition=Reject.QUERY_REJECT_CONDITION_NOT_OPEN,
    )
    request.execution.CopyFrom(execution(handle))
    request.query.query_type = "current"
    answer = await client.workflow_service.query_workflow(request)
    assert answer.query_rejected.status == WorkflowExecutionStatus.TERMINATED


async def test_unknown_workflow(client: Client, name: str) -> None:
    """A query to a workflow that never was."""
    with pytest.raises(RPCError) as caught:
        await client.get_workflow_handle(name).query("current")
    assert caught.value.status == RPCStatusCode.NOT_FOUND
