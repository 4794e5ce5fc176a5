"""A replica that was away so long that the others' logs have let go what it lacks: it copies rows,
and is then as good as any other."""

from __future__ import annotations

import asyncio
import pathlib
import time
import uuid
from collections.abc import Iterator

import pytest
from temporalio.client import Client

from nodes import Cluster, Node
from nodes import cluster as make

pytestmark = pytest.mark.everspan

# Little is kept for those that are away, and checkpoints let the log go soon.
FORGETFUL = {
    "EVERSPAN_CLUSTER_LAG_BYTES_MAX": str(1 << 20),
    "EVERSPAN_STORAGE_CHECKPOINT_INTERVAL_MS": "200",
}
PAYLOAD = "x" * 4_000
COPIED = "rows are copied"


@pytest.fixture
def forgetful(tmp_path: pathlib.Path) -> Iterator[Cluster]:
    own = make(tmp_path, environment=FORGETFUL)
    own.start()
    yield own
    own.stop()


def copies(node: Node) -> int:
    """How many shards of a node were made of another's rows."""
    return sum(event.get("message") == COPIED for event in node.events())


async def fill(node: Node, count: int) -> list[str]:
    """Starts workflows that nobody runs; their IDs, once they are acknowledged."""
    client = await Client.connect(node.address)
    ids = [str(uuid.uuid4()) for _ in range(count)]
    for n in range(0, count, 50):
        started = [
            client.start_workflow("Kept", PAYLOAD, id=i, task_queue="nobody")
            for i in ids[n : n + 50]
        ]
        await asyncio.gather(*started)
        # Time for a checkpoint, after which the log lets go.
        await asyncio.sleep(0.1)
    return ids


async def await_copies(node: Node, count: int) -> None:
    deadline = time.monotonic() + 60
    while copies(node) < count:
        assert time.monotonic() < deadline, f"{copies(node)} copies:\n{node.tail()}"
        await asyncio.sleep(0.1)


async def await_shards(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.await_leaders)


@pytest.mark.parametrize("crash", [False, True])
async def test_a_node_that_was_away_copies_rows(forgetful: Cluster, crash: bool) -> None:
    """All that was acknowledged while it was away is there when it is needed, also if it is killed
    while it copies."""
    first, second, third = forgetful.nodes
    ids = await fill(first, 20)
    third.kill9()
    ids += await fill(first, 600)
    third.start()
    if crash:
        await asyncio.sleep(0.2)
        third.kill9()
        third.start()
    await await_copies(third, 4)
    # What comes after the copy reaches it by the log.
    ids += await fill(second, 20)
    first.kill9()
    await await_shards(forgetful)
    client = await Client.connect(third.address)
    found = {w.id async for w in client.list_workflows("WorkflowType = 'Kept'")}
    assert found == set(ids)
    # It leads, alone with one more, what it copied.
    second.kill9()
    first.start()
    await await_shards(forgetful)
    for i in ids[::40]:
        description = await client.get_workflow_handle(i).describe()
        assert description.id == i
    found = {w.id async for w in client.list_workflows("WorkflowType = 'Kept'")}
    assert found == set(ids)
