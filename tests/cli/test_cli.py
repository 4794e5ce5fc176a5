"""The commands of the `temporal` CLI that people use every day."""

from __future__ import annotations

import asyncio
import time

from command import Cli
from work import PATIENCE, eventually, started, status, working


async def test_a_workflow_s_life(cli: Cli, name: str) -> None:
    """start, describe, query, stack, signal, result, show, trace."""
    ask = asyncio.to_thread
    this = ("--workflow-id", name)
    async with working(cli, name):
        more = ("--input", '"Hello"', "--memo", 'note="n"', "--search-attribute", "EverspanInt=5")
        run_id = await ask(started, cli, "CliTalk", name, *more)
        described = await ask(cli.json, "workflow", "describe", *this)
        info = described["workflowExecutionInfo"]
        assert info["execution"] == {"workflowId": name, "runId": run_id}
        assert info["type"]["name"] == "CliTalk"
        assert info["status"] == "WORKFLOW_EXECUTION_STATUS_RUNNING"

        query = ("workflow", "query", *this, "--type", "heard", "--input", '"said"')
        assert (await ask(cli.json, *query))["queryResult"] == ["said="]
        unknown = await ask(
            lambda: cli.run("workflow", "query", *this, "--type", "no-such", code=1)
        )
        assert "no-such" in unknown
        stack = await ask(cli.run, "workflow", "stack", *this)
        assert "Stack for" in stack
        assert "_workflow_instance.py" in stack

        await ask(cli.run, "workflow", "signal", *this, "--name", "say", "--input", '"world"')
        result = await ask(cli.json, "workflow", "result", *this)
        assert result["status"] == "COMPLETED"
        assert result["result"] == "Hello, world"

    shown = await ask(cli.json, "workflow", "show", *this)
    kinds = [event["eventType"].removeprefix("EVENT_TYPE_") for event in shown["events"]]
    assert kinds[0] == "WORKFLOW_EXECUTION_STARTED"
    assert kinds[-1] == "WORKFLOW_EXECUTION_COMPLETED"
    assert "WORKFLOW_EXECUTION_SIGNALED" in kinds
    # For people, too.
    assert "WorkflowExecutionCompleted" in await ask(cli.run, "workflow", "show", *this)
    traced = await ask(cli.run, "workflow", "trace", *this)
    assert "CliTalk" in traced


async def test_execute(cli: Cli, name: str) -> None:
    """execute waits for the result, and shows the events as they come."""
    words = ("workflow", "execute", "--type", "CliAtOnce", "--task-queue", name)
    words += ("--workflow-id", name, "--input", "41")
    async with working(cli, name):
        executed = await asyncio.to_thread(cli.json, *words)
    assert executed["status"] == "COMPLETED"
    assert executed["result"] == 42


async def test_list_and_count(cli: Cli, name: str) -> None:
    """list and count with a query."""
    ask = asyncio.to_thread
    await ask(started, cli, "CliTalk", name, "--input", '"x"')
    query = ("--query", f"WorkflowId = '{name}' AND ExecutionStatus = 'Running'")
    listed = await eventually(lambda: cli.json("workflow", "list", *query), "a row in the list")
    assert [row["execution"]["workflowId"] for row in listed] == [name]
    assert "CliTalk" in await ask(cli.run, "workflow", "list", *query)
    assert (await ask(cli.json, "workflow", "count", *query))["count"] in (1, "1")
    grouped = f"WorkflowId = '{name}' GROUP BY ExecutionStatus"
    counted = await ask(cli.json, "workflow", "count", "--query", grouped)
    assert [group["count"] for group in counted["groups"]] in ([1], ["1"])
    await ask(cli.run, "workflow", "terminate", "--workflow-id", name)


async def test_cancel_and_terminate(cli: Cli, name: str) -> None:
    """cancel asks the worker, terminate does not; both are told of a workflow that is not there."""
    ask = asyncio.to_thread
    await ask(started, cli, "CliTalk", name, "--input", '"x"')
    await ask(cli.run, "workflow", "terminate", "--workflow-id", name, "--reason", "enough of it")
    assert await ask(status, cli, name) == "TERMINATED"
    shown = await ask(cli.json, "workflow", "show", "--workflow-id", name)
    last = shown["events"][-1]["workflowExecutionTerminatedEventAttributes"]
    assert last["reason"] == "enough of it"

    other = f"{name}-2"
    async with working(cli, other):
        await ask(started, cli, "CliTalk", other, "--input", '"x"')
        await ask(cli.run, "workflow", "cancel", "--workflow-id", other)

        def canceled() -> bool:
            return status(cli, other) == "CANCELED"

        await eventually(canceled, "the workflow canceled")

    for verb in ("cancel", "terminate", "describe", "result"):
        words = ("workflow", verb, "--workflow-id", "cli-nobody")
        told = await ask(lambda words=words: cli.run(*words, code=1))
        assert "not found" in told, verb


async def test_signal_with_start(cli: Cli, name: str) -> None:
    """signal-with-start begins the run that it signals."""
    words = ("workflow", "signal-with-start", "--type", "CliTalk", "--task-queue", name)
    words += ("--workflow-id", name, "--input", '"Hi"', "--signal-name", "say")
    async with working(cli, name):
        await asyncio.to_thread(cli.json, *words, "--signal-input", '"there"')
        result = await asyncio.to_thread(cli.json, "workflow", "result", "--workflow-id", name)
    assert result["result"] == "Hi, there"


