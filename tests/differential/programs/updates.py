"""Updates: accepted, refused, lost; speculative workflow tasks; update-with-start."""

from __future__ import annotations

from typing import Any, Callable

import grpc
from temporalio.api.command.v1 import message_pb2 as command
from temporalio.api.common.v1 import message_pb2 as common
from temporalio.api.enums.v1 import command_type_pb2 as command_type
from temporalio.api.enums.v1 import update_pb2 as stages
from temporalio.api.protocol.v1 import message_pb2 as protocol
from temporalio.api.update.v1 import message_pb2 as update
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import IDENTITY, Tape, application_failure, event_name, payloads, seconds
from programs import program

ACCEPTED = stages.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_ACCEPTED
COMPLETED = stages.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_COMPLETED
ADMITTED = stages.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_ADMITTED


def asked(t: Tape, id: str = "u", **fields: Any) -> api.UpdateWorkflowExecutionRequest:
    """A request for an update; `fields` override."""
    request = api.UpdateWorkflowExecutionRequest(
        namespace=t.namespace,
        workflow_execution=t.execution(""),
        wait_policy=update.WaitPolicy(lifecycle_stage=fields.pop("stage", COMPLETED)),
        request=update.Request(
            meta=update.Meta(update_id=id, identity=IDENTITY),
            input=update.Input(name="change", args=payloads("argument")),
            request_id=fields.pop("request_id", ""),
        ),
    )
    for name, value in fields.items():
        if isinstance(value, str):
            setattr(request, name, value)
        else:
            getattr(request, name).CopyFrom(value)
    return request


class Ask:
    """A call made behind the program; calling the value records its answer."""

    def __init__(self, t: Tape, method: str, request: Any) -> None:
        self._tape, self._method = t, method
        self._call = getattr(t.stub, method).future(request, timeout=28)

    def done(self) -> bool:
        """Whether the server has answered."""
        return self._call.done()

    def __call__(self) -> None:
        tape = self._tape
        try:
            reply = tape.normaliser.message(self._call.result())
            tape.steps.append({"call": self._method, "reply": reply})
        except grpc.RpcError as error:
            tape.steps.append({"call": self._method, "error": tape.error(error)})


def ask(t: Tape, id: str = "u", **fields: Any) -> Ask:
    """Asks for an update, and waits until the server knows of it."""
    call = Ask(t, "UpdateWorkflowExecution", asked(t, id, **fields))
    t.await_condition(lambda: call.done() or known(t, id), f"update {id}")
    return call


def known(t: Tape, id: str) -> bool:
    """Whether the server knows an update."""
    request = api.PollWorkflowExecutionUpdateRequest(
        namespace=t.namespace,
        update_ref=update.UpdateRef(workflow_execution=t.execution(""), update_id=id),
    )
    try:
        t.stub.PollWorkflowExecutionUpdate(request, timeout=20)
        return True
    except grpc.RpcError:
        return False


def poll_update(
    t: Tape, id: str = "u", stage: int = 0, fails: bool | None = None, run_id: str = ""
) -> None:
    """Asks how far an update came, or waits for a stage."""
    t.call(
        "PollWorkflowExecutionUpdate",
        api.PollWorkflowExecutionUpdateRequest(
            namespace=t.namespace,
            update_ref=update.UpdateRef(workflow_execution=t.execution(run_id), update_id=id),
            wait_policy=update.WaitPolicy(lifecycle_stage=stage),  # type: ignore[arg-type]
        ),
        fails=fails,
    )


def message(id: str, kind: str, body: Any) -> protocol.Message:
    """A message about an update."""
    message = protocol.Message(id=f"{id}/{kind}", protocol_instance_id=id)
    message.body.Pack(body)
    return message


def accept(id: str = "u", request: update.Request | None = None) -> protocol.Message:
    """The worker accepts."""
    body = update.Acceptance(
        accepted_request_message_id=f"{id}/request",
        accepted_request_sequencing_event_id=1,
        accepted_request=request,
    )
    return message(id, "accept", body)


