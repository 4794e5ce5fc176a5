"""A node whose disk is full: another leads, and clients of any node go on."""

from __future__ import annotations

import asyncio
import pathlib
import uuid

import pytest
from temporalio.api.workflowservice.v1 import StartWorkflowExecutionRequest
from temporalio.client import Client

from disks import fill, mounted
from nodes import cluster as make
from nodes import until

pytestmark = pytest.mark.everspan

# Small files, so that all that writes meets the end of the disk soon.
SMALL = {
    "EVERSPAN_STORAGE_LOG_FILE_BYTES": str(1 << 20),
    "EVERSPAN_STORAGE_LOG_PURGE_BYTES": str(2 << 20),
    "EVERSPAN_STORAGE_CHECKPOINT_INTERVAL_MS": "200",
}


async def test_another_node_takes_over(tmp_path: pathlib.Path) -> None:
    """Starts at the node itself and at another are answered, if not by it; with room it catches up,
    and has all of them."""
    with mounted(tmp_path / "disk", 48) as disk:
        cluster = make(tmp_path, environment=SMALL, data={1: disk / "data"})
        cluster.start()
        try:
            first, second = cluster.nodes[:2]
            clients = [await Client.connect(node.address) for node in (first, second)]

            async def start(client: Client) -> str:
                request = StartWorkflowExecutionRequest(
                    namespace="default",
                    workflow_id=str(uuid.uuid4()),
                    request_id=str(uuid.uuid4()),
                )
                request.workflow_type.name, request.task_queue.name = "Kept", "nobody"
                await asyncio.wait_for(
                    client.workflow_service.start_workflow_execution(request), 60
                )
                return request.workflow_id

            async def some(count: int) -> list[str]:
                return await asyncio.gather(*(start(clients[n % 2]) for n in range(count)))

            ids = await some(20)
            ballast = fill(disk)
            # Until the log meets the end of the disk, and long after it.
            while first.metric("everspan_log_stalled") == 0:
                ids += await some(50)
            ids += await some(100)
            for client in clients:
                found = {w.id async for w in client.list_workflows("WorkflowType = 'Kept'")}
                assert found == set(ids)
            ballast.unlink()
            has_room = lambda: first.metric("everspan_log_stalled") == 0  # noqa: E731
            await asyncio.to_thread(until, has_room, first.tail)
            # It is needed now.
            ids += await some(20)
            second.kill9()
            await asyncio.to_thread(cluster.await_leaders)
            found = {w.id async for w in clients[0].list_workflows("WorkflowType = 'Kept'")}
            assert found == set(ids)
        finally:
            cluster.stop()
