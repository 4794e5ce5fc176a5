"""Namespaces: register, describe, list, update, deprecate, and the unknown ones."""

from __future__ import annotations

import uuid

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from temporalio import workflow
from temporalio.api.enums.v1 import NamespaceState
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.api.workflowservice.v1 import (
    DeprecateNamespaceRequest,
    DescribeNamespaceRequest,
    ListNamespacesRequest,
    RegisterNamespaceRequest,
    UpdateNamespaceRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from helpers import eventually, working

DAY = 24 * 3600


@workflow.defn
class Echo:
    @workflow.run
    async def run(self, word: str) -> str:
        return word


@pytest_asyncio.fixture
async def namespace(client: Client) -> str:
    """A namespace of the test's own."""
    made = f"made-{uuid.uuid4().hex[:10]}"
    await client.workflow_service.register_namespace(
        RegisterNamespaceRequest(
            namespace=made,
            description="made by a test",
            owner_email="owner@example.com",
            workflow_execution_retention_period=Duration(seconds=3 * DAY),
            data={"key": "value"},
        )
    )
    return made


async def describe(client: Client, name: str):
    return await client.workflow_service.describe_namespace(
        DescribeNamespaceRequest(namespace=name)
    )


async def test_register_and_describe(client: Client, namespace: str) -> None:
    """What was registered is described, by name and by ID."""
    found = await describe(client, namespace)
    info = found.namespace_info
    assert info.name == namespace
    assert info.description == "made by a test"
    assert info.owner_email == "owner@example.com"
    assert info.state == NamespaceState.NAMESPACE_STATE_REGISTERED
    assert dict(info.data) == {"key": "value"}
    assert found.config.workflow_execution_retention_ttl.seconds == 3 * DAY
    by_id = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(id=info.id))
    assert by_id.namespace_info.name == namespace


async def test_default_is_there(client: Client) -> None:
    """The namespace `default` is registered by the server itself."""
    found = await describe(client, "default")
    assert found.namespace_info.state == NamespaceState.NAMESPACE_STATE_REGISTERED
    assert uuid.UUID(found.namespace_info.id)


async def test_registered_twice(client: Client, namespace: str) -> None:
    """ALREADY_EXISTS."""
    with pytest.raises(RPCError) as caught:
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(
                namespace=namespace,
                workflow_execution_retention_period=Duration(seconds=DAY),
            )
        )
    assert caught.value.status == RPCStatusCode.ALREADY_EXISTS


@pytest.mark.parametrize(
    ("name", "retention"),
    [("", DAY), ("short-lived", 60), ("negative", -1), ("none", 0)],
)
async def test_register_refused(client: Client, name: str, retention: int) -> None:
    """No name, or a retention that is too short."""
    if name:
        name = f"{name}-{uuid.uuid4().hex[:10]}"
    with pytest.raises(RPCError) as caught:
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(
                namespace=name,
                workflow_execution_retention_period=Duration(seconds=retention),
            )
        )
    assert caught.value.status == RPCStatusCode.INVALID_ARGUMENT


async def test_list(client: Client, namespace: str) -> None:
    """Every namespace once, in pages."""
    names: list[str] = []
    request = ListNamespacesRequest(page_size=1)
    while True:
        answer = await client.workflow_service.list_namespaces(request)
        names += [entry.namespace_info.name for entry in answer.namespaces]
        if not answer.next_page_token:
            break
        request.next_page_token = answer.next_page_token
    assert names.count("default") == 1
    assert names.count(namespace) == 1


async def test_update(client: Client, namespace: str) -> None:
    """An update changes what it names and keeps the rest."""
    request = UpdateNamespaceRequest(namespace=namespace)
    request.update_info.description = "changed"
    request.update_info.owner_email = "owner@example.com"
    request.update_info.data["more"] = "data"
    request.config.workflow_execution_retention_ttl.seconds = 5 * DAY
    answer = await client.workflow_service.update_namespace(request)
    assert answer.namespace_info.description == "changed"
    found = await describe(client, namespace)
    assert found.namespace_info.description == "changed"
    assert found.namespace_info.owner_email == "owner@example.com"
    assert dict(found.namespace_info.data) == {"key": "value", "more": "data"}
    assert found.config.workflow_execution_retention_ttl.seconds == 5 * DAY


async def test_deprecate(client: Client, namespace: str) -> None:
    """A deprecated namespace says so."""
    await client.workflow_service.deprecate_namespace(
        DeprecateNamespaceRequest(namespace=namespace)
    )
    found = await describe(client, namespace)
    assert found.namespace_info.state == NamespaceState.NAMESPACE_STATE_DEPRECATED


async def test_namespaces_are_apart(client: Client, server, namespace: str, name: str) -> None:
    """One workflow ID in two namespaces is two workflows."""

    async def there() -> Client | None:
        # The real server takes up to ten seconds to know a new namespace everywhere.
        other = await Client.connect(server.address, namespace=namespace)
        try:
            await other.start_workflow(Echo.run, "there", id=name, task_queue=name)
        except RPCError as error:
            assert error.status == RPCStatusCode.NOT_FOUND
            return None
        return other

    other = await eventually(there, "the new namespace")
    here = await client.start_workflow(Echo.run, "here", id=name, task_queue=name)
    async with working(client, name, [Echo]):
        assert await here.result() == "here"
        history = [e async for e in other.get_workflow_handle(name).fetch_history_events()]
        assert len(history) == 2
    async with working(other, name, [Echo]):
        assert await other.get_workflow_handle(name).result() == "there"


async def test_unknown_namespace(client: Client, server, name: str) -> None:
    """NOT_FOUND with the details that SDKs look for, on every kind of call."""
    unknown = await Client.connect(server.address, namespace="nobody-made-this", lazy=True)
    with pytest.raises(RPCError) as caught:
        await describe(client, "nobody-made-this")
    assert caught.value.status == RPCStatusCode.NOT_FOUND
    assert caught.value.message == "Namespace nobody-made-this is not found."
    for call in (
        lambda: unknown.start_workflow(Echo.run, "x", id=name, task_queue=name),
        lambda: unknown.get_workflow_handle(name).describe(),
        lambda: unknown.get_workflow_handle(name).signal("s"),
        lambda: unknown.count_workflows(""),
    ):
        with pytest.raises(RPCError) as caught:
            await call()
        assert caught.value.status == RPCStatusCode.NOT_FOUND
        assert caught.value.message == "Namespace nobody-made-this is not found."
        detail = NamespaceNotFoundFailure()
        assert caught.value.grpc_status.details[0].Unpack(detail)
        assert detail.namespace == "nobody-made-this"


async def test_worker_refuses_an_unknown_namespace(server, name: str) -> None:
    """A worker of an unknown namespace fails at its start."""
    unknown = await Client.connect(server.address, namespace="nobody-made-this")
    with pytest.raises(RuntimeError, match="(?i)namespace"):
        await Worker(unknown, task_queue=name, workflows=[Echo]).run()
