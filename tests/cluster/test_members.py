"""Nodes that come and go for good: what they have moves, and nobody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import uuid
from collections.abc import AsyncIterator

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

from nodes import cluster as make
from nodes import until

pytestmark = pytest.mark.everspan

ENVIRONMENT = {"EVERSPAN_CLUSTER_REPLACE_AFTER_MS": "3000"}


@workflow.defn(sandboxed=False)
class Echo:
    """Says what it is told."""

    @workflow.run
    async def run(self, word: str) -> str:
        """Says it, once a signal came."""
        await workflow.wait_condition(lambda: self.may_go)
        return word

    def __init__(self) -> None:
        self.may_go = False

    @workflow.signal
    def go(self) -> None:
        """Lets it end."""
        self.may_go = True


class Load:
    """Workflows that are started one after the other and stay open."""

    def __init__(self, clients: list[Client]) -> None:
        self.clients, self.started, self.slowest = clients, [], 0.0
        self.queue = f"queue-{uuid.uuid4()}"

    async def start(self, n: int) -> None:
        """Starts them, without any patience of the client."""
        loop = asyncio.get_running_loop()
        while True:
            word = str(uuid.uuid4())
            began = loop.time()
            client = self.clients[len(self.started) % len(self.clients)]
            await client.start_workflow(Echo.run, word, id=word, task_queue=self.queue)
            self.slowest = max(self.slowest, loop.time() - began)
            self.started.append(word)
            # Enough to be in the way, and few enough to end soon.
            await asyncio.sleep(0.1)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Starts workflows all the while; a call that fails fails the test."""
        tasks = [asyncio.create_task(self.start(n)) for n in range(4)]
        yield
        done = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def finish(self, client: Client) -> None:
        """All that were started are there, and end as they should."""
        async with Worker(client, task_queue=self.queue, workflows=[Echo]):
            handles = [client.get_workflow_handle_for(Echo.run, word) for word in self.started]
            await asyncio.gather(*(handle.signal(Echo.go) for handle in handles))
            ended = asyncio.gather(*(handle.result() for handle in handles))
            assert await asyncio.wait_for(ended, 120) == self.started


async def test_nodes_come_and_go(tmp_path: pathlib.Path) -> None:
    """Under load, a fourth node joins and gets its part; a founder is drained and removed; another
    dies, and what it had is rebuilt. No acknowledged start is lost, and none fails."""
    cluster = make(tmp_path, environment=ENVIRONMENT)
    cluster.start()
    try:
        third = cluster.nodes[2]
        load = Load([await Client.connect(node.address) for node in cluster.nodes[1:3]])
        async with load.running():
            fourth = await asyncio.to_thread(cluster.add)
            await asyncio.to_thread(cluster.await_settled, {1: 3, 2: 3, 3: 3, 4: 3})
            seen = cluster.look(fourth)
            assert [node["state"] for node in seen["nodes"]] == ["up"] * 4
            await asyncio.to_thread(cluster.await_leaders)
            # A founder goes.
            done = await asyncio.to_thread(cluster.command, "drain", "1", node=third)
            assert done.returncode == 0, done.stderr
            assert "node 1 has no replicas" in done.stdout
            cluster.nodes[0].stop()
            done = await asyncio.to_thread(cluster.command, "remove-node", "1", node=third)
            assert done.returncode == 0, done.stderr
            await asyncio.to_thread(cluster.await_settled, {2: 4, 3: 4, 4: 4}, third)
            # A fifth takes its place.
            await asyncio.to_thread(cluster.add)
            await asyncio.to_thread(cluster.await_settled, {2: 3, 3: 3, 4: 3, 5: 3}, third)
        assert load.slowest < 10
        # Without the work of the client's node that dies.
        fourth.kill9()
        await asyncio.to_thread(cluster.await_settled, {2: 4, 3: 4, 5: 4}, third)
        assert len(load.started) > 300
        await load.finish(load.clients[0])
        # It is taken in no more.
        first = cluster.nodes[0]
        first.spawn()
        await asyncio.to_thread(until, lambda: not first.running, first.tail)
        assert "it is yet to join, or was removed" in first.log.read_text()
    finally:
        cluster.stop()


async def test_what_cannot_be_is_refused(tmp_path: pathlib.Path) -> None:
    """The admin service says why."""
    cluster = make(tmp_path)
    cluster.start()
    try:

        def refused(*arguments: str) -> str:
            done = cluster.command(*arguments)
            assert done.returncode == 1
            return done.stderr

        assert "there is no node 9" in refused("drain", "9")
        assert "drain it first" in refused("remove-node", "2")
        assert "there is no shard 9" in refused("transfer-leader", "9", "1")
        assert "cannot lead shard 1 now" in refused("transfer-leader", "1", "9")
        assert "too few other nodes" in refused("drain", "3")
        assert cluster.command("drain", "3", "--undo").returncode == 0
        await asyncio.to_thread(cluster.await_settled, {1: 4, 2: 4, 3: 4})
        shard = cluster.look()["shards"][0]
        to = next(node for node in shard["wanted"] if node != shard["leader"])
        done = cluster.command("transfer-leader", str(shard["id"]), str(to))
        assert done.returncode == 0, done.stderr
        await asyncio.to_thread(cluster.await_leaders)
        text = cluster.command("nodes").stdout + cluster.command("shards").stdout
        assert "PLACED ON" in text and "ADDRESS" in text
    finally:
        cluster.stop()
