"""A replica that was away so long that the others' logs have let go what it lacks: it copies rows,
and is then as good as any other."""

from __future__ import annotations

import asyncio
import pathlib
import uuid
from collections.abc import Iterator

import pytest
from temporalio.client import Client

from nodes import Cluster, Node, until
from nodes import cluster as make

pytestmark = pytest.mark.everspan

# Little is kept for those that are away, and checkpoints let the log go soon.
LAG_BYTES_MAX = 1 << 20
FORGETFUL = {
    "EVERSPAN_CLUSTER_LAG_BYTES_MAX": str(LAG_BYTES_MAX),
    "EVERSPAN_STORAGE_CHECKPOINT_INTERVAL_MS": "200",
}
PAYLOAD = "x" * 4_000


@pytest.fixture
def forgetful(tmp_path: pathlib.Path) -> Iterator[Cluster]:
    own = make(tmp_path, environment=FORGETFUL)
    own.start()
    yield own
    own.stop()


def times(node: Node, message: str) -> int:
    """How often a node logged a message."""
    return node.messages().count(message)


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
    return ids


async def let_go(nodes: list[Node]) -> None:
    """Waits until the logs hold no more for others than they are to."""

    def are_small() -> bool:
        return all(n.metric("everspan_log_memory_bytes") <= LAG_BYTES_MAX for n in nodes)

    await asyncio.to_thread(until, are_small, lambda: "the logs let nothing go")


@pytest.mark.parametrize("crash", [False, True])
async def test_a_node_that_was_away_copies_rows(forgetful: Cluster, crash: bool) -> None:
    """All that was acknowledged while it was away is there when it is needed, also if it is killed
    while it copies."""
    first, second, third = forgetful.nodes
    ids = await fill(first, 20)
    third.kill9()
    ids += await fill(first, 600)
    await let_go([first, second])
    third.spawn()
    if crash:
        began = lambda: times(third, "rows are copied from there") > 0  # noqa: E731
        await asyncio.to_thread(until, began, third.tail)
        third.kill9()
        third.spawn()
    copied = lambda: times(third, "rows are copied") >= forgetful.shards  # noqa: E731
    await asyncio.to_thread(until, copied, third.tail)
    await asyncio.to_thread(third.await_serving)
    # What comes after the copy reaches it by the log.
    ids += await fill(second, 20)
    first.kill9()
    await asyncio.to_thread(forgetful.await_leaders)
    client = await Client.connect(third.address)
    found = {w.id async for w in client.list_workflows("WorkflowType = 'Kept'")}
    assert found == set(ids)
    # It leads, alone with one more, what it copied.
    second.kill9()
    first.start()
    await asyncio.to_thread(forgetful.await_leaders)
    for i in ids[::40]:
        description = await client.get_workflow_handle(i).describe()
        assert description.id == i
    found = {w.id async for w in client.list_workflows("WorkflowType = 'Kept'")}
    assert found == set(ids)