def reject(id: str = "u", request: update.Request | None = None) -> protocol.Message:
    """The worker's validator refuses."""
    body = update.Rejection(
        rejected_request_message_id=f"{id}/request",
        rejected_request_sequencing_event_id=1,
        rejected_request=request,
        failure=application_failure("no", "Refused"),
    )
    return message(id, "reject", body)


def respond(id: str = "u", failure: bool = False) -> protocol.Message:
    """The worker's handler is through."""
    outcome = update.Outcome(success=payloads("changed"))
    if failure:
        outcome = update.Outcome(failure=application_failure("broke", "Broken"))
    body = update.Response(meta=update.Meta(update_id=id, identity=IDENTITY), outcome=outcome)
    return message(id, "respond", body)


def say(message_id: str) -> command.Command:
    """The command that puts a message at its place among the commands."""
    return command.Command(
        command_type=command_type.COMMAND_TYPE_PROTOCOL_MESSAGE,
        protocol_message_command_attributes=command.ProtocolMessageCommandAttributes(
            message_id=message_id
        ),
    )


def idle(t: Tape, **fields: Any) -> None:
    """A run whose first workflow task is done."""
    t.start(**fields)
    t.complete(t.poll())


@program
def update_accepted_and_completed(t: Tape) -> None:
    """The shortest way: both in one task, each by its command."""
    idle(t)
    asking = ask(t, request_id="request-1")
    task = t.poll()
    t.describe()
    t.history()
    t.complete(
        task, say("u/accept"), c.timer("t", 60), say("u/respond"), messages=[accept(), respond()]
    )
    asking()
    poll_update(t)
    t.describe()
    t.history()


@program
def update_without_commands(t: Tape) -> None:
    """Messages that no command names are taken after all commands."""
    idle(t)
    asking = ask(t)
    t.complete(t.poll(), c.timer("t", 60), messages=[accept(), respond()])
    asking()
    t.history()


@program
def update_rejected(t: Tape) -> None:
    """Leaves no trace; the worker is told how far to go back."""
    idle(t)
    asking = ask(t)
    t.complete(t.poll(), messages=[reject()])
    asking()
    poll_update(t)
    t.describe()
    t.history()
    t.signal("s")
    t.complete(t.poll(), c.complete())
    t.history()


@program
def update_rejected_then_accepted(t: Tape) -> None:
    """A refused update's ID can be asked again."""
    idle(t)
    asking = ask(t)
    t.complete(t.poll(), messages=[reject()])
    asking()
    asking = ask(t)
    t.complete(t.poll(), messages=[accept(), respond()])
    asking()
    t.history()


@program
def update_rejected_with_events(t: Tape) -> None:
    """A task that showed events is written, if the worker cannot take them back."""
    t.start()
    t.complete(t.poll(), c.timer("t", 60))
    asking = ask(t)
    t.complete(t.poll(), messages=[reject()])
    asking()
    t.history()


@program
def update_rejected_with_events_discarded(t: Tape) -> None:
    """A task that showed events is discarded, if the worker can take them back."""
    t.start()
    t.complete(t.poll(), c.timer("t", 60))
    asking = ask(t)
    capable = api.RespondWorkflowTaskCompletedRequest.Capabilities(
        discard_speculative_workflow_task_with_events=True
    )
    t.complete(t.poll(), messages=[reject()], capabilities=capable)
    asking()
    t.history()


@program
def update_stages(t: Tape) -> None:
    """Accepted in one task, completed in another, asked and polled at each stage."""
    idle(t)
    accepted = ask(t, stage=ACCEPTED)
    completed = ask(t)
    poll_update(t)
    poll_update(t, stage=ADMITTED)
    t.complete(t.poll(), messages=[accept()])
    accepted()
    poll_update(t, stage=ACCEPTED)
    t.history()
    t.signal("go on")
    waiting = Ask(
        t,
        "PollWorkflowExecutionUpdate",
        api.PollWorkflowExecutionUpdateRequest(
            namespace=t.namespace,
            update_ref=update.UpdateRef(workflow_execution=t.execution(), update_id="u"),
            wait_policy=update.WaitPolicy(lifecycle_stage=COMPLETED),
        ),
    )
    t.complete(t.poll(), messages=[respond()])
    completed()
    waiting()
    poll_update(t, stage=COMPLETED)
    t.history()