async def test_activity_complete_and_fail(cli: Cli, name: str) -> None:
    """An activity that is open is completed, and failed, by its ID."""
    ask = asyncio.to_thread
    async with working(cli, name) as client:
        for suffix, words in (
            ("done", ("complete", "--result", '"by hand"')),
            ("lost", ("fail", "--reason", "by hand")),
        ):
            this = f"{name}-{suffix}"
            await ask(
                cli.json,
                *("workflow", "start", "--type", "CliWaits", "--task-queue", name),
                *("--workflow-id", this),
            )
            handle = client.get_workflow_handle(this)
            deadline = time.monotonic() + PATIENCE
            while True:
                waiting = (await handle.describe()).raw_description.pending_activities
                if waiting and waiting[0].last_worker_identity:
                    break
                assert time.monotonic() < deadline, "never: the activity started"
                await asyncio.sleep(0.05)
            verb, *more = words
            flags = ("--activity-id", "the-one", "--workflow-id", this)
            await ask(cli.run, "activity", verb, *flags, *more)
        # While the worker is there: it still has the workflow task that follows.
        done = await ask(cli.json, "workflow", "result", "--workflow-id", f"{name}-done")
        lost = await ask(
            lambda: cli.run("workflow", "result", "--workflow-id", f"{name}-lost", code=1)
        )
    assert done["result"] == "by hand"
    assert "by hand" in lost


def test_namespaces(cli: Cli, name: str) -> None:
    """operator namespace: create, describe, list, update."""
    this = ("--namespace", name)
    cli.run(
        *("operator", "namespace", "create", *this, "--retention", "48h"),
        *("--description", "first", "--email", "a@b.c", "--data", "k=v"),
    )
    described = cli.json("operator", "namespace", "describe", *this)
    info = described["namespaceInfo"]
    assert info["name"] == name
    assert info["state"] == "NAMESPACE_STATE_REGISTERED"
    assert (info["description"], info["ownerEmail"], info["data"]) == ("first", "a@b.c", {"k": "v"})
    assert described["config"]["workflowExecutionRetentionTtl"] == "172800s"
    listed = cli.json("operator", "namespace", "list")
    assert name in [row["namespaceInfo"]["name"] for row in listed]
    cli.run(
        *("operator", "namespace", "update", *this),
        *("--description", "second", "--retention", "72h"),
    )
    described = cli.json("operator", "namespace", "describe", *this)
    assert described["namespaceInfo"]["description"] == "second"
    assert described["config"]["workflowExecutionRetentionTtl"] == "259200s"
    again = cli.run("operator", "namespace", "create", *this, code=1)
    assert "already exists" in again
    assert "not found" in cli.run(
        "operator", "namespace", "describe", "--namespace", "cli-nowhere", code=1
    )


def test_search_attributes(cli: Cli) -> None:
    """operator search-attribute: create, list, remove."""

    def custom() -> dict[str, str]:
        return cli.json("operator", "search-attribute", "list").get("customAttributes", {})

    this = ("--name", "CliColour")
    cli.run("operator", "search-attribute", "create", *this, "--type", "Keyword")
    assert custom()["CliColour"] == "INDEXED_VALUE_TYPE_KEYWORD"
    assert "CliColour" in cli.run("operator", "search-attribute", "list")
    # The same again changes nothing, and another type is refused.
    cli.run("operator", "search-attribute", "create", *this, "--type", "Keyword")
    cli.run("operator", "search-attribute", "create", *this, "--type", "Int", code=1)
    cli.run("operator", "search-attribute", "remove", *this, "--yes")
    assert "CliColour" not in custom()


def test_cluster(cli: Cli) -> None:
    """operator cluster: health, describe, system."""
    assert cli.json("operator", "cluster", "health") == {"status": "SERVING"}
    assert "SERVING" in cli.run("operator", "cluster", "health")
    described = cli.json("operator", "cluster", "describe")
    assert described["clusterName"]
    assert described["serverVersion"]
    assert described["clusterName"] in cli.run("operator", "cluster", "describe", "--detail")
    assert cli.json("operator", "cluster", "system")["serverVersion"]


async def test_reset_and_delete(cli: Cli, name: str) -> None:
    """reset to the first workflow task, with the signal that came since; delete."""
    ask = asyncio.to_thread
    this = ("--workflow-id", name)
    async with working(cli, name):
        old = await ask(started, cli, "CliTalk", name, "--input", '"Hello"')
        await ask(cli.run, "workflow", "signal", *this, "--name", "say", "--input", '"again"')
        await ask(cli.run, "workflow", "result", *this)
        reset = ("workflow", "reset", *this, "--type", "FirstWorkflowTask", "--reason", "test")
        await ask(cli.run, *reset)
        described = await ask(cli.json, "workflow", "describe", *this)
        assert described["workflowExecutionInfo"]["execution"]["runId"] != old
        assert (await ask(cli.json, "workflow", "result", *this))["result"] == "Hello, again"
        await ask(cli.run, "workflow", "delete", *this)
        told = await ask(cli.run, "workflow", "describe", *this, code=1)
        assert "not found" in told
