"""What the tests of the command share: workflows, a worker, and patience."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, AsyncIterator, Callable

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from command import Cli

PATIENCE = 30.0


@activity.defn(name="CliPending")
async def pending() -> str:
    """Is completed by somebody else."""
    activity.raise_complete_async()


@workflow.defn(name="CliTalk")
class CliTalk:
    """Waits for a word, and says it with its argument."""

    def __init__(self) -> None:
        self.word = ""

    @workflow.run
    async def run(self, greeting: str) -> str:
        await workflow.wait_condition(lambda: self.word != "")
        return f"{greeting}, {self.word}"

    @workflow.signal
    def say(self, word: str) -> None:
        self.word = word

    @workflow.query
    def heard(self, prefix: str) -> str:
        return f"{prefix}={self.word}"


@workflow.defn(name="CliAtOnce")
class CliAtOnce:
    @workflow.run
    async def run(self, number: int) -> int:
        await asyncio.sleep(0.01)
        return number + 1


@workflow.defn(name="CliWaits")
class CliWaits:
    """Waits for an activity that somebody else completes."""

    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(
            pending,
            activity_id="the-one",
            start_to_close_timeout=timedelta(seconds=60),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )


@workflow.defn(name="CliUpdated")
class CliUpdated:
    """Keeps the words that updates bring, until it is told to end."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.ends = False

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: self.ends)
        return self.words

    @workflow.update
    async def put(self, word: str) -> int:
        self.words.append(word)
        return len(self.words)

    @put.validator
    def no_empty_word(self, word: str) -> None:
        if not word:
            raise ValueError("a word is wanted")

    @workflow.signal
    def end(self) -> None:
        self.ends = True


@activity.defn(name="CliFlaky")
async def flaky() -> str:
    """Fails until its attempts are begun anew, or until it is told otherwise."""
    attempt = activity.info().attempt
    if attempt < 3:
        raise RuntimeError(f"attempt {attempt}")
    return f"attempt {attempt}"


@workflow.defn(name="CliRetries")
class CliRetries:
    """Waits for an activity whose next attempt is an hour away."""

    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(
            flaky,
            activity_id="the-one",
            start_to_close_timeout=timedelta(seconds=60),
            retry_policy=RetryPolicy(initial_interval=timedelta(hours=1)),
        )


@asynccontextmanager
async def working(cli: Cli, queue: str) -> AsyncIterator[Client]:
    """A worker on a queue."""
    client = await Client.connect(cli.address)
    async with Worker(
        client,
        task_queue=queue,
        workflows=[CliTalk, CliAtOnce, CliWaits, CliUpdated, CliRetries],
        activities=[pending, flaky],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        yield client


async def eventually(look: Callable[[], Any], what: str) -> Any:
    """Waits until `look`, on a thread, gives something true."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = await asyncio.to_thread(look)
        if found:
            return found
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.1)


def started(cli: Cli, kind: str, name: str, *more: str) -> str:
    """Starts a workflow named as its queue; its run ID."""
    words = ("workflow", "start", "--type", kind, "--task-queue", name, "--workflow-id", name)
    answer = cli.json(*words, *more)
    assert answer["workflowId"] == name
    return answer["runId"]


def status(cli: Cli, name: str) -> str:
    """What `workflow describe` says of a run's state."""
    info = cli.json("workflow", "describe", "--workflow-id", name)["workflowExecutionInfo"]
    return info["status"].removeprefix("WORKFLOW_EXECUTION_STATUS_")
