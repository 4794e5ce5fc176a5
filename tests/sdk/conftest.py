"""Fixtures of the SDK's tests: a client, and names of a test's own."""

from __future__ import annotations

import uuid

import pytest
import pytest_asyncio
from temporalio.client import Client


@pytest_asyncio.fixture
async def client(server) -> Client:
    """A client of the tested server, namespace `default`."""
    return await Client.connect(server.address, identity="test-client")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A workflow ID or queue that no other test uses."""
    return f"{request.node.name}-{uuid.uuid4().hex[:10]}"
