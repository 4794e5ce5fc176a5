"""Commands of a workflow task's completion, as an SDK's core writes them."""

from __future__ import annotations

from typing import Any, Sequence

from temporalio.api.command.v1 import message_pb2 as command
from temporalio.api.common.v1 import message_pb2 as common
from temporalio.api.enums.v1 import command_type_pb2 as command_type
from temporalio.api.failure.v1 import message_pb2 as failure_pb2
from temporalio.api.taskqueue.v1 import message_pb2 as taskqueue

from driver import payload, payloads, seconds

TYPE = command_type


def retry_policy(
    initial: float | None = None,
    coefficient: float = 0,
    maximum: float | None = None,
    attempts: int = 0,
    non_retryable: Sequence[str] = (),
) -> common.RetryPolicy:
    """A retry policy; what is not given is left for the server to fill in."""
    policy = common.RetryPolicy(
        backoff_coefficient=coefficient,
        maximum_attempts=attempts,
        non_retryable_error_types=non_retryable,
    )
    if initial is not None:
        policy.initial_interval.CopyFrom(seconds(initial))
    if maximum is not None:
        policy.maximum_interval.CopyFrom(seconds(maximum))
    return policy


def _fill(
    asked: Any,
    times: dict[str, float | None],
    *,
    input: Any = None,
    retry: common.RetryPolicy | None = None,
    memo: dict[str, Any] | None = None,
    attributes: dict[str, common.Payload] | None = None,
    header: dict[str, Any] | None = None,
) -> None:
    """Fills in what is given; what is not stays unset."""
    for name, time in times.items():
        if time is not None:
            getattr(asked, name).CopyFrom(seconds(time))
    if input is not None:
        asked.input.CopyFrom(payloads(input))
    if retry is not None:
        asked.retry_policy.CopyFrom(retry)
    for key, value in (memo or {}).items():
        asked.memo.fields[key].CopyFrom(payload(value))
    for key, item in (attributes or {}).items():
        asked.search_attributes.indexed_fields[key].CopyFrom(item)
    for key, value in (header or {}).items():
        asked.header.fields[key].CopyFrom(payload(value))


def activity(
    activity_id: str,
    queue: str = "",
    *,
    type: str = "act",
    input: Any = None,
    schedule_to_close: float | None = None,
    schedule_to_start: float | None = None,
    start_to_close: float | None = 10,
    heartbeat: float | None = None,
    retry: common.RetryPolicy | None = None,
    eager: bool = False,
    header: dict[str, Any] | None = None,
) -> command.Command:
    """Schedule an activity; times in seconds."""
    attributes = command.ScheduleActivityTaskCommandAttributes(
        activity_id=activity_id,
        activity_type=common.ActivityType(name=type),
        task_queue=taskqueue.TaskQueue(name=queue),
        request_eager_execution=eager,
    )
    times = {
        "schedule_to_close_timeout": schedule_to_close,
        "schedule_to_start_timeout": schedule_to_start,
        "start_to_close_timeout": start_to_close,
        "heartbeat_timeout": heartbeat,
    }
    _fill(attributes, times, input=input, retry=retry, header=header)
    return command.Command(
        command_type=TYPE.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK,
        schedule_activity_task_command_attributes=attributes,
    )


def cancel_activity(scheduled_event_id: int) -> command.Command:
    """Ask an activity to cancel."""
    return command.Command(
        command_type=TYPE.COMMAND_TYPE_REQUEST_CANCEL_ACTIVITY_TASK,
        request_cancel_activity_task_command_attributes=(
            command.RequestCancelActivityTaskCommandAttributes(
                scheduled_event_id=scheduled_event_id
            )
        ),
    )


def timer(timer_id: str, after: float | None) -> command.Command:
    """Start a timer of `after` seconds."""
    attributes = command.StartTimerCommandAttributes(timer_id=timer_id)
    if after is not None:
        attributes.start_to_fire_timeout.CopyFrom(seconds(after))
    return command.Command(
        command_type=TYPE.COMMAND_TYPE_START_TIMER,
        start_timer_command_attributes=attributes,
    )


def cancel_timer(timer_id: str) -> command.Command:
    """Cancel a timer."""
    return command.Command(
        command_type=TYPE.COMMAND_TYPE_CANCEL_TIMER,
        cancel_timer_command_attributes=command.CancelTimerCommandAttributes(timer_id=timer_id),
    )


def complete(result: Any = None) -> command.Command:
    """Complete the workflow."""
    return command.Command(
        command_type=TYPE.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
        complete_workflow_execution_command_attributes=(
            command.CompleteWorkflowExecutionCommandAttributes(
                result=payloads(result) if result is not None else None
            )
        ),
    )


def fail(failure: failure_pb2.Failure | None) -> command.Command:
    """Fail the workflow."""
    return command.Command(
        command_type=TYPE.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION,
        fail_workflow_execution_command_attributes=(
            command.FailWorkflowExecutionCommandAttributes(failure=failure)
        ),
    )


def cancel(details: Any = None) -> command.Command:
    """Close the workflow as cancelled."""
    return command.Command(
        command_type=TYPE.COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION,
        cancel_workflow_execution_command_attributes=(
            command.CancelWorkflowExecutionCommandAttributes(
                details=payloads(details) if details is not None else None
            )
        ),
    )


