"""Task queues: priority, fairness, rates, what describe says, limits, workers that go."""

from __future__ import annotations

import asyncio
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from temporalio import activity, workflow
from temporalio.api.common.v1 import message_pb2 as common
from temporalio.api.enums.v1 import ResourceExhaustedCause, TaskQueueType
from temporalio.api.errordetails.v1 import ResourceExhaustedFailure
from temporalio.api.taskqueue.v1 import message_pb2 as taskqueue
from temporalio.api.worker.v1 import message_pb2 as worker_api
from temporalio.api.workflowservice.v1 import request_response_pb2 as api
from temporalio.api.workflowservice.v1 import service_pb2_grpc as service
from temporalio.client import Client
from temporalio.common import Priority

from harness import process
from helpers import eventually, working

WORKFLOW = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
ACTIVITY = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
Update = api.UpdateTaskQueueConfigRequest


@workflow.defn
class Fan:
    """Schedules activities on a queue of their own, in order, and waits for all of them."""

    @workflow.run
    async def run(self, queue: str, tasks: list[list[Any]]) -> None:
        running = []
        for n, (key, fairness_key, weight) in enumerate(tasks):
            running.append(
                workflow.start_activity(
                    "note",
                    [n, fairness_key],
                    task_queue=queue,
                    start_to_close_timeout=timedelta(seconds=60),
                    priority=Priority(
                        priority_key=key or None,
                        fairness_key=fairness_key or None,
                        fairness_weight=weight or None,
                    ),
                )
            )
        await asyncio.gather(*running)


class Notes:
    """What was handed out, in order, and when."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str]] = []
        self.times: list[float] = []

    @activity.defn(name="note")
    async def note(self, task: list[Any]) -> None:
        self.seen.append((task[0], task[1]))
        self.times.append(time.monotonic())


def queue_of(name: str) -> taskqueue.TaskQueue:
    return taskqueue.TaskQueue(name=name, kind=1)


async def describe(client: Client, name: str, kind: int = ACTIVITY, **fields: Any) -> Any:
    return await client.workflow_service.describe_task_queue(
        api.DescribeTaskQueueRequest(
            namespace="default",
            task_queue=queue_of(name),
            task_queue_type=kind,
            report_stats=True,
            report_config=True,
            **fields,
        )
    )


async def backlogged(client: Client, name: str, count: int) -> Any:
    """Waits until a queue's backlog is as long as it is to be."""

    async def reached() -> Any:
        described = await describe(client, name)
        return described if described.stats.approximate_backlog_count == count else None

    return await eventually(reached, f"{count} tasks in {name}")


async def hand_out(client: Client, name: str, tasks: list[Any], **options: Any) -> Notes:
    """Queues the tasks while no worker is there, then works them off."""
    activities = f"{name}-activities"
    notes = Notes()
    async with working(client, name, [Fan]):
        handle = await client.start_workflow(
            Fan.run, args=[activities, tasks], id=name, task_queue=name
        )
        await backlogged(client, activities, len(tasks))
        async with working(client, activities, activities=[notes.note], **options):
            await handle.result()
    return notes


async def test_priority_order(client: Client, name: str) -> None:
    """One slot gets the tasks by priority, and within one in the order of scheduling."""
    keys = [3, 5, 1, 0, 2, 5, 1, 4, 3]
    notes = await hand_out(
        client,
        name,
        [[key, "", 0] for key in keys],
        max_concurrent_activities=1,
        max_concurrent_activity_task_polls=1,
    )
    expected = sorted(range(len(keys)), key=lambda n: (keys[n] or 3, n))
    assert [n for n, _ in notes.seen] == expected


