"""Random programs: each number is a seed, and a seed is always the same program.

A walk starts a workflow and goes from workflow task to workflow task. Before each it lets
things happen to the run (signals, activities that end, children that end, updates, a cancel
request), some of them while the task is out; to each it gives random commands, sometimes bad
ones; and it closes the run somehow, goes on with the next run of a chain, or resets it. In the
end the histories of all runs and children are written down.

Whatever a server does by itself the walk waits for before it goes on, and never has two such
things open at once: else their order would be chance, and two recordings differ.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Callable

from temporalio.api.command.v1 import message_pb2 as command
from temporalio.api.common.v1 import message_pb2 as common
from temporalio.api.enums.v1 import workflow_pb2 as activity_state
from temporalio.api.protocol.v1 import message_pb2 as protocol
from temporalio.api.update.v1 import message_pb2 as update
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import (
    IDENTITY,
    Stopped,
    Tape,
    application_failure,
    event_name,
    payload,
    seconds,
)
from programs import PROGRAMS
from programs.updates import ACCEPTED, COMPLETED, Ask, accept, ask, reject, respond, say

# Recorded and run as tests; `walk.py` compares two servers on any others.
RECORDED = 32

TERMINATE, ABANDON, REQUEST_CANCEL = 1, 2, 3
# Longer than any walk takes.
LONG = 1000
CLOSINGS = {
    "WORKFLOW_EXECUTION_COMPLETED",
    "WORKFLOW_EXECUTION_FAILED",
    "WORKFLOW_EXECUTION_TIMED_OUT",
    "WORKFLOW_EXECUTION_CANCELED",
    "WORKFLOW_EXECUTION_TERMINATED",
    "WORKFLOW_EXECUTION_CONTINUED_AS_NEW",
}
CHILD_CLOSINGS = {
    "CHILD_WORKFLOW_EXECUTION_COMPLETED",
    "CHILD_WORKFLOW_EXECUTION_FAILED",
    "CHILD_WORKFLOW_EXECUTION_CANCELED",
    "CHILD_WORKFLOW_EXECUTION_TIMED_OUT",
    "CHILD_WORKFLOW_EXECUTION_TERMINATED",
}
ACTIVITY_ENDS = {
    "ACTIVITY_TASK_COMPLETED",
    "ACTIVITY_TASK_FAILED",
    "ACTIVITY_TASK_TIMED_OUT",
    "ACTIVITY_TASK_CANCELED",
}


@dataclass
class Activity:
    """One that the run waits for. Its queue has its ID for a name."""

    id: str
    task: Any = None


@dataclass
class Child:
    """One that was started; its queue has its workflow ID for a name."""

    name: str
    policy: int
    open: bool = True
    # Whether the open run is the one that started it.
    ours: bool = True


@dataclass
class Asked:
    """An update that its caller waits for."""

    id: str
    stage: int
    call: Ask
    accepted: bool = False


class Walk:
    """One walk; see the page's head."""

    def __init__(self, t: Tape, seed: int) -> None:
        self.t = t
        self.random = random.Random(seed)
        self.made = 0
        self.runs: list[str] = []
        self.children: list[Child] = []
        self.updates: list[Asked] = []
        self.new_run("")

    def new_run(self, run_id: str) -> None:
        """What the walk knows of an open run, at its beginning."""
        self.activities: list[Activity] = []
        self.timers: list[str] = []
        # Scheduled events of activities that were asked to cancel.
        self.stopped: set[int] = set()
        self.open = True
        # Whether the open workflow task has failed once: a second failure has a backoff.
        self.failed = False
        self.cancel_asked = False
        # The first workflow task is there, or comes after a backoff.
        self.fresh = True
        self.t.run_id = run_id
        for child in self.children:
            child.ours = False

    def name(self, kind: str) -> str:
        """A name not used before."""
        self.made += 1
        return f"{kind}{self.made}"

    def chance(self, of: float) -> bool:
        return self.random.random() < of

    # ---- the walk ------------------------------------------------------------------

    def walk(self) -> None:
        """The whole of it."""
        t = self.t
        fields: dict[str, Any] = {}
        if self.chance(0.3):
            fields["retry_policy"] = c.retry_policy(0.02, attempts=2, non_retryable=["Final"])
        if self.chance(0.3):
            fields["memo"] = common.Memo(fields={"m": payload("start")})
        # Not to run out while many walks share a machine.
        fields["workflow_task_timeout"] = seconds(60)
        t.start(**fields)
        self.runs.append(t.run_id)
        turns = self.random.randint(4, 12)
        for turn in range(turns + 3):
            if not self.turn(last=turn >= turns - 1):
                break
        if self.open:
            self.close_for_good()
        if self.activities and self.chance(0.5):
            task = next((a.task for a in self.activities if a.task), None)
            if task:
                t.complete_activity(task, "late", fails=True)
        for run_id in self.runs:
            t.history(run_id)
            self.forget_measured(t.steps[-1]["history"])
        for child in self.children:
            with t.other(child.name):
                t.history()
            self.forget_measured(t.steps[-1]["history"])
        t.describe(self.runs[-1])
        for step in t.steps:
            if step.get("call") == "PollWorkflowTaskQueue" and (reply := step.get("reply")):
                # What the task before had shown is in the histories.
                del reply["history"][: int(reply.get("previousStartedEventId", 0))]

    def forget_measured(self, events: list[dict[str, Any]]) -> None:
        """A run that is followed by another within a second makes that one wait for the rest of
        it: whether it does is chance here."""
        for event in events:
            for attributes in event.values():
                if isinstance(attributes, dict) and "initiator" in attributes:
                    attributes.pop("firstWorkflowTaskBackoff", None)
                    attributes.pop("backoffStartInterval", None)

    def turn(self, last: bool) -> bool:
        """To one workflow task, and past it; false when the last run is closed."""
        t = self.t
        if not self.fresh:
            for _ in range(6):
                if self.pending() and not self.chance(0.35):
                    break
                self.happen(out=False)
                if not self.open:
                    return self.follow()
            if not self.pending():
                t.signal(self.name("s"), 1)
        self.fresh = False
        task = t.poll()
        came = self.random.choice((0, 0, 0, 1, 1, 2))
        for _ in range(came):
            self.happen(out=True)
            if not self.open:
                return self.follow()
        if self.may_fail() and self.chance(0.08):
            t.fail_task(task)
            self.failed = True
            return True
        is_free = not (self.undecided() or came and self.updates)
        if not is_free or not last and self.chance(0.88):
            self.go_on(task)
            return True
        return self.end(task)

    def undecided(self) -> bool:
        """Whether an update waits for the worker.

        Where a workflow task fails then, be it that the workflow may not close over what came
        meanwhile, the real server forgets the update and its own caller asks again, before or
        after the next poll; one that is accepted already is told of that, and not of more.
        """
        return any(not asked.accepted for asked in self.updates)

    def may_fail(self) -> bool:
        """Whether a failure of the workflow task out now has no chance in it."""
        return not self.failed and not self.updates

    def pending(self) -> bool:
        """Whether a workflow task is there, or out."""
        described = self.t.stub.DescribeWorkflowExecution(
            api.DescribeWorkflowExecutionRequest(
                namespace=self.t.namespace, execution=self.t.execution()
            ),
            timeout=20,
        )
        return described.HasField("pending_workflow_task")

    def count(self, kinds: set[str]) -> int:
        """How many events of these kinds the run has."""
        return sum(event_name(event) in kinds for event in self.t.events())

    def await_more(self, kinds: set[str], before: int) -> None:
        """Waits until the run has more of these events than before."""
        self.t.await_condition(lambda: self.count(kinds) > before, f"one more of {min(kinds)}")

    # ---- what happens to the run ---------------------------------------------------

    def happen(self, out: bool) -> None:
        """One thing; with `out` while a workflow task is at the worker."""
        things: list[tuple[float, Callable[[bool], None]]] = [
            (3, self.signal),
            (0.7, self.signal_with_start),
            (1.5, self.update),
            (0.5, self.cancel),
        ]
        if not self.undecided():
            things.append((0.15, self.terminate))
        if self.activities:
            things.append((5, self.activity))
        if not out:
            if any(child.open for child in self.children):
                things.append((5, self.child))
            if not self.pending():
                things.append((0.5, self.query))
        weights, choices = zip(*things, strict=True)
        self.random.choices(choices, weights)[0](out)

    def signal(self, out: bool) -> None:
        self.t.signal(
            self.name("s"), self.made, request_id=f"r{self.made}-{self.t.unique}", fails=None
        )
        if self.chance(0.1):
            self.t.signal(
                "again", self.made, request_id=f"r{self.made}-{self.t.unique}", fails=None
            )

    def signal_with_start(self, out: bool) -> None:
        t = self.t
        t.call(
            "SignalWithStartWorkflowExecution",
            api.SignalWithStartWorkflowExecutionRequest(
                namespace=t.namespace,
                workflow_id=t.workflow_id,
                workflow_type=common.WorkflowType(name="program"),
                task_queue=t.start_request().task_queue,
                signal_name=self.name("w"),
                identity=IDENTITY,
                request_id=f"w{self.made}-{t.unique}",
            ),
            fails=None,
        )

    def update(self, out: bool) -> None:
        if out and self.failed:
            # While a run is about to close it takes no updates.
            return
        id = self.name("u")
        stage = self.random.choice((ACCEPTED, COMPLETED))
        self.updates.append(Asked(id, stage, ask(self.t, id, stage=stage)))

    def cancel(self, out: bool) -> None:
        # Asked for again it is refused: recorded as it comes.
        request = api.RequestCancelWorkflowExecutionRequest(
            namespace=self.t.namespace,
            workflow_execution=self.t.execution(),
            identity=IDENTITY,
            request_id=self.name("c"),
            reason="walk",
        )
        self.t.call("RequestCancelWorkflowExecution", request, fails=None)
        self.cancel_asked = True

    def terminate(self, out: bool) -> None:
        self.t.terminate("walk", details="over")
        self.open = False

    def query(self, out: bool) -> None:
        question = self.t.query()
        task = self.t.poll()
        if self.chance(0.5):
            self.t.answer_query(task, "answer")
        else:
            self.t.answer_query(task, error="unknown")
        question()

    def activity(self, out: bool) -> None:
        """One is taken up, or tells how it went."""
        t = self.t
        activity = self.random.choice(self.activities)
        if activity.task is None:
            with self.on(activity.id):
                activity.task = t.poll_activity()
            return
        outcome = self.random.choice(("complete", "fail", "final", "cancel", "heartbeat"))
        if outcome == "cancel" and not self.is_to_stop(activity):
            # It would be refused, and whatever the real server refuses makes it forget what it
            # has in memory of the run: updates, and that it was about to close.
            outcome = "complete"
        if outcome == "heartbeat":
            t.heartbeat(activity.task, self.made)
            return
        if outcome == "complete":
            t.complete_activity(activity.task, self.made)
        elif outcome == "fail":
            t.fail_activity(activity.task, application_failure("again", "Passing"))
        elif outcome == "final":
            t.fail_activity(activity.task, application_failure("no", "Final", non_retryable=True))
        else:
            request = api.RespondActivityTaskCanceledRequest(
                namespace=t.namespace, task_token=activity.task.task_token, identity=IDENTITY
            )
            if t.call("RespondActivityTaskCanceled", request, fails=None) is None:
                return
        self.forget(activity)

    def is_to_stop(self, activity: Activity) -> bool:
        """Whether the run asked the activity to cancel."""
        state = activity_state.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED
        return any(
            pending.activity_id == activity.id and pending.state == state
            for pending in self.pending_activities()
        )

    def forget(self, activity: Activity) -> None:
        """It has ended, or waits for its next attempt."""
        if activity.id not in {pending.activity_id for pending in self.pending_activities()}:
            self.activities.remove(activity)
            return
        activity.task = None
        self.t.await_condition(
            lambda: (
                not any(
                    pending.HasField("current_retry_interval")
                    for pending in self.pending_activities()
                    if pending.activity_id == activity.id
                )
            ),
            "the backoff's end",
        )

    def pending_activities(self) -> Any:
        return self.t.stub.DescribeWorkflowExecution(
            api.DescribeWorkflowExecutionRequest(
                namespace=self.t.namespace, execution=self.t.execution()
            ),
            timeout=20,
        ).pending_activities

    def on(self, name: str) -> Any:
        """Polls in the block are of the queue of that name."""
        return _Queue(self.t, name)

    def child(self, out: bool) -> None:
        """One gets on, or ends; the run hears of it."""
        t = self.t
        child = self.random.choice([child for child in self.children if child.open])
        before = self.count(CHILD_CLOSINGS)
        ends = True
        with t.other(child.name):
            how = self.random.choice(("complete", "complete", "fail", "again", "kill", "signal"))
            if how == "kill":
                t.terminate("no more")
            else:
                t.signal("go")
                task = t.poll()
                if how == "complete":
                    t.complete(task, c.complete("of the child"))
                elif how == "fail":
                    t.complete(task, c.fail(application_failure("child", "Final")))
                elif how == "again":
                    t.complete(task, c.continue_as_new(input=2))
                    t.complete(t.poll())
                    ends = False
                else:
                    t.complete(task, c.timer(self.name("t"), LONG))
                    ends = False
        if ends:
            child.open = False
            if child.ours:
                self.await_more(CHILD_CLOSINGS, before)

    # ---- what the run does ---------------------------------------------------------

    def go_on(self, task: Any) -> None:
        """Completes the workflow task with commands, and the run stays open."""
        if self.may_fail() and self.chance(0.05):
            self.t.complete(task, *self.some_commands(), self.bad_command(), fails=True)
            self.failed = True
            self.look_again()
            return
        words, messages, resolved = self.about_updates(task)
        commands = self.some_commands()
        settle = None
        if self.chance(0.45):
            waited, settle = self.random.choice(
                (
                    self.short_timer,
                    self.short_timer,
                    self.start_child,
                    self.start_child,
                    self.signal_other,
                    self.cancel_other,
                    self.lost_activity,
                )
            )()
            commands += waited
        commands[:0] = words
        force = settle is None and self.chance(0.05)
        self.t.complete(task, *commands, messages=messages, force=force)
        self.failed = False
        for asked in resolved:
            asked.call()
            self.updates.remove(asked)
        if settle:
            settle()
        self.look_again()

    def look_again(self) -> None:
        """What the run waits for: commands may have come to nothing, and activities to an end."""
        held = {activity.id: activity for activity in self.activities}
        pending = sorted(activity.activity_id for activity in self.pending_activities())
        self.activities = [held.get(id) or Activity(id) for id in pending]
        self.timers = []
        self.stopped = set()
        for event in self.t.events():
            kind = event_name(event)
            if kind == "TIMER_STARTED":
                self.timers.append(event.timer_started_event_attributes.timer_id)
            elif kind == "TIMER_FIRED":
                self.timers.remove(event.timer_fired_event_attributes.timer_id)
            elif kind == "TIMER_CANCELED":
                self.timers.remove(event.timer_canceled_event_attributes.timer_id)
            elif kind == "ACTIVITY_TASK_CANCEL_REQUESTED":
                attributes = event.activity_task_cancel_requested_event_attributes
                self.stopped.add(attributes.scheduled_event_id)

    def some_commands(self) -> list[command.Command]:
        """Up to three after which the server does nothing by itself."""
        makers: list[Callable[[], list[command.Command]]] = [
            self.start_activity,
            self.start_activity,
            self.start_activity,
            self.long_timer,
            lambda: [c.marker("m", {"data": self.made})],
            lambda: [c.memo(m=self.made, n=self.random.choice((1, None)))],
            lambda: [c.search_attributes(EverspanKeyword=payload(f"k{self.made}"))],
            self.stop_timer,
            self.stop_activity,
        ]
        count = self.random.choice((0, 1, 1, 2, 3))
        return [made for _ in range(count) for made in self.random.choice(makers)()]

    def start_activity(self) -> list[command.Command]:
        id = self.name("a")
        self.activities.append(Activity(id))
        retry = self.random.choice(
            (
                c.retry_policy(0.02),
                c.retry_policy(0.02, attempts=self.random.randint(1, 3)),
                c.retry_policy(0.02, 1.5, non_retryable=["Passing"]),
            )
        )
        heartbeat = self.random.choice((None, 100))
        queue = self.t.named(id)
        return [c.activity(id, queue, start_to_close=LONG, heartbeat=heartbeat, retry=retry)]

    def long_timer(self) -> list[command.Command]:
        id = self.name("t")
        self.timers.append(id)
        return [c.timer(id, LONG)]

    def stop_timer(self) -> list[command.Command]:
        if not self.timers:
            return []
        return [c.cancel_timer(self.timers.pop(self.random.randrange(len(self.timers))))]

    def stop_activity(self) -> list[command.Command]:
        wanted = {activity.id for activity in self.activities}
        found = [
            event.event_id
            for event in self.t.events()
            if event_name(event) == "ACTIVITY_TASK_SCHEDULED"
            and event.activity_task_scheduled_event_attributes.activity_id in wanted
            and event.event_id not in self.stopped
        ]
        if not found:
            return []
        chosen = self.random.choice(found)
        self.stopped.add(chosen)
        return [c.cancel_activity(chosen)]

    def bad_command(self) -> command.Command:
        return self.random.choice(
            (
                c.cancel_timer("unheard-of"),
                c.cancel_activity(9999),
                c.timer("", 1),
                c.activity("", "queue"),
                c.activity("bad", "queue", start_to_close=None),
            )
        )

    def about_updates(
        self, task: Any, closes: bool = False
    ) -> tuple[list[command.Command], list[protocol.Message], list[Asked]]:
        """What the worker says about updates: their words among the commands, the messages,
        and the callers that have their answer then."""
        words: list[command.Command] = []
        messages: list[protocol.Message] = []
        resolved: list[Asked] = []
        delivered = {message.protocol_instance_id: message for message in task.messages}
        for asked in self.updates:
            if asked.id in delivered:
                request = update.Request()
                delivered[asked.id].body.Unpack(request)
                # Who waits for acceptance is told of that, or of the outcome that comes at the
                # same time: which, is chance.
                is_told_early = asked.stage == ACCEPTED
                if self.chance(0.2) or is_told_early and closes:
                    messages.append(reject(asked.id, request))
                    resolved.append(asked)
                    continue
                words.append(say(f"{asked.id}/accept"))
                messages.append(accept(asked.id, request))
                asked.accepted = True
                if is_told_early:
                    resolved.append(asked)
                    continue
            if asked.accepted and self.chance(0.6):
                words.append(say(f"{asked.id}/respond"))
                messages.append(respond(asked.id, self.chance(0.3)))
                if asked not in resolved:
                    resolved.append(asked)
        return words, messages, resolved

    # Commands after which the server does something by itself, and how that is waited for.

    def short_timer(self) -> tuple[list[command.Command], Callable[[], None]]:
        before = self.count({"TIMER_FIRED"})
        fired = lambda: self.await_more({"TIMER_FIRED"}, before)  # noqa: E731
        return [c.timer(self.name("t"), self.random.choice((0.001, 0.03)))], fired

    def lost_activity(self) -> tuple[list[command.Command], Callable[[], None]]:
        before = self.count({"ACTIVITY_TASK_TIMED_OUT"})
        id = self.name("a")
        lost = c.activity(id, self.t.named(id), schedule_to_start=0.03)
        return [lost], lambda: self.await_more({"ACTIVITY_TASK_TIMED_OUT"}, before)

    def start_child(self) -> tuple[list[command.Command], Callable[[], None]]:
        taken = [child for child in self.children if child.open]
        if taken and self.chance(0.15):
            kinds = {"START_CHILD_WORKFLOW_EXECUTION_FAILED"}
            before = self.count(kinds)
            id = self.t.named(taken[0].name)
            return [c.child(id, id)], lambda: self.await_more(kinds, before)
        child = Child(self.name("child"), self.random.choice((TERMINATE, ABANDON, REQUEST_CANCEL)))
        kinds = {"CHILD_WORKFLOW_EXECUTION_STARTED"}
        before = self.count(kinds)
        id = self.t.named(child.name)

        def started() -> None:
            self.await_more(kinds, before)
            self.children.append(child)
            with self.t.other(child.name):
                self.t.complete(self.t.poll())

        made = c.child(id, id, input=self.made, close=child.policy, task=60)
        return [made], started

    def other(self) -> str:
        """A workflow to be told something: a child, or none at all."""
        names = [child.name for child in self.children] + ["nobody"]
        return self.t.named(self.random.choice(names))

    def signal_other(self) -> tuple[list[command.Command], Callable[[], None]]:
        kinds = {
            "EXTERNAL_WORKFLOW_EXECUTION_SIGNALED",
            "SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED",
        }
        before = self.count(kinds)
        told = c.signal_external(self.other(), self.name("x"), child_only=self.chance(0.5))
        return [told], lambda: self.await_more(kinds, before)

    def cancel_other(self) -> tuple[list[command.Command], Callable[[], None]]:
        kinds = {
            "EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED",
            "REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_FAILED",
        }
        before = self.count(kinds)
        told = c.cancel_external(self.other(), child_only=self.chance(0.5), reason="walk")
        return [told], lambda: self.await_more(kinds, before)

    # ---- how a run ends ------------------------------------------------------------

    def end(self, task: Any) -> bool:
        """Completes the workflow task with a closing command; false when the chain is over."""
        final = self.chance(0.3)
        ways: list[Callable[[], command.Command]] = [
            lambda: c.complete("done"),
            lambda: c.fail(application_failure("failed", "Final" if final else "Passing")),
            lambda: c.continue_as_new(
                input=self.made, memo={"m": "next"} if final else None, task=60
            ),
        ]
        if self.cancel_asked:
            ways.append(lambda: c.cancel("stopped"))
        words, messages, resolved = self.about_updates(task, closes=True)
        closing = self.random.choice(ways)()
        done = self.t.complete(
            task, *words, *self.some_commands(), closing, messages=messages, fails=None
        )
        for asked in resolved:
            asked.call()
            self.updates.remove(asked)
        if done is None:
            # Something came meanwhile; the run goes on with it.
            self.failed = True
            self.look_again()
            return True
        self.open = False
        return self.follow()

    def close_for_good(self) -> None:
        """The walk has no more turns."""
        if self.fresh:
            # Whether its first task is there already is chance.
            self.t.poll()
        self.t.terminate("end of the walk")
        self.settle()

    def follow(self) -> bool:
        """After a run's end: settles what it leaves, and goes on with the next run if any."""
        t = self.t
        self.settle()
        latest = self.latest()
        if latest == t.run_id:
            if len(self.runs) < 4 and self.chance(0.12):
                return self.reset()
            return False
        self.runs.append(latest)
        self.new_run(latest)
        return True

    def settle(self) -> None:
        """Waits for what the end of a run does to others."""
        for child in self.children:
            if child.open and child.ours:
                self.let_go(child)
        for asked in self.updates:
            asked.call()
        self.updates.clear()
        last = event_name(self.t.events()[-1])
        if last not in CLOSINGS:
            self.t.note("not closed", last)
            raise Stopped("the run did not close")

    def let_go(self, child: Child) -> None:
        """Waits for what the parent close policy does."""
        with self.t.other(child.name):
            if child.policy == TERMINATE:
                self.t.await_event("WORKFLOW_EXECUTION_TERMINATED")
                child.open = False
            elif child.policy == REQUEST_CANCEL:
                self.t.await_event("WORKFLOW_EXECUTION_CANCEL_REQUESTED")

    def latest(self) -> str:
        described = self.t.stub.DescribeWorkflowExecution(
            api.DescribeWorkflowExecutionRequest(
                namespace=self.t.namespace, execution=self.t.execution("")
            ),
            timeout=20,
        )
        return described.workflow_execution_info.execution.run_id

    def reset(self) -> bool:
        """Resets the closed run to where a workflow task of it ended."""
        t = self.t
        points = [
            event.event_id
            for event in t.events()
            if event_name(event) in ("WORKFLOW_TASK_COMPLETED", "WORKFLOW_TASK_FAILED")
        ]
        if not points:
            return False
        request = api.ResetWorkflowExecutionRequest(
            namespace=t.namespace,
            workflow_execution=t.execution(),
            workflow_task_finish_event_id=self.random.choice(points),
            request_id=f"reset-{len(self.runs)}-{t.unique}",
            reason="walk",
        )
        answer = t.call("ResetWorkflowExecution", request, fails=None)
        if answer is None:
            return False
        self.runs.append(answer.run_id)
        self.new_run(answer.run_id)
        self.look_again()
        return True


class _Queue:
    """A block in which the tape polls another queue."""

    def __init__(self, t: Tape, name: str) -> None:
        self.t, self.name = t, name

    def __enter__(self) -> None:
        self.own, self.t.queue = self.t.queue, self.t.named(self.name)

    def __exit__(self, *_: object) -> None:
        self.t.queue = self.own


def walk(seed: int) -> Callable[[Tape], None]:
    """The program of that seed."""

    def program(t: Tape) -> None:
        Walk(t, seed).walk()

    program.__doc__ = f"The random walk of seed {seed}."
    return program


PROGRAMS.update({f"walk_{seed:03}": walk(seed) for seed in range(RECORDED)})
