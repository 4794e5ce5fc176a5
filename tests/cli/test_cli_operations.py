"""The commands of the `temporal` CLI that change a run, its activities, and a queue."""

from __future__ import annotations

import asyncio
from typing import Any

from command import Cli
from work import eventually, started, status, working


async def test_update(cli: Cli, name: str) -> None:
    """update: execute, start, describe, result; one that the validator rejects."""
    ask = asyncio.to_thread
    this = ("--workflow-id", name)
    async with working(cli, name):
        await ask(started, cli, "CliUpdated", name)
        put = (*this, "--name", "put")
        execute = ("workflow", "update", "execute", *put, "--update-id", "one")
        first = await ask(cli.json, *execute, "--input", '"a"')
        assert (first["updateId"], first["result"]) == ("one", 1)
        # The same ID is the same update.
        again = await ask(cli.json, *execute, "--input", '"b"')
        assert again["result"] == 1

        start = ("workflow", "update", "start", *put, "--update-id", "two")
        accepted = await ask(cli.json, *start, "--input", '"c"', "--wait-for-stage", "accepted")
        assert accepted["updateId"] == "two"
        result = ("workflow", "update", "result", *this, "--update-id", "two")
        assert (await ask(cli.json, *result))["result"] == 2
        describe = ("workflow", "update", "describe", *this, "--update-id", "two")
        assert (await ask(cli.json, *describe))["stage"] == "Completed"

        refused = await ask(cli.run, "workflow", "update", "execute", *put, "--input", '""', code=1)
        assert "a word is wanted" in refused
        unknown = await ask(cli.run, *result[:-1], "three", code=1)
        assert "not found" in unknown
        await ask(cli.run, "workflow", "signal", *this, "--name", "end")
        assert (await ask(cli.json, "workflow", "result", *this))["result"] == ["a", "c"]


async def test_update_with_start(cli: Cli, name: str) -> None:
    """execute-update-with-start and start-update-with-start begin the run that they update."""
    ask = asyncio.to_thread
    this = ("--workflow-id", name, "--type", "CliUpdated", "--task-queue", name)
    more = ("--id-conflict-policy", "UseExisting", "--update-name", "put")
    async with working(cli, name):
        execute = ("workflow", "execute-update-with-start", *this, *more)
        done = await ask(cli.json, *execute, "--update-input", '"a"')
        assert done["updateResult"] == 1
        begin = ("workflow", "start-update-with-start", *this, *more, "--update-id", "two")
        begin += ("--update-wait-for-stage", "accepted")
        begun = await ask(cli.json, *begin, "--update-input", '"b"')
        assert (begun["updateId"], begun["runId"]) == ("two", done["runId"])
        result = ("workflow", "update", "result", "--workflow-id", name, "--update-id", "two")
        assert (await ask(cli.json, *result))["result"] == 2
    await ask(cli.run, "workflow", "terminate", "--workflow-id", name)


def activity_of(cli: Cli, name: str) -> dict[str, Any] | None:
    """The one pending activity of a run."""
    described = cli.json("workflow", "describe", "--workflow-id", name)
    return next(iter(described.get("pendingActivities", [])), None)


async def test_pause_and_reset_an_activity(cli: Cli, name: str) -> None:
    """activity: pause, unpause, update-options, reset, on one that waits for its next attempt."""
    ask = asyncio.to_thread
    this = ("--workflow-id", name, "--activity-id", "the-one")
    async with working(cli, name):
        await ask(started, cli, "CliRetries", name)

        def attempt(number: int) -> bool:
            found = activity_of(cli, name)
            return found is not None and (found["attempt"], found["state"]) == (
                number,
                "PENDING_ACTIVITY_STATE_SCHEDULED",
            )

        await eventually(lambda: attempt(2), "a second attempt waits")
        await ask(cli.run, "activity", "pause", *this)
        paused = await ask(activity_of, cli, name)
        assert paused["paused"] and paused["state"] == "PENDING_ACTIVITY_STATE_PAUSED"
        assert "temporal-cli" in paused["pauseInfo"]["manual"]["identity"]
        # Begins anew at the first attempt, which runs at once and fails, and keeps it paused.
        await ask(cli.run, "activity", "reset", *this, "--keep-paused", "--reset-attempts")
        still = await ask(activity_of, cli, name)
        assert still["paused"] and still["attempt"] == 1

        options = ("--retry-initial-interval", "10ms", "--heartbeat-timeout", "7s")
        changed = await ask(cli.json, "activity", "update-options", *this, *options)
        assert changed["HeartbeatTimeout"] == 7_000_000_000
        assert changed["InitialInterval"] == 10_000_000
        await ask(cli.run, "activity", "unpause", *this, "--reset-attempts")
        done = await ask(cli.json, "workflow", "result", "--workflow-id", name)
    assert done["result"] == "attempt 3"


