"""Task queues: priorities, configuration, description, workers."""

from __future__ import annotations

from typing import Any

from temporalio.api.common.v1 import message_pb2 as common
from temporalio.api.taskqueue.v1 import message_pb2 as taskqueue
from temporalio.api.worker.v1 import message_pb2 as worker
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

from driver import IDENTITY, Tape
from programs import program

Update = api.UpdateTaskQueueConfigRequest
WORKFLOW, ACTIVITY = 1, 2


def limit(rate: float | None, reason: str = "") -> Update.RateLimitUpdate:
    """An update of a rate limit; without a rate its removal."""
    update = Update.RateLimitUpdate(reason=reason)
    if rate is not None:
        update.rate_limit.requests_per_second = rate
    return update


def limited(rate: taskqueue.RateLimitConfig) -> dict[str, Any]:
    """A rate limit of a configuration, but for its time."""
    return {
        "rate": rate.rate_limit.requests_per_second if rate.HasField("rate_limit") else None,
        "reason": rate.metadata.reason,
        "identity": rate.metadata.update_identity,
        "has a time": rate.metadata.HasField("update_time"),
    }


def config(shown: taskqueue.TaskQueueConfig) -> dict[str, Any]:
    """A queue's configuration."""
    fields = ["queue_rate_limit", "fairness_keys_rate_limit_default"]
    return {
        **{field: limited(getattr(shown, field)) for field in fields if shown.HasField(field)},
        "weights": dict(sorted(shown.fairness_weight_overrides.items())),
    }


def configure(t: Tape, *, fails: bool = False, **fields: Any) -> None:
    """Updates the configuration of the program's queue."""
    request = {
        "namespace": t.namespace,
        "identity": IDENTITY,
        "task_queue": t.queue,
        "task_queue_type": ACTIVITY,
        **fields,
    }
    response = t.call(
        "UpdateTaskQueueConfig",
        Update(**request),
        fails=fails,
        shown=lambda response: config(response.config),
    )
    if fails:
        return

    def arrived() -> bool:
        response_now = t.stub.DescribeTaskQueue(
            api.DescribeTaskQueueRequest(
                namespace=t.namespace,
                task_queue=taskqueue.TaskQueue(name=t.queue, kind=1),
                task_queue_type=request["task_queue_type"],
                report_config=True,
            ),
            timeout=10,
        )
        return response_now.config == response.config

    # The real server's activity queues hear of it a little later.
    t.await_condition(arrived, "the configuration")


def described(response: api.DescribeTaskQueueResponse) -> dict[str, Any]:
    """What of a description does not depend on time, partitions and the storage."""
    shown: dict[str, Any] = {
        "pollers": [[p.identity, p.rate_per_second] for p in response.pollers],
        "current": response.versioning_info.current_version,
    }
    if response.HasField("stats"):
        shown["count"] = response.stats.approximate_backlog_count
        shown["by priority"] = {
            str(key): stats.approximate_backlog_count
            for key, stats in sorted(response.stats_by_priority_key.items())
            if stats.approximate_backlog_count or key == 3
        }
    if response.effective_rate_limit.rate_limit_source != 3:
        shown["rate"] = response.effective_rate_limit.requests_per_second
        shown["source"] = response.effective_rate_limit.rate_limit_source
    if response.HasField("config"):
        shown["config"] = config(response.config)
    return shown


def describe(t: Tape, *, fails: bool = False, **fields: Any) -> None:
    """Describes the program's queue."""
    fields.setdefault("task_queue", taskqueue.TaskQueue(name=t.queue, kind=1))
    request = api.DescribeTaskQueueRequest(namespace=t.namespace, **fields)
    t.call("DescribeTaskQueue", request, fails=fails, shown=described)


def backlog(t: Tape, count: int) -> None:
    """Waits until the backlog is counted so; the real server caches counts."""

    def reached() -> bool:
        response = t.stub.DescribeTaskQueue(
            api.DescribeTaskQueueRequest(
                namespace=t.namespace,
                task_queue=taskqueue.TaskQueue(name=t.queue, kind=1),
                task_queue_type=WORKFLOW,
                report_stats=True,
            ),
            timeout=10,
        )
        return response.stats.approximate_backlog_count == count

    t.await_condition(reached, f"{count} tasks in the backlog")


