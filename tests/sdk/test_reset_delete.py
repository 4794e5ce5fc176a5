"""Deleting runs, and resetting workflows."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio import workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType, ResetReapplyExcludeType
from temporalio.api.workflowservice.v1 import (
    DeleteWorkflowExecutionRequest,
    ResetWorkflowExecutionRequest,
)
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from helpers import events, eventually, working


@workflow.defn
class Collect:
    """Collects what is signalled to it until it is told to end."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.done = False

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: self.done)
        return self.seen

    @workflow.signal
    def add(self, what: str) -> None:
        self.seen.append(what)

    @workflow.signal
    def end(self) -> None:
        self.done = True

    @workflow.query
    def all(self) -> list[str]:
        return self.seen

    @workflow.update
    async def put(self, what: str) -> str:
        self.seen.append(what)
        return f"put {what}"


async def delete(client: Client, workflow_id: str, run_id: str = "") -> None:
    """Deletes a run, or the latest of a workflow."""
    execution = WorkflowExecution(workflow_id=workflow_id, run_id=run_id)
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(namespace=client.namespace, workflow_execution=execution)
    )


async def assert_gone(client: Client, handle: WorkflowHandle) -> None:
    """Nothing tells of the run any more."""
    for run_id in (None, handle.first_execution_run_id):
        with pytest.raises(RPCError) as missing:
            await client.get_workflow_handle(handle.id, run_id=run_id).describe()
        assert missing.value.status == RPCStatusCode.NOT_FOUND
        with pytest.raises(RPCError) as missing:
            await events(client.get_workflow_handle(handle.id, run_id=run_id))
        assert missing.value.status == RPCStatusCode.NOT_FOUND

    async def is_unlisted() -> bool:
        query = f"WorkflowId = '{handle.id}'"
        return [w async for w in client.list_workflows(query)] == []

    await eventually(is_unlisted, "the run is listed no more")
    with pytest.raises(RPCError) as missing:
        await delete(client, handle.id)
    assert missing.value.status == RPCStatusCode.NOT_FOUND


async def test_an_open_run_is_deleted(client: Client, name: str) -> None:
    """It is terminated, and its ID is free for another."""
    handle = await client.start_workflow(Collect.run, id=name, task_queue=name)
    await delete(client, name)
    await assert_gone(client, handle)
    async with working(client, name, [Collect]):
        again = await client.start_workflow(Collect.run, id=name, task_queue=name)
        await again.signal(Collect.add, "new")
        await again.signal(Collect.end)
        assert await again.result() == ["new"]


async def test_a_closed_run_is_deleted(client: Client, name: str) -> None:
    """Even with its worker still there."""
    async with working(client, name, [Collect]):
        handle = await client.start_workflow(Collect.run, id=name, task_queue=name)
        await handle.signal(Collect.end)
        await handle.result()
        assert await handle.query(Collect.all) == []
        await delete(client, name, handle.first_execution_run_id or "")
        await assert_gone(client, handle)


async def test_an_earlier_run_is_deleted_alone(client: Client, name: str) -> None:
    """The latest run of the ID stays."""
    first = await client.start_workflow(Collect.run, id=name, task_queue=name)
    await first.terminate()
    second = await client.start_workflow(Collect.run, id=name, task_queue=name)
    await delete(client, name, first.first_execution_run_id or "")
    described = await client.get_workflow_handle(name).describe()
    assert described.run_id == second.first_execution_run_id
    await second.terminate()


async def reset(
    client: Client, workflow_id: str, event_id: int, request_id: str, **fields: Any
) -> WorkflowHandle:
    """Resets the latest run to before the end of a workflow task."""
    response = await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id),
            reason="test",
            workflow_task_finish_event_id=event_id,
            request_id=request_id,
            **fields,
        )
    )
    return client.get_workflow_handle(workflow_id, run_id=response.run_id)