async def test_activities_inherit_the_priority(client: Client, name: str) -> None:
    """What an activity does not name it has from its workflow."""
    activities = f"{name}-activities"
    async with working(client, name, [Fan]):
        handle = await client.start_workflow(
            Fan.run,
            args=[activities, [[0, "", 0], [5, "", 0]]],
            id=name,
            task_queue=name,
            priority=Priority(priority_key=1, fairness_key="tenant", fairness_weight=2.0),
        )
        described = await backlogged(client, activities, 2)
        counts = {
            key: stats.approximate_backlog_count
            for key, stats in described.stats_by_priority_key.items()
        }
        assert {key: n for key, n in counts.items() if n} == {1: 1, 5: 1}
        task = await client.workflow_service.poll_activity_task_queue(
            api.PollActivityTaskQueueRequest(
                namespace="default", task_queue=queue_of(activities), identity="raw"
            ),
            timeout=timedelta(seconds=20),
        )
        assert task.priority.priority_key == 1
        assert task.priority.fairness_key == "tenant"
        assert task.priority.fairness_weight == 2.0
        await handle.terminate()


async def test_fairness_proportions(client: Client, name: str) -> None:
    """Keys share a priority by weight, whatever came first."""
    tasks = [[0, "light", 1.0]] * 16 + [[0, "heavy", 3.0]] * 16
    notes = await hand_out(
        client,
        name,
        tasks,
        max_concurrent_activities=1,
        max_concurrent_activity_task_polls=1,
    )
    first = [key for _, key in notes.seen[:16]]
    assert 11 <= first.count("heavy") <= 13, first
    assert len(notes.seen) == len(tasks)


async def test_weights_of_the_queue_win(client: Client, name: str) -> None:
    """Weights that are configured stand in place of those that tasks carry."""
    await client.workflow_service.update_task_queue_config(
        Update(
            namespace="default",
            task_queue=f"{name}-activities",
            task_queue_type=ACTIVITY,
            set_fairness_weight_overrides={"light": 9.0},
        )
    )
    tasks = [[0, "light", 1.0]] * 15 + [[0, "heavy", 1.0]] * 15
    notes = await hand_out(
        client,
        name,
        tasks,
        max_concurrent_activities=1,
        max_concurrent_activity_task_polls=1,
    )
    first = [key for _, key in notes.seen[:10]]
    assert 8 <= first.count("light") <= 9, first


def check_rate(notes: Notes, rate: float) -> None:
    """No more than a second's worth at once, then the rate."""
    times = notes.times
    for begin in range(len(times)):
        # The slack is for tasks that were handed out evenly and arrived bunched.
        within = sum(1 for t in times[begin:] if t - times[begin] < 1.0)
        assert within <= 2 * rate + 6, f"{within} in a second"
    least = (len(times) - rate - 1) / rate
    assert times[-1] - times[0] > least - 0.5


async def test_rate_of_the_api(client: Client, name: str) -> None:
    """The queue's configured rate is obeyed, and wins over the worker's."""
    await client.workflow_service.update_task_queue_config(
        Update(
            namespace="default",
            identity="operator",
            task_queue=f"{name}-activities",
            task_queue_type=ACTIVITY,
            update_queue_rate_limit=Update.RateLimitUpdate(
                rate_limit=taskqueue.RateLimit(requests_per_second=20), reason="because"
            ),
        )
    )
    notes = await hand_out(
        client, name, [[0, "", 0]] * 80, max_task_queue_activities_per_second=1000.0
    )
    check_rate(notes, 20)
    described = await describe(client, f"{name}-activities")
    assert described.effective_rate_limit.requests_per_second == 20
    assert described.effective_rate_limit.rate_limit_source == 1  # API
    assert described.config.queue_rate_limit.metadata.reason == "because"
    assert described.config.queue_rate_limit.metadata.update_identity == "operator"


async def test_rate_of_the_worker(client: Client, name: str) -> None:
    """Without one the rate that the worker asks for is obeyed."""
    notes = await hand_out(
        client, name, [[0, "", 0]] * 60, max_task_queue_activities_per_second=20.0
    )
    check_rate(notes, 20)
    described = await describe(client, f"{name}-activities")
    assert described.effective_rate_limit.rate_limit_source == 2  # WORKER


