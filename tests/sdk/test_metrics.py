"""What `/metrics` counts, and that a restart does not make it forget what is open."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

import requests
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.service import RPCError

from helpers import eventually, working


@activity.defn
async def step() -> str:
    return "done"


@workflow.defn(name="MetricsOne")
class One:
    @workflow.run
    async def run(self, wait: bool) -> str:
        if wait:
            await workflow.wait_condition(lambda: False)
        return await workflow.execute_activity(step, start_to_close_timeout=timedelta(seconds=20))


def read(server) -> dict[str, float]:
    """Every sample of the page, by its name and labels."""
    page = requests.get(f"http://{server.http}/metrics", timeout=10).text
    samples = re.findall(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", page, re.MULTILINE)
    return {name: float(value) for name, value in samples}


async def test_what_is_counted(durable_server, name: str) -> None:
    """RPCs, tasks, backlog, open runs, actors, log and checkpoints, all of them moving."""
    client = await Client.connect(durable_server.address)
    async with working(client, name, [One], [step]):
        closed = await client.start_workflow(One.run, False, id=f"{name}-c", task_queue=name)
        assert await closed.result() == "done"
    try:
        await client.get_workflow_handle(f"{name}-none").describe()
    except RPCError:
        pass
    waiting = [
        await client.start_workflow(One.run, True, id=f"{name}-{n}", task_queue=name)
        for n in range(3)
    ]
    now = read(durable_server)

    start = 'method="StartWorkflowExecution"'
    assert now[f"everspan_rpc_requests_total{{{start}}}"] == 4
    assert now[f"everspan_rpc_seconds_count{{{start}}}"] == 4
    assert 0 < now[f"everspan_rpc_seconds_sum{{{start}}}"] < 60
    describe = 'code="NotFound",method="DescribeWorkflowExecution"'
    assert now[f"everspan_rpc_errors_total{{{describe}}}"] == 1
    assert now['everspan_tasks_started_total{kind="workflow"}'] >= 2
    assert now['everspan_tasks_started_total{kind="activity"}'] == 1
    assert now["everspan_open_executions"] == 3
    assert now["everspan_shard_actors"] == 4
    assert now["everspan_execution_actors"] >= 3
    assert now["everspan_proposals_total"] >= 8
    assert now["everspan_log_write_seconds_count"] >= 8
    assert now["everspan_log_write_seconds_sum"] > 0
    assert now["everspan_log_stalled"] == 0

    async def backlog() -> bool:
        found = [
            value
            for sample, value in read(durable_server).items()
            if sample.startswith("everspan_task_backlog{")
            and f'queue="{name}"' in sample
            and 'kind="workflow"' in sample
        ]
        return found == [3]

    await eventually(backlog, "the backlog of three tasks")

    async def checkpoint() -> bool:
        return read(durable_server)["everspan_checkpoint_seconds_count"] >= 1

    await eventually(checkpoint, "a checkpoint")

    # What is open is counted after a restart, too; killed or stopped.
    for end in (durable_server.kill9, durable_server.stop):
        end()
        await asyncio.to_thread(durable_server.start)
        assert read(durable_server)["everspan_open_executions"] == 3
    client = await Client.connect(durable_server.address)
    for handle in waiting:
        await client.get_workflow_handle(handle.id).terminate()
    assert read(durable_server)["everspan_open_executions"] == 0
