"""What the server says of itself: system info, cluster info, health, reflection, metrics."""

from __future__ import annotations

import grpc
import pytest
import requests
from temporalio.api.workflowservice.v1 import GetClusterInfoRequest, GetSystemInfoRequest
from temporalio.bridge.proto.health.v1 import health_pb2
from temporalio.client import Client

WORKFLOW_SERVICE = "temporal.api.workflowservice.v1.WorkflowService"
OPERATOR_SERVICE = "temporal.api.operatorservice.v1.OperatorService"
SERVING = 1


async def test_system_info(client: Client) -> None:
    """Version and the capabilities that SDKs of today build on."""
    info = await client.workflow_service.get_system_info(GetSystemInfoRequest())
    assert info.server_version
    capabilities = info.capabilities
    for needed in (
        "signal_and_query_header",
        "internal_error_differentiation",
        "activity_failure_include_heartbeat",
        "encoded_failure_attributes",
        "upsert_memo",
        "sdk_metadata",
    ):
        assert getattr(capabilities, needed), needed


async def test_cluster_info(client: Client) -> None:
    """Name, ID, version, shards, the clients that may connect."""
    info = await client.workflow_service.get_cluster_info(GetClusterInfoRequest())
    assert info.server_version
    assert info.cluster_id
    assert info.cluster_name
    assert info.history_shard_count > 0
    assert info.supported_clients["temporal-go"]


async def check(server, service: str) -> int:
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        return (await call(health_pb2.HealthCheckRequest(service=service), timeout=5)).status


async def test_health(server) -> None:
    """SERVING for the workflow service; NOT_FOUND for a service that is not there."""
    assert await check(server, WORKFLOW_SERVICE) == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(server, "no.such.Service")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field; enough for reflection without its stubs."""
    length, size = b"", len(value)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + value


async def reflect(server, version: str, request: bytes) -> bytes:
    """One request to the reflection service, and its raw answer."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        )(iter([request]), timeout=10)
        async for answer in call:
            return answer
    raise AssertionError("no answer")


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection(server, version: str) -> None:
    """Reflection lists the services and gives their descriptors."""
    # list_services = 7
    listed = await reflect(server, version, _field(7, b"*"))
    for service in (WORKFLOW_SERVICE, OPERATOR_SERVICE, "grpc.health.v1.Health"):
        assert service.encode() in listed, service
    # file_containing_symbol = 4
    described = await reflect(server, version, _field(4, WORKFLOW_SERVICE.encode()))
    assert b"StartWorkflowExecution" in described
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await reflect(server, version, _field(4, b"no.such.Symbol"))
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


async def test_unknown_method(server) -> None:
    """A method that no service has is UNIMPLEMENTED."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = channel.unary_unary(f"/{WORKFLOW_SERVICE}/DoTheDishes")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("is_compressed", [False, True], ids=["plain", "gzip"])
async def test_too_large_a_message(client: Client, server, is_compressed: bool) -> None:
    """A message over the limit is refused in the words that SDKs know, also if it is small until
    it is decompressed; the server goes on."""
    async with grpc.aio.insecure_channel(
        server.address, options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        call = channel.unary_unary(f"/{WORKFLOW_SERVICE}/StartWorkflowExecution")
        compression = grpc.Compression.Gzip if is_compressed else grpc.Compression.NoCompression
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(_field(5, b"x" * (16 << 20)), timeout=20, compression=compression)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    after = "after decompression " if is_compressed else ""
    assert f"received message {after}larger than max" in caught.value.details()
    assert await check(server, WORKFLOW_SERVICE) == SERVING


@pytest.mark.everspan
def test_healthz_readyz_metrics(server, everspan_http: str) -> None:
    """The plain HTTP probes and the metrics page."""
    assert requests.get(f"{everspan_http}/healthz", timeout=5).status_code == 200
    assert requests.get(f"{everspan_http}/readyz", timeout=5).status_code == 200
    # A call first, so that there is something to count.
    requests.get(f"{everspan_http}/api/v1/namespaces/default", timeout=5)
    page = requests.get(f"{everspan_http}/metrics", timeout=5)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/plain")
    assert "# HELP" in page.text and "# TYPE" in page.text
