"""The Python SDK's worker as the one who drives: what its own commands look like."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Awaitable, Callable

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from driver import Tape
from programs import program

IDENTITY = "sdk"
TIMEOUT = timedelta(seconds=20)


@activity.defn
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@activity.defn
async def break_down(how: str) -> None:
    raise ApplicationError(how, "detail", type="Broken", non_retryable=True)


@workflow.defn(name="Plain")
class Plain:
    def __init__(self) -> None:
        self.signals: list[str] = []

    @workflow.run
    async def run(self, name: str) -> str:
        said = await workflow.execute_activity(
            greet, name, start_to_close_timeout=TIMEOUT, summary="a greeting"
        )
        await workflow.wait_condition(lambda: bool(self.signals))
        await workflow.sleep(timedelta(milliseconds=10), summary="a rest")
        return f"{said} {self.signals}"

    @workflow.signal
    async def go(self, word: str) -> None:
        self.signals.append(word)

    @workflow.query
    def seen(self) -> list[str]:
        return self.signals


@workflow.defn(name="Local")
class Local:
    @workflow.run
    async def run(self, name: str) -> str:
        workflow.patched("a-patch")
        return await workflow.execute_local_activity(greet, name, start_to_close_timeout=TIMEOUT)


@workflow.defn(name="Failing")
class Failing:
    @workflow.run
    async def run(self, how: str) -> None:
        await workflow.execute_activity(
            break_down,
            how,
            start_to_close_timeout=TIMEOUT,
            retry_policy=RetryPolicy(maximum_attempts=3),
        )


@workflow.defn(name="Canceled")
class Canceled:
    @workflow.run
    async def run(self) -> None:
        try:
            await workflow.sleep(3600)
        finally:
            # Cleaning up after the cancellation still works.
            await asyncio.shield(
                workflow.execute_activity(greet, "cleanup", start_to_close_timeout=TIMEOUT)
            )


def with_worker(t: Tape, body: Callable[[Client], Awaitable[None]]) -> None:
    """Runs `body` beside a worker of all the workflows above.

    No workflow is cached, so every task comes with its whole history from the normal
    queue: whether a sticky queue is used then depends on nobody's timing.
    """

    async def run() -> None:
        client = await Client.connect(t.address, namespace=t.namespace, identity=IDENTITY)
        async with Worker(
            client,
            task_queue=t.queue,
            workflows=[Plain, Local, Failing, Canceled],
            activities=[greet, break_down],
            identity=IDENTITY,
            # By default a hash of the code, which differs between machines.
            build_id="driver",
            max_cached_workflows=0,
            disable_eager_activity_execution=True,
            workflow_runner=UnsandboxedWorkflowRunner(),
        ):
            await asyncio.wait_for(body(client), 30)

    # The SDK started it: whichever run is the latest.
    t.run_id = ""
    asyncio.run(run())
    t.history()


async def start(t: Tape, client: Client, run: Any, *args: Any) -> WorkflowHandle:
    """Starts one of the workflows under the tape's names."""
    return await client.start_workflow(run, args=args, id=t.workflow_id, task_queue=t.queue)


@program
def sdk_plain(t: Tape) -> None:
    """Activity, signal, timer, query."""

    async def body(client: Client) -> None:
        handle = await start(t, client, Plain.run, "world")
        await asyncio.to_thread(t.await_event, "WORKFLOW_TASK_COMPLETED", 2)
        await handle.signal(Plain.go, "now")
        t.note("result", await handle.result())
        t.note("query", await handle.query(Plain.seen))

    with_worker(t, body)


@program
def sdk_failing(t: Tape) -> None:
    """A failed activity fails the workflow, cause by cause."""

    async def body(client: Client) -> None:
        handle = await start(t, client, Failing.run, "badly")
        try:
            await handle.result()
        except WorkflowFailureError as error:
            t.note("error", repr(error.cause))

    with_worker(t, body)


@program
def sdk_canceled(t: Tape) -> None:
    """A cancelled timer, an activity to clean up, a cancelled workflow."""

    async def body(client: Client) -> None:
        handle = await start(t, client, Canceled.run)
        await asyncio.to_thread(t.await_event, "TIMER_STARTED")
        await handle.cancel()
        try:
            await handle.result()
        except WorkflowFailureError as error:
            t.note("error", repr(error.cause))

    with_worker(t, body)


@program
def sdk_local_activity(t: Tape) -> None:
    """A patch and a local activity: markers; what their payloads say of time is dropped."""

    async def body(client: Client) -> None:
        handle = await start(t, client, Local.run, "here")
        t.note("result", await handle.result())

    with_worker(t, body)
    for event in t.steps[-1]["history"]:
        marker = event.get("markerRecordedEventAttributes")
        if marker and marker["markerName"] == "core_local_activity":
            marker["details"].pop("data", None)
