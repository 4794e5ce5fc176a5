"""A disk without room, one that takes no writes, and a file that may not grow: what cannot be
kept is not acknowledged, and the server says why; with room it goes on.
"""

from __future__ import annotations

import os
import pathlib
import resource
from collections.abc import Iterator

import pytest

import harness
from disks import Client, fill, metric, mount, mounted, no_panic, refused

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("EVERSPAN_ADDRESS") and not os.environ.get("EVERSPAN_BIN")),
    reason="a running server is tested: its disk is its own",
)

MEBIBYTES = 48
# Small files, so that all that writes meets the end of the disk within seconds.
SMALL = {
    "EVERSPAN_STORAGE_LOG_FILE_BYTES": str(1 << 20),
    "EVERSPAN_STORAGE_LOG_PURGE_BYTES": str(2 << 20),
    "EVERSPAN_STORAGE_CHECKPOINT_INTERVAL_MS": "200",
}


@pytest.fixture
def disk(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A small disk, and settings with which it is full soon."""
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)
    with mounted(tmp_path / "disk", MEBIBYTES) as path:
        yield path


@pytest.fixture
def server(tmp_path: pathlib.Path, disk: pathlib.Path) -> Iterator[harness.Process]:
    """A server on that disk; its log is elsewhere."""
    own = harness.process(tmp_path, disk / "data")
    own.start()
    yield own
    if own.running:
        own.kill9()


def test_full_disk(server: harness.Process, disk: pathlib.Path) -> None:
    """It refuses what it cannot keep and says that the disk is full; once there is room it
    goes on by itself; nothing that was acknowledged is lost, not even by a kill -9."""
    client = Client(server.address)
    for _ in range(20):
        client.start()
    ballast = fill(disk)
    error = client.until_refused()
    assert "cannot write its log" in error.details(), error.details()
    assert "space" in error.details() or "storage" in error.details(), error.details()
    assert metric(server, "everspan_log_stalled") == 1
    assert harness.health(server.address) == 1, "it serves what it has"
    client.check(is_full=True)

    ballast.unlink()
    # The log takes writes at once; the store, if the full disk broke it too, is opened again
    # with its next checkpoint, and until then says UNAVAILABLE.
    for _ in range(20):
        client.until_served()
    assert metric(server, "everspan_log_stalled") == 0
    client.check()

    server.restart()
    client = restarted(client, server)
    client.check()
    client.start()
    server.stop()
    no_panic(server.tail(1000))


def test_full_again_and_again(server: harness.Process, disk: pathlib.Path) -> None:
    """Filled, emptied and killed in all orders: acknowledged is kept."""
    client = Client(server.address)
    for turn in range(4):
        for _ in range(10):
            client.until_served()
        ballast = fill(disk)
        client.until_refused()
        if turn % 2:
            # Killed while full; there is room when it starts again.
            server.kill9()
            ballast.unlink()
            server.start()
            client = restarted(client, server)
        else:
            ballast.unlink()
        client.until_served()
        client.check()
    no_panic(server.tail(1000))


def test_start_on_a_full_disk(server: harness.Process, disk: pathlib.Path) -> None:
    """A disk that is full when it starts: a message and an end, or a server that refuses to
    write. With room it starts, and has everything."""
    client = Client(server.address)
    for _ in range(30):
        client.start()
    server.kill9()
    ballast = fill(disk)
    said = refused(disk / "data")
    assert str(disk / "data") in said, said
    ballast.unlink()
    server.start()
    client = restarted(client, server)
    client.check()
    client.start()


def test_new_directory_on_a_full_disk(disk: pathlib.Path) -> None:
    """Refused by name; nothing half made stays in the way of the next start."""
    ballast = fill(disk)
    said = refused(disk / "new")
    assert str(disk / "new") in said, said
    ballast.unlink()
    own = harness.process(disk, disk / "new")
    own.start()
    own.stop()


def test_read_only(server: harness.Process, disk: pathlib.Path) -> None:
    """A directory that cannot be written to is refused by name; it is left as it was."""
    client = Client(server.address)
    for _ in range(5):
        client.start()
    server.stop()
    mount("-o", "remount,ro", str(disk))
    said = refused(disk / "data")
    assert str(disk / "data") in said and "ead-only" in said, said
    said = refused(disk / "other")
    assert str(disk / "other") in said and "ead-only" in said, said
    mount("-o", "remount,rw", str(disk))
    server.start()
    client = restarted(client, server)
    client.check()


def test_a_file_that_may_not_grow(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of files (`ulimit -f`): writes fail, but not for want of room."""
    monkeypatch.setenv("EVERSPAN_STORAGE_CHECKPOINT_INTERVAL_MS", "3600000")
    own = harness.process(tmp_path, tmp_path / "data")
    try:
        own.start()
        assert own._child is not None
        client = Client(own.address, size=100_000)
        client.start()
        largest = max(f.stat().st_size for f in (tmp_path / "data").rglob("*") if f.is_file())
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.prlimit(own._child.pid, resource.RLIMIT_FSIZE, (largest + (1 << 20), hard))
        error = client.until_refused()
        assert "log" in error.details(), error.details()
        client.check(is_full=True)
        resource.prlimit(own._child.pid, resource.RLIMIT_FSIZE, (hard, hard))
        client.until_served()
        client.check()
        own.restart()
        client = restarted(client, own)
        client.check()
        no_panic(own.tail(1000))
    finally:
        if own.running:
            own.kill9()


def restarted(client: Client, server: harness.Process) -> Client:
    """The same client on a new connection."""
    new = Client(server.address, client.size)
    new.acknowledged, new.number = client.acknowledged, client.number
    return new
