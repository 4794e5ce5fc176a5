"""Starting: request IDs, conflicts and reuse of IDs, requests that are refused."""

from __future__ import annotations

from temporalio.api.common.v1 import message_pb2 as common
from temporalio.api.enums.v1 import workflow_pb2 as enums
from temporalio.api.taskqueue.v1 import message_pb2 as taskqueue
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import Tape, payload, seconds
from programs import program


@program
def start_request_ids(t: Tape) -> None:
    """One request ID gives one run, open or closed; another is a conflict."""
    t.start()
    t.start()
    t.start(request_id=f"another-{t.unique}", fails=True)
    t.start()
    t.complete(t.poll(), c.complete())
    t.start()
    t.history()


@program
def start_reuse_policies(t: Tape) -> None:
    """What each reuse policy says to a completed and to a failed run before."""
    policies = (
        enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
        enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
        enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
    )
    t.start()
    t.complete(t.poll(), c.complete())
    for policy in policies[:2]:
        t.start(request_id=f"{policy}-{t.unique}", workflow_id_reuse_policy=policy, fails=True)
    t.start(request_id=f"allowed-{t.unique}", workflow_id_reuse_policy=policies[2])
    t.terminate()
    t.start(request_id=f"rejected-{t.unique}", workflow_id_reuse_policy=policies[0], fails=True)
    t.start(request_id=f"failed-only-{t.unique}", workflow_id_reuse_policy=policies[1])
    t.history()
    t.terminate()


@program
def start_conflict_policies(t: Tape) -> None:
    """What each conflict policy does to an open run."""
    t.start()
    first = t.run_id
    t.start(
        request_id=f"fail-{t.unique}",
        workflow_id_conflict_policy=enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
        fails=True,
    )
    t.start(
        request_id=f"use-{t.unique}",
        workflow_id_conflict_policy=enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
    )
    t.history()
    t.start(
        request_id=f"terminate-{t.unique}",
        workflow_id_conflict_policy=enums.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING,
    )
    t.history(first)
    t.history()
    t.start(
        request_id=f"terminate-reuse-{t.unique}",
        workflow_id_reuse_policy=enums.WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING,
    )
    t.history()
    t.start(
        request_id=f"both-{t.unique}",
        workflow_id_reuse_policy=enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
        workflow_id_conflict_policy=enums.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING,
        fails=True,
    )
    t.start(
        request_id=f"invalid-{t.unique}",
        workflow_id_reuse_policy=enums.WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING,
        workflow_id_conflict_policy=enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
        fails=True,
    )


@program
def start_refused(t: Tape) -> None:
    """Start requests that the server does not take."""
    unknown = common.SearchAttributes()
    unknown.indexed_fields["NobodyKnowsMe"].CopyFrom(payload("x"))
    wrong = common.SearchAttributes()
    wrong.indexed_fields["EverspanInt"].CopyFrom(payload("not a number"))
    for fields in (
        {"workflow_id": ""},
        {"workflow_id": "w" * 1001},
        {"workflow_type": None},
        {"workflow_type": common.WorkflowType(name="t" * 1001)},
        {"task_queue": None},
        {"task_queue": taskqueue.TaskQueue(name="q" * 1001)},
        {"task_queue": taskqueue.TaskQueue(name="/_sys/reserved")},
        {"namespace": ""},
        {"namespace": "nowhere"},
        {"request_id": "r" * 1001},
        {"workflow_execution_timeout": seconds(-1)},
        {"workflow_run_timeout": seconds(-1)},
        {"workflow_task_timeout": seconds(-1)},
        {"workflow_start_delay": seconds(-1)},
        {"workflow_start_delay": seconds(1), "cron_schedule": "* * * * *"},
        {"retry_policy": c.retry_policy(initial=-1)},
        {"retry_policy": c.retry_policy(coefficient=0.5)},
        {"search_attributes": unknown},
        {"search_attributes": wrong},
    ):
        t.note("start with", sorted(fields))
        t.start(fails=None, **fields)
        if t.run_id:
            with t.muted():
                t.terminate()
            t.note("taken", True)


@program
def start_full(t: Tape) -> None:
    """Every plain field of a start, and how it stands in the first event."""
    header = common.Header()
    header.fields["trace"].CopyFrom(payload("id"))
    t.start(
        header=header,
        retry_policy=c.retry_policy(attempts=1),
        workflow_task_timeout=seconds(7),
        workflow_run_timeout=seconds(70),
        workflow_execution_timeout=seconds(700),
        priority=common.Priority(priority_key=2),
        input=None,
    )
    t.history()
    t.describe()
    t.terminate()


@program
def start_without_request_id(t: Tape) -> None:
    """Without a request ID every start is a new request."""
    t.start(request_id="")
    t.start(request_id="", fails=True)
    t.describe()
    t.terminate()


@program
def unknown_runs(t: Tape) -> None:
    """Calls about runs that do not exist or are not well named."""
    for workflow_id, run_id in (
        (t.workflow_id, ""),
        (t.workflow_id, "00000000-0000-4000-8000-000000000000"),
        (t.workflow_id, "not-a-uuid"),
        ("", ""),
    ):
        execution = common.WorkflowExecution(workflow_id=workflow_id, run_id=run_id)
        t.note("named", [workflow_id and t.normaliser.text(workflow_id)[:20], run_id])
        space = {"namespace": t.namespace}
        t.call(
            "DescribeWorkflowExecution",
            api.DescribeWorkflowExecutionRequest(execution=execution, **space),
            fails=True,
        )
        t.call(
            "GetWorkflowExecutionHistory",
            api.GetWorkflowExecutionHistoryRequest(execution=execution, **space),
            fails=True,
        )
        t.call(
            "GetWorkflowExecutionHistoryReverse",
            api.GetWorkflowExecutionHistoryReverseRequest(execution=execution, **space),
            fails=True,
        )
        t.call(
            "RequestCancelWorkflowExecution",
            api.RequestCancelWorkflowExecutionRequest(workflow_execution=execution, **space),
            fails=True,
        )
        t.call(
            "TerminateWorkflowExecution",
            api.TerminateWorkflowExecutionRequest(workflow_execution=execution, **space),
            fails=True,
        )
        t.call(
            "ResetStickyTaskQueue",
            api.ResetStickyTaskQueueRequest(execution=execution, **space),
            fails=True,
        )
        query = api.QueryWorkflowRequest(execution=execution, **space)
        query.query.query_type = "q"
        t.call("QueryWorkflow", query, fails=True)


@program
def signal_with_start_again(t: Tape) -> None:
    """The request ID of a signal-with-start, again: while the run is open, and after."""

    def ask(request_id: str) -> None:
        start = t.start_request()
        answer = t.call(
            "SignalWithStartWorkflowExecution",
            api.SignalWithStartWorkflowExecutionRequest(
                namespace=t.namespace,
                workflow_id=t.workflow_id,
                workflow_type=start.workflow_type,
                task_queue=start.task_queue,
                request_id=f"{request_id}{t.unique}",
                signal_name="s",
                identity="me",
            ),
        )
        t.note("same run", answer.run_id == t.run_id)
        t.run_id = answer.run_id

    ask("a")
    ask("a")
    t.complete(t.poll(), c.complete("end"))
    t.history()
    ask("a")
    ask("b")
    t.history()
