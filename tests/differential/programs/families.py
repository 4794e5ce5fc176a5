"""Workflows with each other: children, and signals and cancels between workflows."""

from __future__ import annotations

from temporalio.api.taskqueue.v1 import message_pb2 as taskqueue
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import Tape, application_failure, payload
from programs import program

TERMINATE, ABANDON, REQUEST_CANCEL = 1, 2, 3
INTERNAL = "temporal-sys-per-ns-tq"


def initiate(t: Tape, *commands) -> None:
    """Starts the program's workflow; its first task asks for `commands`."""
    t.start()
    t.complete(t.poll(), *commands)


def started(t: Tape, count: int = 1) -> None:
    """Waits until children started, and takes the task that tells of it."""
    t.await_event("CHILD_WORKFLOW_EXECUTION_STARTED", count)
    t.complete(t.poll())


@program
def child_completes(t: Tape) -> None:
    """A child with everything set; its result comes back."""
    number = payload(7)
    number.metadata["type"] = b"Int"
    initiate(
        t,
        c.child(
            t.named("child"),
            t.named("child"),
            input="in",
            execution=100,
            run=50,
            task=5,
            control="mine",
            memo={"m": 1},
            attributes={"EverspanInt": number},
            header={"h": "v"},
            retry=c.retry_policy(1, attempts=3),
        ),
    )
    started(t)
    t.describe()
    with t.other("child"):
        task = t.poll()
        t.describe()
        t.complete(task, c.complete("result"))
        t.history()
    task = t.poll()
    t.complete(task, c.complete())
    t.history()
    t.describe()


@program
def child_fails(t: Tape) -> None:
    """A child that fails without a retry policy."""
    initiate(t, c.child(t.named("child"), t.named("child")))
    started(t)
    with t.other("child"):
        t.complete(t.poll(), c.fail(application_failure("broken", "Broken")))
    t.complete(t.poll(), c.complete())
    t.history()


@program
def child_terminated(t: Tape) -> None:
    """A child that somebody terminates."""
    initiate(t, c.child(t.named("child"), t.named("child")))
    started(t)
    with t.other("child"):
        t.terminate("by hand")
    t.complete(t.poll(), c.complete())
    t.history()


@program
def child_times_out(t: Tape) -> None:
    """A child whose run timeout passes."""
    initiate(t, c.child(t.named("child"), t.named("child"), run=1))
    started(t)
    t.complete(t.poll(), c.complete())
    t.history()
    with t.other("child"):
        t.history()


@program
def child_canceled(t: Tape) -> None:
    """A child that its parent asks to cancel, and that does."""
    initiate(t, c.child(t.named("child"), t.named("child")))
    started(t)
    with t.other("child"):
        t.complete(t.poll())
    t.signal("now")
    t.complete(t.poll(), c.cancel_external(t.named("child"), child_only=True, reason="enough"))
    t.await_event("EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED")
    t.complete(t.poll())
    with t.other("child"):
        t.complete(t.poll(), c.cancel("cleaned"))
        t.history()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def child_canceled_in_its_task(t: Tape) -> None:
    """Start and cancel of a child in one task is refused."""
    t.start()
    t.complete(
        t.poll(),
        c.child(t.named("child"), t.named("child")),
        c.cancel_external(t.named("child")),
        fails=True,
    )
    t.history()


@program
def child_id_in_use(t: Tape) -> None:
    """A child whose ID an open workflow has."""
    with t.other("child"):
        t.start()
    initiate(t, c.child(t.named("child"), t.named("child"), control="again"))
    t.await_event("START_CHILD_WORKFLOW_EXECUTION_FAILED")
    t.complete(t.poll(), c.complete())
    t.history()


@program
def child_id_rejected(t: Tape) -> None:
    """A child whose ID a closed workflow has, with a policy that rejects it, and without."""
    with t.other("child"):
        t.start()
        t.terminate()
    initiate(t, c.child(t.named("child"), t.named("child"), reuse=3))
    t.await_event("START_CHILD_WORKFLOW_EXECUTION_FAILED")
    t.complete(t.poll(), c.child(t.named("child"), t.named("child"), reuse=2))
    started(t)
    t.history()


@program
def child_own_id(t: Tape) -> None:
    """A child with its parent's ID."""
    initiate(t, c.child(t.workflow_id, t.named("child")))
    t.await_event("START_CHILD_WORKFLOW_EXECUTION_FAILED")
    t.complete(t.poll(), c.complete())
    t.history()


@program
def child_events_buffered(t: Tape) -> None:
    """Start and close of a child while its parent's task is with a worker."""
    t.start()
    t.complete(t.poll(), c.child(t.named("child"), t.named("child")), force=True)
    t.await_event("CHILD_WORKFLOW_EXECUTION_STARTED")
    task = t.poll()
    t.signal("between")
    with t.other("child"):
        t.complete(t.poll(), c.complete("r"))
        t.await_event("WORKFLOW_EXECUTION_COMPLETED")
    t.await_condition(
        lambda: not t.stub.DescribeWorkflowExecution(describe(t)).pending_children,
        "no pending child",
    )
    t.complete(task)
    t.complete(t.poll(), c.complete())
    t.history()


