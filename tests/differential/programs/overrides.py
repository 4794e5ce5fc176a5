"""What a start may ask for that nothing here, or no setting, allows: versions, callbacks."""

from __future__ import annotations

from google.protobuf.field_mask_pb2 import FieldMask
from temporalio.api.enums.v1 import workflow_pb2 as enums
from temporalio.api.workflow.v1 import message_pb2 as workflow
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import IDENTITY, Tape, application_failure
from programs import program

USE_EXISTING = enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING


def versioning(auto: bool | None = None, version: str = "") -> workflow.VersioningOverride:
    """A versioning override: with the current version, or pinned to one."""
    override = workflow.VersioningOverride()
    if auto is not None:
        override.auto_upgrade = auto
    if version:
        override.pinned.behavior = 1  # type: ignore[assignment]
        override.pinned.version.deployment_name = "deployment"
        override.pinned.version.build_id = version
    return override


def update_versioning(
    t: Tape, override: workflow.VersioningOverride | None, fails: bool = False, path: str = ""
) -> None:
    """Changes the run's versioning override."""
    options = workflow.WorkflowExecutionOptions(versioning_override=override)
    request = api.UpdateWorkflowExecutionOptionsRequest(
        namespace=t.namespace,
        workflow_execution=t.execution(),
        workflow_execution_options=options,
        update_mask=FieldMask(paths=[path or "versioning_override"]),
        identity=IDENTITY,
    )
    t.call("UpdateWorkflowExecutionOptions", request, fails=fails)


@program
def versioning_override(t: Tape) -> None:
    """A run told to go with the current version, told otherwise, and the runs that follow."""
    t.start(versioning_override=versioning(auto=True), retry_policy=c.retry_policy(0.1, attempts=2))
    t.describe()
    t.complete(t.poll(), c.fail(application_failure("again", "E")))
    t.history()
    task = t.poll()
    t.run_id = task.workflow_execution.run_id
    t.describe()
    update_versioning(t, None)
    t.describe()
    update_versioning(t, None)
    update_versioning(t, versioning(auto=True))
    update_versioning(t, versioning(auto=True))
    t.describe()
    t.complete(task)
    t.signal("go on")
    t.complete(t.poll(), c.continue_as_new())
    t.history()
    task = t.poll()
    t.run_id = task.workflow_execution.run_id
    t.complete(task, c.complete())
    t.history()


@program
def versioning_override_refused(t: Tape) -> None:
    """A version that no worker has, and what makes no sense."""
    for override in (
        versioning(version="1"),
        versioning(auto=False),
        workflow.VersioningOverride(),
        workflow.VersioningOverride(behavior=1),
        workflow.VersioningOverride(behavior=2, pinned_version="d.1"),
        workflow.VersioningOverride(behavior=1, pinned_version="d.1"),
        workflow.VersioningOverride(pinned=workflow.VersioningOverride.PinnedOverride(behavior=1)),
    ):
        t.start(versioning_override=override, fails=True)
    t.start(versioning_override=workflow.VersioningOverride(behavior=2))
    t.describe()
    update_versioning(t, versioning(version="1"), fails=True)
    update_versioning(t, versioning(auto=False), fails=True)
    update_versioning(t, versioning(auto=True), fails=True, path="versioning_override.behavior")
    update_versioning(t, versioning(auto=True), fails=True, path="versioning_override.auto_upgrade")
    t.terminate()
    t.history()


@program
def callbacks_refused(t: Tape) -> None:
    """Addresses that no setting allows."""
    for url in (
        "http://localhost:9/x",
        "https://example.com",
        "ftp://x",
        "",
        "http://",
        "x" * 1001,
    ):
        request = t.start_request()
        request.completion_callbacks.add().nexus.url = url
        t.call("StartWorkflowExecution", request, fails=True)
    request = t.start_request()
    request.completion_callbacks.add().internal.data = b"x"
    t.call("StartWorkflowExecution", request, fails=True)
    options = workflow.OnConflictOptions(
        attach_request_id=True, attach_completion_callbacks=True, attach_links=True
    )
    t.start()
    t.start(
        request_id="another", on_conflict_options=options, workflow_id_conflict_policy=USE_EXISTING
    )
    t.terminate()
    t.history()
