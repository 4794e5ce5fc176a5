"""A cluster of real processes on this machine: started, killed, stopped and restarted by node."""

from __future__ import annotations

import json
import pathlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import requests

import harness

PATIENCE = 60.0


def until(is_so: Callable[[], bool], what: Callable[[], str]) -> None:
    """Waits for a condition, with a bound; `what` says what was found instead."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@dataclass
class Node(harness.Process):
    """One node of a cluster."""

    number: int = 0
    config: pathlib.Path = pathlib.Path()

    def command(self) -> list[str]:
        """What is run."""
        return [str(harness.binary()), "server", "--config", str(self.config)]

    @property
    def data(self) -> pathlib.Path:
        """Its data directory."""
        assert self.data_dir is not None
        return self.data_dir

    def pause(self) -> None:
        """Stops its clock, as a machine without time to spare would."""
        self.send(signal.SIGSTOP)

    def go_on(self) -> None:
        """Ends a pause."""
        self.send(signal.SIGCONT)

    def metric(self, name: str) -> float:
        """A metric without labels."""
        for line in requests.get(f"http://{self.http}/metrics", timeout=10).text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return 0.0

    def messages(self) -> list[str]:
        """What it logged."""
        lines = self.log.read_text(errors="replace").splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [str(event.get("message", "")) for event in events]


@dataclass
class Cluster:
    """All nodes."""

    nodes: list[Node]
    shards: int = 4

    def start(self) -> None:
        """Starts all nodes that do not run, and waits until all take calls."""
        for node in self.nodes:
            if not node.running:
                node.spawn()
        for node in self.nodes:
            node.await_serving()
        self.await_leaders()

    def await_leaders(self) -> None:
        """Waits until the nodes that run lead all shards together."""

        def led() -> float:
            return sum(n.metric("everspan_shard_actors") for n in self.running)

        until(lambda: led() == self.shards, lambda: f"{led()} of {self.shards} shards are led")

    @property
    def running(self) -> list[Node]:
        """Nodes with a process."""
        return [node for node in self.nodes if node.running]

    def leader_of_most(self) -> Node:
        """The node that leads the most shards."""
        return max(self.running, key=lambda n: n.metric("everspan_shard_actors"))

    def others(self, node: Node) -> list[Node]:
        """The nodes but one."""
        return [other for other in self.nodes if other is not node]

    def stop(self) -> None:
        """Ends all nodes at once."""
        for node in self.running:
            node.kill9()


def cluster(
    directory: pathlib.Path,
    count: int = 3,
    environment: dict[str, str] | None = None,
    data: dict[int, pathlib.Path] | None = None,
) -> Cluster:
    """A cluster on free ports, not yet started; `data` has directories of nodes that are to be
    elsewhere."""
    ports = [harness.free_port() for _ in range(count)]
    peers = ", ".join(f'"{n}=127.0.0.1:{port}"' for n, port in enumerate(ports, 1))
    attributes = ", ".join(f'"{k}={v}"' for k, v in harness.SEARCH_ATTRIBUTES.items())
    nodes = []
    for number, port in enumerate(ports, 1):
        node = Node(
            address=f"127.0.0.1:{harness.free_port()}",
            http=f"127.0.0.1:{harness.free_port()}",
            data_dir=(data or {}).get(number, directory / f"node-{number}"),
            log=directory / f"node-{number}.log",
            environment=environment or {},
            number=number,
            config=directory / f"node-{number}.toml",
        )
        node.config.write_text(
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
address = "127.0.0.1:{port}"
nodes = [{peers}]
"""
        )
        nodes.append(node)
    return Cluster(nodes)