@program
def update_default_stage(t: Tape) -> None:
    """Without a stage, or a wait policy, an update is waited for until it is completed."""
    idle(t)
    request = asked(t)
    request.ClearField("wait_policy")
    calls = [Ask(t, "UpdateWorkflowExecution", request), ask(t, "v", stage=0)]
    t.await_condition(lambda: known(t, "u"), "update u")
    t.complete(t.poll(), c.timer("t", 60), messages=[accept(), accept("v")])
    poll_update(t, stage=ACCEPTED)
    t.note("done", any(call.done() for call in calls))
    t.signal("go on")
    t.complete(t.poll(), messages=[respond(), respond("v")])
    for call in calls:
        call()
    t.history()


@program
def update_failed(t: Tape) -> None:
    """An outcome that is a failure."""
    idle(t)
    asking = ask(t)
    t.complete(t.poll(), messages=[accept(), respond(failure=True)])
    asking()
    t.history()


@program
def update_of_a_new_run(t: Tape) -> None:
    """It rides on the first workflow task."""
    t.start()
    asking = ask(t)
    t.complete(t.poll(), messages=[accept(), respond()])
    asking()
    t.history()


@program
def update_refused_by_first_task(t: Tape) -> None:
    """A normal task is written, whatever the worker says of the update."""
    t.start()
    asking = ask(t)
    t.complete(t.poll(), messages=[reject()])
    asking()
    t.history()


@program
def update_of_a_delayed_start(t: Tape) -> None:
    """An update does not wait for the start delay."""
    t.start(workflow_start_delay=seconds(60))
    asking = ask(t)
    t.complete(t.poll(), messages=[accept(), respond()])
    asking()
    t.history()


@program
def update_same_id(t: Tape) -> None:
    """Asking again is the same update: in flight, completed, after the close."""
    idle(t)
    first, second = ask(t), ask(t)
    t.complete(t.poll(), messages=[accept(), respond()])
    first()
    second()
    t.call("UpdateWorkflowExecution", asked(t))
    t.signal("end")
    t.complete(t.poll(), c.complete())
    t.call("UpdateWorkflowExecution", asked(t))
    poll_update(t, stage=COMPLETED)
    t.call("UpdateWorkflowExecution", asked(t, "other"), fails=True)
    poll_update(t, "other", fails=True)
    t.history()


@program
def update_bad_requests(t: Tape) -> None:
    """What is refused before any workflow sees it."""
    idle(t)
    for change in (
        lambda r: r.ClearField("workflow_execution"),
        lambda r: r.ClearField("request"),
        lambda r: r.request.ClearField("meta"),
        lambda r: setattr(r.request.meta, "update_id", "u" * 1001),
        lambda r: r.request.ClearField("input"),
        lambda r: setattr(r.request.input, "name", ""),
        lambda r: setattr(r.wait_policy, "lifecycle_stage", ADMITTED),
        lambda r: setattr(r, "first_execution_run_id", "not-the-first"),
        lambda r: setattr(r.workflow_execution, "run_id", "not-an-id"),
        lambda r: setattr(r.workflow_execution, "workflow_id", "nobody"),
    ):
        request = asked(t)
        change(request)
        t.call("UpdateWorkflowExecution", request, fails=True)
    t.call(
        "PollWorkflowExecutionUpdate",
        api.PollWorkflowExecutionUpdateRequest(namespace=t.namespace),
        fails=True,
    )
    poll_update(t, "unknown", fails=True)


@program
def update_ignored(t: Tape) -> None:
    """A worker that says nothing of an update does not know updates."""
    idle(t)
    asking = ask(t)
    t.complete(t.poll())
    asking()
    t.history()


@program
def update_meets_signal(t: Tape) -> None:
    """A signal makes a speculative task that waits a real one."""
    idle(t)
    asking = ask(t)
    t.signal("s")
    t.history()
    t.complete(t.poll(), messages=[reject()])
    asking()
    t.history()