def describe(t: Tape):
    """A request to describe the program's run."""
    return api.DescribeWorkflowExecutionRequest(namespace=t.namespace, execution=t.execution())


def closed_parent(t: Tape, policy: int) -> None:
    """A parent with a running child completes; what becomes of the child."""
    initiate(t, c.child(t.named("child"), t.named("child"), close=policy))
    started(t)
    with t.other("child"):
        t.complete(t.poll())
    t.signal("close")
    t.complete(t.poll(), c.complete())
    t.history()


@program
def parent_close_terminates(t: Tape) -> None:
    """The default policy: the child is terminated."""
    closed_parent(t, 0)
    with t.other("child"):
        t.await_event("WORKFLOW_EXECUTION_TERMINATED")
        t.history()


@program
def parent_close_cancels(t: Tape) -> None:
    """REQUEST_CANCEL: the child is asked to cancel."""
    closed_parent(t, REQUEST_CANCEL)
    with t.other("child"):
        t.await_event("WORKFLOW_EXECUTION_CANCEL_REQUESTED")
        t.complete(t.poll(), c.complete())
        t.history()


@program
def parent_close_abandons(t: Tape) -> None:
    """ABANDON: the child goes on."""
    closed_parent(t, ABANDON)
    with t.other("child"):
        t.signal("on")
        t.complete(t.poll(), c.complete())
        t.history()


@program
def parent_terminated(t: Tape) -> None:
    """A parent that is terminated ends its child too."""
    initiate(t, c.child(t.named("child"), t.named("child")))
    started(t)
    t.terminate("whole family")
    with t.other("child"):
        t.await_event("WORKFLOW_EXECUTION_TERMINATED")
        t.history()
    t.history()
    t.describe()


@program
def parent_continues_as_new(t: Tape) -> None:
    """A parent with a child continues as new; what becomes of the child."""
    initiate(t, c.child(t.named("child"), t.named("child")))
    started(t)
    t.signal("go")
    t.complete(t.poll(), c.continue_as_new(input="again", backoff=1))
    t.history()
    with t.other("child"):
        t.await_event("WORKFLOW_EXECUTION_TERMINATED")
        t.history()


@program
def child_continues_as_new(t: Tape) -> None:
    """A child's chain of runs counts as one child."""
    initiate(t, c.child(t.named("child"), t.named("child")))
    started(t)
    with t.other("child"):
        t.complete(t.poll(), c.continue_as_new(type="second", input=2, backoff=1))
        task = t.poll()
        t.describe()
        t.complete(task, c.complete("at last"))
        t.history()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def child_retries(t: Tape) -> None:
    """A child with a retry policy fails once; its parent hears of the second run's result."""
    initiate(
        t,
        c.child(t.named("child"), t.named("child"), retry=c.retry_policy(1, attempts=2)),
    )
    started(t)
    with t.other("child"):
        t.complete(t.poll(), c.fail(application_failure("once", "Once")))
        t.complete(t.poll(), c.complete("second"))
        t.history()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def grandchild(t: Tape) -> None:
    """Roots and parents of three generations."""
    initiate(t, c.child(t.named("child"), t.named("child")))
    started(t)
    with t.other("child"):
        t.complete(t.poll(), c.child(t.named("grandchild"), t.named("grandchild")))
    with t.other("grandchild"):
        t.complete(t.poll(), c.complete("g"))
        t.history()
        t.describe()


@program
def bad_children(t: Tape) -> None:
    """Start commands that are refused."""
    number = payload("text")
    for bad in (
        c.child("", "q"),
        c.child("id", "q", type=""),
        c.child("x" * 1001, "q"),
        c.child("id", "q", type="x" * 1001),
        c.child("id", "q" * 1001),
        c.child("id", "q", cron="never"),
        c.child("id", "q", retry=c.retry_policy(-1)),
        c.child("id", "q", run=-1),
        c.child("id", "q", namespace="elsewhere-$unique"),
        c.child("id", "q", attributes={"NoSuchAttribute": number}),
    ):
        with t.other("bad" + str(len(t.steps))):
            t.start()
            t.complete(t.poll(), bad, fails=None)
            t.history_from(4)


@program
def signal_external(t: Tape) -> None:
    """A signal to another workflow, with input, header and control."""
    with t.other("target"):
        t.start()
        t.complete(t.poll())
    initiate(
        t,
        c.signal_external(t.named("target"), "hello", 1, control="mine", header={"h": "v"}),
    )
    t.await_event("EXTERNAL_WORKFLOW_EXECUTION_SIGNALED")
    t.complete(t.poll(), c.complete())
    t.history()
    with t.other("target"):
        t.complete(t.poll(), c.complete())
        t.history()


