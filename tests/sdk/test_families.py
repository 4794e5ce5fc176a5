"""Workflows with each other and after each other, with the SDK: children, signals and cancels
between workflows, continue-as-new, retries, cron; also through `kill -9`."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import (
    Client,
    WorkflowContinuedAsNewError,
    WorkflowExecutionStatus,
    WorkflowFailureError,
)
from temporalio.common import RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import (
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    TerminatedError,
    WorkflowAlreadyStartedError,
)
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

from helpers import eventually, working

CHILDREN = 8


@workflow.defn
class Child:
    """Doubles a number, or waits for two signals, or for ever."""

    def __init__(self) -> None:
        self.got: list[int] = []

    @workflow.signal
    def add(self, number: int) -> None:
        self.got.append(number)

    @workflow.run
    async def run(self, what: str, number: int = 0) -> int:
        if what == "double":
            return 2 * number
        if what == "sum":
            await workflow.wait_condition(lambda: len(self.got) >= 2)
            return sum(self.got)
        if what == "fail":
            raise ApplicationError("no", type="No", non_retryable=True)
        if what == "again" and number > 0:
            workflow.continue_as_new(args=["again", number - 1])
        if what == "wait":
            await workflow.wait_condition(lambda: False)
        return len(what)


@workflow.defn
class Parent:
    """Runs a scenario by name."""

    @workflow.run
    async def run(self, what: str) -> Any:
        return await getattr(self, what)()

    def id(self, name: object) -> str:
        return f"{workflow.info().workflow_id}-{name}"

    async def many(self) -> int:
        asked = [
            workflow.execute_child_workflow(Child.run, args=["double", n], id=self.id(n))
            for n in range(CHILDREN)
        ]
        return sum(await asyncio.gather(*asked))

    async def signals(self) -> int:
        handle = await workflow.start_child_workflow(Child.run, args=["sum"], id=self.id("s"))
        await handle.signal(Child.add, 1)
        other = workflow.get_external_workflow_handle(self.id("s"))
        await other.signal("add", 2)
        return await handle

    async def missing(self) -> str:
        try:
            await workflow.get_external_workflow_handle(self.id("nobody")).signal("add", 1)
        except Exception as error:  # What its type is, is the point.
            return type(error).__name__
        return "taken"

    async def failing(self) -> str:
        try:
            await workflow.execute_child_workflow(Child.run, args=["fail"], id=self.id("f"))
        except ChildWorkflowError as error:
            assert isinstance(error.cause, ApplicationError)
            return error.cause.message
        return "completed"

    async def chain(self) -> int:
        return await workflow.execute_child_workflow(
            Child.run, args=["again", 2], id=self.id("chain")
        )

    async def taken(self) -> str:
        await workflow.start_child_workflow(Child.run, args=["wait"], id=self.id("t"))
        try:
            await workflow.start_child_workflow(Child.run, args=["wait"], id=self.id("t"))
        except WorkflowAlreadyStartedError:
            return "already started"
        return "started twice"

    async def cancel(self) -> str:
        outcomes = []
        for kind in (
            ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
            ChildWorkflowCancellationType.WAIT_CANCELLATION_REQUESTED,
            ChildWorkflowCancellationType.TRY_CANCEL,
            ChildWorkflowCancellationType.ABANDON,
        ):
            handle = await workflow.start_child_workflow(
                Child.run, args=["wait"], id=self.id(kind.name), cancellation_type=kind
            )
            handle.cancel()
            try:
                await handle
            except ChildWorkflowError as error:
                outcomes.append(isinstance(error.cause, CancelledError))
            except asyncio.CancelledError:
                outcomes.append(True)
        return ",".join(map(str, outcomes))

    async def leave(self) -> None:
        for policy in (
            ParentClosePolicy.TERMINATE,
            ParentClosePolicy.ABANDON,
            ParentClosePolicy.REQUEST_CANCEL,
        ):
            await workflow.start_child_workflow(
                Child.run, args=["wait"], id=self.id(policy.name), parent_close_policy=policy
            )


@workflow.defn
class Flaky:
    """Fails until its third attempt."""

    @workflow.run
    async def run(self) -> int:
        attempt = workflow.info().attempt
        if attempt < 3:
            raise ApplicationError(f"attempt {attempt}")
        return attempt


@workflow.defn
class Ticking:
    """A cron workflow that counts its runs."""

    @workflow.run
    async def run(self) -> int:
        last = workflow.get_last_completion_result(int) or 0
        if last >= 2:
            workflow.logger.info("enough")
        return last + 1


async def scenario(client: Client, name: str, what: str) -> Any:
    async with working(client, name, workflows=[Parent, Child]):
        return await client.execute_workflow(Parent.run, what, id=name, task_queue=name)


async def test_children(client: Client, name: str) -> None:
    assert await scenario(client, name, "many") == CHILDREN * (CHILDREN - 1)


async def test_signals_between_workflows(client: Client, name: str) -> None:
    assert await scenario(client, name, "signals") == 3


async def test_signal_to_nobody(client: Client, name: str) -> None:
    assert await scenario(client, name, "missing") == "ApplicationError"


async def test_child_failure(client: Client, name: str) -> None:
    assert await scenario(client, name, "failing") == "no"


async def test_child_chain_counts_as_one(client: Client, name: str) -> None:
    assert await scenario(client, name, "chain") == len("again")


async def test_child_id_in_use(client: Client, name: str) -> None:
    assert await scenario(client, name, "taken") == "already started"


async def test_child_cancellation_types(client: Client, name: str) -> None:
    assert await scenario(client, name, "cancel") == "True,True,True,True"


async def test_parent_close_policies(client: Client, name: str) -> None:
    async with working(client, name, workflows=[Parent, Child]):
        await client.execute_workflow(Parent.run, "leave", id=name, task_queue=name)

        async def status(policy: str) -> WorkflowExecutionStatus | None:
            return (await client.get_workflow_handle(f"{name}-{policy}").describe()).status

        async def is_status(policy: str, wanted: WorkflowExecutionStatus) -> bool:
            return await status(policy) == wanted

        await eventually(
            lambda: is_status("TERMINATE", WorkflowExecutionStatus.TERMINATED), "terminated"
        )
        await eventually(
            lambda: is_status("REQUEST_CANCEL", WorkflowExecutionStatus.CANCELED), "cancelled"
        )
        assert await status("ABANDON") == WorkflowExecutionStatus.RUNNING
        with pytest.raises(WorkflowFailureError) as failure:
            await client.get_workflow_handle(f"{name}-TERMINATE").result()
        assert isinstance(failure.value.cause, TerminatedError)


async def test_continue_as_new(client: Client, name: str) -> None:
    async with working(client, name, workflows=[Child]):
        handle = await client.start_workflow(Child.run, args=["again", 2], id=name, task_queue=name)
        assert await handle.result() == len("again")
        with pytest.raises(WorkflowContinuedAsNewError):
            await handle.result(follow_runs=False)
        latest = await client.get_workflow_handle(name).describe()
        assert latest.run_id != handle.first_execution_run_id
        assert latest.status == WorkflowExecutionStatus.COMPLETED


async def test_workflow_retry(client: Client, name: str) -> None:
    async with working(client, name, workflows=[Flaky]):
        policy = RetryPolicy(initial_interval=timedelta(seconds=1), backoff_coefficient=1)
        result = await client.execute_workflow(
            Flaky.run, id=name, task_queue=name, retry_policy=policy
        )
        assert result == 3


async def test_cron(client: Client, name: str) -> None:
    async with working(client, name, workflows=[Ticking]):
        handle = await client.start_workflow(
            Ticking.run, id=name, task_queue=name, cron_schedule="@every 1s"
        )
        latest = client.get_workflow_handle(name)

        async def has_run_thrice() -> bool:
            info = await latest.describe()
            runs = [run async for run in client.list_workflows(f'WorkflowId = "{name}"')]
            return info.status == WorkflowExecutionStatus.RUNNING and len(runs) >= 4

        await eventually(has_run_thrice, "three closed runs", every=0.2)
        await latest.terminate()
        assert (await latest.describe()).run_id != handle.first_execution_run_id


async def test_reuse_after_a_chain(client: Client, name: str) -> None:
    async with working(client, name, workflows=[Child]):
        await client.execute_workflow(Child.run, args=["again", 1], id=name, task_queue=name)
        with pytest.raises(WorkflowAlreadyStartedError):
            await client.start_workflow(
                Child.run,
                args=["double", 1],
                id=name,
                task_queue=name,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            )


async def test_families_survive_kill9(durable_server, name: str) -> None:
    """Parents, children and chains across shards, with the server killed in their middle."""
    client = await Client.connect(durable_server.address)
    handles = []
    for n in range(6):
        what = ("many", "signals", "chain")[n % 3]
        handles.append(
            await client.start_workflow(Parent.run, what, id=f"{name}-{n}", task_queue=name)
        )
    wanted = [CHILDREN * (CHILDREN - 1), 3, len("again")] * 2
    async with working(client, name, workflows=[Parent, Child]):
        for _ in range(3):
            await asyncio.sleep(0.3)  # Let some of it happen before each kill.
            durable_server.restart()
        results = await asyncio.gather(*(handle.result() for handle in handles))
    assert results == wanted
