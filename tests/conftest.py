"""Fixtures of every Python test: the server, as harness.py names it."""

from __future__ import annotations

import os
import pathlib
import tempfile
from typing import Iterator

import pytest

from harness import Process, Server, add_search_attributes, process


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all tests: the one that runs, or an ephemeral one of our own."""
    address = os.environ.get("EVERSPAN_ADDRESS")
    if address:
        add_search_attributes(address)
        yield Server(address, os.environ.get("EVERSPAN_HTTP_ADDRESS"))
        return
    with tempfile.TemporaryDirectory(prefix="everspan-test-") as directory:
        own = process(pathlib.Path(directory))
        own.start()
        try:
            yield own
        finally:
            if own.running:
                own.stop()
            else:
                pytest.fail(f"the server died during the tests:\n{own.tail()}", pytrace=False)


@pytest.fixture
def http(server: Server) -> str:
    """The server's HTTP address; a server that shows none has no such tests."""
    if server.http is None:
        pytest.skip("set EVERSPAN_HTTP_ADDRESS to test the HTTP API of a running server")
    return f"http://{server.http}"


@pytest.fixture
def everspan_http(http: str) -> str:
    """The HTTP address of a server that is Everspan, with its own pages."""
    if os.environ.get("EVERSPAN_REFERENCE"):
        pytest.skip("the real server has no such page")
    return http


@pytest.fixture
def durable_server(tmp_path: pathlib.Path) -> Iterator[Process]:
    """A server of its own on a data directory, to kill and restart.

    Needs the binary: with EVERSPAN_ADDRESS alone (no EVERSPAN_BIN) such tests skip.
    """
    if os.environ.get("EVERSPAN_ADDRESS") and not os.environ.get("EVERSPAN_BIN"):
        pytest.skip("a running server is tested: nothing to kill")
    own = process(tmp_path, tmp_path / "data")
    own.start()
    yield own
    if own.running:
        own.stop()
