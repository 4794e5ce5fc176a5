"""Workflow tasks as workers make them: replay, crashes, versions, broken code, tokens."""

from __future__ import annotations

import asyncio
import pathlib
import subprocess
import sys
from datetime import timedelta

import grpc
import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import TaskQueueKind, WorkflowTaskFailedCause
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    PollActivityTaskQueueRequest,
    PollWorkflowTaskQueueRequest,
    RespondWorkflowTaskCompletedRequest,
)
from temporalio.api.workflowservice.v1.service_pb2_grpc import WorkflowServiceStub
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from helpers import await_event, events, eventually, execution, kind, kinds, working

HERE = pathlib.Path(__file__).parent
TIMEOUT = timedelta(seconds=20)


@activity.defn
async def note(word: str) -> str:
    return word.upper()


@workflow.defn
class Steps:
    """One activity a signal."""

    def __init__(self) -> None:
        self.words: list[str] = []

    @workflow.run
    async def run(self, count: int) -> list[str]:
        said = []
        for n in range(count):
            await workflow.wait_condition(lambda: len(self.words) > n)
            said.append(
                await workflow.execute_activity(note, self.words[n], start_to_close_timeout=TIMEOUT)
            )
        return said

    @workflow.signal
    def word(self, word: str) -> None:
        self.words.append(word)


@workflow.defn(name="Changing")
class ChangingBefore:
    def __init__(self) -> None:
        self.go = False

    @workflow.run
    async def run(self) -> str:
        await workflow.sleep(timedelta(milliseconds=1))
        await workflow.wait_condition(lambda: self.go)
        return "before"

    @workflow.signal
    def finish(self) -> None:
        self.go = True


@workflow.defn(name="Changing")
class ChangingBroken(ChangingBefore):
    @workflow.run
    async def run(self) -> str:
        await workflow.execute_activity(note, "x", start_to_close_timeout=TIMEOUT)
        await workflow.wait_condition(lambda: self.go)
        return "broken"


@workflow.defn(name="Changing")
class ChangingPatched(ChangingBefore):
    @workflow.run
    async def run(self) -> str:
        if workflow.patched("activity-instead-of-sleep"):
            said = await workflow.execute_activity(note, "x", start_to_close_timeout=TIMEOUT)
        else:
            await workflow.sleep(timedelta(milliseconds=1))
            said = "slept"
        await workflow.wait_condition(lambda: self.go)
        return f"patched: {said}"


BROKEN_FOR: dict[str, int] = {}


@workflow.defn
class BreaksAtFirst:
    @workflow.run
    async def run(self) -> str:
        workflow_id = workflow.info().workflow_id
        if BROKEN_FOR.get(workflow_id, 0) > 0:
            BROKEN_FOR[workflow_id] -= 1
            raise RuntimeError("a bug, not a failure of the workflow")
        return "fixed"


async def test_worker_crash_falls_back_and_replays(client: Client, server, name: str) -> None:
    """A killed worker's cached run goes on elsewhere, replayed from the start."""
    handle = await client.start_workflow(Steps.run, 3, id=name, task_queue=name)
    doomed = subprocess.Popen(
        [sys.executable, str(HERE / "crashing_worker.py"), server.address, name]
    )
    try:
        await handle.signal(Steps.word, "one")
        await await_event(handle, "ACTIVITY_TASK_COMPLETED")
        await await_event(handle, "WORKFLOW_TASK_COMPLETED", 2)
    finally:
        doomed.kill()
        doomed.wait()
    # To the sticky queue of a worker that is no more.
    await handle.signal(Steps.word, "two")
    async with working(client, name, [Steps], [note]):
        await handle.signal(Steps.word, "three")
        assert await handle.result() == ["ONE", "TWO", "THREE"]
    found = await events(handle)
    sticky = [
        event
        for event in found
        if event.workflow_task_scheduled_event_attributes.task_queue.kind
        == TaskQueueKind.TASK_QUEUE_KIND_STICKY
    ]
    assert sticky, "the run was never sticky"
    workers = {
        event.workflow_task_completed_event_attributes.identity
        for event in found
        if kind(event) == "WORKFLOW_TASK_COMPLETED"
    }
    assert "doomed" in workers and len(workers) == 2


