"""Updates and update-with-start, with the SDK: accepted, refused, lost and found again."""

from __future__ import annotations

import asyncio
import pathlib
import signal
import subprocess
import sys
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import UpdateWorkflowExecutionLifecycleStage as Stage
from temporalio.api.workflowservice.v1 import UpdateWorkflowExecutionRequest
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowExecutionStatus,
    WorkflowUpdateFailedError,
    WorkflowUpdateStage,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from helpers import await_event, events, eventually, execution, kind, kinds, working


@activity.defn
async def double(number: int) -> int:
    """Work that takes a task of its own."""
    return number * 2


@workflow.defn
class Desk:
    """Adds up; takes updates of every kind."""

    def __init__(self) -> None:
        self.total = 0
        self.open = False
        self.done = False

    @workflow.run
    async def run(self) -> int:
        await workflow.wait_condition(lambda: self.done)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.total

    @workflow.update
    def add(self, number: int) -> int:
        self.total += number
        return self.total

    @add.validator
    def check_add(self, number: int) -> None:
        if number < 0:
            raise ValueError("no negative numbers")

    @workflow.update
    async def add_later(self, number: int) -> int:
        await workflow.wait_condition(lambda: self.open)
        self.total += number
        return self.total

    @workflow.update
    async def add_double(self, number: int) -> int:
        self.total += await workflow.execute_activity(
            double, number, start_to_close_timeout=timedelta(seconds=10)
        )
        return self.total

    @workflow.update
    async def fail(self) -> None:
        raise ApplicationError("cannot", type="Cannot")

    @workflow.update
    async def close(self) -> int:
        self.done = True
        return self.total

    @workflow.signal
    def let_go(self) -> None:
        self.open = True

    @workflow.signal
    def finish(self) -> None:
        self.done = True

    @workflow.query
    def current(self) -> int:
        return self.total


@workflow.defn
class Abrupt:
    """Ends at a signal, whatever is under way."""

    def __init__(self) -> None:
        self.done = False

    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.done)
        return "ended"

    @workflow.update(unfinished_policy=workflow.HandlerUnfinishedPolicy.ABANDON)
    async def wait(self) -> None:
        await workflow.sleep(3600)

    @workflow.signal
    def end(self) -> None:
        self.done = True


async def test_completes(client: Client, name: str) -> None:
    """Updates that answer at once, and what history says of them."""
    async with working(client, name, [Desk]):
        handle = await client.start_workflow(Desk.run, id=name, task_queue=name)
        assert await handle.execute_update(Desk.add, 2) == 2
        assert await handle.execute_update(Desk.add, 3, id="three") == 5
        assert await handle.execute_update(Desk.close) == 5
        assert await handle.result() == 5
    found = await events(handle)
    accepted = [e for e in found if kind(e) == "WORKFLOW_EXECUTION_UPDATE_ACCEPTED"]
    completed = [e for e in found if kind(e) == "WORKFLOW_EXECUTION_UPDATE_COMPLETED"]
    assert len(accepted) == len(completed) == 3
    attributes = accepted[1].workflow_execution_update_accepted_event_attributes
    assert attributes.protocol_instance_id == "three"
    assert attributes.accepted_request.input.name == "add"
    attributes = completed[1].workflow_execution_update_completed_event_attributes
    assert attributes.accepted_event_id == accepted[1].event_id


async def test_rejected_leaves_no_trace(client: Client, name: str) -> None:
    """A validator's no: the caller gets it, history does not, and the run goes on."""
    async with working(client, name, [Desk]):
        handle = await client.start_workflow(Desk.run, id=name, task_queue=name)
        await await_event(handle, "WORKFLOW_TASK_COMPLETED")
        before = await kinds(handle)
        for _ in range(3):
            with pytest.raises(WorkflowUpdateFailedError) as refused:
                await handle.execute_update(Desk.add, -1)
            assert "no negative numbers" in str(refused.value.cause)
        assert await kinds(handle) == before
        assert await handle.execute_update(Desk.add, 1) == 1
        assert await handle.query(Desk.current) == 1
        await handle.signal(Desk.finish)
        assert await handle.result() == 1


async def test_failed(client: Client, name: str) -> None:
    """A handler that fails: the outcome is its failure, and the workflow goes on."""
    async with working(client, name, [Desk]):
        handle = await client.start_workflow(Desk.run, id=name, task_queue=name)
        with pytest.raises(WorkflowUpdateFailedError) as failed:
            await handle.execute_update(Desk.fail)
        assert isinstance(failed.value.cause, ApplicationError)
        assert failed.value.cause.type == "Cannot"
        assert await handle.execute_update(Desk.add, 1) == 1
        await handle.terminate()


