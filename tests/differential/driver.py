"""Drives a Temporal API server with bare gRPC calls and writes down what it answers.

No SDK stands between a program and the server here, so nothing of an SDK's own timing
or batching gets into a recording: each poll, completion and failure is a line of the
program.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Sequence

import grpc
from google.protobuf import duration_pb2
from google.protobuf.json_format import MessageToDict
from temporalio.api.command.v1 import message_pb2 as command
from temporalio.api.common.v1 import grpc_status_pb2
from temporalio.api.common.v1 import message_pb2 as common
from temporalio.api.enums.v1 import event_type_pb2 as event_type
from temporalio.api.enums.v1 import failed_cause_pb2 as failed_cause
from temporalio.api.failure.v1 import message_pb2 as failure_pb2
from temporalio.api.history.v1 import message_pb2 as history_pb2
from temporalio.api.operatorservice.v1 import service_pb2_grpc as operator_service
from temporalio.api.taskqueue.v1 import message_pb2 as taskqueue
from temporalio.api.workflowservice.v1 import request_response_pb2 as api
from temporalio.api.workflowservice.v1 import service_pb2_grpc as service

from normalise import Normaliser

IDENTITY = "driver"
# Longer than any wait a program makes on purpose, shorter than a person's patience.
CALL_TIMEOUT = 30.0


class Stopped(Exception):
    """A call answered otherwise than the program can go on with."""


def seconds(value: float) -> duration_pb2.Duration:
    """A protobuf duration."""
    return duration_pb2.Duration(seconds=int(value), nanos=round((value - int(value)) * 1e9))


def payload(value: Any) -> common.Payload:
    """A JSON payload as every SDK's default converter writes it."""
    return common.Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(value).encode())


def payloads(*values: Any) -> common.Payloads:
    """A list of JSON payloads."""
    return common.Payloads(payloads=[payload(value) for value in values])


def application_failure(
    message: str,
    type: str = "",
    non_retryable: bool = False,
    next_retry_delay: float | None = None,
    details: Sequence[Any] = (),
) -> failure_pb2.Failure:
    """A failure as an SDK sends it for an application error."""
    info = failure_pb2.ApplicationFailureInfo(type=type, non_retryable=non_retryable)
    if next_retry_delay is not None:
        info.next_retry_delay.CopyFrom(seconds(next_retry_delay))
    if details:
        info.details.CopyFrom(payloads(*details))
    return failure_pb2.Failure(message=message, source="driver", application_failure_info=info)


