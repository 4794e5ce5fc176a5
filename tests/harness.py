"""The server that the tests talk to: how it is named, started, killed and stopped.

With EVERSPAN_ADDRESS the tests use a server that is running (its HTTP address in
EVERSPAN_HTTP_ADDRESS, if it has one). Without it they start the real binary, named by
EVERSPAN_BIN (default: target/debug/everspan of this checkout). EVERSPAN_REFERENCE=1 says
that the running server is the real one: what only Everspan has is skipped then.
"""

from __future__ import annotations

import os
import pathlib
import random
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field

import grpc
import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.operatorservice.v1.service_pb2_grpc import OperatorServiceStub
from temporalio.bridge.proto.health.v1 import health_pb2

ROOT = pathlib.Path(__file__).resolve().parent.parent
SERVICE = "temporal.api.workflowservice.v1.WorkflowService"
# A debug build on a busy two-core machine.
READY_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0
# Search attributes that tests set; other servers get them through the API.
SEARCH_ATTRIBUTES = {"EverspanKeyword": "Keyword", "EverspanInt": "Int"}


def health(address: str, service: str = SERVICE, timeout: float = 1.0) -> int:
    """The gRPC health service's answer (1 is SERVING); raises grpc.RpcError."""
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        return check(health_pb2.HealthCheckRequest(service=service), timeout=timeout).status


def add_search_attributes(address: str) -> None:
    """Registers SEARCH_ATTRIBUTES in `default` of a running server, if they are not there."""
    with grpc.insecure_channel(address) as channel:
        request = AddSearchAttributesRequest(namespace="default")
        for name, kind in SEARCH_ATTRIBUTES.items():
            request.search_attributes[name] = IndexedValueType.Value(
                f"INDEXED_VALUE_TYPE_{kind.upper()}"
            )
        try:
            OperatorServiceStub(channel).AddSearchAttributes(request, timeout=20)
        except grpc.RpcError as error:
            # A server may have been started with them instead (`--search-attribute`).
            known = (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.UNIMPLEMENTED)
            if error.code() not in known:
                raise


# Below those that systems give to outgoing connections, which could take a port while the
# server that had it is down for a moment.
PORTS = range(10_000, 32_000)
_given: set[int] = set()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now, another one each time."""
    while True:
        port = random.choice(PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


def binary() -> pathlib.Path:
    """The server's binary; its absence fails the tests, never skips them."""
    named = os.environ.get("EVERSPAN_BIN")
    path = pathlib.Path(named) if named else ROOT / "target" / "debug" / "everspan"
    if not path.exists():
        pytest.fail(f"no server binary at {path}: build it, or set EVERSPAN_BIN", pytrace=False)
    return path


@dataclass
class Server:
    """A server that is running somewhere."""

    address: str
    http: str | None = None


@dataclass
class Process(Server):
    """A server that the tests started, with its data directory or without one."""

    data_dir: pathlib.Path | None = None
    arguments: list[str] = field(default_factory=list)
    log: pathlib.Path = field(default_factory=lambda: pathlib.Path(os.devnull))
    environment: dict[str, str] = field(default_factory=dict)
    _child: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """What is run."""
        assert self.http is not None
        return [
            str(binary()),
            "dev",
            "--port",
            self.address.rsplit(":", 1)[1],
            "--http-port",
            self.http.rsplit(":", 1)[1],
            *(["--data-dir", str(self.data_dir)] if self.data_dir else ["--ephemeral"]),
            *self.arguments,
        ]

    def spawn(self) -> None:
        """Starts the binary, without waiting."""
        with self.log.open("ab") as log:
            # Tests look at lists more often than the default lets a namespace do.
            unlimited = {"EVERSPAN_LIMITS_VISIBILITY_REQUESTS_PER_SECOND_MAX": "0"}
            environment = {**unlimited, **os.environ, **self.environment}
            self._child = subprocess.Popen(self.command(), stdout=log, stderr=log, env=environment)

    def start(self) -> None:
        """Starts the binary and waits until it serves."""
        self.spawn()
        self.await_serving()

    def await_serving(self) -> None:
        """Waits until it serves."""
        assert self._child is not None
        deadline = time.monotonic() + READY_TIMEOUT
        while True:
            if self._child.poll() is not None:
                pytest.fail(
                    f"the server ended with {self._child.returncode}:\n{self.tail()}",
                    pytrace=False,
                )
            try:
                if health(self.address) == 1:
                    return
            except grpc.RpcError:
                pass
            if time.monotonic() > deadline:
                self.kill9()
                pytest.fail(f"not ready in {READY_TIMEOUT} s:\n{self.tail()}", pytrace=False)
            time.sleep(0.05)

    def stop(self) -> None:
        """Stops the server as an operator does, and checks that it ends well."""
        assert self._child is not None
        self._child.send_signal(signal.SIGTERM)
        try:
            code = self._child.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill9()
            pytest.fail(f"SIGTERM did not end it in {STOP_TIMEOUT} s:\n{self.tail()}")
        self._child = None
        assert code == 0, f"SIGTERM ended it with {code}:\n{self.tail()}"

    def kill9(self) -> None:
        """Kills the process as a power cut would."""
        assert self._child is not None
        self._child.kill()
        self._child.wait()
        self._child = None

    def ends(self, timeout: float = STOP_TIMEOUT) -> int:
        """Waits until it ends by itself; its exit code."""
        assert self._child is not None
        code = self._child.wait(timeout)
        self._child = None
        return code

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        assert self._child is not None
        self._child.send_signal(number)

    def restart(self) -> None:
        """Starts it again on the same ports and directory, killing it first if it runs."""
        if self._child is not None:
            self.kill9()
        self.start()

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._child is not None and self._child.poll() is None

    def tail(self, lines: int = 40) -> str:
        """The end of its log."""
        if not self.log.is_file():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def process(
    directory: pathlib.Path,
    data_dir: pathlib.Path | None = None,
    arguments: list[str] | None = None,
) -> Process:
    """A server process on free ports, not yet started."""
    attributes = [f"--search-attribute={k}={v}" for k, v in SEARCH_ATTRIBUTES.items()]
    return Process(
        address=f"127.0.0.1:{free_port()}",
        http=f"127.0.0.1:{free_port()}",
        data_dir=data_dir,
        arguments=attributes + (arguments or []),
        log=directory / "server.log",
    )
