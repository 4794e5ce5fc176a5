"""Starting, watching and ending workflows."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import EventType, HistoryEventFilterType
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryReverseRequest,
    StartWorkflowExecutionRequest,
)
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHistoryEventFilterType,
)
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import (
    ApplicationError,
    CancelledError,
    TerminatedError,
    TimeoutError,
    TimeoutType,
    WorkflowAlreadyStartedError,
)
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from helpers import await_event, events, eventually, execution, kind, kinds, working

KEYWORD = SearchAttributeKey.for_keyword("EverspanKeyword")
NUMBER = SearchAttributeKey.for_int("EverspanInt")


@workflow.defn
class Echo:
    @workflow.run
    async def run(self, word: str) -> str:
        return word


@workflow.defn
class Fails:
    @workflow.run
    async def run(self) -> None:
        raise ApplicationError("it broke", {"code": 7}, type="Broken")


@workflow.defn
class Waits:
    def __init__(self) -> None:
        self.done = False

    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.done)
        return "finished"

    @workflow.signal
    def finish(self) -> None:
        self.done = True


@workflow.defn
class CleansUp:
    @workflow.run
    async def run(self) -> None:
        try:
            await workflow.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.shield(workflow.sleep(timedelta(milliseconds=5)))
            raise


@workflow.defn
class IgnoresCancel:
    @workflow.run
    async def run(self) -> str:
        try:
            await workflow.sleep(3600)
        except asyncio.CancelledError:
            pass
        return "stayed"


@workflow.defn
class Describes:
    @workflow.run
    async def run(self) -> str:
        workflow.set_current_details("what it does now")
        workflow.upsert_memo({"second": None, "third": 3})
        workflow.upsert_search_attributes([NUMBER.value_set(7)])
        await workflow.sleep(timedelta(milliseconds=5), summary="a rest")
        info = workflow.info()
        return f"{info.workflow_type} {info.attempt} {info.task_queue}"


ALL = [Echo, Fails, Waits, CleansUp, IgnoresCancel, Describes]


async def test_start_and_result(client: Client, name: str) -> None:
    """A workflow in the SDK's own sandbox gives its result."""
    async with Worker(client, task_queue=name, workflows=[Echo]):
        assert await client.execute_workflow(Echo.run, "hi", id=name, task_queue=name) == "hi"


async def test_describe_open_and_closed(client: Client, name: str) -> None:
    """Describe tells status, times, queue, history length."""
    async with working(client, name, ALL):
        handle = await client.start_workflow(Waits.run, id=name, task_queue=name)
        open_ = await handle.describe()
        assert open_.status == WorkflowExecutionStatus.RUNNING
        assert open_.close_time is None
        assert open_.workflow_type == "Waits"
        assert open_.task_queue == name
        assert open_.run_id == handle.result_run_id
        await handle.signal(Waits.finish)
        assert await handle.result() == "finished"
        closed = await handle.describe()
        assert closed.status == WorkflowExecutionStatus.COMPLETED
        assert closed.close_time is not None
        assert closed.start_time <= closed.close_time
        assert closed.history_length == len(await events(handle))


async def test_failure_reaches_the_client(client: Client, name: str) -> None:
    """A failed workflow's type, message and details."""
    async with working(client, name, ALL):
        handle = await client.start_workflow(Fails.run, id=name, task_queue=name)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
        cause = caught.value.cause
        assert isinstance(cause, ApplicationError)
        assert (cause.type, cause.message, list(cause.details)) == (
            "Broken",
            "it broke",
            [{"code": 7}],
        )
        assert (await handle.describe()).status == WorkflowExecutionStatus.FAILED


async def test_cancel(client: Client, name: str) -> None:
    """Cancel reaches the workflow, which cleans up; a second cancel changes nothing."""
    async with working(client, name, ALL):
        handle = await client.start_workflow(CleansUp.run, id=name, task_queue=name)
        await await_event(handle, "TIMER_STARTED")
        await handle.cancel(reason="enough of it")
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
        assert isinstance(caught.value.cause, CancelledError)
        assert (await handle.describe()).status == WorkflowExecutionStatus.CANCELED
        assert (await kinds(handle)).count("WORKFLOW_EXECUTION_CANCEL_REQUESTED") == 1


