"""What the SDK's tests share: workers, waiting, looking at histories."""

from __future__ import annotations

import asyncio
import inspect
import time
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Awaitable, Callable, Sequence, TypeVar

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

T = TypeVar("T")

# Longer than any test means to wait; a test that needs it is broken.
PATIENCE = 30.0


@asynccontextmanager
async def working(
    client: Client,
    queue: str,
    workflows: Sequence[type] = (),
    activities: Sequence[Callable[..., Any]] = (),
    **options: Any,
) -> AsyncIterator[Worker]:
    """A worker for the block, without the sandbox (the modules are small and clean)."""
    options.setdefault("workflow_runner", UnsandboxedWorkflowRunner())
    async with Worker(
        client, task_queue=queue, workflows=workflows, activities=activities, **options
    ) as worker:
        yield worker


async def eventually(
    reached: Callable[[], T | Awaitable[T]],
    what: str,
    timeout: float = PATIENCE,
    every: float = 0.02,
) -> T:
    """Waits until `reached` gives something true, and returns it."""
    deadline = time.monotonic() + timeout
    while True:
        value = reached()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value  # type: ignore[return-value]
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(every)


async def events(handle: WorkflowHandle) -> list[HistoryEvent]:
    """A run's whole history."""
    return [event async for event in handle.fetch_history_events()]


def kind(event: HistoryEvent) -> str:
    """An event's type without its prefix."""
    return EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")


async def kinds(handle: WorkflowHandle) -> list[str]:
    """The types of a run's events."""
    return [kind(event) for event in await events(handle)]


async def await_event(handle: WorkflowHandle, wanted: str, count: int = 1) -> None:
    """Waits until a run's history holds `count` events of a type."""

    async def there() -> bool:
        return (await kinds(handle)).count(wanted) >= count

    await eventually(there, f"{count} {wanted} in {handle.id}")


def execution(handle: WorkflowHandle) -> WorkflowExecution:
    """A handle's run as the API names it."""
    return WorkflowExecution(
        workflow_id=handle.id, run_id=handle.run_id or handle.result_run_id or ""
    )
