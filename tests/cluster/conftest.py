"""A cluster of three nodes for the tests of a module, whole again before each of them."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from nodes import Cluster
from nodes import cluster as make


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The module's cluster."""
    if os.environ.get("EVERSPAN_ADDRESS") and not os.environ.get("EVERSPAN_BIN"):
        pytest.skip("a running server is tested: nothing to kill")
    own = make(pathlib.Path(tmp_path_factory.mktemp("cluster")))
    own.start()
    yield own
    for node in own.nodes:
        panics = [e for e in node.events() if "panic" in str(e.get("message", ""))]
        assert not panics, panics
    own.stop()


@pytest.fixture
def cluster(three: Cluster) -> Iterator[Cluster]:
    """The same; what a test killed is started again after it."""
    yield three
    for node in three.nodes:
        if node.child is None:
            node.spawn()
    for node in three.nodes:
        node.await_ready()
    three.await_leaders()
