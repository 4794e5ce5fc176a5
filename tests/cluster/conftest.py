"""A cluster of three nodes for the tests of a module, whole again before each of them."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from nodes import Cluster
from nodes import cluster as make


@pytest.fixture(scope="module", autouse=True)
def own_processes() -> None:
    """These tests kill what they test."""
    if os.environ.get("EVERSPAN_ADDRESS") and not os.environ.get("EVERSPAN_BIN"):
        pytest.skip("a running server is tested: nothing to kill")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The module's cluster."""
    own = make(pathlib.Path(tmp_path_factory.mktemp("cluster")))
    own.start()
    yield own
    for node in own.nodes:
        assert not [m for m in node.messages() if "panic" in m], node.tail()
    own.stop()


@pytest.fixture
def cluster(three: Cluster) -> Iterator[Cluster]:
    """The same; what a test killed is started again after it."""
    yield three
    three.start()
