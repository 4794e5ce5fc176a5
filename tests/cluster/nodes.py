"""A cluster of real processes on this machine: started, killed, stopped and restarted by node."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import time
from dataclasses import dataclass, field

import grpc
import pytest
import requests

import harness

READY_TIMEOUT = 60.0


@dataclass
class Node:
    """One node of a cluster."""

    number: int
    directory: pathlib.Path
    ports: dict[str, int]
    environment: dict[str, str] = field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it serves gRPC."""
        return f"127.0.0.1:{self.ports['grpc']}"

    @property
    def http(self) -> str:
        """Where it serves HTTP."""
        return f"127.0.0.1:{self.ports['http']}"

    @property
    def data(self) -> pathlib.Path:
        """Its data directory."""
        return self.directory / f"node-{self.number}"

    @property
    def log(self) -> pathlib.Path:
        """Its log."""
        return self.directory / f"node-{self.number}.log"

    def spawn(self) -> None:
        """Starts it, without waiting."""
        config = self.directory / f"node-{self.number}.toml"
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                [str(harness.binary()), "server", "--config", str(config)],
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "EVERSPAN_LIMITS_VISIBILITY_REQUESTS_PER_SECOND_MAX": "0",
                    **self.environment,
                },
            )

    def is_ready(self) -> bool:
        """Whether it takes calls."""
        try:
            return harness.health(self.address) == 1
        except grpc.RpcError:
            return False

    def await_ready(self) -> None:
        """Waits until it takes calls."""
        deadline = time.monotonic() + READY_TIMEOUT
        while not self.is_ready():
            assert self.child is not None
            if self.child.poll() is not None:
                pytest.fail(f"node {self.number} ended:\n{self.tail()}", pytrace=False)
            if time.monotonic() > deadline:
                pytest.fail(f"node {self.number} is not ready:\n{self.tail()}", pytrace=False)
            time.sleep(0.05)

    def start(self) -> None:
        """Starts it and waits until it takes calls."""
        self.spawn()
        self.await_ready()

    def kill9(self) -> None:
        """Kills it as a power cut would."""
        assert self.child is not None
        self.child.kill()
        self.child.wait()
        self.child = None

    def stop(self) -> float:
        """Stops it as an operator does; says how long that took."""
        assert self.child is not None
        began = time.monotonic()
        self.child.send_signal(signal.SIGTERM)
        code = self.child.wait(harness.STOP_TIMEOUT)
        self.child = None
        assert code == 0, f"SIGTERM ended node {self.number} with {code}:\n{self.tail()}"
        return time.monotonic() - began

    def pause(self) -> None:
        """Stops its clock, as a machine without time to spare would."""
        assert self.child is not None
        self.child.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Ends a pause."""
        assert self.child is not None
        self.child.send_signal(signal.SIGCONT)

    def metric(self, name: str) -> float:
        """A metric without labels."""
        for line in requests.get(f"http://{self.http}/metrics", timeout=10).text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return 0.0

    def events(self) -> list[dict[str, object]]:
        """Its log, line by line."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


@dataclass
class Cluster:
    """All nodes."""

    nodes: list[Node]

    def start(self) -> None:
        """Starts all nodes and waits until they take calls."""
        for node in self.nodes:
            node.spawn()
        for node in self.nodes:
            node.await_ready()
        self.await_leaders()

    def await_leaders(self, count: int | None = None) -> None:
        """Waits until the nodes that run lead all shards together."""
        deadline = time.monotonic() + READY_TIMEOUT
        shards = count if count is not None else self.shards
        while True:
            led = sum(n.metric("everspan_shard_actors") for n in self.running)
            if led == shards:
                return
            assert time.monotonic() < deadline, f"{led} of {shards} shards are led"
            time.sleep(0.05)

    @property
    def running(self) -> list[Node]:
        """Nodes with a process."""
        return [node for node in self.nodes if node.child is not None]

    shards: int = 4

    def leader_of_most(self) -> Node:
        """The node that leads the most shards."""
        return max(self.running, key=lambda n: n.metric("everspan_shard_actors"))

    def stop(self) -> None:
        """Ends all nodes at once."""
        for node in self.running:
            node.kill9()


def cluster(directory: pathlib.Path, count: int = 3, environment: dict | None = None) -> Cluster:
    """A cluster on free ports, not yet started."""
    ports = [{n: harness.free_port() for n in ("grpc", "http", "peers")} for _ in range(count)]
    peers = ", ".join(f'"{n}=127.0.0.1:{p["peers"]}"' for n, p in enumerate(ports, 1))
    attributes = ", ".join(f'"{k}={v}"' for k, v in harness.SEARCH_ATTRIBUTES.items())
    nodes = []
    for number, own in enumerate(ports, 1):
        node = Node(number, directory, own, environment or {})
        (directory / f"node-{number}.toml").write_text(
            f"""
[node]
data_dir = "{node.data}"
[grpc]
address = "{node.address}"
[http]
address = "{node.http}"
[search_attributes]
create = [{attributes}]
[cluster]
node_id = {number}
address = "127.0.0.1:{own["peers"]}"
nodes = [{peers}]
"""
        )
        nodes.append(node)
    return Cluster(nodes)