async def test_worker_restart_replays(client: Client, name: str) -> None:
    """A worker that leaves in good order hands its runs to the next."""
    async with working(client, name, [Steps], [note]):
        handle = await client.start_workflow(Steps.run, 2, id=name, task_queue=name)
        await handle.signal(Steps.word, "one")
        await await_event(handle, "ACTIVITY_TASK_COMPLETED")
    async with working(client, name, [Steps], [note]):
        await handle.signal(Steps.word, "two")
        assert await handle.result() == ["ONE", "TWO"]


async def test_without_a_cache(client: Client, name: str) -> None:
    """A worker that caches nothing replays every task from the normal queue."""
    async with working(client, name, [Steps], [note], max_cached_workflows=0):
        handle = await client.start_workflow(Steps.run, 3, id=name, task_queue=name)
        for word in ("one", "two", "three"):
            await handle.signal(Steps.word, word)
        assert await handle.result() == ["ONE", "TWO", "THREE"]
    assert all(
        event.workflow_task_scheduled_event_attributes.task_queue.kind
        != TaskQueueKind.TASK_QUEUE_KIND_STICKY
        for event in await events(handle)
    )


async def test_non_determinism_fails_the_task_only(client: Client, name: str) -> None:
    """Changed code fails the task, not the run; the right code completes it."""
    async with working(client, name, [ChangingBefore], max_cached_workflows=0):
        handle = await client.start_workflow(
            ChangingBefore.run, id=name, task_queue=name, task_timeout=timedelta(seconds=1)
        )
        await await_event(handle, "TIMER_FIRED")
        await await_event(handle, "WORKFLOW_TASK_COMPLETED", 2)
    async with working(client, name, [ChangingBroken], [note], max_cached_workflows=0):
        await handle.signal(ChangingBefore.finish)
        await await_event(handle, "WORKFLOW_TASK_FAILED")
    failed = next(e for e in await events(handle) if kind(e) == "WORKFLOW_TASK_FAILED")
    cause = failed.workflow_task_failed_event_attributes.cause
    assert cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR
    async with working(client, name, [ChangingBefore], max_cached_workflows=0):
        assert await handle.result() == "before"


async def test_broken_code_is_retried(client: Client, name: str) -> None:
    """A task that fails is tried again; only its first failure is in the history."""
    BROKEN_FOR[name] = 2
    async with working(client, name, [BreaksAtFirst]):
        # The SDK lets later attempts time out instead of failing them.
        handle = await client.start_workflow(
            BreaksAtFirst.run, id=name, task_queue=name, task_timeout=timedelta(seconds=1)
        )
        assert await handle.result() == "fixed"
    assert await kinds(handle) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ]
    scheduled = [e for e in await events(handle) if kind(e) == "WORKFLOW_TASK_SCHEDULED"]
    attempts = [e.workflow_task_scheduled_event_attributes.attempt for e in scheduled]
    assert attempts == [1, 3]


async def test_patched(client: Client, name: str) -> None:
    """A patch: old runs go the old way, new ones the new way with a marker."""
    old_id, new_id = f"{name}-old", f"{name}-new"
    async with working(client, name, [ChangingBefore], max_cached_workflows=0):
        old = await client.start_workflow(ChangingBefore.run, id=old_id, task_queue=name)
        await await_event(old, "TIMER_FIRED")
        await await_event(old, "WORKFLOW_TASK_COMPLETED", 2)
    async with working(client, name, [ChangingPatched], [note], max_cached_workflows=0):
        new = await client.start_workflow(ChangingPatched.run, id=new_id, task_queue=name)
        await old.signal(ChangingBefore.finish)
        await new.signal(ChangingBefore.finish)
        assert await old.result() == "patched: slept"
        assert await new.result() == "patched: X"
    assert "MARKER_RECORDED" not in await kinds(old)
    assert "MARKER_RECORDED" in await kinds(new)


async def test_several_workers_share_a_queue(client: Client, server, name: str) -> None:
    """Runs spread over two workers all complete."""
    # The SDK takes one worker of a queue on one connection.
    other = await Client.connect(server.address)
    async with working(client, name, [Steps], [note], identity="a"):
        async with working(other, name, [Steps], [note], identity="b"):
            handles = [
                await client.start_workflow(Steps.run, 1, id=f"{name}-{n}", task_queue=name)
                for n in range(20)
            ]
            await asyncio.gather(*(handle.signal(Steps.word, "x") for handle in handles))
            results = await asyncio.gather(*(handle.result() for handle in handles))
    assert results == [["X"]] * 20