async def test_metadata(cli: Cli, name: str) -> None:
    """metadata asks the workflow for what it says of itself."""
    async with working(cli, name):
        await asyncio.to_thread(started, cli, "CliUpdated", name)
        told = await asyncio.to_thread(cli.json, "workflow", "metadata", "--workflow-id", name)
    definition = told["queryResult"][0]["definition"]
    assert definition["type"] == "CliUpdated"
    assert [update["name"] for update in definition["updateDefinitions"]] == ["put"]
    await asyncio.to_thread(cli.run, "workflow", "terminate", "--workflow-id", name)


async def test_reset_to_an_event(cli: Cli, name: str) -> None:
    """reset to an event, without the signals that came since."""
    ask = asyncio.to_thread
    this = ("--workflow-id", name)
    async with working(cli, name):
        await ask(started, cli, "CliTalk", name, "--input", '"Hello"')
        await ask(cli.run, "workflow", "signal", *this, "--name", "say", "--input", '"you"')
        await ask(cli.run, "workflow", "result", *this)
        reset = ("workflow", "reset", *this, "--event-id", "4", "--reason", "test")
        told = await ask(cli.json, *reset, "--reapply-exclude", "Signal")
        described = await ask(cli.json, "workflow", "describe", *this)
        execution = described["workflowExecutionInfo"]["execution"]
        assert execution["runId"] == told["runId"]
        assert await ask(status, cli, name) == "RUNNING"
        await ask(cli.run, "workflow", "signal", *this, "--name", "say", "--input", '"me"')
        assert (await ask(cli.json, "workflow", "result", *this))["result"] == "Hello, me"
        refused = await ask(
            cli.run, "workflow", "reset", *this, "--event-id", "99", "--reason", "test", code=1
        )
        assert "Workflow task finish ID" in refused


async def test_delete(cli: Cli, name: str) -> None:
    """delete ends a run that is open, too."""
    ask = asyncio.to_thread
    await ask(started, cli, "CliTalk", name, "--input", '"x"')
    await ask(cli.run, "workflow", "delete", "--workflow-id", name)

    def gone() -> bool:
        return cli.json("workflow", "list", "--query", f"WorkflowId = '{name}'") == []

    await eventually(gone, "the workflow gone")


async def test_task_queues(cli: Cli, name: str) -> None:
    """task-queue: describe with pollers, partitions, and its limits."""
    ask = asyncio.to_thread
    this = ("--task-queue", name)
    async with working(cli, name):

        def polled() -> Any:
            return cli.json("task-queue", "describe", *this).get("pollers")

        pollers = await eventually(polled, "a poller is seen")
        kinds = {poller["taskQueueType"] for poller in pollers}
        assert kinds <= {"workflow", "activity"} and kinds
        assert "Pollers" in await ask(cli.run, "task-queue", "describe", *this)
    assert await ask(cli.json, "task-queue", "list-partition", *this)

    of = (*this, "--task-queue-type", "activity")
    limit = ("--queue-rps-limit", "12", "--queue-rps-limit-reason", "test")
    await ask(cli.run, "task-queue", "config", "set", *of, *limit)
    config = await ask(cli.json, "task-queue", "config", "get", *of)
    assert config["queueRateLimit"]["rateLimit"]["requestsPerSecond"] == 12
    # What waits is counted.
    await ask(started, cli, "CliTalk", name, "--input", '"x"')

    def waits() -> bool:
        stats = cli.json("task-queue", "describe", *this)["stats"]
        counts = {row["taskQueueType"]: row["approximateBacklogCount"] for row in stats}
        return str(counts["workflow"]) == "1"

    await eventually(waits, "the workflow task is counted")
    await ask(cli.run, "workflow", "terminate", "--workflow-id", name)


def test_workflow_options(cli: Cli, name: str) -> None:
    """update-options: go with the current version, a version that no worker has, and neither."""
    this = ("--workflow-id", name)
    cli.run("workflow", "start", *this, "--type", "CliUpdated", "--task-queue", name)
    update = ("workflow", "update-options", *this, "--versioning-override-behavior")
    cli.run(*update, "auto_upgrade")
    info = cli.json("workflow", "describe", *this)["workflowExecutionInfo"]
    assert info["versioningInfo"]["versioningOverride"]["autoUpgrade"] is True
    version = ("--versioning-override-deployment-name", "d", "--versioning-override-build-id", "1")
    refused = cli.run(*update, "pinned", *version, code=1)
    assert "Pinned version 'd:1' is not present" in refused
    cli.run(*update, "unspecified")
    info = cli.json("workflow", "describe", *this)["workflowExecutionInfo"]
    assert "versioningOverride" not in info.get("versioningInfo", {})
    cli.run("workflow", "terminate", *this)
