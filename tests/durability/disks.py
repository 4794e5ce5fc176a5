"""What the tests of disk faults share: disks that can be filled, and calls that tell."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution, WorkflowType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice import v1 as api

import harness

# Long enough for a debug build on a busy machine.
PATIENCE = 60.0
# What the process says when it ends because of a bug, and must not say about a disk.
PANICS = ("panicked", "a bug or a broken disk", "RUST_BACKTRACE")


@contextmanager
def mounted(path: pathlib.Path, mebibytes: int) -> Iterator[pathlib.Path]:
    """A file system of its own in `path`, of this size."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk; CI has it")
    path.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(path))
    try:
        yield path
    finally:
        # What still runs on it is ended by the test's server fixture; do not wait for it.
        subprocess.run(["umount", "--lazy", str(path)], check=False)


def mount(*arguments: str) -> None:
    """mount(8); root that may not mount fails the test rather than skipping it."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"mount {' '.join(arguments)}: {done.stderr}", pytrace=False)


def fill(directory: pathlib.Path) -> pathlib.Path:
    """Takes all the room that is left on the directory's disk; gives the file that has it."""
    ballast = directory / "ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    os.write(descriptor, b"\0" * size)
            except OSError:
                pass
    finally:
        os.close(descriptor)
    return ballast


class Client:
    """Starts workflows with unlike inputs, and remembers which were acknowledged."""

    def __init__(self, address: str, size: int = 20_000) -> None:
        self.address = address
        self.size = size
        self.number = 0
        self.acknowledged: dict[str, bytes] = {}
        self.channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
            ],
        )

    def call(self, method: str, request: Any, response: type, timeout: float) -> Any:
        rpc = self.channel.unary_unary(
            f"/temporal.api.workflowservice.v1.WorkflowService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return rpc(request, timeout=timeout)

    def start(self, timeout: float = 5.0) -> None:
        """Starts one workflow; raises grpc.RpcError if it is not acknowledged."""
        self.number += 1
        workflow_id = f"disk-{self.number}"
        # Does not compress.
        data = os.urandom(self.size)
        request = api.StartWorkflowExecutionRequest(
            namespace="default",
            workflow_id=workflow_id,
            request_id=workflow_id,
            workflow_type=WorkflowType(name="disk"),
            task_queue=TaskQueue(name="disk"),
            input=Payloads(payloads=[Payload(metadata={"encoding": b"binary/plain"}, data=data)]),
        )
        self.call("StartWorkflowExecution", request, api.StartWorkflowExecutionResponse, timeout)
        self.acknowledged[workflow_id] = data

    def input_of(self, workflow_id: str, is_full: bool = False) -> bytes:
        """The input in the first event of a workflow's history. A store that a full disk broke
        is opened again with the next checkpoint, a second later: asked again until then, as a
        client of UNAVAILABLE does."""
        request = api.GetWorkflowExecutionHistoryRequest(
            namespace="default", execution=WorkflowExecution(workflow_id=workflow_id)
        )
        method, answer_type = "GetWorkflowExecutionHistory", api.GetWorkflowExecutionHistoryResponse
        deadline = time.monotonic() + (0 if is_full else 20)
        while True:
            try:
                answer = self.call(method, request, answer_type, 20.0)
                break
            except grpc.RpcError as error:
                is_retried = error.code() == grpc.StatusCode.UNAVAILABLE
                if not is_retried or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)
        started = answer.history.events[0].workflow_execution_started_event_attributes
        return started.input.payloads[0].data

    def check(self, is_full: bool = False) -> None:
        """Everything that was acknowledged is there, as it was sent. While the disk is full a
        shard with changes on their way may refuse to say."""
        lost = []
        for workflow_id, data in self.acknowledged.items():
            try:
                if self.input_of(workflow_id, is_full) != data:
                    lost.append(f"{workflow_id}: another input")
            except grpc.RpcError as error:
                if not (is_full and error.code() == grpc.StatusCode.UNAVAILABLE):
                    lost.append(f"{workflow_id}: {error.code()}: {error.details()}")
        assert not lost, f"{len(lost)} of {len(self.acknowledged)} lost: {lost[:3]}"

    def until_refused(self) -> grpc.RpcError:
        """Starts workflows until one is refused as UNAVAILABLE; what it says."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                self.start(timeout=1.0)
            except grpc.RpcError as error:
                # The one that met the fault waits until its caller gives up.
                if error.code() == grpc.StatusCode.UNAVAILABLE:
                    return error
                assert error.code() in (
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                ), f"{error.code()}: {error.details()}"
        pytest.fail("nothing was ever refused", pytrace=False)

    def until_served(self) -> None:
        """Starts workflows until one is acknowledged."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.start()
            except grpc.RpcError as error:
                assert time.monotonic() < deadline, f"never again: {error.details()}"
                time.sleep(0.1)


def metric(server: harness.Process, name: str) -> float:
    """The value of a metric without labels."""
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    assert found, f"no {name} in {text[:200]}"
    return float(found.group(1))


def no_panic(said: str) -> None:
    """A disk's fault is no bug, and is not told as one."""
    for word in PANICS:
        assert word not in said, said[-4000:]


def refused(data_dir: pathlib.Path, *more: str) -> str:
    """Runs the binary on a directory that it must refuse; what it says."""
    ports = ["--port", str(harness.free_port()), "--http-port", str(harness.free_port())]
    done = subprocess.run(
        [str(harness.binary()), "dev", *ports, "--data-dir", str(data_dir), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1, f"{done.returncode}: {done.stdout}"
    no_panic(done.stdout)
    return done.stdout
