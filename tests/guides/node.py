"""What a test of the guides has: a server, a worker, and a middle."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator

from temporalio.client import Client, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from flows import ACTIVITIES, WORKFLOWS
from harness import Process, Server


class Node:
    """A server, a name that is the test's own, and what happens in a test's middle."""

    def __init__(self, server: Server, name: str, is_killed: bool) -> None:
        self.server = server
        self.name = name
        self.is_killed = is_killed
        self.client: Client

    async def midway(self) -> None:
        """Kills the server with SIGKILL and starts it again, where that is the test."""
        if self.is_killed:
            assert isinstance(self.server, Process)
            await asyncio.to_thread(self.server.restart)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Node]:
        """A client, and a worker on the queue of the test's name."""
        self.client = await Client.connect(self.server.address)
        async with Worker(
            self.client,
            task_queue=self.name,
            workflows=WORKFLOWS,
            activities=ACTIVITIES,
            workflow_runner=UnsandboxedWorkflowRunner(),
        ):
            yield self

    async def start(self, workflow: Any, *args: Any, **options: Any) -> WorkflowHandle:
        """Starts a workflow on the test's queue, named as the test unless told otherwise."""
        options.setdefault("id", self.name)
        return await self.client.start_workflow(
            workflow, args=args, task_queue=self.name, **options
        )