async def test_cancel_ignored(client: Client, name: str) -> None:
    """A workflow may complete although it was asked to cancel."""
    async with working(client, name, ALL):
        handle = await client.start_workflow(IgnoresCancel.run, id=name, task_queue=name)
        await await_event(handle, "TIMER_STARTED")
        await handle.cancel()
        assert await handle.result() == "stayed"


async def test_cancel_and_terminate_when_closed(client: Client, name: str) -> None:
    """Cancel of a closed run is answered with success, terminate is NOT_FOUND."""
    async with working(client, name, ALL):
        handle = await client.start_workflow(Echo.run, "x", id=name, task_queue=name)
        await handle.result()
    before = await kinds(handle)
    await handle.cancel()
    with pytest.raises(RPCError) as caught:
        await handle.terminate()
    assert caught.value.status == RPCStatusCode.NOT_FOUND
    assert caught.value.message == "workflow execution already completed"
    assert await kinds(handle) == before


async def test_terminate(client: Client, name: str) -> None:
    """Terminate needs no worker and keeps reason and details."""
    handle = await client.start_workflow(Waits.run, id=name, task_queue=name)
    await handle.terminate("detail", 5, reason="not needed")
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert isinstance(caught.value.cause, TerminatedError)
    assert (await handle.describe()).status == WorkflowExecutionStatus.TERMINATED
    last = (await events(handle))[-1].workflow_execution_terminated_event_attributes
    assert last.reason == "not needed"
    assert [p.data for p in last.details.payloads] == [b'"detail"', b"5"]
    assert last.identity == "test-client"


@pytest.mark.parametrize("which", ["execution_timeout", "run_timeout"])
async def test_workflow_timeouts(client: Client, name: str, which: str) -> None:
    """Execution and run timeout close the run without the worker."""
    async with working(client, name, ALL):
        begun = time.monotonic()
        handle = await client.start_workflow(
            Waits.run, id=name, task_queue=name, **{which: timedelta(seconds=1)}
        )
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
        assert time.monotonic() - begun >= 1.0
        assert isinstance(caught.value.cause, TimeoutError)
        assert caught.value.cause.type == TimeoutType.START_TO_CLOSE
        assert (await handle.describe()).status == WorkflowExecutionStatus.TIMED_OUT


async def test_task_timeout_redelivers(client: Client, name: str) -> None:
    """A worker that holds a task past its timeout loses it to the next poll."""
    handle = await client.start_workflow(
        Echo.run, "again", id=name, task_queue=name, task_timeout=timedelta(seconds=1)
    )
    from temporalio.api.taskqueue.v1 import TaskQueue
    from temporalio.api.workflowservice.v1 import PollWorkflowTaskQueueRequest

    task = await client.workflow_service.poll_workflow_task_queue(
        PollWorkflowTaskQueueRequest(
            namespace="default", task_queue=TaskQueue(name=name), identity="sleeper"
        ),
        timeout=timedelta(seconds=20),
    )
    assert task.attempt == 1
    async with working(client, name, ALL):
        assert await handle.result() == "again"
    assert "WORKFLOW_TASK_TIMED_OUT" in await kinds(handle)


async def test_start_delay(client: Client, name: str) -> None:
    """The first task comes after the delay, not before."""
    async with working(client, name, ALL):
        handle = await client.start_workflow(
            Echo.run, "late", id=name, task_queue=name, start_delay=timedelta(seconds=1)
        )
        assert await kinds(handle) == ["WORKFLOW_EXECUTION_STARTED"]
        assert await handle.result() == "late"
    history = await events(handle)
    gap = history[1].event_time.ToMilliseconds() - history[0].event_time.ToMilliseconds()
    assert kind(history[1]) == "WORKFLOW_TASK_SCHEDULED"
    assert gap >= 1000