async def test_rate_of_each_key(client: Client, name: str) -> None:
    """A key at its rate does not keep others back."""
    await client.workflow_service.update_task_queue_config(
        Update(
            namespace="default",
            task_queue=f"{name}-activities",
            task_queue_type=ACTIVITY,
            update_fairness_key_rate_limit_default=Update.RateLimitUpdate(
                rate_limit=taskqueue.RateLimit(requests_per_second=10)
            ),
        )
    )
    notes = await hand_out(client, name, [[0, "busy", 0]] * 40 + [[0, "idle", 0]] * 5)
    at = dict(zip(notes.seen, notes.times, strict=True))
    idle = [t for (_, key), t in at.items() if key == "idle"]
    busy = [t for (_, key), t in at.items() if key == "busy"]
    assert max(idle) - min(busy) < 1.5
    assert max(busy) - min(busy) > (40 - 11) / 10 - 0.5


async def test_describe_figures(client: Client, name: str) -> None:
    """Counts, ages, rates and pollers of a queue."""
    activities = f"{name}-activities"
    async with working(client, name, [Fan]):
        handle = await client.start_workflow(
            Fan.run,
            args=[activities, [[1, "a", 0]] * 3 + [[0, "b", 0]] * 4],
            id=name,
            task_queue=name,
        )
        described = await backlogged(client, activities, 7)
        by_priority = described.stats_by_priority_key
        assert by_priority[1].approximate_backlog_count == 3
        assert by_priority[3].approximate_backlog_count == 4
        assert described.stats.tasks_add_rate > 0
        assert described.stats.tasks_dispatch_rate == 0
        await asyncio.sleep(0.3)  # An age is what is measured.
        described = await describe(client, activities)
        assert described.stats.approximate_backlog_age.ToTimedelta() > timedelta(seconds=0.25)
        assert not described.pollers
        notes = Notes()
        async with working(client, activities, activities=[notes.note], identity="noter"):
            await handle.result()
            described = await backlogged(client, activities, 0)
        assert [p.identity for p in described.pollers] == ["noter"]
        assert described.stats.tasks_dispatch_rate > 0
        assert described.stats.approximate_backlog_age.ToTimedelta() == timedelta()


async def test_describe_enhanced(client: Client, name: str) -> None:
    """The mode that describes versions knows the unversioned queue, of both kinds."""
    await client.start_workflow("nothing", id=name, task_queue=name)

    async def counted() -> Any:
        described = await client.workflow_service.describe_task_queue(
            api.DescribeTaskQueueRequest(
                namespace="default",
                task_queue=queue_of(name),
                api_mode=1,
                report_stats=True,
                report_pollers=True,
                report_task_reachability=True,
            )
        )
        info = described.versions_info[""]
        count = info.types_info[WORKFLOW].stats.approximate_backlog_count
        return info if count == 1 else None

    info = await eventually(counted, "a workflow task in the backlog")
    assert set(info.types_info) == {WORKFLOW, ACTIVITY}
    assert info.task_reachability == 1  # REACHABLE
    await client.get_workflow_handle(name).terminate()


def raw(address: str) -> service.WorkflowServiceStub:
    return service.WorkflowServiceStub(grpc.insecure_channel(address))


def start(stub: service.WorkflowServiceStub, name: str, queue: str) -> None:
    stub.StartWorkflowExecution(
        api.StartWorkflowExecutionRequest(
            namespace="default",
            workflow_id=name,
            workflow_type=common.WorkflowType(name="nothing"),
            task_queue=queue_of(queue),
            request_id=uuid.uuid4().hex,
            priority=common.Priority(priority_key=len(name) % 5 + 1),
            workflow_task_timeout=duration_pb2.Duration(seconds=60),
        ),
        timeout=20,
    )