async def first_completed(handle: WorkflowHandle) -> int:
    """The event that completed the first workflow task."""
    kind = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    return next(e.event_id for e in await events(handle) if e.event_type == kind)


async def test_a_reset_takes_signals_over(client: Client, name: str) -> None:
    """An open run ends, and its workflow goes on in another."""
    async with working(client, name, [Collect]):
        old = await client.start_workflow(Collect.run, id=name, task_queue=name)
        await old.signal(Collect.add, "one")
        await old.signal(Collect.add, "two")

        async def has_both() -> bool:
            return await old.query(Collect.all) == ["one", "two"]

        await eventually(has_both, "both signals arrived")
        new = await reset(client, name, await first_completed(old), "reset")
        first = client.get_workflow_handle(name, run_id=old.first_execution_run_id)
        assert (await first.describe()).status == WorkflowExecutionStatus.TERMINATED
        assert new.run_id != first.run_id
        await client.get_workflow_handle(name).signal(Collect.end)
        assert await new.result() == ["one", "two"]


async def test_a_reset_takes_updates_over(client: Client, name: str) -> None:
    """The workflow is given them again, in their order, and their callers find the answers."""
    async with working(client, name, [Collect]):
        old = await client.start_workflow(Collect.run, id=name, task_queue=name)
        for what in ("one", "two"):
            await old.execute_update(Collect.put, what, id=what)
        first = client.get_workflow_handle(name, run_id=old.first_execution_run_id)
        new = await reset(client, name, await first_completed(first), "reset")
        for what in ("one", "two"):
            assert await new.get_update_handle(what).result() == f"put {what}"
        # Once by its ID, as before.
        assert await new.execute_update(Collect.put, "other", id="one") == "put one"
        await new.execute_update(Collect.put, "three", id="three")
        again = await reset(client, name, await first_completed(first), "again")
        await again.signal(Collect.end)
        assert await again.result() == ["one", "two", "three"]
        admitted = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ADMITTED
        kinds = [e.event_type for e in await events(again)]
        assert kinds.count(admitted) == 3


async def test_a_reset_leaves_updates_behind(client: Client, name: str) -> None:
    """If it is told to."""
    async with working(client, name, [Collect]):
        old = await client.start_workflow(Collect.run, id=name, task_queue=name)
        await old.execute_update(Collect.put, "lost", id="u")
        await old.signal(Collect.add, "kept")
        new = await reset(
            client,
            name,
            await first_completed(old),
            "reset",
            reset_reapply_exclude_types=[ResetReapplyExcludeType.RESET_REAPPLY_EXCLUDE_TYPE_UPDATE],
        )
        await new.signal(Collect.end)
        assert await new.result() == ["kept"]


async def test_a_reset_happens_once(client: Client, name: str) -> None:
    """The same request again is answered with the same run."""
    async with working(client, name, [Collect]):
        old = await client.start_workflow(Collect.run, id=name, task_queue=name)
        await old.signal(Collect.end)
        assert await old.result() == []
        first = client.get_workflow_handle(name, run_id=old.first_execution_run_id)
        event_id = await first_completed(first)
        new = await reset(client, name, event_id, "reset")
        again = await reset(client, name, event_id, "reset")
        assert again.run_id == new.run_id
        # The signal that ended it came again.
        assert await new.result() == []


async def test_a_reset_survives_a_deletion(client: Client, name: str) -> None:
    """The run that was reset can go; the new one has its history for itself."""
    async with working(client, name, [Collect]):
        old = await client.start_workflow(Collect.run, id=name, task_queue=name)
        await old.signal(Collect.add, "kept")

        async def has_it() -> bool:
            return await old.query(Collect.all) == ["kept"]

        await eventually(has_it, "the signal arrived")
        new = await reset(client, name, await first_completed(old), "reset")
        await delete(client, name, old.first_execution_run_id or "")
        await client.get_workflow_handle(name).signal(Collect.end)
        assert await new.result() == ["kept"]
