"""Three nodes, one of which goes: nothing that was acknowledged is lost, and work goes on."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeWorkflowExecutionRequest,
    RegisterNamespaceRequest,
    StartWorkflowExecutionRequest,
)
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

import harness
from nodes import Cluster, Node

pytestmark = pytest.mark.everspan


@activity.defn
async def add_one(number: int) -> int:
    return number + 1


@workflow.defn
class Steps:
    """Counts with activities and timers, and takes signals, updates and queries meanwhile."""

    def __init__(self) -> None:
        self.signals: list[str] = []
        self.count = 0
        self.is_done = False

    @workflow.run
    async def run(self, steps: int = 0) -> int:
        for _ in range(steps):
            self.count = await workflow.execute_activity(
                add_one,
                self.count,
                start_to_close_timeout=timedelta(seconds=5),
                retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=100)),
            )
            await workflow.sleep(0.05)
        await workflow.wait_condition(lambda: self.is_done)
        return self.count

    @workflow.signal
    async def note(self, text: str) -> None:
        self.signals.append(text)

    @workflow.signal
    async def finish(self) -> None:
        self.is_done = True

    @workflow.query
    def notes(self) -> list[str]:
        return self.signals

    @workflow.update
    async def add(self, number: int) -> int:
        return self.count + number


def worker(client: Client, queue: str) -> Worker:
    return Worker(
        client,
        task_queue=queue,
        workflows=[Steps],
        activities=[add_one],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_cached_workflows=50,
    )


def fresh(name: str) -> str:
    return f"{name}-{uuid.uuid4()}"


async def connect(node: Node) -> Client:
    return await Client.connect(node.address)


@pytest.mark.parametrize("how", ["kill9", "stop", "pause"])
async def test_work_goes_on_when_a_node_goes(cluster: Cluster, how: str) -> None:
    """Workflows with activities, timers and signals end as they should while the node that leads
    the most is killed, stopped, or does not answer."""
    victim = cluster.leader_of_most()
    others = cluster.others(victim)
    clients = [await connect(node) for node in others]
    queue = fresh("queue")
    async with worker(clients[0], queue), worker(clients[1], queue):
        handles = [
            await clients[n % 2].start_workflow(Steps.run, 10, id=fresh("steps"), task_queue=queue)
            for n in range(20)
        ]
        if how == "pause":
            victim.pause()
        elif how == "stop":
            await asyncio.to_thread(victim.stop)
        else:
            victim.kill9()
        sent: dict[str, list[str]] = {handle.id: [] for handle in handles}
        for n in range(5):
            for handle in handles:
                text = f"{n} {uuid.uuid4()}"
                await handle.signal(Steps.note, text)
                sent[handle.id].append(text)
        for handle in handles:
            assert await handle.query(Steps.notes) == sent[handle.id]
            await handle.signal(Steps.finish)
        for handle in handles:
            assert await asyncio.wait_for(handle.result(), 60) == 10
        if how == "pause":
            victim.go_on()


async def test_no_call_fails_where_a_leader_dies(cluster: Cluster) -> None:
    """After the death of a leader, starts, signals and updates of any workflow are answered by the
    nodes that are left, once another leads; callers need not ask again."""
    victim = cluster.leader_of_most()
    client = await connect(cluster.others(victim)[0])
    queue = fresh("queue")
    async with worker(client, queue):
        handle = await client.start_workflow(Steps.run, 0, id=fresh("w"), task_queue=queue)
        assert await handle.query(Steps.notes) == []
        victim.kill9()

        async def start() -> str:
            request = StartWorkflowExecutionRequest(
                namespace="default", workflow_id=fresh("many"), request_id=fresh("r")
            )
            request.workflow_type.name, request.task_queue.name = "Steps", queue
            # No retry of the SDK's.
            await client.workflow_service.start_workflow_execution(request, retry=False)
            return request.workflow_id

        started = await asyncio.wait_for(asyncio.gather(*(start() for _ in range(40))), 30)
        handles = [client.get_workflow_handle_for(Steps.run, i) for i in started]
        assert await asyncio.wait_for(handle.execute_update(Steps.add, 2), 30) == 2
        await asyncio.gather(*(h.signal(Steps.finish) for h in [*handles, handle]))
        await asyncio.gather(*(asyncio.wait_for(h.result(), 30) for h in handles))


async def test_a_minority_refuses_at_once(cluster: Cluster) -> None:
    """With one node of three, writes and reads are refused with UNAVAILABLE, and not by a deadline;
    with two all is well again, and nothing is lost."""
    last, *others = cluster.nodes
    client = await connect(last)
    handle = await client.start_workflow(Steps.run, 0, id=fresh("w"), task_queue=fresh("q"))
    for node in others:
        node.kill9()
    request = StartWorkflowExecutionRequest(
        namespace="default", workflow_id=fresh("refused"), request_id=fresh("r")
    )
    request.workflow_type.name, request.task_queue.name = "Steps", "queue"
    for call in (
        lambda: client.workflow_service.start_workflow_execution(request, retry=False),
        lambda: client.workflow_service.describe_workflow_execution(
            DescribeWorkflowExecutionRequest(
                namespace="default", execution=WorkflowExecution(workflow_id=handle.id)
            ),
            retry=False,
        ),
    ):
        with pytest.raises(RPCError) as caught:
            await asyncio.wait_for(call(), 30)
        assert caught.value.status == RPCStatusCode.UNAVAILABLE, caught.value
        assert "has no quorum: 1 of its 3 replicas" in str(caught.value)
    others[0].start()
    description = await handle.describe()
    assert description.status is not None
    await client.workflow_service.start_workflow_execution(request)


async def test_every_node_shows_what_was_acknowledged(cluster: Cluster) -> None:
    """A namespace that was registered, a workflow that was started, an attribute that was added:
    another node knows at once."""
    clients = [await connect(node) for node in cluster.nodes]
    for n, client in enumerate(clients):
        other = clients[(n + 1) % 3]
        name = fresh("namespace")
        request = RegisterNamespaceRequest(namespace=name)
        request.workflow_execution_retention_period.FromTimedelta(timedelta(days=1))
        await client.workflow_service.register_namespace(request)
        asked = DescribeNamespaceRequest(namespace=name)
        found = await other.workflow_service.describe_namespace(asked, retry=False)
        assert found.namespace_info.name == name
        kind = fresh("Kind")
        for _ in range(8):
            await client.start_workflow(kind, id=fresh("listed"), task_queue="nobody")
        listed = [w async for w in other.list_workflows(f"WorkflowType = '{kind}'")]
        assert len(listed) == 8
        counted = await other.count_workflows(f"WorkflowType = '{kind}'")
        assert counted.count == 8


async def test_a_poll_waits_on_another_node(cluster: Cluster) -> None:
    """A worker polls one node, its work comes through another, for every pair of them."""
    for n, node in enumerate(cluster.nodes):
        queue = fresh("queue")
        async with worker(await connect(node), queue):
            client = await connect(cluster.nodes[(n + 1) % 3])
            handle = await client.start_workflow(Steps.run, 2, id=fresh("w"), task_queue=queue)
            await handle.signal(Steps.finish)
            assert await asyncio.wait_for(handle.result(), 20) == 2


async def test_rolling_restart(cluster: Cluster) -> None:
    """Each node in turn is stopped and started, while clients of the others go on: no call
    fails."""
    for node in cluster.nodes:
        client = await connect(cluster.others(node)[0])
        queue = fresh("queue")
        async with worker(client, queue):
            handle = await client.start_workflow(Steps.run, 0, id=fresh("w"), task_queue=queue)
            restarted = asyncio.create_task(asyncio.to_thread(lambda n=node: (n.stop(), n.start())))
            count = 0
            while not restarted.done():
                await handle.signal(Steps.note, str(count))
                await client.start_workflow(Steps.run, 0, id=fresh("r"), task_queue="nobody")
                count += 1
            await restarted
            assert await handle.query(Steps.notes) == [str(n) for n in range(count)]
            await handle.signal(Steps.finish)
            assert await asyncio.wait_for(handle.result(), 20) == 0


@contextlib.contextmanager
def aside(*paths: pathlib.Path) -> Iterator[None]:
    """Files and directories that are not where they were, for a while."""
    kept = [(path, path.with_name(f"kept-{path.name}")) for path in paths]
    for path, other in kept:
        path.rename(other)
    yield
    for path, other in kept:
        if path.exists():
            path.rename(path.with_name(f"new-{uuid.uuid4()}"))
        other.rename(path)


def refused(node: Node, why: str) -> None:
    """A node does not start, and says why."""
    node.spawn()
    assert node.ends() == 1, node.tail()
    assert why in node.tail()


def test_a_node_that_lost_its_disk_is_refused(cluster: Cluster) -> None:
    """It may have acknowledged what it does not have any more: it says so and ends."""
    node = cluster.nodes[2]
    node.stop()
    with aside(node.data):
        refused(node, "another data directory")
    with aside(node.data / "log", node.data / "store"):
        refused(node, "the log of this node is gone")


def test_a_node_that_lost_its_disk_is_refused_by_all_that_start(cluster: Cluster) -> None:
    """Also where all of them start anew, and none knows of a leader yet."""
    for node in cluster.nodes:
        node.kill9()
    lost, *others = cluster.nodes
    with aside(lost.data):
        for node in cluster.nodes:
            node.spawn()
        assert lost.ends() == 1, lost.tail()
        assert "another data directory" in lost.tail()
    for node in others:
        node.await_serving()


def test_a_directory_is_one_nodes(cluster: Cluster) -> None:
    """A node does not start on another's directory."""
    first = cluster.nodes[0]
    first.stop()
    text = first.config.read_text()
    try:
        first.config.write_text(text.replace("node_id = 1", "node_id = 2"))
        refused(first, "belongs to node 1")
    finally:
        first.config.write_text(text)


def test_a_node_that_stops_hands_over(cluster: Cluster) -> None:
    """Nobody waits for an election; the others serve."""
    node = cluster.leader_of_most()
    node.stop()
    assert all(harness.health(other.address) == 1 for other in cluster.running)
    assert "shard is handed over" in node.messages(), node.tail()
