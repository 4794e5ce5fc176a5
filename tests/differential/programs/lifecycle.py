"""The plain ways through a run: hello, markers, memo and search attributes, closing."""

from __future__ import annotations

from temporalio.api.common.v1 import message_pb2 as common
from temporalio.api.sdk.v1 import task_complete_metadata_pb2, user_metadata_pb2
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import Tape, application_failure, payload
from programs import program


@program
def hello(t: Tape) -> None:
    """Start, one activity, complete."""
    t.start()
    task = t.poll()
    t.complete(task, c.activity("a1", t.queue, input="world"))
    act = t.poll_activity()
    t.complete_activity(act, "Hello, world!")
    t.complete(t.poll(), c.complete("done"))
    t.history()
    t.describe()


@program
def complete_at_once(t: Tape) -> None:
    """The first task completes the run without a result."""
    t.start()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def fail_workflow(t: Tape) -> None:
    """The workflow fails; without a retry policy it stays failed."""
    t.start()
    failure = application_failure("went wrong", "MyError", details=["more", 7])
    failure.cause.CopyFrom(application_failure("because", "Cause"))
    t.complete(t.poll(), c.fail(failure))
    t.history()
    t.describe()


@program
def cancel_accepted(t: Tape) -> None:
    """Cancel, with a second request that changes nothing; the workflow closes cancelled."""
    t.start()
    t.complete(t.poll())
    t.cancel("enough")
    t.cancel("again", request_id="another")
    t.complete(t.poll(), c.cancel("cleaned up"))
    t.history()
    t.cancel("late", request_id="late")
    t.describe()


@program
def cancel_ignored(t: Tape) -> None:
    """Cancel before the first task is started; the workflow completes all the same."""
    t.start()
    t.cancel()
    t.complete(t.poll(), c.complete("anyway"))
    t.history()


@program
def cancel_while_started(t: Tape) -> None:
    """Cancel while a task is started: buffered, then a new task."""
    t.start()
    task = t.poll()
    t.cancel("now")
    t.history()
    t.complete(task, c.timer("t", 60))
    t.complete(t.poll(), c.cancel_timer("t"), c.cancel())
    t.history()


@program
def cancel_first_run_only(t: Tape) -> None:
    """Cancel by first execution run ID: matching and not matching."""
    t.start()
    t.call(
        "RequestCancelWorkflowExecution",
        api.RequestCancelWorkflowExecutionRequest(
            namespace=t.namespace,
            workflow_execution=t.execution(""),
            first_execution_run_id="00000000-0000-4000-8000-000000000000",
            identity="other",
            request_id="r1",
        ),
        fails=True,
    )
    t.call(
        "RequestCancelWorkflowExecution",
        api.RequestCancelWorkflowExecutionRequest(
            namespace=t.namespace,
            workflow_execution=t.execution(""),
            first_execution_run_id=t.run_id,
            identity="other",
            request_id="r2",
        ),
    )
    t.complete(t.poll(), c.cancel())
    t.history()


@program
def terminate(t: Tape) -> None:
    """Terminate with a reason and details; a second terminate is refused."""
    t.start()
    t.complete(t.poll(), c.timer("t", 60), c.activity("a", t.queue))
    t.terminate("operator", details={"why": 1})
    t.history()
    t.describe()
    t.terminate("again", fails=True)


@program
def terminate_while_started(t: Tape) -> None:
    """Terminate while a workflow task is started, with events buffered behind it."""
    t.start()
    task = t.poll()
    t.signal("buffered", 1)
    t.terminate("now")
    t.complete(task, c.complete("too late"), fails=True)
    t.history()


@program
def markers(t: Tape) -> None:
    """Markers with details and failure between other commands, in order."""
    t.start()
    t.complete(
        t.poll(),
        c.marker("core_local_activity", {"data": {"seq": 1}, "result": "r"}),
        c.timer("t", 60),
        c.marker("core_patch", {"data": {"id": "p", "deprecated": False}}),
        c.marker("with-failure", {}, application_failure("local", "Local")),
        c.complete("end"),
    )
    t.history()


@program
def memo_and_search_attributes(t: Tape) -> None:
    """Memo and search attributes at the start, upserted and removed on the way."""
    memo = common.Memo()
    memo.fields["first"].CopyFrom(payload("one"))
    memo.fields["second"].CopyFrom(payload({"two": 2}))
    attributes = common.SearchAttributes()
    attributes.indexed_fields["EverspanKeyword"].CopyFrom(payload("blue"))
    t.start(memo=memo, search_attributes=attributes)
    t.describe()
    number = payload(7)
    number.metadata["type"] = b"Int"
    t.complete(
        t.poll(),
        c.search_attributes(EverspanInt=number),
        c.memo(second=None, third="three"),
        force=True,
    )
    t.describe()
    removed = common.Payload(metadata={"encoding": b"binary/null"})
    t.complete(t.poll(), c.search_attributes(EverspanKeyword=removed), c.complete())
    t.history()
    t.describe()


@program
def metadata(t: Tape) -> None:
    """User metadata on start and commands, SDK metadata and flags on the completion."""
    t.start(
        user_metadata=user_metadata_pb2.UserMetadata(
            summary=payload("a summary"), details=payload("the details")
        )
    )
    timer = c.timer("t", 60)
    timer.user_metadata.summary.CopyFrom(payload("timer summary"))
    act = c.activity("a", t.queue)
    act.user_metadata.summary.CopyFrom(payload("activity summary"))
    t.complete(
        t.poll(),
        timer,
        act,
        force=True,
        sdk_metadata=task_complete_metadata_pb2.WorkflowTaskCompletedMetadata(
            core_used_flags=[1, 2], lang_used_flags=[3], sdk_name="driver", sdk_version="1"
        ),
    )
    t.describe()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def nil_fields(t: Tape) -> None:
    """Fields without a value are left out of what begins a run, and taken away by an upsert."""
    none = common.Payload(metadata={"encoding": b"binary/null"})
    empty = common.Payload(metadata={"encoding": b"json/plain", "type": b"Int"}, data=b"[]")
    null = common.Payload(metadata={"encoding": b"json/plain"}, data=b"null")
    memo = common.Memo(fields={"kept": payload("m"), "none": none, "empty": empty, "null": null})
    number = payload(7)
    number.metadata["type"] = b"Int"
    attributes = common.SearchAttributes(indexed_fields={"EverspanInt": empty})
    t.start(memo=memo, search_attributes=attributes)
    t.describe()
    t.complete(t.poll(), c.search_attributes(EverspanInt=number), c.memo(second="two", kept=None))
    t.describe()
    t.signal("go on")
    t.complete(t.poll(), c.search_attributes(EverspanInt=empty), c.memo(second=[]))
    t.describe()
    child = c.child(
        t.named("child"),
        t.named("child"),
        memo={"n": None, "a": []},
        attributes={"EverspanInt": none},
    )
    t.signal("go on")
    t.complete(t.poll(), child)
    t.await_event("CHILD_WORKFLOW_EXECUTION_STARTED")
    t.complete(
        t.poll(), c.continue_as_new(memo={"n": None, "k": 1}, attributes={"EverspanInt": empty})
    )
    t.history()