@program
def queue_priority_of_workflow_tasks(t: Tape) -> None:
    """Workflow tasks come by priority; what is past 5 counts as 5."""
    for n, key in enumerate([4, 7, 1, 0]):
        with t.muted():
            t.start(
                workflow_id=f"{t.workflow_id}-{n}",
                request_id=f"start-{n}-{t.unique}",
                priority=common.Priority(priority_key=key),
            )
    backlog(t, 4)
    describe(t, task_queue_type=WORKFLOW, report_stats=True)
    for _ in range(4):
        with t.muted():
            task = t.poll()
        t.note("polled", task.workflow_execution.workflow_id[len(t.workflow_id) :])


@program
def queue_bad_priorities(t: Tape) -> None:
    """Priorities that are refused."""
    t.start(fails=True, priority=common.Priority(priority_key=-1))
    t.start(fails=True, priority=common.Priority(fairness_key="k" * 65))
    t.start(fails=True, priority=common.Priority(fairness_weight=-1))


@program
def queue_config(t: Tape) -> None:
    """A queue's configuration is merged, kept and described."""
    configure(t)
    configure(
        t,
        update_queue_rate_limit=limit(5.5, "because"),
        set_fairness_weight_overrides={"a": 2.5, "b": 0.5},
    )
    describe(t, task_queue_type=ACTIVITY, report_config=True)
    configure(t, update_fairness_key_rate_limit_default=limit(1))
    configure(t, unset_fairness_weight_overrides=["a", "unknown"])
    configure(t, update_queue_rate_limit=limit(None, "over"), identity="")
    describe(t, task_queue_type=ACTIVITY, report_config=True)
    configure(t, task_queue_type=WORKFLOW, set_fairness_weight_overrides={"w": 1})
    describe(t, task_queue_type=WORKFLOW, report_config=True)
    describe(t, task_queue_type=WORKFLOW)


@program
def queue_config_refused(t: Tape) -> None:
    """What a queue's configuration may not be."""
    configure(t, fails=True, task_queue_type=WORKFLOW, update_queue_rate_limit=limit(1))
    configure(
        t,
        fails=True,
        task_queue_type=WORKFLOW,
        update_fairness_key_rate_limit_default=limit(1),
    )
    configure(t, fails=True, update_queue_rate_limit=limit(-1))
    configure(t, fails=True, update_fairness_key_rate_limit_default=limit(-1))
    configure(t, fails=True, update_queue_rate_limit=limit(1, "r" * 1001))
    configure(t, fails=True, identity="i" * 1001)
    configure(t, fails=True, set_fairness_weight_overrides={"": 1})
    configure(t, fails=True, set_fairness_weight_overrides={"k" * 65: 1})
    configure(t, fails=True, set_fairness_weight_overrides={"a": 0})
    configure(t, fails=True, set_fairness_weight_overrides={"a": -1})
    configure(t, fails=True, unset_fairness_weight_overrides=[""])
    configure(
        t,
        fails=True,
        set_fairness_weight_overrides={"a": 1},
        unset_fairness_weight_overrides=["a"],
    )
    configure(t, fails=True, task_queue="/_sys/x")


@program
def queue_described_badly(t: Tape) -> None:
    """Descriptions that are refused."""
    request = api.DescribeTaskQueueRequest(namespace=t.namespace)
    t.call("DescribeTaskQueue", request, fails=True)
    describe(t, fails=True, task_queue=taskqueue.TaskQueue())
    sticky = taskqueue.TaskQueue(name=t.sticky, kind=2, normal_name=t.queue)
    describe(t, fails=True, task_queue=sticky, api_mode=1)
    partition = taskqueue.TaskQueue(name=f"/_sys/{t.queue}/1")
    describe(t, fails=True, task_queue=partition, report_stats=True)