async def test_waits_over_several_tasks(client: Client, name: str) -> None:
    """Accepted now, completed later: by a signal, by an activity."""
    async with working(client, name, [Desk], [double]):
        handle = await client.start_workflow(Desk.run, id=name, task_queue=name)
        later = await handle.start_update(
            Desk.add_later, 1, wait_for_stage=WorkflowUpdateStage.ACCEPTED
        )
        assert await handle.execute_update(Desk.add_double, 4) == 8
        await handle.signal(Desk.let_go)
        assert await later.result() == 9
        again = handle.get_update_handle(later.id)
        assert await again.result() == 9
        await handle.signal(Desk.finish)
        assert await handle.result() == 9


async def test_no_worker_yet(client: Client, name: str) -> None:
    """An update that no worker is there for waits for one."""
    handle = await client.start_workflow(Desk.run, id=name, task_queue=name)
    asking = asyncio.create_task(handle.execute_update(Desk.add, 1))
    await asyncio.sleep(0)
    async with working(client, name, [Desk]):
        assert await asyncio.wait_for(asking, 30) == 1
        await handle.terminate()


async def test_same_id(client: Client, name: str) -> None:
    """The same ID is the same update: in flight, completed, and after the close."""
    async with working(client, name, [Desk]):
        handle = await client.start_workflow(Desk.run, id=name, task_queue=name)
        first, second = await asyncio.gather(
            handle.execute_update(Desk.add, 1, id="one"),
            handle.execute_update(Desk.add, 1, id="one"),
        )
        assert first == second == 1
        assert await handle.execute_update(Desk.add, 5, id="one") == 1
        await handle.signal(Desk.finish)
        assert await handle.result() == 1
        assert await handle.execute_update(Desk.add, 5, id="one") == 1
        with pytest.raises(RPCError) as error:
            await handle.execute_update(Desk.add, 5, id="two")
        assert error.value.status == RPCStatusCode.NOT_FOUND
        assert error.value.message == "workflow execution already completed"


async def test_many_at_once(client: Client, name: str) -> None:
    """More than may be in flight: those refused come again, and every one counts once."""
    async with working(client, name, [Desk]):
        handle = await client.start_workflow(Desk.run, id=name, task_queue=name)

        async def add(number: int) -> int:
            while True:
                try:
                    return await handle.execute_update(Desk.add, number, id=f"u{number}")
                except RPCError as error:
                    assert error.status == RPCStatusCode.RESOURCE_EXHAUSTED, error

        await asyncio.gather(*(add(n) for n in range(40)))
        assert await handle.query(Desk.current) == sum(range(40))
        await handle.terminate()


async def test_workflow_ends_first(client: Client, name: str) -> None:
    """Accepted, and the workflow ends before it is through."""
    async with working(client, name, [Abrupt]):
        handle = await client.start_workflow(Abrupt.run, id=name, task_queue=name)
        waiting = await handle.start_update(
            Abrupt.wait, wait_for_stage=WorkflowUpdateStage.ACCEPTED
        )
        asking = asyncio.create_task(waiting.result())
        await asyncio.sleep(0)
        await handle.signal(Abrupt.end)
        with pytest.raises(WorkflowUpdateFailedError) as failed:
            await asking
        cause = failed.value.cause
        assert isinstance(cause, ApplicationError)
        assert cause.type == "AcceptedUpdateCompletedWorkflow"
        assert await handle.result() == "ended"


async def test_long_wait_ends_empty(client: Client, name: str) -> None:
    """Nobody works: after the server's limit the answer names the stage reached."""
    handle = await client.start_workflow(Desk.run, id=name, task_queue=name)
    request = UpdateWorkflowExecutionRequest(
        namespace="default", workflow_execution=execution(handle)
    )
    request.request.meta.update_id = "u"
    request.request.input.name = "add"
    request.wait_policy.lifecycle_stage = Stage.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_COMPLETED
    answer = await client.workflow_service.update_workflow_execution(
        request, timeout=timedelta(seconds=40)
    )
    assert answer.stage == Stage.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_ADMITTED
    assert not answer.HasField("outcome")
    async with working(client, name, [Desk]):
        request.request.input.args.payloads.add(metadata={"encoding": b"json/plain"}, data=b"1")
        # The update is the one that was admitted, without its argument: the worker refuses.
        answer = await client.workflow_service.update_workflow_execution(request)
        assert answer.outcome.HasField("failure")
    await handle.terminate()


async def test_worker_dies(client: Client, server, name: str, tmp_path: pathlib.Path) -> None:
    """A worker killed with an update accepted: another one finishes it."""
    script = tmp_path / "doomed.py"
    here = pathlib.Path(__file__).parent
    script.write_text(
        "import asyncio, sys\n"
        f"sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]\n"
        "from temporalio.client import Client\n"
        "from temporalio.worker import UnsandboxedWorkflowRunner, Worker\n"
        "from test_updates import Desk\n"
        "from datetime import timedelta\n"
        "async def main():\n"
        "    client = await Client.connect(sys.argv[1])\n"
        "    await Worker(client, task_queue=sys.argv[2], workflows=[Desk],\n"
        "        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),\n"
        "        workflow_runner=UnsandboxedWorkflowRunner()).run()\n"
        "asyncio.run(main())\n"
    )
    doomed = subprocess.Popen([sys.executable, str(script), server.address, name])
    try:
        handle = await client.start_workflow(
            Desk.run, id=name, task_queue=name, task_timeout=timedelta(seconds=2)
        )
        later = await handle.start_update(
            Desk.add_later, 1, wait_for_stage=WorkflowUpdateStage.ACCEPTED
        )
    finally:
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
    refused = asyncio.create_task(handle.execute_update(Desk.add, -1))
    await handle.signal(Desk.let_go)
    async with working(client, name, [Desk]):
        assert await asyncio.wait_for(later.result(), 30) == 1
        with pytest.raises(WorkflowUpdateFailedError):
            await asyncio.wait_for(refused, 30)
        await handle.signal(Desk.finish)
        assert await handle.result() == 1


