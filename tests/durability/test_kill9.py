"""Acknowledged work survives kill -9 at any point.

Clients start, signal and drive workflows through raw calls while the server is killed again
and again at random moments. At the end every acknowledged call must be in the histories,
no activity that may run once ran twice, every timer fired once and not early, and every
workflow closed.

EVERSPAN_KILLS sets how often the server is killed, EVERSPAN_SEED the moments.
"""

from __future__ import annotations

import os
import pathlib
import random
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict
from typing import Any, Callable

import grpc
from google.protobuf.duration_pb2 import Duration
from temporalio.api.command.v1 import (
    Command,
    CompleteWorkflowExecutionCommandAttributes,
    ScheduleActivityTaskCommandAttributes,
    StartTimerCommandAttributes,
)
from temporalio.api.common.v1 import (
    ActivityType,
    Payload,
    Payloads,
    RetryPolicy,
    WorkflowExecution,
    WorkflowType,
)
from temporalio.api.enums.v1 import CommandType, EventType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice import v1 as api

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

KILLS = int(os.environ.get("EVERSPAN_KILLS", "8"))
SEED = int(os.environ.get("EVERSPAN_SEED", str(random.randrange(1 << 32))))
STARTERS = 3
SIGNALLERS = 3
POLLERS = 4
TIMER = 0.3
QUEUE = TaskQueue(name="kill9")
# Long enough for every redelivery (workflow tasks time out after 2 s here).
SETTLE = 60.0


def seconds(value: float) -> Duration:
    whole = int(value)
    return Duration(seconds=whole, nanos=int((value - whole) * 1e9))


def payload(text: str) -> Payloads:
    return Payloads(payloads=[Payload(metadata={"encoding": b"binary/plain"}, data=text.encode())])


