"""The workflows and activities of the guides' tests."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.workflow import ParentClosePolicy

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
SOON = RetryPolicy(initial_interval=timedelta(milliseconds=50), backoff_coefficient=1.0)

TOKENS: dict[str, bytes] = {}


@workflow.defn
class Greeting:
    """Collects names that signals bring until one says that it is enough."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.is_done = False

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: self.is_done)
        return self.names

    @workflow.signal
    async def submit_greeting(self, name: str) -> None:
        self.names.append(name)

    @workflow.signal(name="Custom Signal Name")
    async def custom_signal(self, name: str) -> None:
        self.names.append(f"custom {name}")

    @workflow.signal
    def exit(self) -> None:
        self.is_done = True

    @workflow.query
    def greeted(self) -> list[str]:
        return self.names

    @workflow.query(name="Custom Query Name")
    def count(self, prefix: str) -> str:
        return f"{prefix}{len(self.names)}"


@workflow.defn
class SignalsAnother:
    """Waits for its own signal, then signals and ends another workflow."""

    def __init__(self) -> None:
        self.may_go = False

    @workflow.signal
    def go(self) -> None:
        self.may_go = True

    @workflow.run
    async def run(self, other: str) -> None:
        await workflow.wait_condition(lambda: self.may_go)
        handle = workflow.get_external_workflow_handle_for(Greeting.run, other)
        await handle.signal(Greeting.submit_greeting, "from a workflow")
        await handle.signal(Greeting.exit)


@workflow.defn
class Forever:
    """Waits for something that never comes; says how it ended if it is canceled."""

    @workflow.run
    async def run(self) -> None:
        try:
            await asyncio.sleep(1_000_000)
        finally:
            await asyncio.sleep(0.01)


@workflow.defn
class FailsAtFirst:
    """Fails until its third attempt."""

    @workflow.run
    async def run(self) -> int:
        attempt = workflow.info().attempt
        if attempt < 3:
            raise ApplicationError(f"attempt {attempt}")
        return attempt


@workflow.defn
class Calls:
    """Executes one activity with the options given."""

    @workflow.run
    async def run(self, what: str, argument: str, options: dict[str, Any]) -> Any:
        for option in list(options):
            if option.endswith("_timeout"):
                options[option] = timedelta(seconds=options[option])
        policy = RetryPolicy(
            initial_interval=timedelta(seconds=options.pop("interval", 0.05)),
            backoff_coefficient=1.0,
            maximum_attempts=options.pop("attempts", 0),
            non_retryable_error_types=options.pop("non_retryable", None),
        )
        return await workflow.execute_activity(what, argument, retry_policy=policy, **options)


@workflow.defn
class CancelsActivity:
    """Starts an activity that heartbeats, and cancels it when told to."""

    def __init__(self) -> None:
        self.may_cancel = False

    @workflow.signal
    def cancel_it(self) -> None:
        self.may_cancel = True

    @workflow.run
    async def run(self) -> str:
        handle = workflow.start_activity(
            heartbeats,
            "until canceled",
            start_to_close_timeout=5 * MINUTE,
            heartbeat_timeout=30 * SECOND,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            retry_policy=SOON,
        )
        await workflow.wait_condition(lambda: self.may_cancel)
        handle.cancel()
        try:
            await handle
        except Exception as error:
            return type(error.__cause__).__name__
        return "not canceled"


@workflow.defn
class Parent:
    """Executes a child that waits for a signal."""

    @workflow.run
    async def run(self, child: str) -> list[str]:
        return await workflow.execute_child_workflow(Greeting.run, id=child)


@workflow.defn
class Closes:
    """Starts a child with a close policy, and closes when told to."""

    def __init__(self) -> None:
        self.may_close = False

    @workflow.signal
    def close(self) -> None:
        self.may_close = True

    @workflow.run
    async def run(self, child: str, policy: int) -> None:
        await workflow.start_child_workflow(
            Forever.run, id=child, parent_close_policy=ParentClosePolicy(policy)
        )
        await workflow.wait_condition(lambda: self.may_close)


@workflow.defn
class Looping:
    """Continues as new five times."""

    @workflow.run
    async def run(self, iteration: int) -> int:
        if iteration == 5:
            return iteration
        await asyncio.sleep(0.1)
        workflow.continue_as_new(iteration + 1)


@workflow.defn
class Sleeps:
    @workflow.run
    async def run(self, seconds: float) -> float:
        begun = workflow.time()
        await asyncio.sleep(seconds)
        return workflow.time() - begun


@workflow.defn
class Cron:
    """Each run says how many there were."""

    @workflow.run
    async def run(self) -> int:
        return (workflow.get_last_completion_result(int) or 0) + 1


@activity.defn
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@activity.defn
async def never(_: str) -> None:
    """Is never through."""
    await asyncio.sleep(1_000)


@activity.defn
async def fails(kind: str) -> int:
    """Fails until its third attempt."""
    attempt = activity.info().attempt
    if attempt < 3:
        raise ApplicationError(f"attempt {attempt}", type=kind)
    return attempt


@activity.defn
async def says_when(_: str) -> int:
    """Fails once, and says when to try again."""
    attempt = activity.info().attempt
    if attempt < 2:
        raise ApplicationError("not yet", next_retry_delay=0.3 * SECOND)
    return attempt


@activity.defn
async def heartbeats(what: str) -> list[str]:
    """Heartbeats until it is canceled, or once and then fails; returns what the attempt
    before left."""
    left = list(activity.info().heartbeat_details)
    if left and what == "once":
        return left
    activity.heartbeat(what, str(activity.info().attempt))
    if what == "once":
        raise ApplicationError("after a heartbeat")
    while True:
        await asyncio.sleep(0.1)
        activity.heartbeat(what)


@activity.defn
async def silent(_: str) -> str:
    """Says nothing at its first attempt, for longer than any heartbeat timeout."""
    if activity.info().attempt == 1:
        await asyncio.sleep(1_000)
    return "the second attempt"


@activity.defn
async def completed_elsewhere(name: str) -> str:
    """Leaves its token to somebody who completes it."""
    TOKENS[name] = activity.info().task_token
    activity.raise_complete_async()


WORKFLOWS = [
    Greeting,
    SignalsAnother,
    Forever,
    FailsAtFirst,
    Calls,
    CancelsActivity,
    Parent,
    Closes,
    Looping,
    Sleeps,
    Cron,
]
ACTIVITIES = [
    greet,
    never,
    fails,
    says_when,
    heartbeats,
    silent,
    completed_elsewhere,
]
