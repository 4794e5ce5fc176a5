"""Runs after runs: continue-as-new, workflow retries, cron, and timeouts across them."""

from __future__ import annotations

import commands as c
from driver import Tape, application_failure, payload, seconds
from programs import program


@program
def continue_as_new(t: Tape) -> None:
    """Everything taken over from the run before."""
    t.start(
        workflow_execution_timeout=seconds(600),
        workflow_run_timeout=seconds(60),
        workflow_task_timeout=seconds(7),
    )
    t.complete(t.poll(), c.continue_as_new(backoff=1))
    t.history()
    t.describe()
    t.run_id = ""
    task = t.poll()
    t.describe()
    t.complete(task, c.complete("end"))
    t.history()


@program
def continue_as_new_changed(t: Tape) -> None:
    """Everything changed."""
    number = payload(7)
    number.metadata["type"] = b"Int"
    t.start()
    with t.other("next"):
        queue = t.queue
    t.complete(
        t.poll(),
        c.continue_as_new(
            type="another",
            queue=queue,
            input=[1, 2],
            run=30,
            task=5,
            backoff=1.5,
            retry=c.retry_policy(2, attempts=4),
            memo={"m": "n"},
            attributes={"EverspanInt": number},
            header={"h": 1},
            last_result="last",
            failure=application_failure("before", "Before"),
        ),
    )
    t.history()
    t.run_id = ""
    t.queue = queue
    task = t.poll()
    t.complete(task, c.complete())
    t.history()


@program
def continue_as_new_twice(t: Tape) -> None:
    """First and previous runs of a chain of three; conditions on the first run."""
    t.start()
    t.complete(t.poll(), c.continue_as_new(input=1, backoff=1))
    t.run_id = ""
    t.complete(t.poll(), c.continue_as_new(input=2, backoff=1))
    task = t.poll()
    t.describe()
    t.complete(task, c.complete())
    t.history()


@program
def continue_as_new_unhandled(t: Tape) -> None:
    """A signal that the workflow has not seen keeps it from continuing."""
    t.start()
    task = t.poll()
    t.signal("wait")
    t.complete(task, c.continue_as_new(), fails=True)
    t.complete(t.poll(), c.continue_as_new(backoff=1))
    t.history()


@program
def continue_as_new_signaled(t: Tape) -> None:
    """A signal during the backoff of the next run waits for its first task."""
    t.start()
    t.complete(t.poll(), c.continue_as_new(backoff=4))
    t.run_id = ""
    t.signal("early", 1)
    t.history()
    t.complete(t.poll(), c.complete())
    t.history()


@program
def bad_continues(t: Tape) -> None:
    """Commands that are refused."""
    text = payload("text")
    for bad in (
        c.continue_as_new(type="x" * 1001),
        c.continue_as_new(run=-1),
        c.continue_as_new(task=-1),
        c.continue_as_new(backoff=-1),
        c.continue_as_new(retry=c.retry_policy(-1)),
        c.continue_as_new(attributes={"NoSuchAttribute": text}),
    ):
        with t.other("bad" + str(len(t.steps))):
            t.start()
            t.complete(t.poll(), bad, fails=None)
            t.history_from(4)


@program
def workflow_retry(t: Tape) -> None:
    """A failure is retried until attempts run out."""
    t.start(retry_policy=c.retry_policy(1, coefficient=1, attempts=2))
    t.complete(t.poll(), c.fail(application_failure("first", "First")))
    t.history()
    t.run_id = ""
    task = t.poll()
    t.describe()
    t.complete(task, c.fail(application_failure("second", "Second")))
    t.history()


@program
def workflow_retry_non_retryable(t: Tape) -> None:
    """Failures that are not retried, by flag and by type."""
    for failure in (
        application_failure("flag", "Flag", non_retryable=True),
        application_failure("type", "Final"),
    ):
        with t.other("w" + str(len(t.steps))):
            t.start(retry_policy=c.retry_policy(1, non_retryable=["Final"]))
            t.complete(t.poll(), c.fail(failure))
            t.history()


