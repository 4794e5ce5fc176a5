"""`everspan dev --nodes 3`: a cluster in one command, which goes as a whole."""

from __future__ import annotations

import pathlib
import signal
import socket

import pytest

import harness
from nodes import until

pytestmark = pytest.mark.everspan


def first_port() -> int:
    """The first of three free ports that follow each other."""
    while True:
        port = harness.free_port()
        try:
            for n in range(3):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + n))
        except OSError:
            continue
        return port


def is_open(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_it_comes_and_goes_as_a_whole(tmp_path: pathlib.Path, how: signal.Signals) -> None:
    """Three nodes serve; none of them is left, however the command ends."""
    grpc, http, peers = first_port(), first_port(), first_port()
    dev = harness.Process(
        address=f"127.0.0.1:{grpc}",
        http=f"127.0.0.1:{http}",
        data_dir=tmp_path / "data",
        arguments=["--nodes", "3", "--peer-port", str(peers)],
        log=tmp_path / "dev.log",
    )
    dev.start()
    for n in range(3):
        until(lambda n=n: is_open(grpc + n) and is_open(http + n), dev.tail)
    until(lambda: "as a cluster of 3 nodes" in dev.tail(), dev.tail)
    dev.send(how)
    assert dev.ends() == (0 if how == signal.SIGINT else -9), dev.tail()
    until(lambda: not any(is_open(p + n) for p in (grpc, http, peers) for n in range(3)), dev.tail)


def test_ports_must_be_known(tmp_path: pathlib.Path) -> None:
    """Nodes could not find each other."""
    dev = harness.Process(
        address="127.0.0.1:0",
        http="127.0.0.1:0",
        arguments=["--nodes", "3"],
        log=tmp_path / "dev.log",
    )
    dev.spawn()
    assert dev.ends() == 1
    assert "several nodes need ports" in dev.tail()
