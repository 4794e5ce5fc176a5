"""A node for each test of the guides, which is killed in the middle of half of them."""

from __future__ import annotations

import uuid

import pytest

from node import Node


@pytest.fixture(params=["steady", "killed"])
def node(request: pytest.FixtureRequest) -> Node:
    """A node that stays up, and one of the test's own that is killed midway."""
    is_killed = request.param == "killed"
    server = request.getfixturevalue("durable_server" if is_killed else "server")
    return Node(server, f"{request.node.name}-{uuid.uuid4().hex[:10]}", is_killed)
