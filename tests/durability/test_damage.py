"""Files that are not what was written: flipped bytes, files cut short, emptied or gone.

Each case damages a copy of one data directory. Whatever the damage, the server either refuses
to start with a message that names the directory, or serves; and what it serves is what was
written, or an error. It never panics, and what it cannot read it does not invent.
"""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
import pytest

import harness
from disks import PATIENCE, Client, no_panic

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("EVERSPAN_ADDRESS") and not os.environ.get("EVERSPAN_BIN")),
    reason="a running server is tested: its files are its own",
)

SEED = int(os.environ.get("EVERSPAN_SEED", "0")) or random.randrange(1, 1 << 30)
WORKFLOWS = 120
SIZE = 3_000


@dataclass
class Written:
    """A data directory of a server that was killed, and what it had acknowledged."""

    path: pathlib.Path
    acknowledged: dict[str, bytes]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    """Half of the workflows are in the database, half in the log only."""
    directory = tmp_path_factory.mktemp("written")
    own = harness.process(directory, directory / "data")
    own.start()
    client = Client(own.address, SIZE)
    for _ in range(WORKFLOWS // 2):
        client.start()
    # Writes everything out.
    own.stop()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("EVERSPAN_STORAGE_CHECKPOINT_INTERVAL_MS", "3600000")
        own.start()
        again = Client(own.address, SIZE)
        again.number, again.acknowledged = client.number, client.acknowledged
        for _ in range(WORKFLOWS // 2):
            again.start()
        own.kill9()
    yield Written(directory / "data", again.acknowledged)


def newest(directory: pathlib.Path, pattern: str) -> pathlib.Path:
    """The file that was written to last; there must be one."""
    files = sorted(directory.glob(pattern))
    assert files, f"no {pattern} in {sorted(directory.rglob('*'))}"
    return files[-1]


def flip(file: pathlib.Path, at: int) -> None:
    """Another byte in this place."""
    with file.open("r+b") as opened:
        opened.seek(at)
        old = opened.read(1)
        opened.seek(at)
        opened.write(bytes([old[0] ^ 0x55]))


def extent(file: pathlib.Path) -> int:
    """Bytes up to the last that is not zero: files have room reserved behind."""
    return len(file.read_bytes().rstrip(b"\0"))


def overwrite(file: pathlib.Path, start: int, data: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(start)
        opened.write(data)


def log_file(data: pathlib.Path) -> pathlib.Path:
    return newest(data / "log", "*.raftlog")


def database(data: pathlib.Path) -> pathlib.Path:
    return newest(data / "store", "db")


def flips(file: Callable[[pathlib.Path], pathlib.Path], where: float) -> Callable[..., None]:
    def damage(data: pathlib.Path, dice: random.Random) -> None:
        del dice
        path = file(data)
        flip(path, int((extent(path) - 1) * where))

    return damage


def many_flips(file: Callable[[pathlib.Path], pathlib.Path]) -> Callable[..., None]:
    def damage(data: pathlib.Path, dice: random.Random) -> None:
        path = file(data)
        for _ in range(200):
            flip(path, dice.randrange(extent(path)))

    return damage


def zeros(file: Callable[[pathlib.Path], pathlib.Path], where: float) -> Callable[..., None]:
    def damage(data: pathlib.Path, dice: random.Random) -> None:
        del dice
        path = file(data)
        overwrite(path, int(extent(path) * where) // 4096 * 4096, bytes(4096))

    return damage


def cut(file: Callable[[pathlib.Path], pathlib.Path], where: float) -> Callable[..., None]:
    def damage(data: pathlib.Path, dice: random.Random) -> None:
        del dice
        path = file(data)
        os.truncate(path, int(extent(path) * where))

    return damage


def gone(name: str) -> Callable[..., None]:
    def damage(data: pathlib.Path, dice: random.Random) -> None:
        del dice
        path = data / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def garbage(name: str) -> Callable[..., None]:
    def damage(data: pathlib.Path, dice: random.Random) -> None:
        (data / name).write_bytes(dice.randbytes(100))

    return damage


# Name, damage, and what must come of it: `refused`, or `either`: refused or served without
# anything missing, or `cut`: what a crash leaves too, so that the end may be missing.
CASES: list[tuple[str, Callable[..., None], str]] = [
    ("log-first-byte", flips(log_file, 0.0), "refused"),
    ("log-early", flips(log_file, 0.1), "refused"),
    ("log-middle", flips(log_file, 0.5), "refused"),
    ("log-late", flips(log_file, 0.9), "refused"),
    ("log-everywhere", many_flips(log_file), "refused"),
    ("log-lost-page", zeros(log_file, 0.5), "refused"),
    ("log-cut", cut(log_file, 0.5), "cut"),
    ("log-emptied", cut(log_file, 0.0), "refused"),
    ("log-gone", gone("log"), "refused"),
    ("database-first-byte", flips(database, 0.0), "either"),
    ("database-early", flips(database, 0.1), "either"),
    ("database-middle", flips(database, 0.5), "either"),
    ("database-late", flips(database, 0.9), "either"),
    ("database-everywhere", many_flips(database), "either"),
    ("database-lost-page", zeros(database, 0.5), "either"),
    ("database-cut", cut(database, 0.5), "either"),
    ("database-emptied", cut(database, 0.0), "refused"),
    ("database-gone", gone("store"), "refused"),
    ("database-conf", garbage("store/conf"), "refused"),
    ("identity", garbage("everspan.json"), "refused"),
    ("identity-gone", gone("everspan.json"), "refused"),
]


@pytest.mark.parametrize(("damage", "wanted"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_damaged(
    written: Written, tmp_path: pathlib.Path, damage: Callable[..., None], wanted: str
) -> None:
    print(f"EVERSPAN_SEED={SEED}")
    data = tmp_path / "data"
    shutil.copytree(written.path, data)
    damage(data, random.Random(SEED))
    own = harness.process(tmp_path, data)
    code = launch(own)
    if code is not None:
        said = own.tail(1000)
        no_panic(said)
        assert code == 1, f"ended with {code}: {said}"
        assert str(data) in said, f"does not name the directory: {said}"
        # Again the same: it has not made matters worse.
        assert launch(own) == 1, own.tail(1000)
        return
    try:
        assert wanted != "refused", f"it serves: {own.tail(1000)}"
        look(own, written, wanted)
        no_panic(own.tail(1000))
    finally:
        if own.running:
            own.kill9()


def launch(server: harness.Process) -> int | None:
    """Starts it; its exit code, or none once it serves."""
    assert server.http is not None
    port, http = (address.rsplit(":", 1)[1] for address in (server.address, server.http))
    command = [str(harness.binary()), "dev", "--port", port, "--http-port", http]
    with server.log.open("ab") as log:
        child = subprocess.Popen(
            [*command, "--data-dir", str(server.data_dir)], stdout=log, stderr=log
        )
    server._child = child
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if child.poll() is not None:
            return child.returncode
        try:
            if harness.health(server.address) == 1:
                return None
        except grpc.RpcError:
            pass
        time.sleep(0.05)
    server.kill9()
    pytest.fail(f"neither served nor ended: {server.tail()}", pytrace=False)


def look(server: harness.Process, written: Written, wanted: str) -> None:
    """What it serves is what was written, or an error that says that it cannot be read."""
    client = Client(server.address, SIZE)
    unread, missing = 0, []
    for workflow_id, data in written.acknowledged.items():
        try:
            assert client.input_of(workflow_id) == data, f"{workflow_id}: made up"
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                missing.append(workflow_id)
            else:
                assert error.code() == grpc.StatusCode.INTERNAL, error
                unread += 1
        assert server.running, server.tail(1000)
    print(f"{unread} not readable, {len(missing)} missing of {len(written.acknowledged)}")
    if wanted == "cut":
        # A log that ends early is what a crash before the last writes leaves. Older ones stay.
        ids = list(written.acknowledged)
        assert set(missing).isdisjoint(ids[: WORKFLOWS // 2]), "the database has these"
    else:
        assert not missing, f"missing without a word: {missing[:5]}"
