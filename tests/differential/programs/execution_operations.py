"""What is done to whole runs beside their work: eager starts, options, attached requests."""

from __future__ import annotations

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from temporalio.api.common.v1 import message_pb2 as common
from temporalio.api.sdk.v1 import user_metadata_pb2 as sdk
from temporalio.api.workflow.v1 import message_pb2 as workflow
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import IDENTITY, Tape, payload, seconds
from programs import program

USE_EXISTING = 2
TERMINATE_EXISTING = 3


def a_link(t: Tape) -> common.Link:
    """A link to some event."""
    return common.Link(
        workflow_event=common.Link.WorkflowEvent(
            namespace=t.namespace,
            workflow_id="other",
            run_id="11111111-2222-3333-4444-555555555555",
        )
    )


def update_options(
    t: Tape, options: Any, *paths: str, fails: bool = False, execution: Any = None
) -> None:
    """Changes a run's options."""
    request = api.UpdateWorkflowExecutionOptionsRequest(
        namespace=t.namespace,
        workflow_execution=execution or t.execution(),
        workflow_execution_options=options,
        update_mask=FieldMask(paths=paths) if paths else None,
        identity=IDENTITY,
    )
    t.call("UpdateWorkflowExecutionOptions", request, fails=fails)


def start(t: Tape, **fields: Any) -> Any:
    """Starts, and records the first task's history as the events' names."""
    response = t.call(
        "StartWorkflowExecution", t.start_request(**fields), shown=lambda r: _shown(t, r)
    )
    t.run_id = response.run_id
    return response


def _shown(t: Tape, response: Any) -> dict[str, Any]:
    shown = t.normaliser.message(response)
    # A clock of the server's own storage.
    shown.pop("clock", None)
    return shown


@program
def eager_start(t: Tape) -> None:
    """The first task comes with the answer to the start."""
    task = start(t, request_eager_execution=True).eager_workflow_task
    t.describe()
    # The same request again gets the same task while it is out.
    start(t, request_eager_execution=True)
    start(t)
    t.complete(task, c.timer("t", 60))
    start(t, request_eager_execution=True)
    t.history()
    t.terminate()


@program
def eager_start_delayed(t: Tape) -> None:
    """A start with a delay is not eager."""
    start(t, request_eager_execution=True, workflow_start_delay=seconds(1))
    t.complete(t.poll(), c.complete())
    t.history()


@program
def eager_start_times_out(t: Tape) -> None:
    """An eager task that is not answered goes to the queue."""
    start(t, request_eager_execution=True, workflow_task_timeout=seconds(1))
    task = t.poll()
    start(t, request_eager_execution=True)
    t.complete(task, c.complete())
    t.history()


@program
def eager_start_replaces(t: Tape) -> None:
    """An eager start that ends an open run."""
    start(t)
    fields = {"request_id": "other-" + t.unique, "workflow_id_conflict_policy": TERMINATE_EXISTING}
    start(t, request_eager_execution=True, **fields)
    t.history()
    t.terminate()


@program
def options_of_run(t: Tape) -> None:
    """A run's priority, changed as a whole and in parts."""
    t.start()
    options = workflow.WorkflowExecutionOptions
    update_options(t, options(priority=common.Priority(priority_key=2)), "priority")
    t.describe()
    update_options(t, options(priority=common.Priority(priority_key=2)), "priority")
    parts = common.Priority(priority_key=1, fairness_key="k", fairness_weight=2)
    update_options(t, options(priority=parts), "priority.fairness_key", "priority.fairness_weight")
    task = t.poll()
    update_options(t, options(priority=parts), "priority.priority_key")
    t.describe()
    t.complete(task, c.activity("a", t.queue))
    t.poll_activity()
    update_options(t, options(), "priority")
    t.describe()
    t.history()
    t.terminate()
    update_options(t, options(), "priority", fails=True)


@program
def options_of_run_refused(t: Tape) -> None:
    """What is refused."""
    t.start()
    options = workflow.WorkflowExecutionOptions
    update_options(t, options(), fails=True)
    update_options(t, None, "priority", fails=True)
    for path in (
        "no",
        "priority.no",
        "Priority",
        "priority.priorityKey",
        "priority.priority_key.x",
    ):
        update_options(t, options(), path, fails=True)
    update_options(t, options(priority=common.Priority(priority_key=-1)), "priority", fails=True)
    update_options(t, options(priority=common.Priority(fairness_weight=-1)), "priority", fails=True)
    for name in ("", "no-" + t.unique):
        execution = common.WorkflowExecution(workflow_id=name)
        update_options(t, options(), "priority", execution=execution, fails=True)
    t.terminate()


@program
def attach_to_open_run(t: Tape) -> None:
    """Starts that find the run open attach their request ID and links."""
    t.start()
    fields: dict[str, Any] = {"workflow_id_conflict_policy": USE_EXISTING}
    conflict = workflow.OnConflictOptions
    request = t.start_request(
        request_id="second-" + t.unique,
        on_conflict_options=conflict(attach_request_id=True, attach_links=True),
        **fields,
    )
    request.links.append(a_link(t))
    t.call("StartWorkflowExecution", request)
    # The same again is the same request.
    t.call("StartWorkflowExecution", request)
    t.describe()
    task = t.poll()
    request.request_id = "third-" + t.unique
    t.call("StartWorkflowExecution", request)
    t.describe()
    t.complete(task, c.timer("t", 60))
    t.describe()
    request.request_id = "fourth-" + t.unique
    request.on_conflict_options.CopyFrom(conflict())
    t.call("StartWorkflowExecution", request)
    t.history()
    t.terminate()
    # It stays that run's request after the run closed.
    request.request_id = "second-" + t.unique
    request.on_conflict_options.CopyFrom(conflict(attach_request_id=True))
    t.call("StartWorkflowExecution", request)
    t.call("StartWorkflowExecution", t.start_request())


@program
def links_on_events(t: Tape) -> None:
    """Links that come with a start, signal, cancel request and terminate stand on the events."""
    request = t.start_request()
    request.links.append(a_link(t))
    t.run_id = t.call("StartWorkflowExecution", request).run_id
    links = [a_link(t)]
    execution = {"namespace": t.namespace, "workflow_execution": t.execution()}
    t.call(
        "SignalWorkflowExecution",
        api.SignalWorkflowExecutionRequest(**execution, signal_name="s", links=links),
        quiet=True,
    )
    t.call(
        "RequestCancelWorkflowExecution",
        api.RequestCancelWorkflowExecutionRequest(**execution, links=links),
    )
    t.call(
        "TerminateWorkflowExecution",
        api.TerminateWorkflowExecutionRequest(**execution, links=links),
    )
    t.history()
    for request in (
        api.SignalWorkflowExecutionRequest(**execution, signal_name="s", links=links * 11),
        api.RequestCancelWorkflowExecutionRequest(**execution, links=links * 11),
        api.TerminateWorkflowExecutionRequest(**execution, links=links * 11),
    ):
        t.call(request.DESCRIPTOR.name.removesuffix("Request"), request, fails=True)


@program
def summaries(t: Tape) -> None:
    """User metadata of the run, its timers, activities, markers and its close."""
    metadata = sdk.UserMetadata(summary=payload("sum"), details=payload("det"))
    t.start(user_metadata=metadata)
    commands = [
        c.timer("t", 60),
        c.activity("a", t.queue),
        c.marker("m"),
        c.memo(k=1),
        c.complete(),
    ]
    for command in commands:
        command.user_metadata.CopyFrom(metadata)
    t.complete(t.poll(), *commands)
    t.describe()
    t.history()