@program
def update_meets_signal_while_started(t: Tape) -> None:
    """A signal makes a speculative task that a worker has a real one."""
    idle(t)
    asking = ask(t)
    task = t.poll()
    t.signal("s")
    t.history()
    t.complete(task, messages=[reject()])
    asking()
    t.history()
    t.complete(t.poll(), c.complete())
    t.history()


def _repeated(t: Tape, again: Callable[[], None]) -> None:
    """An update's task waits, and something is asked for that was asked for before."""
    t.start()
    again()
    t.complete(t.poll())
    answer = ask(t)
    again()
    t.describe()
    task = t.poll()
    t.signal("while the task is out")
    t.complete(task, say("u/accept"), say("u/respond"), messages=[accept(), respond()])
    answer()
    t.history()


@program
def update_meets_repeated_signal(t: Tape) -> None:
    """A signal that was taken before leaves the update's task as it is, or does it."""
    _repeated(t, lambda: t.signal("s", request_id=f"r-{t.unique}"))


@program
def update_meets_repeated_cancel(t: Tape) -> None:
    """The same, with a request to cancel."""
    _repeated(t, t.cancel)


@program
def update_meets_sticky_reset(t: Tape) -> None:
    """The same, with a reset of the sticky queue where there is none."""
    request = api.ResetStickyTaskQueueRequest(namespace=t.namespace)

    def again() -> None:
        request.execution.CopyFrom(t.execution())
        t.call("ResetStickyTaskQueue", request)

    _repeated(t, again)


@program
def update_task_fails(t: Tape) -> None:
    """The worker fails the task: it becomes real, and the update comes again."""
    idle(t)
    asking = ask(t)
    t.fail_task(t.poll())
    t.history()
    t.complete(t.poll(), messages=[accept(), respond()])
    asking()
    t.history()


@program
def update_task_times_out(t: Tape) -> None:
    """The worker goes away with the task."""
    idle(t, workflow_task_timeout=seconds(1))
    asking = ask(t)
    late = t.poll()
    task = t.poll()
    t.history()
    t.complete(late, messages=[accept()], fails=True)
    t.complete(task, messages=[accept(), respond()])
    asking()
    t.history()


@program
def update_without_worker(t: Tape) -> None:
    """Nobody polls: after five seconds the task is a real one."""
    idle(t)
    asking = ask(t)
    t.await_event("WORKFLOW_TASK_TIMED_OUT")
    t.history()
    t.complete(t.poll(), messages=[accept(), respond()])
    asking()
    t.history()


@program
def update_of_a_failing_workflow(t: Tape) -> None:
    """From the third attempt of a workflow task on, updates are refused."""
    idle(t)
    t.signal("s")
    t.fail_task(t.poll())
    t.fail_task(t.poll())
    t.call("UpdateWorkflowExecution", asked(t), fails=True)
    t.history()


@program
def update_while_task_started(t: Tape) -> None:
    """It waits for the next task, which comes back with the completion."""
    t.start()
    task = t.poll()
    asking = ask(t)
    response = t.complete(task, sticky=10, return_new=True)
    t.history()
    t.complete(response.workflow_task, messages=[accept(), respond()], sticky=10)
    asking()
    t.history()


@program
def update_while_task_started_offered(t: Tape) -> None:
    """It waits for the next task, a real one where the worker did not ask for it."""
    t.start()
    task = t.poll()
    asking = ask(t)
    t.complete(task, c.timer("t", 60))
    t.history()
    t.complete(t.poll(), messages=[reject()])
    asking()
    t.history()


@program
def update_while_speculative(t: Tape) -> None:
    """One update refused, another waiting: the next task is speculative too."""
    idle(t)
    first = ask(t, "first")
    task = t.poll()
    second = ask(t, "second")
    response = t.complete(task, messages=[reject("first")], sticky=10, return_new=True)
    first()
    t.complete(response.workflow_task, messages=[reject("second")], sticky=10)
    second()
    t.history()


