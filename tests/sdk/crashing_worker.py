"""A worker process for a test to kill: `crashing_worker.py ADDRESS QUEUE`."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from test_workflow_tasks import Steps, note


async def main(address: str, queue: str) -> None:
    """Works until it is killed."""
    client = await Client.connect(address, identity="doomed")
    await Worker(
        client,
        task_queue=queue,
        workflows=[Steps],
        activities=[note],
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=2),
        workflow_runner=UnsandboxedWorkflowRunner(),
        identity="doomed",
    ).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