def marker(
    name: str,
    details: dict[str, Any] | None = None,
    failure: failure_pb2.Failure | None = None,
) -> command.Command:
    """Record a marker."""
    attributes = command.RecordMarkerCommandAttributes(marker_name=name, failure=failure)
    for key, value in (details or {}).items():
        attributes.details[key].CopyFrom(payloads(value))
    return command.Command(
        command_type=TYPE.COMMAND_TYPE_RECORD_MARKER,
        record_marker_command_attributes=attributes,
    )


def search_attributes(**values: common.Payload) -> command.Command:
    """Upsert search attributes."""
    attributes = command.UpsertWorkflowSearchAttributesCommandAttributes()
    for key, value in values.items():
        attributes.search_attributes.indexed_fields[key].CopyFrom(value)
    return command.Command(
        command_type=TYPE.COMMAND_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES,
        upsert_workflow_search_attributes_command_attributes=attributes,
    )


def memo(**values: Any) -> command.Command:
    """Merge into the memo; None deletes a key."""
    attributes = command.ModifyWorkflowPropertiesCommandAttributes()
    for key, value in values.items():
        attributes.upserted_memo.fields[key].CopyFrom(
            common.Payload(metadata={"encoding": b"binary/null"})
            if value is None
            else payload(value)
        )
    return command.Command(
        command_type=TYPE.COMMAND_TYPE_MODIFY_WORKFLOW_PROPERTIES,
        modify_workflow_properties_command_attributes=attributes,
    )


def child(
    workflow_id: str,
    queue: str = "",
    *,
    type: str = "child",
    input: Any = None,
    close: int = 0,
    reuse: int = 0,
    execution: float | None = None,
    run: float | None = None,
    task: float | None = None,
    retry: common.RetryPolicy | None = None,
    cron: str = "",
    control: str = "",
    namespace: str = "",
    memo: dict[str, Any] | None = None,
    attributes: dict[str, common.Payload] | None = None,
    header: dict[str, Any] | None = None,
) -> command.Command:
    """Start a child workflow; `close` is its ParentClosePolicy."""
    asked = command.StartChildWorkflowExecutionCommandAttributes(
        namespace=namespace,
        workflow_id=workflow_id,
        workflow_type=common.WorkflowType(name=type),
        parent_close_policy=close,  # type: ignore[arg-type]
        workflow_id_reuse_policy=reuse,  # type: ignore[arg-type]
        cron_schedule=cron,
        control=control,
    )
    if queue:
        asked.task_queue.name = queue
    times = {
        "workflow_execution_timeout": execution,
        "workflow_run_timeout": run,
        "workflow_task_timeout": task,
    }
    _fill(
        asked,
        times,
        input=input,
        retry=retry,
        memo=memo,
        attributes=attributes,
        header=header,
    )
    return command.Command(
        command_type=TYPE.COMMAND_TYPE_START_CHILD_WORKFLOW_EXECUTION,
        start_child_workflow_execution_command_attributes=asked,
    )


def signal_external(
    workflow_id: str,
    name: str = "s",
    value: Any = None,
    *,
    run_id: str = "",
    child_only: bool = False,
    control: str = "",
    namespace: str = "",
    header: dict[str, Any] | None = None,
) -> command.Command:
    """Signal another workflow."""
    asked = command.SignalExternalWorkflowExecutionCommandAttributes(
        namespace=namespace,
        execution=common.WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        signal_name=name,
        child_workflow_only=child_only,
        control=control,
    )
    if value is not None:
        asked.input.CopyFrom(payloads(value))
    for key, item in (header or {}).items():
        asked.header.fields[key].CopyFrom(payload(item))
    return command.Command(
        command_type=TYPE.COMMAND_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION,
        signal_external_workflow_execution_command_attributes=asked,
    )


def cancel_external(
    workflow_id: str,
    *,
    run_id: str = "",
    child_only: bool = False,
    control: str = "",
    reason: str = "",
    namespace: str = "",
) -> command.Command:
    """Ask another workflow to cancel."""
    return command.Command(
        command_type=TYPE.COMMAND_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION,
        request_cancel_external_workflow_execution_command_attributes=(
            command.RequestCancelExternalWorkflowExecutionCommandAttributes(
                namespace=namespace,
                workflow_id=workflow_id,
                run_id=run_id,
                child_workflow_only=child_only,
                control=control,
                reason=reason,
            )
        ),
    )


def continue_as_new(
    *,
    type: str = "",
    queue: str = "",
    input: Any = None,
    run: float | None = None,
    task: float | None = None,
    backoff: float | None = None,
    retry: common.RetryPolicy | None = None,
    cron: str = "",
    memo: dict[str, Any] | None = None,
    attributes: dict[str, common.Payload] | None = None,
    header: dict[str, Any] | None = None,
    initiator: int = 0,
    failure: failure_pb2.Failure | None = None,
    last_result: Any = None,
) -> command.Command:
    """Continue as new."""
    asked = command.ContinueAsNewWorkflowExecutionCommandAttributes(
        cron_schedule=cron,
        initiator=initiator,  # type: ignore[arg-type]
        failure=failure,
    )
    if type:
        asked.workflow_type.name = type
    if queue:
        asked.task_queue.name = queue
    if last_result is not None:
        asked.last_completion_result.CopyFrom(payloads(last_result))
    times = {
        "workflow_run_timeout": run,
        "workflow_task_timeout": task,
        "backoff_start_interval": backoff,
    }
    _fill(
        asked,
        times,
        input=input,
        retry=retry,
        memo=memo,
        attributes=attributes,
        header=header,
    )
    return command.Command(
        command_type=TYPE.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION,
        continue_as_new_workflow_execution_command_attributes=asked,
    )