async def poll(client: Client, queue: str):
    """Polls one workflow task as a worker without an SDK."""
    return await client.workflow_service.poll_workflow_task_queue(
        PollWorkflowTaskQueueRequest(
            namespace="default", task_queue=TaskQueue(name=queue), identity="raw"
        ),
        timeout=timedelta(seconds=20),
    )


async def test_malformed_token(client: Client) -> None:
    """A token that no server made is INVALID_ARGUMENT."""
    for token in (b"", b"\xff\xffnot a token", b"\x00" * 200):
        with pytest.raises(RPCError) as caught:
            await client.workflow_service.respond_workflow_task_completed(
                RespondWorkflowTaskCompletedRequest(namespace="default", task_token=token)
            )
        assert caught.value.status == RPCStatusCode.INVALID_ARGUMENT, token


async def test_stale_token(client: Client, name: str) -> None:
    """A token used twice, or of an attempt that timed out, is NOT_FOUND."""
    handle = await client.start_workflow(
        Steps.run, 1, id=name, task_queue=name, task_timeout=timedelta(seconds=1)
    )
    late = await poll(client, name)
    await await_event(handle, "WORKFLOW_TASK_TIMED_OUT")
    second = await poll(client, name)
    assert second.attempt == 2
    request = RespondWorkflowTaskCompletedRequest(namespace="default", identity="raw")
    for token, stale in (
        (late.task_token, True),
        (second.task_token, False),
        (second.task_token, True),
    ):
        request.task_token = token
        if not stale:
            await client.workflow_service.respond_workflow_task_completed(request)
            continue
        with pytest.raises(RPCError) as caught:
            await client.workflow_service.respond_workflow_task_completed(request)
        assert caught.value.status == RPCStatusCode.NOT_FOUND
    await handle.terminate()


async def test_poll_without_a_deadline(server, name: str) -> None:
    """INVALID_ARGUMENT: a poll must say how long it waits."""
    queue = TaskQueue(name=name)
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = WorkflowServiceStub(channel)
        for call, request in (
            (stub.PollWorkflowTaskQueue, PollWorkflowTaskQueueRequest),
            (stub.PollActivityTaskQueue, PollActivityTaskQueueRequest),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request(namespace="default", task_queue=queue, identity="raw"))
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_poll_ends_empty(server, name: str) -> None:
    """An empty poll answers before its caller's deadline."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = WorkflowServiceStub(channel)
        request = PollWorkflowTaskQueueRequest(
            namespace="default", task_queue=TaskQueue(name=name), identity="raw"
        )
        task = await stub.PollWorkflowTaskQueue(request, timeout=4)
        assert not task.task_token


async def test_poll_waits_for_its_task(client: Client, name: str) -> None:
    """A poll that came first gets the task when it comes."""
    polling = asyncio.create_task(poll(client, name))
    handle = await client.start_workflow(Steps.run, 1, id=name, task_queue=name)
    task = await asyncio.wait_for(polling, 20)
    assert task.workflow_execution.workflow_id == name
    assert task.workflow_execution.run_id == execution(handle).run_id
    assert [event.event_id for event in task.history.events] == [1, 2, 3]
    await handle.terminate()


async def test_poller_that_left_takes_no_task(client: Client, server, name: str) -> None:
    """A task does not go to a poll whose caller has hung up."""
    request = PollWorkflowTaskQueueRequest(
        namespace="default", task_queue=TaskQueue(name=name), identity="left"
    )
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = WorkflowServiceStub(channel)
        polls = [stub.PollWorkflowTaskQueue(request, timeout=30) for _ in range(3)]

        async def known() -> bool:
            described = DescribeTaskQueueRequest(
                namespace="default", task_queue=TaskQueue(name=name), task_queue_type=1
            )
            answer = await stub.DescribeTaskQueue(described)
            return any(poller.identity == "left" for poller in answer.pollers)

        await eventually(known, "the pollers")
        for each in polls:
            each.cancel()
    handle = await client.start_workflow(
        Steps.run, 1, id=name, task_queue=name, task_timeout=timedelta(seconds=60)
    )
    task = await poll(client, name)
    assert task.attempt == 1
    await handle.terminate()
