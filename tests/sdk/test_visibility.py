"""Listing and counting runs."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.enums.v1 import WorkflowExecutionStatus as Status
from temporalio.api.filter.v1 import (
    StartTimeFilter,
    StatusFilter,
    WorkflowExecutionFilter,
    WorkflowTypeFilter,
)
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    GetSearchAttributesRequest,
    ListClosedWorkflowExecutionsRequest,
    ListOpenWorkflowExecutionsRequest,
    ListWorkflowExecutionsRequest,
    ScanWorkflowExecutionsRequest,
)
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from helpers import eventually, working

# A namespace may list and count ten times a second.
PAUSE = 0.3


@workflow.defn
class Listed:
    @workflow.run
    async def run(self, how: str) -> str:
        if how == "wait":
            await workflow.wait_condition(lambda: False)
        if how == "fail":
            raise ApplicationError("as asked")
        return how


async def ids(client: Client, query: str) -> list[str]:
    """The workflow IDs that a query lists, in its order."""
    return [found.id async for found in client.list_workflows(query)]


async def listed(client: Client, query: str, wanted: list[str]) -> None:
    """Waits until a query lists just `wanted` (the real server's index is a step behind)."""

    async def same() -> bool:
        return await ids(client, query) == wanted

    try:
        await eventually(same, query, 10, every=PAUSE)
    except AssertionError:
        assert await ids(client, query) == wanted


async def test_by_each_field(client: Client, name: str) -> None:
    """WorkflowId, RunId, WorkflowType, ExecutionStatus, StartTime, CloseTime."""
    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    done_id, failed_id, open_id = f"{name}-done", f"{name}-failed", f"{name}-open"
    async with working(client, name, [Listed]):
        done = await client.start_workflow(Listed.run, "done", id=done_id, task_queue=name)
        await done.result()
        failed = await client.start_workflow(Listed.run, "fail", id=failed_id, task_queue=name)
        with pytest.raises(WorkflowFailureError):
            await failed.result()
        opened = await client.start_workflow(Listed.run, "wait", id=open_id, task_queue=name)
    mine = f"WorkflowId STARTS_WITH '{name}'"
    after = (datetime.now(timezone.utc) + timedelta(minutes=1)).isoformat()
    since = before.isoformat()

    await listed(client, f"WorkflowId = '{done_id}'", [done_id])
    await listed(client, f"RunId = '{failed.result_run_id}'", [failed_id])
    await listed(client, f"WorkflowType = 'Listed' AND WorkflowId = '{open_id}'", [open_id])
    await listed(client, f"WorkflowType = 'Other' AND WorkflowId = '{open_id}'", [])
    await listed(client, f"{mine} AND ExecutionStatus = 'Running'", [open_id])
    await listed(client, f"{mine} AND ExecutionStatus = 'Failed'", [failed_id])
    await listed(
        client,
        f"{mine} AND ExecutionStatus IN ('Completed', 'Failed')",
        [failed_id, done_id],
    )
    await listed(client, f"{mine} AND ExecutionStatus != 'Running'", [failed_id, done_id])
    await listed(client, f"{mine} AND StartTime > '{since}'", [open_id, failed_id, done_id])
    await listed(client, f"{mine} AND StartTime < '{since}'", [])
    await listed(
        client,
        f"{mine} AND StartTime BETWEEN '{since}' AND '{after}'",
        [open_id, failed_id, done_id],
    )
    await listed(client, f"{mine} AND CloseTime IS NULL", [open_id])
    await listed(client, f"{mine} AND CloseTime > '{since}'", [failed_id, done_id])
    await listed(
        client,
        f"(WorkflowId = '{done_id}' OR WorkflowId = '{open_id}') AND {mine}",
        [open_id, done_id],
    )
    await opened.terminate()
    await listed(client, f"{mine} AND ExecutionStatus = 'Terminated'", [open_id])


async def test_what_a_row_says(client: Client, name: str) -> None:
    """A listed run's type, status, times, queue, memo and history length."""
    async with working(client, name, [Listed]):
        handle = await client.start_workflow(
            Listed.run, "done", id=name, task_queue=name, memo={"key": "value"}
        )
        await handle.result()

    async def closed() -> list:
        found = [row async for row in client.list_workflows(f"WorkflowId = '{name}'")]
        return [row for row in found if row.close_time]

    (row,) = await eventually(closed, "the closed row", every=PAUSE)
    described = await handle.describe()
    assert row.id == name and row.run_id == handle.result_run_id
    assert row.workflow_type == "Listed"
    assert row.task_queue == name
    assert row.status == WorkflowExecutionStatus.COMPLETED
    assert row.history_length == described.history_length
    assert await row.memo() == {"key": "value"}
    # The index of the real server keeps microseconds.
    for listed_time, exact in (
        (row.start_time, described.start_time),
        (row.close_time, described.close_time),
    ):
        assert exact is not None and listed_time is not None
        assert abs(listed_time - exact) < timedelta(milliseconds=1)


async def test_order_and_pages(client: Client, name: str) -> None:
    """Open runs before closed ones, the latest first; pages hold each once."""
    handles = [
        await client.start_workflow(Listed.run, "wait", id=f"{name}-{n:02}", task_queue=name)
        for n in range(9)
    ]
    for n in (4, 1, 7):
        await handles[n].terminate()
    order = [8, 6, 5, 3, 2, 0, 7, 1, 4]
    wanted = [f"{name}-{n:02}" for n in order]
    query = f"WorkflowId STARTS_WITH '{name}'"
    await listed(client, query, wanted)
    pages = []
    request = ListWorkflowExecutionsRequest(namespace="default", query=query, page_size=4)
    while True:
        answer = await client.workflow_service.list_workflow_executions(request, retry=True)
        pages.append([row.execution.workflow_id for row in answer.executions])
        if not answer.next_page_token:
            break
        request.next_page_token = answer.next_page_token
    assert [row for page in pages for row in page] == wanted
    assert all(len(page) <= 4 for page in pages)
    await asyncio.gather(*(handles[n].terminate() for n in order[:6]))


async def test_count(client: Client, name: str) -> None:
    """Counts by the same query."""
    handles = [
        await client.start_workflow(Listed.run, "wait", id=f"{name}-{n}", task_queue=name)
        for n in range(5)
    ]
    for handle in handles[:2]:
        await handle.terminate()
    mine = f"WorkflowId STARTS_WITH '{name}'"

    async def count(query: str) -> int:
        answer = await client.workflow_service.count_workflow_executions(
            CountWorkflowExecutionsRequest(namespace="default", query=query), retry=True
        )
        return answer.count

    for query, wanted in (
        (f"{mine} AND ExecutionStatus = 'Terminated'", 2),
        (f"{mine} AND ExecutionStatus = 'Running'", 3),
        (mine, 5),
        (f"{mine} AND WorkflowType = 'Other'", 0),
    ):

        async def right() -> bool:
            return await count(query) == wanted

        await eventually(right, f"{wanted} of {query}", timeout=10, every=PAUSE)
    for handle in handles[2:]:
        await handle.terminate()


async def test_runs_of_one_id_are_rows(client: Client, name: str) -> None:
    """Every run of an ID is a row of its own."""
    runs = []
    for _ in range(3):
        handle = await client.start_workflow(Listed.run, "wait", id=name, task_queue=name)
        await handle.terminate()
        runs.append(handle.result_run_id)

    async def all_runs() -> bool:
        found = [row.run_id async for row in client.list_workflows(f"WorkflowId = '{name}'")]
        return found == runs[::-1]

    await eventually(all_runs, "the runs, latest first", timeout=10, every=PAUSE)


async def test_bad_queries(client: Client) -> None:
    """INVALID_ARGUMENT for what is not a query."""
    for query in (
        "WorkflowId =",
        "this is no query",
        "NobodyRegisteredMe = 'x'",
        "StartTime > 'yesterday-ish'",
        "ExecutionStatus = 'Sleeping'",
    ):
        with pytest.raises(RPCError) as caught:
            await ids(client, query)
        assert caught.value.status == RPCStatusCode.INVALID_ARGUMENT, query


async def test_bad_page_token(client: Client) -> None:
    """A page token that no server made is refused."""
    with pytest.raises(RPCError) as caught:
        await client.workflow_service.list_workflow_executions(
            ListWorkflowExecutionsRequest(namespace="default", next_page_token=b"\xffnonsense")
        )
    # The real server has no better word than UNKNOWN for it.
    assert caught.value.status in (RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.UNKNOWN)


async def test_lists_of_open_and_closed_runs(client: Client, name: str) -> None:
    """The older calls: by start time, with a filter by ID, type or status; and the scan."""
    done_id, open_id = f"{name}-done", f"{name}-open"
    async with working(client, name, [Listed]):
        done = await client.start_workflow(Listed.run, "done", id=done_id, task_queue=name)
        await done.result()
        opened = await client.start_workflow(Listed.run, "wait", id=open_id, task_queue=name)
    await listed(client, f"WorkflowId STARTS_WITH '{name}'", [open_id, done_id])
    service, since = client.workflow_service, StartTimeFilter()
    since.earliest_time.FromDatetime(datetime.now(timezone.utc) - timedelta(hours=1))
    since.latest_time.FromDatetime(datetime.now(timezone.utc) + timedelta(hours=1))

    async def are_open(**one: Any) -> list[str]:
        request = ListOpenWorkflowExecutionsRequest(
            namespace=client.namespace, start_time_filter=since, **one
        )
        found = await service.list_open_workflow_executions(request)
        return [e.execution.workflow_id for e in found.executions]

    async def are_closed(**one: Any) -> list[str]:
        request = ListClosedWorkflowExecutionsRequest(
            namespace=client.namespace, start_time_filter=since, **one
        )
        found = await service.list_closed_workflow_executions(request)
        return [e.execution.workflow_id for e in found.executions]

    def by_id(workflow_id: str) -> WorkflowExecutionFilter:
        return WorkflowExecutionFilter(workflow_id=workflow_id)

    assert await are_open(execution_filter=by_id(open_id)) == [open_id]
    assert await are_open(execution_filter=by_id(done_id)) == []
    assert open_id in await are_open(type_filter=WorkflowTypeFilter(name="Listed"))
    assert await are_closed(execution_filter=by_id(done_id)) == [done_id]
    assert await are_closed(execution_filter=by_id(open_id)) == []
    completed = StatusFilter(status=Status.WORKFLOW_EXECUTION_STATUS_COMPLETED)
    assert done_id in await are_closed(status_filter=completed)
    scanned = await service.scan_workflow_executions(
        ScanWorkflowExecutionsRequest(
            namespace=client.namespace, query=f"WorkflowId STARTS_WITH '{name}'"
        )
    )
    assert {e.execution.workflow_id for e in scanned.executions} == {open_id, done_id}
    await opened.terminate()


async def test_search_attributes_there_are(client: Client) -> None:
    """The system's, and those of the tests."""
    found = await client.workflow_service.get_search_attributes(GetSearchAttributesRequest())
    assert found.keys["WorkflowId"] == IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    assert found.keys["StartTime"] == IndexedValueType.INDEXED_VALUE_TYPE_DATETIME
    assert found.keys["EverspanInt"] == IndexedValueType.INDEXED_VALUE_TYPE_INT