class Load:
    """What clients and workers did, and what they were told."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.local = threading.local()
        self.lock = threading.Lock()
        self.stop_clients = threading.Event()
        self.stop_workers = threading.Event()
        self.started: dict[str, str] = {}
        self.signals: dict[str, set[str]] = defaultdict(set)
        self.activity_deliveries: Counter[str] = Counter()
        self.closed: set[str] = set()
        self.crashes: list[BaseException] = []

    def call(self, method: str, request: Any, response: type, timeout: float) -> Any:
        channel = getattr(self.local, "channel", None)
        if channel is None:
            channel = self.local.channel = grpc.insecure_channel(
                self.address,
                options=[
                    ("grpc.initial_reconnect_backoff_ms", 50),
                    ("grpc.max_reconnect_backoff_ms", 200),
                ],
            )
        rpc = channel.unary_unary(
            f"/temporal.api.workflowservice.v1.WorkflowService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return rpc(request, timeout=timeout)

    def insist(self, method: str, request: Any, response: type) -> Any:
        """Repeats a call until the server answers it; None if it is refused for good."""
        while True:
            try:
                return self.call(method, request, response, 5.0)
            except grpc.RpcError as error:
                if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                    return None
                if self.stop_workers.is_set():
                    return None
                time.sleep(0.02)

    def spawn(self, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - reported by the test
                self.crashes.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def start_workflows(self) -> None:
        while not self.stop_clients.is_set():
            workflow_id = f"kill9-{uuid.uuid4().hex}"
            request = api.StartWorkflowExecutionRequest(
                namespace="default",
                workflow_id=workflow_id,
                workflow_type=WorkflowType(name="kill9"),
                task_queue=QUEUE,
                workflow_task_timeout=seconds(2),
                request_id=uuid.uuid4().hex,
                identity="starter",
            )
            answer = self.insist(
                "StartWorkflowExecution", request, api.StartWorkflowExecutionResponse
            )
            if answer is not None:
                with self.lock:
                    self.started[workflow_id] = answer.run_id
            time.sleep(0.03)

    def signal_workflows(self) -> None:
        chooser = random.Random(threading.get_ident())
        while not self.stop_clients.is_set():
            with self.lock:
                open_ones = [w for w in self.started if w not in self.closed]
            if not open_ones:
                time.sleep(0.02)
                continue
            workflow_id, mark = chooser.choice(open_ones), uuid.uuid4().hex
            request = api.SignalWorkflowExecutionRequest(
                namespace="default",
                workflow_execution=WorkflowExecution(workflow_id=workflow_id),
                signal_name="mark",
                input=payload(mark),
                request_id=mark,
                identity="signaller",
            )
            answer = self.insist(
                "SignalWorkflowExecution", request, api.SignalWorkflowExecutionResponse
            )
            if answer is not None:
                with self.lock:
                    self.signals[workflow_id].add(mark)
            time.sleep(0.01)

    def poll(self, method: str, request: Any, response: type) -> Any:
        try:
            answer = self.call(method, request, response, 3.0)
        except grpc.RpcError:
            time.sleep(0.02)
            return None
        return answer if answer.task_token else None

    def work_on_workflows(self) -> None:
        poll = api.PollWorkflowTaskQueueRequest(
            namespace="default", task_queue=QUEUE, identity="worker"
        )
        while not self.stop_workers.is_set():
            task = self.poll("PollWorkflowTaskQueue", poll, api.PollWorkflowTaskQueueResponse)
            if task is None:
                continue
            types = [e.event_type for e in self.history(task.workflow_execution)]
            done = self.insist(
                "RespondWorkflowTaskCompleted",
                api.RespondWorkflowTaskCompletedRequest(
                    namespace="default",
                    task_token=task.task_token,
                    identity="worker",
                    commands=self.decide(types),
                ),
                api.RespondWorkflowTaskCompletedResponse,
            )
            del done

    def decide(self, types: list[int]) -> list[Command]:
        """One activity that may run once, one timer; both done, the workflow completes."""
        if EventType.EVENT_TYPE_TIMER_STARTED not in types:
            return [
                Command(
                    command_type=CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK,
                    schedule_activity_task_command_attributes=ScheduleActivityTaskCommandAttributes(
                        activity_id="once",
                        activity_type=ActivityType(name="once"),
                        task_queue=QUEUE,
                        start_to_close_timeout=seconds(6),
                        retry_policy=RetryPolicy(maximum_attempts=1),
                    ),
                ),
                Command(
                    command_type=CommandType.COMMAND_TYPE_START_TIMER,
                    start_timer_command_attributes=StartTimerCommandAttributes(
                        timer_id="t", start_to_fire_timeout=seconds(TIMER)
                    ),
                ),
            ]
        ended = {
            EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED,
            EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT,
        }
        if EventType.EVENT_TYPE_TIMER_FIRED in types and ended.intersection(types):
            return [
                Command(
                    command_type=CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
                    complete_workflow_execution_command_attributes=(
                        CompleteWorkflowExecutionCommandAttributes()
                    ),
                )
            ]
        return []

    def work_on_activities(self) -> None:
        poll = api.PollActivityTaskQueueRequest(
            namespace="default", task_queue=QUEUE, identity="worker"
        )
        while not self.stop_workers.is_set():
            task = self.poll("PollActivityTaskQueue", poll, api.PollActivityTaskQueueResponse)
            if task is None:
                continue
            with self.lock:
                self.activity_deliveries[task.workflow_execution.workflow_id] += 1
            self.insist(
                "RespondActivityTaskCompleted",
                api.RespondActivityTaskCompletedRequest(
                    namespace="default", task_token=task.task_token, identity="worker"
                ),
                api.RespondActivityTaskCompletedResponse,
            )

    def history(self, execution: WorkflowExecution) -> list[Any]:
        events, token = [], b""
        while True:
            page = self.insist(
                "GetWorkflowExecutionHistory",
                api.GetWorkflowExecutionHistoryRequest(
                    namespace="default", execution=execution, next_page_token=token
                ),
                api.GetWorkflowExecutionHistoryResponse,
            )
            if page is None:
                return events
            events.extend(page.history.events)
            token = page.next_page_token
            if not token:
                return events


def test_acknowledged_work_survives_kill_9(durable_server) -> None:
    print(f"EVERSPAN_SEED={SEED} EVERSPAN_KILLS={KILLS}")
    moments = random.Random(SEED)
    load = Load(durable_server.address)
    clients = [load.spawn(load.start_workflows) for _ in range(STARTERS)]
    clients += [load.spawn(load.signal_workflows) for _ in range(SIGNALLERS)]
    workers = [load.spawn(load.work_on_workflows) for _ in range(POLLERS)]
    workers += [load.spawn(load.work_on_activities) for _ in range(POLLERS)]

    for _ in range(KILLS):
        time.sleep(moments.uniform(0.05, 2.0))
        durable_server.kill9()
        durable_server.restart()
    time.sleep(0.5)
    load.stop_clients.set()
    for thread in clients:
        thread.join(30)
        assert not thread.is_alive(), "a client hangs"

    deadline = time.monotonic() + SETTLE
    open_ones = set(load.started)
    while open_ones:
        for workflow_id in list(open_ones):
            execution = WorkflowExecution(workflow_id=workflow_id)
            last = load.history(execution)[-1].event_type
            if last == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
                open_ones.discard(workflow_id)
        assert time.monotonic() < deadline, f"never closed: {sorted(open_ones)[:5]}"
        time.sleep(0.1)
    load.stop_workers.set()
    for thread in workers:
        thread.join(30)
        assert not thread.is_alive(), "a worker hangs"
    assert not load.crashes, load.crashes

    for workflow_id, run_id in load.started.items():
        check(load, workflow_id, run_id)
    signals = sum(map(len, load.signals.values()))
    print(f"{len(load.started)} workflows, {signals} signals, {KILLS} kills: nothing lost")
    assert len(load.started) >= KILLS


def check(load: Load, workflow_id: str, run_id: str) -> None:
    """One workflow's history against what its clients were told."""
    execution = WorkflowExecution(workflow_id=workflow_id, run_id=run_id)
    events = load.history(execution)
    assert [e.event_id for e in events] == list(range(1, len(events) + 1)), workflow_id
    found = Counter(
        e.workflow_execution_signaled_event_attributes.input.payloads[0].data.decode()
        for e in events
        if e.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
    )
    lost = load.signals[workflow_id] - set(found)
    assert not lost, f"{workflow_id}: acknowledged signals are not in its history: {lost}"
    doubled = [mark for mark, n in found.items() if n > 1]
    assert not doubled, f"{workflow_id}: signals taken twice: {doubled}"
    assert load.activity_deliveries[workflow_id] <= 1, f"{workflow_id}: its activity ran twice"

    def only(kind: int) -> Any:
        those = [e for e in events if e.event_type == kind]
        assert len(those) == 1, f"{workflow_id}: {EventType.Name(kind)} {len(those)} times"
        return those[0]

    only(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED)
    only(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED)
    started = only(EventType.EVENT_TYPE_TIMER_STARTED).event_time.ToNanoseconds()
    fired = only(EventType.EVENT_TYPE_TIMER_FIRED).event_time.ToNanoseconds()
    assert fired - started >= TIMER * 1e9, f"{workflow_id}: its timer fired early"