@program
def queue_polled_with_rate(t: Tape) -> None:
    """The last poll's rate counts while nothing is configured."""
    metadata = taskqueue.TaskQueueMetadata()
    metadata.max_tasks_per_second.value = 3
    for fields in [{"task_queue_metadata": metadata}, {}]:
        poll = api.PollActivityTaskQueueRequest(
            namespace=t.namespace,
            task_queue=taskqueue.TaskQueue(name=t.queue, kind=1),
            identity=IDENTITY,
            **fields,
        )
        t.call("PollActivityTaskQueue", poll, timeout=2)
        describe(t, task_queue_type=ACTIVITY)


@program
def queue_poll_deadlines(t: Tape) -> None:
    """A poll needs a deadline, and one that is worth it."""
    queue = taskqueue.TaskQueue(name=t.queue, kind=1)
    poll = api.PollActivityTaskQueueRequest(namespace=t.namespace, task_queue=queue)
    t.call("PollActivityTaskQueue", poll, timeout=None, fails=True)
    t.call("PollActivityTaskQueue", poll, timeout=0.5, fails=True)


@program
def workers_of_a_namespace(t: Tape) -> None:
    """Heartbeats, the filter of workers, and a worker that goes."""
    beats = [
        worker.WorkerHeartbeat(
            worker_instance_key=f"{n}-{t.unique}",
            worker_identity="me",
            task_queue=t.queue,
            sdk_name="sdk",
            sdk_version=version,
            status=status,
            host_info=worker.WorkerHostInfo(host_name=f"host-{n}", process_id="1"),
        )
        for n, (version, status) in enumerate([("1.0", 1), ("1.1", 2), ("2.0", 1)])
    ]
    beats[1].start_time.FromSeconds(1_700_000_000)
    beat = api.RecordWorkerHeartbeatRequest(
        namespace=t.namespace, identity=IDENTITY, worker_heartbeat=beats
    )
    t.call("RecordWorkerHeartbeat", beat)
    mine = f"TaskQueue = '{t.queue}'"
    for query in [
        mine,
        f"{mine} AND SdkVersion starts_with '1.'",
        f"{mine} AND SdkVersion not starts_with '1.'",
        f"{mine} AND (HostName = 'host-0' OR Status = 'ShuttingDown')",
        f"{mine} AND WorkerStatus != 'Running'",
        f"{mine} AND StartTime IS NULL",
        f"{mine} AND StartTime IS NOT NULL AND BuildId IS NULL",
        f"{mine} AND StartTime BETWEEN '2023-01-01T00:00:00Z' AND '2024-01-01T00:00:00Z'",
        f"{mine} AND StartTime < '2023-01-01T00:00:00Z'",
        f"{mine} AND StartTime > '2023-01-01'",
        f"{mine} AND SdkVersion > '1'",
        f"{mine} AND SdkVersion = ''",
        f"{mine} AND NOT SdkVersion = '2.0'",
        f"{mine} OR Nonsense = 'x'",
        f"Nonsense = 'x' OR {mine}",
        f"taskqueue = '{t.queue}'",
        f"{mine} ORDER BY StartTime",
    ]:
        count = api.CountWorkersRequest(namespace=t.namespace, query=query)
        t.note("query", t.normaliser.text(query))
        t.call("CountWorkers", count)
    for query in ["TaskQueue =", f"{mine} LIMIT 1", "=", "TaskQueue 'x'"]:
        lists = api.ListWorkersRequest(namespace=t.namespace, query=query)
        t.call("ListWorkers", lists, fails=True)
    page = api.ListWorkersRequest(namespace=t.namespace, query=mine, page_size=2)
    first = t.call("ListWorkers", page)
    page.next_page_token = first.next_page_token
    t.call("ListWorkers", page)
    page.next_page_token = b"nonsense"
    t.call("ListWorkers", page, fails=True)
    one = api.DescribeWorkerRequest(namespace=t.namespace, worker_instance_key=f"1-{t.unique}")
    t.call("DescribeWorker", one)
    beats[1].status = 3
    gone = api.ShutdownWorkerRequest(
        namespace=t.namespace, identity=IDENTITY, worker_heartbeat=beats[1]
    )
    t.call("ShutdownWorker", gone)
    t.call("DescribeWorker", one, fails=True)