def test_counts_and_config_outlive_the_server(durable_server, name: str) -> None:
    """A queue that no broker has loaded is counted, and its configuration is kept."""
    stub = raw(durable_server.address)
    for n in range(30):
        start(stub, f"{name}-{n}", name)
    update = Update(
        namespace="default",
        task_queue=name,
        task_queue_type=ACTIVITY,
        update_queue_rate_limit=Update.RateLimitUpdate(
            rate_limit=taskqueue.RateLimit(requests_per_second=7)
        ),
    )
    stub.UpdateTaskQueueConfig(update, timeout=20)
    durable_server.restart()
    stub = raw(durable_server.address)
    request = api.DescribeTaskQueueRequest(
        namespace="default",
        task_queue=queue_of(name),
        task_queue_type=WORKFLOW,
        report_stats=True,
    )
    described = stub.DescribeTaskQueue(request, timeout=20)
    assert described.stats.approximate_backlog_count == 30
    for _ in range(10):
        task = stub.PollWorkflowTaskQueue(
            api.PollWorkflowTaskQueueRequest(
                namespace="default", task_queue=queue_of(name), identity="raw"
            ),
            timeout=20,
        )
        assert task.task_token
    described = stub.DescribeTaskQueue(request, timeout=20)
    assert described.stats.approximate_backlog_count == 20
    request.task_queue_type = ACTIVITY
    request.report_config = True
    described = stub.DescribeTaskQueue(request, timeout=20)
    assert described.config.queue_rate_limit.rate_limit.requests_per_second == 7
    assert described.effective_rate_limit.requests_per_second == 7


def test_shutdown_ends_the_polls_of_the_worker(server, name: str) -> None:
    """Polls of the instance are answered empty, also those that come late; others wait on."""
    stub = raw(server.address)

    def poll(key: str) -> tuple[bool, float]:
        began = time.monotonic()
        task = stub.PollActivityTaskQueue(
            api.PollActivityTaskQueueRequest(
                namespace="default",
                task_queue=queue_of(name),
                identity=key,
                worker_instance_key=key,
            ),
            timeout=12,
        )
        return bool(task.task_token), time.monotonic() - began

    def pollers() -> set[str]:
        described = stub.DescribeTaskQueue(
            api.DescribeTaskQueueRequest(
                namespace="default", task_queue=queue_of(name), task_queue_type=ACTIVITY
            ),
            timeout=20,
        )
        return {p.identity for p in described.pollers}

    going, staying = f"{name}-going", f"{name}-staying"
    with ThreadPoolExecutor(3) as pool:
        gone = [pool.submit(poll, going) for _ in range(2)]
        stays = pool.submit(poll, staying)
        deadline = time.monotonic() + 10
        while pollers() != {going, staying}:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        stub.ShutdownWorker(
            api.ShutdownWorkerRequest(
                namespace="default",
                identity=going,
                task_queue=name,
                worker_instance_key=going,
            ),
            timeout=20,
        )
        for one in gone:
            has_task, took = one.result()
            assert not has_task and took < 9
        assert pollers() == {staying}
        has_task, took = poll(going)
        assert not has_task and took < 5
        _, took = stays.result()
        assert took > 9