class Tape:
    """One run of one program: the connection, the names made for it, what was seen."""

    def __init__(self, address: str, name: str, namespace: str = "default") -> None:
        self.name = name
        self.namespace = namespace
        self.unique = uuid.uuid4().hex[:12]
        self.workflow_id = f"wf-{name}-{self.unique}"
        self.queue = f"queue-{self.unique}"
        self.sticky = f"sticky-{self.unique}"
        self.address = address
        self.normaliser = Normaliser(
            {
                self.workflow_id: "$workflow",
                self.queue: "$queue",
                self.sticky: "$sticky",
                self.unique: "$unique",
            }
        )
        self.run_id = ""
        self.steps: list[dict[str, Any]] = []
        self.raw: list[history_pb2.History] = []
        self._channel = grpc.insecure_channel(address)
        self.stub = service.WorkflowServiceStub(self._channel)
        self.operator = operator_service.OperatorServiceStub(self._channel)

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    # ---- calls ---------------------------------------------------------------------

    def note(self, what: str, value: Any) -> None:
        """Writes a line of the program's own into the recording."""
        self.steps.append({what: value})

    def call(
        self,
        method: str,
        request: Any,
        *,
        fails: bool | None = False,
        shown: Callable[[Any], Any] | None = None,
        timeout: float | None = CALL_TIMEOUT,
        quiet: bool = False,
    ) -> Any:
        """Makes one call and records its answer or its error.

        With `fails` the program expects an error and gets None; without it an error
        ends the program; with None both are taken. `shown` picks what of the answer is recorded.
        """
        stub = self.operator if hasattr(self.operator, method) else self.stub
        try:
            response = getattr(stub, method)(request, timeout=timeout)
        except grpc.RpcError as error:
            self.steps.append({"call": method, "error": self.error(error)})
            if fails is False:
                raise Stopped(f"{method}: {error.code().name} {error.details()}") from None
            return None
        if not quiet or fails:
            entry: dict[str, Any] = {"call": method}
            reply = shown(response) if shown else self.normaliser.message(response)
            if reply:
                entry["reply"] = reply
            self.steps.append(entry)
        if fails:
            raise Stopped(f"{method} was expected to fail")
        return response

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Calls of the block are made but not recorded."""
        before = len(self.steps)
        yield
        del self.steps[before:]

    def error(self, error: grpc.RpcError) -> dict[str, Any]:
        """A gRPC error as recorded: code, message, details with their content."""
        shown: dict[str, Any] = {
            "code": error.code().name,
            "message": _message(self.normaliser.text(error.details() or "")),
        }
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                status = grpc_status_pb2.GrpcStatus.FromString(value)
                details = []
                for detail in status.details:
                    try:
                        # The Any's own JSON names the type and shows the content.
                        content = MessageToDict(detail)
                        content = json.loads(self.normaliser.text(json.dumps(content)))
                    except TypeError:
                        content = {"@type": detail.type_url}
                    details.append(content)
                if details:
                    shown["details"] = details
        return shown

    # ---- starting and addressing a run ---------------------------------------------

    def start_request(self, **fields: Any) -> api.StartWorkflowExecutionRequest:
        """A start request with this run's names; `fields` override."""
        request = api.StartWorkflowExecutionRequest(
            namespace=self.namespace,
            workflow_id=self.workflow_id,
            workflow_type=common.WorkflowType(name="program"),
            task_queue=taskqueue.TaskQueue(name=self.queue),
            input=payloads("input"),
            identity=IDENTITY,
            request_id=f"start-{self.unique}",
        )
        for name, value in fields.items():
            if value is None:
                request.ClearField(name)
            elif isinstance(value, (str, int, bool)):
                setattr(request, name, value)
            else:
                getattr(request, name).CopyFrom(value)
        return request

    def start(self, *, fails: bool | None = False, **fields: Any) -> str:
        """Starts the workflow and returns its run ID."""
        response = self.call("StartWorkflowExecution", self.start_request(**fields), fails=fails)
        self.run_id = response.run_id if response else ""
        return self.run_id

    def execution(self, run_id: str | None = None) -> common.WorkflowExecution:
        """This run's name in requests; without a run ID when `run_id` is ''."""
        return common.WorkflowExecution(
            workflow_id=self.workflow_id,
            run_id=self.run_id if run_id is None else run_id,
        )

    def signal(
        self,
        name: str,
        *values: Any,
        request_id: str = "",
        fails: bool | None = False,
        run_id: str | None = None,
    ) -> None:
        """Signals the run."""
        self.call(
            "SignalWorkflowExecution",
            api.SignalWorkflowExecutionRequest(
                namespace=self.namespace,
                workflow_execution=self.execution(run_id),
                signal_name=name,
                input=payloads(*values) if values else None,
                identity=IDENTITY,
                request_id=request_id,
            ),
            fails=fails,
        )

    def cancel(self, reason: str = "", fails: bool = False, request_id: str = "") -> None:
        """Asks the run to cancel itself."""
        self.call(
            "RequestCancelWorkflowExecution",
            api.RequestCancelWorkflowExecutionRequest(
                namespace=self.namespace,
                workflow_execution=self.execution(),
                identity=IDENTITY,
                request_id=request_id or f"cancel-{self.unique}",
                reason=reason,
            ),
            fails=fails,
        )

    def terminate(self, reason: str = "", fails: bool = False, details: Any = None) -> None:
        """Terminates the run."""
        self.call(
            "TerminateWorkflowExecution",
            api.TerminateWorkflowExecutionRequest(
                namespace=self.namespace,
                workflow_execution=self.execution(),
                reason=reason,
                details=payloads(details) if details is not None else None,
                identity=IDENTITY,
            ),
            fails=fails,
        )

    @contextmanager
    def other(self, name: str, run_id: str = "") -> Iterator[str]:
        """In the block the program is about another workflow, on a queue of its own.

        Its workflow ID and its queue are `name` and this run's unique part; without a run ID
        it is about the latest run.
        """
        own = (self.workflow_id, self.run_id, self.queue)
        self.workflow_id = self.queue = self.named(name)
        self.run_id = run_id
        try:
            yield self.workflow_id
        finally:
            self.workflow_id, self.run_id, self.queue = own

    def named(self, name: str) -> str:
        """A name made up for this run of the program."""
        return f"{name}-{self.unique}"

    # ---- workflow tasks ------------------------------------------------------------

    def poll(
        self, *, sticky: bool = False, timeout: float = CALL_TIMEOUT
    ) -> api.PollWorkflowTaskQueueResponse:
        """Polls a workflow task; an empty answer ends the program."""
        queue = taskqueue.TaskQueue(name=self.sticky if sticky else self.queue)
        if sticky:
            queue.kind = 2  # TASK_QUEUE_KIND_STICKY
            queue.normal_name = self.queue
        task = self.call(
            "PollWorkflowTaskQueue",
            api.PollWorkflowTaskQueueRequest(
                namespace=self.namespace, task_queue=queue, identity=IDENTITY
            ),
            shown=self._shown_task,
            timeout=timeout,
        )
        if not task.task_token:
            raise Stopped("the poll ended empty")
        return task

    @contextmanager
    def polling_sticky(self) -> Iterator[Callable[[], Any]]:
        """Polls the sticky queue behind the block; the value given waits for the task.

        A sticky queue that nobody polls is given up at once, so the block begins only
        when the server knows of the poller.
        """
        queue = taskqueue.TaskQueue(name=self.sticky, kind=2, normal_name=self.queue)
        call = self.stub.PollWorkflowTaskQueue.future(
            api.PollWorkflowTaskQueueRequest(
                namespace=self.namespace, task_queue=queue, identity=IDENTITY
            ),
            timeout=CALL_TIMEOUT,
        )
        self.await_condition(lambda: self._polled(queue), "the sticky poller")

        def task() -> Any:
            try:
                response = call.result()
            except grpc.RpcError as error:
                self.steps.append({"call": "PollWorkflowTaskQueue", "error": self.error(error)})
                raise Stopped("the sticky poll failed") from None
            self.steps.append(
                {"call": "PollWorkflowTaskQueue", "reply": self._shown_task(response)}
            )
            if not response.task_token:
                raise Stopped("the sticky poll ended empty")
            return response

        yield task

    def _polled(self, queue: taskqueue.TaskQueue) -> bool:
        """Whether the server knows of a poller of the workflow queue."""
        try:
            response = self.stub.DescribeTaskQueue(
                api.DescribeTaskQueueRequest(
                    namespace=self.namespace, task_queue=queue, task_queue_type=1
                ),
                timeout=CALL_TIMEOUT,
            )
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                return True
            raise
        return bool(response.pollers)

    def _shown_task(self, task: api.PollWorkflowTaskQueueResponse) -> dict[str, Any]:
        shown = self.normaliser.message(task)
        shown["history"] = [
            f"{event.event_id} {event_name(event)}" for event in task.history.events
        ]
        if queries := shown.get("queries"):
            # A map, whose keys are the server's own.
            shown["queries"] = sorted(queries.values(), key=str)
        return shown

    def complete(
        self,
        task: api.PollWorkflowTaskQueueResponse,
        *commands: command.Command,
        sticky: float | None = None,
        force: bool = False,
        return_new: bool = False,
        fails: bool | None = False,
        **fields: Any,
    ) -> api.RespondWorkflowTaskCompletedResponse:
        """Completes a workflow task; `sticky` is its schedule-to-start in seconds."""
        request = api.RespondWorkflowTaskCompletedRequest(
            namespace=self.namespace,
            task_token=task.task_token,
            identity=IDENTITY,
            commands=commands,
            force_create_new_workflow_task=force,
            return_new_workflow_task=return_new,
            **fields,
        )
        if sticky is not None:
            request.sticky_attributes.worker_task_queue.name = self.sticky
            request.sticky_attributes.worker_task_queue.kind = 2
            request.sticky_attributes.worker_task_queue.normal_name = self.queue
            request.sticky_attributes.schedule_to_start_timeout.CopyFrom(seconds(sticky))
        return self.call(
            "RespondWorkflowTaskCompleted",
            request,
            fails=fails,
            shown=self._shown_completed,
        )

    def _shown_completed(self, response: Any) -> dict[str, Any]:
        shown = self.normaliser.message(response)
        if response.HasField("workflow_task"):
            shown["workflowTask"] = self._shown_task(response.workflow_task)
        return shown

    def fail_task(
        self,
        task: api.PollWorkflowTaskQueueResponse,
        cause: int = failed_cause.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE,
        fails: bool = False,
    ) -> None:
        """Fails a workflow task as a worker does whose workflow code broke."""
        self.call(
            "RespondWorkflowTaskFailed",
            api.RespondWorkflowTaskFailedRequest(
                namespace=self.namespace,
                task_token=task.task_token,
                cause=cause,  # type: ignore[arg-type]
                failure=application_failure("task failed", "Broken"),
                identity=IDENTITY,
            ),
            fails=fails,
        )

    # ---- queries -------------------------------------------------------------------

    def query(
        self, name: str = "q", *, run_id: str | None = None, reject: int = 0, timeout: float = 20
    ) -> Question:
        """Asks a query behind the program; calling the value given records its answer."""
        request = api.QueryWorkflowRequest(
            namespace=self.namespace,
            execution=self.execution(run_id),
            query_reject_condition=reject,  # type: ignore[arg-type]
        )
        request.query.query_type = name
        request.query.query_args.CopyFrom(payloads("argument"))
        return Question(self, self.stub.QueryWorkflow.future(request, timeout=timeout))

    def answer_query(
        self, task: api.PollWorkflowTaskQueueResponse, result: Any = None, error: str = ""
    ) -> None:
        """Answers a query task."""
        request = api.RespondQueryTaskCompletedRequest(
            namespace=self.namespace,
            task_token=task.task_token,
            completed_type=2 if error else 1,
            error_message=error,
        )
        if error:
            request.failure.CopyFrom(application_failure(error, "QueryError"))
        else:
            request.query_result.CopyFrom(payloads(result))
        self.call("RespondQueryTaskCompleted", request)

    # ---- activity tasks ------------------------------------------------------------

    def poll_activity(self, timeout: float = CALL_TIMEOUT) -> api.PollActivityTaskQueueResponse:
        """Polls an activity task; an empty answer ends the program."""
        task = self.call(
            "PollActivityTaskQueue",
            api.PollActivityTaskQueueRequest(
                namespace=self.namespace,
                task_queue=taskqueue.TaskQueue(name=self.queue),
                identity=IDENTITY,
            ),
            timeout=timeout,
        )
        if not task.task_token:
            raise Stopped("the poll ended empty")
        return task

    def poll_activities(self, count: int) -> dict[str, api.PollActivityTaskQueueResponse]:
        """Polls several activity tasks by activity ID.

        Tasks of one completion come in any order: they are recorded sorted.
        """
        begun = len(self.steps)
        tasks = [self.poll_activity() for _ in range(count)]
        self.steps[begun:] = sorted(
            self.steps[begun:], key=lambda step: step["reply"].get("activityId", "")
        )
        return {task.activity_id: task for task in tasks}

    def complete_activity(self, task: Any, result: Any = None, fails: bool = False) -> None:
        """Completes an activity."""
        self.call(
            "RespondActivityTaskCompleted",
            api.RespondActivityTaskCompletedRequest(
                namespace=self.namespace,
                task_token=task.task_token,
                result=payloads(result) if result is not None else None,
                identity=IDENTITY,
            ),
            fails=fails,
        )

    def fail_activity(
        self,
        task: Any,
        failure: failure_pb2.Failure,
        fails: bool = False,
        last_heartbeat: Any = None,
    ) -> None:
        """Fails an activity."""
        self.call(
            "RespondActivityTaskFailed",
            api.RespondActivityTaskFailedRequest(
                namespace=self.namespace,
                task_token=task.task_token,
                failure=failure,
                identity=IDENTITY,
                last_heartbeat_details=payloads(last_heartbeat)
                if last_heartbeat is not None
                else None,
            ),
            fails=fails,
        )

    def cancel_activity(self, task: Any, details: Any = None, fails: bool = False) -> None:
        """Says that an activity was cancelled."""
        self.call(
            "RespondActivityTaskCanceled",
            api.RespondActivityTaskCanceledRequest(
                namespace=self.namespace,
                task_token=task.task_token,
                details=payloads(details) if details is not None else None,
                identity=IDENTITY,
            ),
            fails=fails,
        )

    def heartbeat(self, task: Any, *details: Any, fails: bool = False) -> Any:
        """Sends a heartbeat."""
        return self.call(
            "RecordActivityTaskHeartbeat",
            api.RecordActivityTaskHeartbeatRequest(
                namespace=self.namespace,
                task_token=task.task_token,
                details=payloads(*details) if details else None,
                identity=IDENTITY,
            ),
            fails=fails,
        )

    # ---- looking -------------------------------------------------------------------

    def events(self, run_id: str | None = None) -> list[history_pb2.HistoryEvent]:
        """The run's whole history, unrecorded."""
        events: list[history_pb2.HistoryEvent] = []
        token = b""
        while True:
            response = self.stub.GetWorkflowExecutionHistory(
                api.GetWorkflowExecutionHistoryRequest(
                    namespace=self.namespace,
                    execution=self.execution(run_id),
                    next_page_token=token,
                ),
                timeout=CALL_TIMEOUT,
            )
            events.extend(response.history.events)
            token = response.next_page_token
            if not token:
                return events

    def history(self, run_id: str | None = None) -> None:
        """Records the run's whole history."""
        try:
            events = self.events(run_id)
        except grpc.RpcError as error:
            self.steps.append({"history": self.error(error)})
            raise Stopped("no history") from None
        self.raw.append(history_pb2.History(events=events))
        self.steps.append({"history": [self._shown_event(event) for event in events]})

    def history_from(self, first: int, run_id: str | None = None) -> None:
        """Records the history's events from an event ID on."""
        events = self.events(run_id)[first - 1 :]
        self.steps.append({"history": [self._shown_event(event) for event in events]})

    def _shown_event(self, event: history_pb2.HistoryEvent) -> dict[str, Any]:
        shown = self.normaliser.message(event)
        shown["eventType"] = event_name(event)
        return shown

    def await_event(self, kind: str, count: int = 1, timeout: float = 20.0) -> None:
        """Waits until the history holds `count` events of a kind."""
        self.await_condition(
            lambda: sum(event_name(e) == kind for e in self.events()) >= count,
            f"{count} {kind}",
            timeout,
        )

    def await_condition(
        self, reached: Callable[[], bool], what: str, timeout: float = 20.0
    ) -> None:
        """Waits for something with a bound."""
        deadline = time.monotonic() + timeout
        while not reached():
            if time.monotonic() > deadline:
                self.note("never", what)
                raise Stopped(f"never saw {what}")
            time.sleep(0.02)

    def describe(self, run_id: str | None = None, quiet: bool = False) -> Any:
        """Describes the run and records the answer."""
        return self.call(
            "DescribeWorkflowExecution",
            api.DescribeWorkflowExecutionRequest(
                namespace=self.namespace, execution=self.execution(run_id)
            ),
            quiet=quiet,
            shown=self._shown_description,
        )

    def _shown_description(self, response: Any) -> dict[str, Any]:
        shown = self.normaliser.message(response)
        # A server keeps them in a map.
        shown.get("pendingActivities", []).sort(key=lambda pending: pending["activityId"])
        shown.get("pendingChildren", []).sort(key=lambda pending: int(pending["initiatedId"]))
        return shown


class Question:
    """A query that was asked and is not answered yet."""

    def __init__(self, tape: Tape, call: Any) -> None:
        self._tape = tape
        self._call = call

    def done(self) -> bool:
        """Whether the server has answered."""
        return self._call.done()

    def __call__(self) -> None:
        """Waits for the answer and records it."""
        tape = self._tape
        try:
            reply = tape.normaliser.message(self._call.result())
            tape.steps.append({"call": "QueryWorkflow", "reply": reply})
        except grpc.RpcError as error:
            tape.steps.append({"call": "QueryWorkflow", "error": tape.error(error)})


def event_name(event: history_pb2.HistoryEvent) -> str:
    """The event's type without its prefix."""
    return event_type.EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")


def _message(text: str) -> str:
    """An error's message without what differs between two runs."""
    return re.sub(r"\b\d{6,}\b", "$number", text)
