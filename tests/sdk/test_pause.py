"""Whole runs paused and unpaused, their options, and starts that attach to them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from temporalio import activity, workflow
from temporalio.api.common.v1 import Priority
from temporalio.api.query.v1 import WorkflowQuery
from temporalio.api.workflow.v1 import WorkflowExecutionOptions
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    PauseWorkflowExecutionRequest,
    QueryWorkflowRequest,
    UnpauseWorkflowExecutionRequest,
    UpdateWorkflowExecutionOptionsRequest,
)
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from harness import Process
from helpers import await_event, eventually, execution, kinds, working

PAUSED = 8  # WORKFLOW_EXECUTION_STATUS_PAUSED


@activity.defn
async def step(n: int) -> int:
    return n + 1


@workflow.defn
class Stepper:
    """Takes a step for each signal."""

    def __init__(self) -> None:
        self.asked = 0
        self.done = 0
        self.over = False

    @workflow.run
    async def run(self) -> int:
        while not (self.over and self.done == self.asked):
            await workflow.wait_condition(lambda: self.done < self.asked or self.over)
            if self.done < self.asked:
                self.done = await workflow.execute_activity(
                    step, self.done, start_to_close_timeout=timedelta(seconds=20)
                )
        return self.done

    @workflow.signal
    def go(self) -> None:
        self.asked += 1

    @workflow.signal
    def finish(self) -> None:
        self.over = True

    @workflow.query
    def steps(self) -> int:
        return self.done


async def pause(client: Client, handle: WorkflowHandle, **fields: Any) -> None:
    await client.workflow_service.pause_workflow_execution(
        PauseWorkflowExecutionRequest(
            namespace="default", workflow_id=handle.id, identity="me", reason="why", **fields
        )
    )


async def unpause(client: Client, handle: WorkflowHandle) -> None:
    await client.workflow_service.unpause_workflow_execution(
        UnpauseWorkflowExecutionRequest(namespace="default", workflow_id=handle.id)
    )


async def describe(client: Client, handle: WorkflowHandle) -> DescribeWorkflowExecutionResponse:
    """The SDK's own description does not know the status of a paused run."""
    return await client.workflow_service.describe_workflow_execution(
        DescribeWorkflowExecutionRequest(namespace="default", execution=execution(handle))
    )


async def status(client: Client, handle: WorkflowHandle) -> int:
    return (await describe(client, handle)).workflow_execution_info.status


async def test_a_paused_run_does_nothing_until_it_goes_on(client: Client, name: str) -> None:
    async with working(client, name, [Stepper], [step]):
        handle = await client.start_workflow(Stepper.run, id=name, task_queue=name)
        await handle.signal(Stepper.go)
        await await_event(handle, "ACTIVITY_TASK_COMPLETED")
        await eventually(lambda: _is(handle.query(Stepper.steps), 1), "one step")
        await pause(client, handle)
        assert await status(client, handle) == PAUSED
        info = (await describe(client, handle)).workflow_extended_info.pause_info
        assert (info.identity, info.reason) == ("me", "why")
        await handle.signal(Stepper.go)
        await handle.signal(Stepper.finish)
        await asyncio.sleep(1)
        seen = await kinds(handle)
        assert seen.count("ACTIVITY_TASK_SCHEDULED") == 1
        assert seen[-1] == "WORKFLOW_EXECUTION_SIGNALED"
        answer = await client.workflow_service.query_workflow(
            QueryWorkflowRequest(
                namespace="default",
                execution=execution(handle),
                query=WorkflowQuery(query_type="steps"),
            )
        )
        assert answer.query_rejected.status == PAUSED
        query = f'ExecutionStatus = "Paused" AND WorkflowId = "{name}"'
        assert (await client.count_workflows(query)).count == 1
        await unpause(client, handle)
        assert await handle.result() == 2
        assert (await client.count_workflows(query)).count == 0
        seen = await kinds(handle)
        assert "WORKFLOW_EXECUTION_PAUSED" in seen and "WORKFLOW_EXECUTION_UNPAUSED" in seen


async def _is(answer: Any, wanted: Any) -> bool:
    return await answer == wanted


async def test_pausing_twice_and_unpausing_what_runs(client: Client, name: str) -> None:
    handle = await client.start_workflow(Stepper.run, id=name, task_queue=name)
    with pytest.raises(RPCError) as caught:
        await unpause(client, handle)
    assert caught.value.status == RPCStatusCode.FAILED_PRECONDITION
    await pause(client, handle, request_id="one")
    await pause(client, handle, request_id="one")
    with pytest.raises(RPCError) as caught:
        await pause(client, handle, request_id="two")
    assert caught.value.status == RPCStatusCode.FAILED_PRECONDITION
    await handle.terminate()
    assert (await kinds(handle)).count("WORKFLOW_EXECUTION_PAUSED") == 1


async def test_a_paused_run_survives_a_kill(durable_server: Process, name: str) -> None:
    client = await Client.connect(durable_server.address)
    async with working(client, name, [Stepper], [step]):
        handle = await client.start_workflow(Stepper.run, id=name, task_queue=name)
        await await_event(handle, "WORKFLOW_TASK_COMPLETED")
        await pause(client, handle)
        await handle.signal(Stepper.go)
        durable_server.restart()
        assert await status(client, handle) == PAUSED
        await handle.signal(Stepper.finish)
        assert (await kinds(handle)).count("WORKFLOW_TASK_SCHEDULED") == 1
        await unpause(client, handle)
        durable_server.restart()
        assert await handle.result() == 1


async def test_options_change_the_priority(client: Client, name: str) -> None:
    handle = await client.start_workflow(Stepper.run, id=name, task_queue=name)
    request = UpdateWorkflowExecutionOptionsRequest(
        namespace="default",
        workflow_execution=execution(handle),
        workflow_execution_options=WorkflowExecutionOptions(priority=Priority(priority_key=1)),
        update_mask=FieldMask(paths=["priority.priority_key"]),
    )
    response = await client.workflow_service.update_workflow_execution_options(request)
    assert response.workflow_execution_options.priority.priority_key == 1
    info = (await handle.describe()).raw_description.workflow_execution_info
    assert info.priority.priority_key == 1
    async with working(client, name, [Stepper], [step]):
        await handle.signal(Stepper.finish)
        assert await handle.result() == 0
    assert "WORKFLOW_EXECUTION_OPTIONS_UPDATED" in await kinds(handle)