@program
def signal_external_missing(t: Tape) -> None:
    """A signal to nobody, to a closed workflow, to oneself, to a run that is not."""
    with t.other("target"):
        t.start()
        t.terminate()
    for target, run_id in (
        (t.named("nobody"), ""),
        (t.named("target"), ""),
        (t.workflow_id, ""),
        (t.named("target"), "00000000-0000-4000-8000-000000000000"),
    ):
        with t.other("from" + str(len(t.steps))):
            initiate(t, c.signal_external(target, run_id=run_id, control="x"))
            t.await_event("SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED")
            t.complete(t.poll(), c.complete())
            t.history_from(4)


@program
def signal_child_only(t: Tape) -> None:
    """A signal meant for a child that is none, and for one that is."""
    with t.other("target"):
        t.start()
    initiate(t, c.signal_external(t.named("target"), child_only=True))
    t.await_event("SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED")
    t.complete(t.poll(), c.child(t.named("child"), t.named("child")))
    started(t)
    t.signal("go")
    t.complete(t.poll(), c.signal_external(t.named("child"), "to-child", child_only=True))
    t.await_event("EXTERNAL_WORKFLOW_EXECUTION_SIGNALED")
    t.complete(t.poll())
    t.history()
    with t.other("child"):
        t.history()


@program
def cancel_external(t: Tape) -> None:
    """A cancel request to another workflow, twice."""
    with t.other("target"):
        t.start()
        t.complete(t.poll())
    initiate(t, c.cancel_external(t.named("target"), reason="why", control="mine"))
    t.await_event("EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED")
    t.complete(t.poll(), c.cancel_external(t.named("target"), reason="again"))
    t.await_event("EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED", 2)
    t.complete(t.poll(), c.complete())
    t.history()
    with t.other("target"):
        t.complete(t.poll(), c.cancel())
        t.history()


@program
def cancel_external_missing(t: Tape) -> None:
    """A cancel request to nobody and to oneself; one to a closed workflow is taken."""
    with t.other("target"):
        t.start()
        t.terminate()
    for target, kind in (
        (t.named("nobody"), "REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_FAILED"),
        (t.named("target"), "EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED"),
    ):
        with t.other("from" + str(len(t.steps))):
            initiate(t, c.cancel_external(target, control="x"))
            t.await_event(kind)
            t.complete(t.poll(), c.complete())
            t.history_from(4)
    with t.other("self"):
        initiate(t, c.cancel_external(t.workflow_id))
        t.await_event("REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_FAILED")
        t.complete(t.poll(), c.complete())
        t.history_from(4)


@program
def bad_externals(t: Tape) -> None:
    """Signal and cancel commands that are refused."""
    for bad in (
        c.signal_external(""),
        c.signal_external("id", ""),
        c.signal_external("x" * 1001),
        c.signal_external("id", run_id="no-uuid"),
        c.cancel_external(""),
        c.cancel_external("x" * 1001),
        c.cancel_external("id", run_id="no-uuid"),
    ):
        with t.other("bad" + str(len(t.steps))):
            t.start()
            t.complete(t.poll(), bad, fails=None)
            t.history_from(4)


@program
def child_terminates_open(t: Tape) -> None:
    """A child whose ID an open workflow has, with the policy that ends that one."""
    with t.other("child"):
        t.start()
    initiate(t, c.child(t.named("child"), t.named("child"), reuse=4))
    started(t)
    t.history()
    with t.other("child"):
        t.describe(run_id="")


@program
def child_on_internal_queue(t: Tape) -> None:
    """Queues of the server's own are not for others."""
    t.start(task_queue=taskqueue.TaskQueue(name=INTERNAL), fails=True)
    t.start()
    t.complete(t.poll(), c.child(t.named("child"), INTERNAL), fails=True)
    t.complete(t.poll(), c.activity("a", INTERNAL), fails=True)
    t.complete(t.poll(), c.complete())
    t.history()


@program
def continue_on_internal_queue(t: Tape) -> None:
    """The run that follows cannot go there either."""
    t.start()
    t.complete(t.poll(), c.continue_as_new(queue=INTERNAL), fails=True)
    t.complete(t.poll(), c.complete())
    t.history()


@program
def child_terminates_a_child(t: Tape) -> None:
    """The run that makes room is a child, too, and has one: its parent and its child hear of it."""
    initiate(t, c.child(t.named("child"), t.named("child")))
    started(t)
    with t.other("child"):
        t.complete(t.poll(), c.child(t.named("grandchild"), t.named("grandchild")))
        t.await_event("CHILD_WORKFLOW_EXECUTION_STARTED")
    with t.other("rival"):
        initiate(t, c.child(t.named("child"), t.named("child"), reuse=4))
        started(t)
        t.history()
    t.await_event("CHILD_WORKFLOW_EXECUTION_TERMINATED")
    t.complete(t.poll(), c.complete())
    t.history()
    with t.other("grandchild"):
        t.await_event("WORKFLOW_EXECUTION_TERMINATED")
        t.history()
