"""The binary as an operator meets it: flags, addresses, signals, refusals."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess

import grpc
import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

import harness

TIMEOUT = 30

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("EVERSPAN_ADDRESS") and not os.environ.get("EVERSPAN_BIN")),
    reason="a running server is tested: nothing to start",
)


def run(*arguments: str) -> tuple[int, str]:
    """Runs the binary to its end; gives its exit code and what it said."""
    done = subprocess.run(
        [str(harness.binary()), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    assert "panicked" not in done.stdout, done.stdout
    return done.returncode, done.stdout


def dev(data_dir: pathlib.Path | str, *more: str) -> tuple[int, str]:
    """Runs `everspan dev` on a directory that it must refuse."""
    ports = ("--port", str(harness.free_port()), "--http-port", str(harness.free_port()))
    return run("dev", *ports, "--data-dir", str(data_dir), *more)


async def test_flags(tmp_path: pathlib.Path) -> None:
    """Namespaces and search attributes of the flags are there; it says where it listens."""
    own = harness.process(
        tmp_path, arguments=["--namespace", "first", "--namespace", "second", "--log-format=json"]
    )
    own.start()
    try:
        client = await Client.connect(own.address)
        for namespace in ("default", "first", "second"):
            found = await client.workflow_service.describe_namespace(
                DescribeNamespaceRequest(namespace=namespace)
            )
            assert found.namespace_info.name == namespace
        said = own.tail()
        assert own.address in said, said
        assert own.http is not None and own.http in said, said
    finally:
        own.stop()


def test_address_and_shards(tmp_path: pathlib.Path) -> None:
    """`--ip` moves both ports; the number of shards is the directory's for good."""
    own = harness.process(tmp_path, tmp_path / "data", ["--ip", "127.0.0.2", "--shards", "3"])
    assert own.http is not None
    own.address = own.address.replace("127.0.0.1", "127.0.0.2")
    own.http = own.http.replace("127.0.0.1", "127.0.0.2")
    own.start()
    try:
        assert own.http in own.tail(), own.tail()
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", int(own.address.rsplit(":", 1)[1])), 2)
    finally:
        own.stop()
    code, said = dev(tmp_path / "data", "--shards", "5")
    assert code == 1
    assert "3 shards, not 5" in said, said
    own.arguments = ["--ip", "127.0.0.2"]
    own.start()
    own.stop()


def test_ephemeral_leaves_nothing(tmp_path: pathlib.Path, monkeypatch) -> None:
    """The directory of `--ephemeral` is in the place for temporary files, and goes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    own = harness.process(tmp_path)
    own.start()
    assert [path for path in tmp_path.iterdir() if path.is_dir()], "it has a directory"
    own.stop()
    assert not [path for path in tmp_path.iterdir() if path.is_dir()], "it is gone"


def test_every_line_of_the_log_is_json(tmp_path: pathlib.Path) -> None:
    """With `--log-format json`, what machines read; what is for people is on standard output."""
    process = subprocess.Popen(
        [str(harness.binary()), "dev", "--ephemeral", "--log-format", "json"]
        + ["--port", str(harness.free_port()), "--http-port", str(harness.free_port())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Stop it" in line:
            break
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, said
    messages = [json.loads(line)["message"] for line in said.splitlines()]
    assert "ready" in messages and "stopped" in messages, messages


def test_interrupt_ends_it_cleanly(tmp_path: pathlib.Path) -> None:
    """SIGINT stops it like SIGTERM, and its ports are free again."""
    own = harness.process(tmp_path)
    own.start()
    assert own._child is not None
    own._child.send_signal(signal.SIGINT)
    assert own._child.wait(TIMEOUT) == 0, own.tail()
    with pytest.raises(grpc.RpcError):
        harness.health(own.address)


def test_loopback_only(tmp_path: pathlib.Path) -> None:
    """Nothing listens on other addresses of the machine unless asked."""
    own = harness.process(tmp_path)
    own.start()
    try:
        others = {
            info[4][0]
            for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
            if not info[4][0].startswith("127.")
        }
        assert own.http is not None
        for address in others:
            for port in (own.address, own.http):
                with pytest.raises(OSError), socket.socket() as probe:
                    probe.settimeout(2)
                    probe.connect((address, int(port.rsplit(":", 1)[1])))
    finally:
        own.stop()


def test_second_process_is_refused(durable_server) -> None:
    """One data directory, one process: the second one says so and ends."""
    code, said = dev(durable_server.data_dir)
    assert code != 0
    assert str(durable_server.data_dir) in said, said
    assert durable_server.running
    assert harness.health(durable_server.address) == 1


def test_port_in_use(durable_server, tmp_path: pathlib.Path) -> None:
    """A port that somebody has is named."""
    port = durable_server.address.rsplit(":", 1)[1]
    code, said = run("dev", "--ephemeral", "--port", port, "--http-port", str(harness.free_port()))
    assert code != 0
    assert port in said, said


def test_data_directory_that_is_a_file(tmp_path: pathlib.Path) -> None:
    """A clear error."""
    wrong = tmp_path / "a-file"
    wrong.write_text("not a directory")
    code, said = dev(wrong)
    assert code != 0
    assert str(wrong) in said, said


def test_unknown_flag() -> None:
    """Refused by name."""
    code, said = run("dev", "--no-such-flag")
    assert code != 0
    assert "--no-such-flag" in said, said


@pytest.mark.parametrize(
    ("content", "told"),
    [("no_such_key = 1\n", ["no_such_key", "1"]), ("port = [\n", ["1"])],
)
def test_bad_configuration(tmp_path: pathlib.Path, content: str, told: list[str]) -> None:
    """`everspan server` names the key and the line of what it does not take."""
    file = tmp_path / "everspan.toml"
    file.write_text(content)
    code, said = run("server", "--config", str(file))
    assert code != 0
    for word in told:
        assert word in said, said


def test_missing_configuration(tmp_path: pathlib.Path) -> None:
    """A file that is not there is named."""
    file = tmp_path / "nowhere.toml"
    code, said = run("server", "--config", str(file))
    assert code != 0
    assert str(file) in said, said