async def test_id_conflict_has_details(client: Client, name: str) -> None:
    """WorkflowExecutionAlreadyStarted tells the open run."""
    handle = await client.start_workflow(Waits.run, id=name, task_queue=name)
    with pytest.raises(WorkflowAlreadyStartedError) as caught:
        await client.start_workflow(Waits.run, id=name, task_queue=name)
    assert caught.value.workflow_id == name
    assert caught.value.run_id == handle.result_run_id
    same = await client.start_workflow(
        Waits.run,
        id=name,
        task_queue=name,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
    )
    assert same.result_run_id == handle.result_run_id
    other = await client.start_workflow(
        Waits.run,
        id=name,
        task_queue=name,
        id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING,
    )
    assert other.result_run_id != handle.result_run_id
    described = await client.get_workflow_handle(name, run_id=handle.result_run_id).describe()
    assert described.status == WorkflowExecutionStatus.TERMINATED
    await other.terminate()
    with pytest.raises(WorkflowAlreadyStartedError):
        await client.start_workflow(
            Waits.run,
            id=name,
            task_queue=name,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        )
    failed_only = await client.start_workflow(
        Waits.run,
        id=name,
        task_queue=name,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
    )
    await failed_only.terminate()


async def test_start_request_id_is_taken_once(client: Client, name: str) -> None:
    """The same start request gives the same run, however often it is sent."""
    request = StartWorkflowExecutionRequest(
        namespace="default", workflow_id=name, request_id=f"request-{name}", identity="raw"
    )
    request.workflow_type.name = "Waits"
    request.task_queue.name = name
    answers = await asyncio.gather(
        *(client.workflow_service.start_workflow_execution(request) for _ in range(5))
    )
    assert len({answer.run_id for answer in answers}) == 1
    request.request_id = f"another-{name}"
    with pytest.raises(RPCError) as caught:
        await client.workflow_service.start_workflow_execution(request)
    assert caught.value.status == RPCStatusCode.ALREADY_EXISTS
    await client.get_workflow_handle(name).terminate()


async def test_unknown_workflow(client: Client, name: str) -> None:
    """Calls about a workflow that never was are NOT_FOUND with the server's words."""
    handle = client.get_workflow_handle(name)
    for call in (handle.describe, handle.cancel, handle.terminate, handle.fetch_history):
        with pytest.raises(RPCError) as caught:
            await call()
        assert caught.value.status == RPCStatusCode.NOT_FOUND
        assert caught.value.message == f"workflow not found for ID: {name}"


async def test_memo_search_attributes_and_metadata(client: Client, name: str) -> None:
    """Memo, search attributes, summary and details come back in describe and history."""
    async with working(client, name, ALL):
        handle = await client.start_workflow(
            Describes.run,
            id=name,
            task_queue=name,
            memo={"first": "one", "second": 2},
            search_attributes=TypedSearchAttributes([SearchAttributePair(KEYWORD, "blue")]),
            static_summary="a summary",
            static_details="the details",
        )
        assert await handle.result() == f"Describes 1 {name}"
        description = await handle.describe()
    assert await description.memo() == {"first": "one", "third": 3}
    assert description.typed_search_attributes[KEYWORD] == "blue"
    assert description.typed_search_attributes[NUMBER] == 7
    assert await description.static_summary() == "a summary"
    assert await description.static_details() == "the details"
    history = await events(handle)
    assert history[0].user_metadata.summary.data == b'"a summary"'
    timer = next(event for event in history if kind(event) == "TIMER_STARTED")
    assert timer.user_metadata.summary.data == b'"a rest"'


async def test_unknown_search_attribute_is_refused(client: Client, name: str) -> None:
    """A start with a search attribute that nobody registered is INVALID_ARGUMENT."""
    unknown = SearchAttributeKey.for_keyword("NobodyRegisteredMe")
    with pytest.raises(RPCError) as caught:
        await client.start_workflow(
            Echo.run,
            "x",
            id=name,
            task_queue=name,
            search_attributes=TypedSearchAttributes([SearchAttributePair(unknown, "x")]),
        )
    assert caught.value.status == RPCStatusCode.INVALID_ARGUMENT
    assert "NobodyRegisteredMe" in caught.value.message