@program
def workflow_retry_delay(t: Tape) -> None:
    """The next delay is the failure's own."""
    t.start(retry_policy=c.retry_policy(100))
    t.complete(t.poll(), c.fail(application_failure("soon", "Soon", next_retry_delay=1.25)))
    t.history()
    t.run_id = ""
    t.complete(t.poll(), c.complete())
    t.history()


@program
def workflow_retry_expires(t: Tape) -> None:
    """No retry past the execution timeout."""
    t.start(retry_policy=c.retry_policy(100), workflow_execution_timeout=seconds(50))
    t.complete(t.poll(), c.fail(application_failure("late", "Late")))
    t.history()


@program
def workflow_retry_run_timeout(t: Tape) -> None:
    """A run that times out is retried; the second run completes."""
    t.start(retry_policy=c.retry_policy(1, attempts=2), workflow_run_timeout=seconds(1))
    first = t.run_id
    t.await_event("WORKFLOW_EXECUTION_TIMED_OUT")
    t.history(first)
    t.run_id = ""
    t.complete(t.poll(), c.complete())
    t.history()


@program
def workflow_retry_canceled(t: Tape) -> None:
    """Cancelled and terminated workflows are not retried."""
    with t.other("one"):
        t.start(retry_policy=c.retry_policy(1))
        t.cancel()
        t.complete(t.poll(), c.cancel())
        t.history()
    with t.other("two"):
        t.start(retry_policy=c.retry_policy(1))
        t.terminate()
        t.history()


@program
def bad_retry_policies(t: Tape) -> None:
    """Starts with a retry policy that makes no sense."""
    for policy in (
        c.retry_policy(-1),
        c.retry_policy(1, coefficient=0.5),
        c.retry_policy(2, maximum=1),
        c.retry_policy(1, attempts=-1),
        c.retry_policy(1, non_retryable=["TemporalTimeout:Never"]),
    ):
        t.start(retry_policy=policy, fails=True)


@program
def cron_runs(t: Tape) -> None:
    """The first run waits too; result and failure are carried to the next runs."""
    t.start(cron_schedule="@every 1s")
    t.history()
    t.run_id = ""
    t.complete(t.poll(), c.complete("one"))
    t.complete(t.poll(), c.fail(application_failure("two", "Two")))
    task = t.poll()
    t.describe()
    t.history()
    t.complete(task, c.cancel())
    t.history()


@program
def cron_retries_first(t: Tape) -> None:
    """Retries come before the next cron run."""
    t.start(cron_schedule="@every 1s", retry_policy=c.retry_policy(1, attempts=2))
    t.run_id = ""
    t.complete(t.poll(), c.fail(application_failure("one", "One")))
    t.complete(t.poll(), c.fail(application_failure("two", "Two")))
    task = t.poll()
    t.history()
    t.complete(task, c.continue_as_new(backoff=1))
    t.history()


@program
def cron_times_out(t: Tape) -> None:
    """A cron run that times out is followed by the next."""
    t.start(cron_schedule="@every 1s", workflow_run_timeout=seconds(1))
    first = t.run_id
    t.await_event("WORKFLOW_EXECUTION_TIMED_OUT")
    t.history(first)
    t.run_id = ""
    t.poll()
    t.history()


@program
def cron_terminated(t: Tape) -> None:
    """Terminate ends the chain, also while it waits."""
    t.start(cron_schedule="@every 1000h")
    t.terminate("no more")
    t.history()


@program
def bad_crons(t: Tape) -> None:
    """Starts with a schedule that makes no sense."""
    for schedule in ("never", "* * * *", "60 * * * *", "0 0 30 2 *", "@every x", "@yearlyy"):
        t.start(cron_schedule=schedule, fails=True)
    t.start(cron_schedule="* * * * *", workflow_start_delay=seconds(1), fails=True)


@program
def execution_timeout_across_runs(t: Tape) -> None:
    """The execution timeout spans continue-as-new."""
    t.start(workflow_execution_timeout=seconds(6), workflow_run_timeout=seconds(60))
    t.complete(t.poll(), c.continue_as_new(backoff=1))
    t.run_id = ""
    t.complete(t.poll())
    t.await_event("WORKFLOW_EXECUTION_TIMED_OUT")
    t.history()
