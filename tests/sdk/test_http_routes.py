"""Every HTTP route that the API's descriptors name leads to its RPC."""

from __future__ import annotations

import re
from typing import Iterator

import pytest
import requests
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from temporalio.api.operatorservice.v1 import service_pb2 as operator
from temporalio.api.workflowservice.v1 import service_pb2 as workflow

TIMEOUT = 20
METHODS = ("get", "put", "post", "delete", "patch")


def rpcs() -> Iterator[MethodDescriptor]:
    """The RPCs of both services."""
    for file, service in ((workflow, "WorkflowService"), (operator, "OperatorService")):
        yield from file.DESCRIPTOR.services_by_name[service].methods


def routes(rpc: MethodDescriptor) -> list[tuple[str, str, str]]:
    """Method, path and body of each of an RPC's routes."""
    rule = rpc.GetOptions().Extensions[annotations_pb2.http]
    found = []
    for binding in (rule, *rule.additional_bindings):
        pattern = binding.WhichOneof("pattern")
        if pattern:
            assert pattern in METHODS
            found.append((pattern.upper(), getattr(binding, pattern), binding.body))
    return found


ROUTED = [rpc for rpc in rpcs() if routes(rpc)]


def answered(address: str, rpc: str) -> int:
    """How often an RPC was answered so far."""
    text = requests.get(f"{address}/metrics", timeout=TIMEOUT).text
    row = re.search(rf'^everspan_rpc_requests_total{{method="{rpc}"}} (\d+)$', text, re.MULTILINE)
    return int(row[1]) if row else 0


def test_there_are_routes() -> None:
    """The SDK's descriptors have them, so that the test below tests something."""
    assert len(ROUTED) > 100


@pytest.mark.parametrize("rpc", ROUTED, ids=lambda rpc: rpc.name)
def test_route(everspan_http: str, rpc: MethodDescriptor) -> None:
    """A call by each route is a call of the RPC, and answers in the API's JSON."""
    for method, template, body in routes(rpc):
        # Nothing of that name is there, so nothing changes.
        path = re.sub(r"{[^}]*}", "nowhere", template)
        before = answered(everspan_http, rpc.name)
        response = requests.request(
            method,
            f"{everspan_http}{path}",
            data="{}" if body else None,
            headers={"content-type": "application/json", "grpc-timeout": "5S"},
            timeout=TIMEOUT,
        )
        told = f"{method} {path}: {response.status_code} {response.text}"
        assert answered(everspan_http, rpc.name) == before + 1, told
        assert response.headers["content-type"] == "application/json", told
        if response.status_code != 200:
            assert set(response.json()) <= {"code", "message", "details"}, told
            assert response.json()["message"], told