@program
def update_heartbeat(t: Tape) -> None:
    """A heartbeat of the task that brought the update."""
    idle(t)
    asking = ask(t)
    response = t.complete(t.poll(), force=True, sticky=10, return_new=True)
    t.history()
    t.complete(response.workflow_task, messages=[accept(), respond()], sticky=10)
    asking()
    t.history()


@program
def update_on_sticky_queue(t: Tape) -> None:
    """The worker with the run in its cache gets what is new."""
    t.start()
    t.complete(t.poll(), sticky=5)
    with t.polling_sticky() as sticky:
        asking = ask(t)
        task = sticky()
    t.complete(task, messages=[accept(), respond()], sticky=5)
    asking()
    t.history()


@program
def update_sticky_unavailable(t: Tape) -> None:
    """Nobody polls the sticky queue: the task goes to the normal one."""
    t.start()
    t.complete(t.poll(), sticky=5)
    asking = ask(t)
    t.complete(t.poll(), messages=[reject()])
    asking()
    t.history()


@program
def update_aborted_by_close(t: Tape) -> None:
    """The workflow closes over an update that it has not seen, and one that it accepted."""
    idle(t)
    accepted = ask(t, "accepted")
    t.complete(t.poll(), messages=[accept("accepted")])
    t.signal("end")
    task = t.poll()
    unseen = ask(t, "unseen")
    t.complete(task, c.complete())
    unseen()
    accepted()
    poll_update(t, "accepted")
    t.call("UpdateWorkflowExecution", asked(t, "accepted"), fails=None)
    t.call("UpdateWorkflowExecution", asked(t, "unseen"), fails=None)
    t.history()


@program
def update_meets_continue_as_new(t: Tape) -> None:
    """The run that it waits on goes on in another: the caller is to ask again."""
    idle(t)
    t.signal("go on", run_id="")
    task = t.poll()
    asking = ask(t)
    t.complete(task, c.continue_as_new())
    asking()


@program
def update_ignored_by_close(t: Tape) -> None:
    """The task that brought the update closes the workflow without a word of it."""
    idle(t)
    asking = ask(t)
    t.complete(t.poll(), c.complete())
    asking()
    t.history()


@program
def update_accepted_with_close(t: Tape) -> None:
    """Accepted and closed in one task."""
    idle(t)
    accepted = ask(t, stage=ACCEPTED)
    completed = ask(t)
    t.complete(t.poll(), say("u/accept"), c.complete(), messages=[accept()])
    accepted()
    completed()
    t.history()


@program
def update_completed_with_close(t: Tape) -> None:
    """Completed and closed in one task; and messages that come too late."""
    idle(t)
    asking, late = ask(t), ask(t, "late")
    t.complete(
        t.poll(),
        say("u/accept"),
        say("u/respond"),
        c.complete(),
        messages=[accept(), respond(), accept("late")],
    )
    asking()
    late()
    t.history()


@program
def update_and_terminate(t: Tape) -> None:
    """Terminated with an update before a worker, one accepted."""
    idle(t)
    accepted = ask(t, "accepted")
    t.complete(t.poll(), messages=[accept("accepted")])
    waiting = ask(t, "waiting")
    t.poll()
    t.terminate("enough")
    waiting()
    accepted()
    t.history()


@program
def update_and_terminate_unstarted(t: Tape) -> None:
    """Terminated with a speculative task that no worker has."""
    idle(t)
    waiting = ask(t)
    t.terminate("enough")
    waiting()
    t.history()