async def test_history_in_pages(client: Client, name: str) -> None:
    """Pages forwards and backwards hold every event once, in order."""
    async with working(client, name, ALL):
        handle = await client.start_workflow(Waits.run, id=name, task_queue=name)
        for _ in range(10):
            await handle.signal("nobody listens")
        await handle.signal(Waits.finish)
        await handle.result()
    whole = [event.event_id for event in await events(handle)]
    assert whole == list(range(1, len(whole) + 1))

    async def pages(call, request) -> list[list[int]]:
        request.namespace = "default"
        request.execution.CopyFrom(execution(handle))
        request.maximum_page_size = 3
        found = []
        while True:
            answer = await call(request)
            found.append([event.event_id for event in answer.history.events])
            if not answer.next_page_token:
                return found
            request.next_page_token = answer.next_page_token

    service = client.workflow_service
    forwards = await pages(
        service.get_workflow_execution_history, GetWorkflowExecutionHistoryRequest()
    )
    backwards = await pages(
        service.get_workflow_execution_history_reverse,
        GetWorkflowExecutionHistoryReverseRequest(),
    )
    assert [event for page in forwards for event in page] == whole
    assert [event for page in backwards for event in page] == whole[::-1]
    assert len(forwards) > 2 and len(backwards) > 2


async def test_history_long_poll(client: Client, name: str) -> None:
    """wait_new_event answers when an event comes, and ends with the run."""
    async with working(client, name, ALL):
        handle = await client.start_workflow(Waits.run, id=name, task_queue=name)
        seen: list[str] = []

        async def watch() -> None:
            async for event in handle.fetch_history_events(wait_new_event=True):
                seen.append(kind(event))

        watching = asyncio.create_task(watch())
        await eventually(lambda: "WORKFLOW_TASK_COMPLETED" in seen, "the first task")
        await handle.signal("nobody listens")
        await eventually(lambda: "WORKFLOW_EXECUTION_SIGNALED" in seen, "the signal")
        assert not watching.done()
        await handle.signal(Waits.finish)
        await asyncio.wait_for(watching, 20)
    assert seen == await kinds(handle)
    assert seen[-1] == "WORKFLOW_EXECUTION_COMPLETED"


async def test_history_close_event_only(client: Client, name: str) -> None:
    """The close filter waits for the closing event and gives it alone."""
    async with working(client, name, ALL):
        handle = await client.start_workflow(Waits.run, id=name, task_queue=name)

        async def close() -> list:
            return [
                event
                async for event in handle.fetch_history_events(
                    wait_new_event=True,
                    event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT,
                )
            ]

        closing = asyncio.create_task(close())
        await await_event(handle, "WORKFLOW_TASK_COMPLETED")
        assert not closing.done()
        await handle.signal(Waits.finish)
        found = await asyncio.wait_for(closing, 20)
    assert [kind(event) for event in found] == ["WORKFLOW_EXECUTION_COMPLETED"]


async def test_history_long_poll_ends_empty(client: Client, name: str) -> None:
    """A long poll that sees nothing new answers before the caller's deadline."""
    handle = await client.start_workflow(Waits.run, id=name, task_queue=name)
    request = GetWorkflowExecutionHistoryRequest(
        namespace="default",
        wait_new_event=True,
        history_event_filter_type=HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT,
    )
    request.execution.CopyFrom(execution(handle))
    answer = await client.workflow_service.get_workflow_execution_history(
        request, timeout=timedelta(seconds=4)
    )
    assert not answer.history.events
    assert answer.next_page_token
    await handle.terminate()


async def test_runs_of_one_id(client: Client, name: str) -> None:
    """Each run of an ID keeps its own history and result; no run ID means the latest."""
    async with working(client, name, ALL):
        first = await client.start_workflow(Echo.run, "one", id=name, task_queue=name)
        assert await first.result() == "one"
        second = await client.start_workflow(Echo.run, "two", id=name, task_queue=name)
        assert await second.result() == "two"
    assert first.result_run_id != second.result_run_id
    assert await client.get_workflow_handle(name).result() == "two"
    one = client.get_workflow_handle(name, run_id=first.result_run_id)
    assert await one.result() == "one"
    latest = await client.workflow_service.describe_workflow_execution(
        DescribeWorkflowExecutionRequest(namespace="default", execution={"workflow_id": name})
    )
    assert latest.workflow_execution_info.execution.run_id == second.result_run_id
    started = (await events(one))[0]
    assert started.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED
