"""A cluster of real processes on this machine: started, killed, stopped and restarted by node."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    directory: pathlib.Path
    founders: dict[int, str]
    shards: int = 4

    def add(self) -> Node:
        """One more node, that joins the others: started, and taken in when it serves."""
        environment = self.nodes[0].environment
        number = len(self.nodes) + 1
        address = f"127.0.0.1:{harness.free_port()}"
        node = make_node(self.directory, number, address, self.founders, environment)
        self.nodes.append(node)
        node.spawn()
        node.await_serving()
        return node

    def command(self, *arguments: str, node: Node | None = None) -> subprocess.CompletedProcess:
        """What `everspan cluster` says, asked of a node."""
        address = (node or self.running[0]).address
        command = [str(harness.binary()), "cluster", "--address", address, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def look(self, node: Node | None = None) -> dict[str, Any]:
        """The cluster, as a node tells of it."""
        done = self.command("status", "--json", node=node)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def await_settled(self, replicas: dict[int, int], node: Node | None = None) -> None:
        """Waits until all shards are led and where they are to be, and nodes have so many
        replicas."""

        def is_settled() -> bool:
            seen = self.look(node)
            found = {n["id"]: n["replicas"] for n in seen["nodes"]}
            is_whole = all(
                s["is_settled"] and s["leader"] and sorted(s["close"]) == sorted(s["wanted"])
                for s in seen["shards"]
            )
            return is_whole and all(found.get(n) == count for n, count in replicas.items())

        until(is_settled, lambda: json.dumps(self.look(node)))

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
    founders = {n: f"127.0.0.1:{harness.free_port()}" for n in range(1, count + 1)}
    nodes = [
        make_node(directory, n, address, founders, environment, (data or {}).get(n))
        for n, address in founders.items()
    ]
    return Cluster(nodes, directory, founders)


def make_node(
    directory: pathlib.Path,
    number: int,
    address: str,
    founders: dict[int, str],
    environment: dict[str, str] | None = None,
    data: pathlib.Path | None = None,
) -> Node:
    """A node with a configuration of its own, not yet started."""
    peers = ", ".join(f'"{n}={founder}"' for n, founder in founders.items())
    attributes = ", ".join(f'"{k}={v}"' for k, v in harness.SEARCH_ATTRIBUTES.items())
    node = Node(
        address=f"127.0.0.1:{harness.free_port()}",
        http=f"127.0.0.1:{harness.free_port()}",
        data_dir=data or directory / f"node-{number}",
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
address = "{address}"
nodes = [{peers}]
"""
    )
    return node