def test_workers_are_listed(server, name: str) -> None:
    """Workers that send heartbeats are listed, counted, described, and go when they say so."""
    stub = raw(server.address)
    beat = worker_api.WorkerHeartbeat(
        worker_instance_key=name,
        worker_identity="me",
        task_queue=name,
        sdk_name="raw",
        status=1,
        host_info=worker_api.WorkerHostInfo(host_name="host"),
    )
    stub.RecordWorkerHeartbeat(
        api.RecordWorkerHeartbeatRequest(namespace="default", worker_heartbeat=[beat]), timeout=20
    )
    query = f"TaskQueue = '{name}' AND HostName starts_with 'ho' AND Status = 'Running'"
    listed = stub.ListWorkers(api.ListWorkersRequest(namespace="default", query=query), timeout=20)
    assert [w.worker_instance_key for w in listed.workers] == [name]
    count = api.CountWorkersRequest(namespace="default", query=query)
    assert stub.CountWorkers(count, timeout=20).count == 1
    described = stub.DescribeWorker(
        api.DescribeWorkerRequest(namespace="default", worker_instance_key=name), timeout=20
    )
    assert described.worker_info.worker_heartbeat == beat
    beat.status = 3  # SHUTDOWN
    stub.ShutdownWorker(
        api.ShutdownWorkerRequest(namespace="default", identity="me", worker_heartbeat=beat),
        timeout=20,
    )
    assert stub.CountWorkers(count, timeout=20).count == 0


def exhausted(error: grpc.RpcError) -> ResourceExhaustedFailure:
    from temporalio.api.common.v1 import grpc_status_pb2

    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            detail = ResourceExhaustedFailure()
            assert grpc_status_pb2.GrpcStatus.FromString(value).details[0].Unpack(detail)
            return detail
    raise AssertionError("no details")


def test_limits_of_a_namespace(
    tmp_path, monkeypatch: pytest.MonkeyPatch, server, name: str
) -> None:
    """Requests a second, lists a second, and long polls at once, each with its cause."""
    monkeypatch.setenv("EVERSPAN_LIMITS_REQUESTS_PER_SECOND_MAX", "20")
    monkeypatch.setenv("EVERSPAN_LIMITS_VISIBILITY_REQUESTS_PER_SECOND_MAX", "3")
    monkeypatch.setenv("EVERSPAN_LIMITS_LONG_POLLS_MAX", "2")
    own = process(tmp_path)
    own.start()
    try:
        stub = raw(own.address)

        def refusals(call: Any, count: int) -> list[ResourceExhaustedFailure]:
            refused = []
            for _ in range(count):
                try:
                    call()
                except grpc.RpcError as error:
                    refused.append(exhausted(error))
            return refused

        lists = api.ListWorkflowExecutionsRequest(namespace="default")
        refused = refusals(lambda: stub.ListWorkflowExecutions(lists, timeout=20), 20)
        assert refused
        assert {r.cause for r in refused} == {
            ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_RPS_LIMIT
        }
        poll = api.PollWorkflowTaskQueueRequest(
            namespace="default", task_queue=queue_of(name), identity="raw"
        )
        deadline = time.monotonic() + 20

        def waits() -> Any:
            """A poll that waits; one refused for the rate of requests is sent again."""
            while True:
                assert time.monotonic() < deadline
                one = stub.PollWorkflowTaskQueue.future(poll, timeout=30)
                try:
                    one.exception(timeout=0.5)
                except grpc.FutureTimeoutError:
                    return one

        waiting = [waits() for _ in range(2)]
        causes: set[Any] = set()
        while ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_CONCURRENT_LIMIT not in causes:
            assert time.monotonic() < deadline
            refused = refusals(lambda: stub.PollWorkflowTaskQueue(poll, timeout=2), 1)
            causes.update(r.cause for r in refused)
        for one in waiting:
            one.cancel()
        describes = api.DescribeTaskQueueRequest(namespace="default", task_queue=queue_of(name))
        refused = refusals(lambda: stub.DescribeTaskQueue(describes, timeout=20), 200)
        assert refused
    finally:
        own.stop()


async def test_partitions(client: Client, name: str) -> None:
    """A queue has one partition of each kind, which is the queue."""
    found = await client.workflow_service.list_task_queue_partitions(
        api.ListTaskQueuePartitionsRequest(namespace="default", task_queue=queue_of(name))
    )
    for partitions in (
        found.workflow_task_queue_partitions,
        found.activity_task_queue_partitions,
    ):
        assert [p.key for p in partitions] == [name]