async def test_evicted_from_cache(client: Client, name: str) -> None:
    """A worker that keeps nothing gets the whole history with each update."""
    async with working(client, name, [Desk], max_cached_workflows=0):
        handle = await client.start_workflow(Desk.run, id=name, task_queue=name)
        for n in range(1, 6):
            assert await handle.execute_update(Desk.add, 1) == n
            with pytest.raises(WorkflowUpdateFailedError):
                await handle.execute_update(Desk.add, -1)
        await handle.terminate()


# ---- update with start ---------------------------------------------------------------


def starting(name: str, **options) -> WithStartWorkflowOperation:
    """The start of an update-with-start."""
    options.setdefault("id_conflict_policy", WorkflowIDConflictPolicy.FAIL)
    return WithStartWorkflowOperation(Desk.run, id=name, task_queue=name, **options)


async def test_update_with_start(client: Client, name: str) -> None:
    """Starts what is not there, and uses what is."""
    async with working(client, name, [Desk]):
        start = starting(name)
        assert (
            await client.execute_update_with_start_workflow(
                Desk.add, 1, start_workflow_operation=start
            )
            == 1
        )
        first = await start.workflow_handle()
        start = starting(name, id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING)
        assert (
            await client.execute_update_with_start_workflow(
                Desk.add, 2, start_workflow_operation=start
            )
            == 3
        )
        second = await start.workflow_handle()
        assert second.result_run_id == first.result_run_id
        await first.signal(Desk.finish)
        assert await first.result() == 3


async def test_update_with_start_refused(client: Client, name: str) -> None:
    """A start that may not be, and an update that is refused though the start stands."""
    async with working(client, name, [Desk]):
        start = starting(name)
        with pytest.raises(WorkflowUpdateFailedError):
            await client.execute_update_with_start_workflow(
                Desk.add, -1, start_workflow_operation=start
            )
        handle = await start.workflow_handle()
        assert (await handle.describe()).status == WorkflowExecutionStatus.RUNNING
        start = starting(name)
        with pytest.raises(WorkflowAlreadyStartedError):
            await client.execute_update_with_start_workflow(
                Desk.add, 1, start_workflow_operation=start
            )
        with pytest.raises(WorkflowAlreadyStartedError):
            await start.workflow_handle()
        await handle.terminate()
        start = starting(name, id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE)
        with pytest.raises(WorkflowAlreadyStartedError):
            await client.execute_update_with_start_workflow(
                Desk.add, 1, start_workflow_operation=start
            )


# ---- the server goes away --------------------------------------------------------------


async def test_killed_in_between(durable_server, name: str) -> None:
    """Accepted updates outlive the server; admitted ones are asked again by the SDK."""
    client = await Client.connect(durable_server.address)
    async with working(client, name, [Desk]):
        handle = await client.start_workflow(Desk.run, id=name, task_queue=name)
        assert await handle.execute_update(Desk.add, 1, id="one") == 1
        later = await handle.start_update(
            Desk.add_later, 10, id="later", wait_for_stage=WorkflowUpdateStage.ACCEPTED
        )
    # Nobody works: this one is only in the server's memory.
    waiting = asyncio.create_task(handle.execute_update(Desk.add, 100, id="waiting"))

    async def admitted() -> bool:
        pending = (await handle.describe()).raw_description.HasField("pending_workflow_task")
        return pending

    await eventually(admitted, "the update's workflow task")
    durable_server.kill9()
    await asyncio.to_thread(durable_server.start)
    async with working(client, name, [Desk]):

        async def again() -> int:
            # Where the SDK's own tries are over, the caller's is not.
            while True:
                try:
                    return await handle.execute_update(Desk.add, 100, id="waiting")
                except RPCError as error:
                    assert error.status in (
                        RPCStatusCode.UNAVAILABLE,
                        RPCStatusCode.CANCELLED,
                        RPCStatusCode.UNKNOWN,
                    ), error

        try:
            assert await waiting == 101
        except RPCError:
            assert await asyncio.wait_for(again(), 60) == 101
        assert await handle.execute_update(Desk.add, 1, id="one") == 1
        await handle.signal(Desk.let_go)
        assert await asyncio.wait_for(later.result(), 30) == 111
        await handle.signal(Desk.finish)
        assert await handle.result() == 111