@program
def update_bad_messages(t: Tape) -> None:
    """What a worker may not say of updates: the task fails, and the update with it."""
    empty = update.Acceptance(accepted_request_message_id="u/request")
    nameless = update.Acceptance(accepted_request_sequencing_event_id=1)
    other = protocol.Message(id="m", protocol_instance_id="u")
    other.body.Pack(common.Payloads())
    strange = protocol.Message(id="m", protocol_instance_id="u")
    strange.body.Pack(update.Input(name="x"))
    noisy = [
        [message("u", "accept", empty)],
        [message("u", "accept", nameless)],
        [accept("unknown")],
        [respond()],
        [accept(), accept()],
        [accept(), reject()],
        [accept(), message("u", "respond", update.Response())],
        [accept(), message("u", "respond", update.Response(meta=update.Meta(update_id="v")))],
        [accept(), message("u", "respond", update.Response(meta=update.Meta(update_id="u")))],
        [other],
        [strange],
    ]
    base = t.workflow_id
    for n, messages in enumerate(noisy):
        t.workflow_id = f"{base}-{n}"
        idle(t)
        asking = ask(t)
        t.complete(t.poll(), messages=messages, fails=True)
        asking()
        t.history()
        t.terminate()


@program
def update_bad_commands(t: Tape) -> None:
    """Commands that name no message, or one that is not there."""
    base = t.workflow_id
    for n, message_id in enumerate(("", "absent")):
        t.workflow_id = f"{base}-{n}"
        idle(t)
        asking = ask(t)
        t.complete(t.poll(), say(message_id), messages=[accept()], fails=True)
        asking()
        t.history()
        t.terminate()


@program
def update_task_fails_for_commands(t: Tape) -> None:
    """A bad command beside a good answer: neither counts, and the update is lost."""
    idle(t)
    asking = ask(t)
    t.complete(t.poll(), c.timer("", 1), messages=[accept(), respond()], fails=True)
    asking()
    t.history()
    t.complete(t.poll())
    t.history()


@program
def update_resurrected(t: Tape) -> None:
    """An answer that repeats a request which the server does not know."""
    idle(t)
    t.signal("s")
    request = asked(t, "lost").request
    t.complete(t.poll(), messages=[accept("lost", request), respond("lost")])
    t.signal("s")
    t.complete(t.poll(), messages=[reject("refused", asked(t, "refused").request)])
    poll_update(t, "lost")
    t.history()


@program
def updates_in_order(t: Tape) -> None:
    """Several at once arrive in the order in which they were asked."""
    idle(t)
    askings = [ask(t, f"u{n}") for n in (3, 1, 2)]
    t.complete(
        t.poll(), messages=[m for n in (3, 1, 2) for m in (accept(f"u{n}"), respond(f"u{n}"))]
    )
    for asking in askings:
        asking()
    t.history()


@program
def updates_in_flight_limit(t: Tape) -> None:
    """Ten may be in flight."""
    idle(t)
    askings = [ask(t, f"u{n}", stage=ACCEPTED) for n in range(10)]
    t.call("UpdateWorkflowExecution", asked(t, "eleventh"), fails=True)
    # The real server forgets all of them over the refusal; its own retries bring them back.
    t.await_condition(lambda: all(known(t, f"u{n}") for n in range(10)), "all ten again")
    with t.muted():
        task = t.poll()
    t.complete(task, messages=[accept(f"u{n}") for n in range(10)])
    t.call("UpdateWorkflowExecution", asked(t, "eleventh"), fails=True)
    t.signal("s")
    t.complete(t.poll(), messages=[respond("u0")])
    askings.append(ask(t, "eleventh"))
    t.complete(t.poll(), messages=[accept("eleventh"), respond("eleventh")])
    for asking in askings:
        asking()


@program
def pages_across_a_written_task(t: Tape) -> None:
    """A speculative task becomes a written one while somebody reads the history in pages."""
    t.start()
    t.complete(t.poll(), force=True)
    t.complete(t.poll())
    asking = ask(t)
    request = api.GetWorkflowExecutionHistoryRequest(
        namespace=t.namespace, execution=t.execution(), maximum_page_size=3
    )
    page = t.stub.GetWorkflowExecutionHistory(request)
    events = list(page.history.events)
    t.signal("s")
    while page.next_page_token:
        request.next_page_token = page.next_page_token
        page = t.stub.GetWorkflowExecutionHistory(request)
        events.extend(page.history.events)
    t.note("events", [f"{event.event_id} {event_name(event)}" for event in events])
    t.complete(t.poll(), messages=[accept(), respond()])
    asking()
