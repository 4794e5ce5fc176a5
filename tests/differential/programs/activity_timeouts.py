"""The four timeouts of activities, alone and across attempts."""

from __future__ import annotations

import commands as c
from driver import Tape, application_failure
from programs import program
from programs.activities import begin, finish


@program
def schedule_to_start_timeout(t: Tape) -> None:
    """No worker takes it in time: final, whatever the policy."""
    begin(t, c.activity("a", t.queue, schedule_to_start=0.5))
    finish(t)


@program
def schedule_to_close_timeout_unstarted(t: Tape) -> None:
    """No worker takes it before schedule-to-close."""
    begin(t, c.activity("a", t.queue, schedule_to_close=0.5, start_to_close=None))
    finish(t)


@program
def schedule_to_close_timeout_started(t: Tape) -> None:
    """The worker has it when schedule-to-close comes."""
    begin(t, c.activity("a", t.queue, schedule_to_close=1, start_to_close=None))
    task = t.poll_activity()
    t.complete(t.poll(), c.complete())
    t.complete_activity(task, fails=True)
    t.history()


@program
def start_to_close_timeout_final(t: Tape) -> None:
    """One attempt allowed, and it takes too long."""
    begin(t, c.activity("a", t.queue, start_to_close=0.5, retry=c.retry_policy(attempts=1)))
    task = t.poll_activity()
    t.complete(t.poll(), c.complete())
    t.complete_activity(task, fails=True)
    t.history()


@program
def start_to_close_timeout_retried(t: Tape) -> None:
    """An attempt that takes too long is followed by another."""
    begin(t, c.activity("a", t.queue, start_to_close=1, retry=c.retry_policy(initial=0.05)))
    t.poll_activity()
    task = t.poll_activity()
    t.describe()
    t.complete_activity(task, "second")
    finish(t)


@program
def start_to_close_non_retryable(t: Tape) -> None:
    """The policy can name the timeout itself."""
    begin(
        t,
        c.activity(
            "a",
            t.queue,
            start_to_close=0.5,
            retry=c.retry_policy(non_retryable=["TemporalTimeout:StartToClose"]),
        ),
    )
    t.poll_activity()
    finish(t)


@program
def heartbeat_timeout_final(t: Tape) -> None:
    """A missed heartbeat, with the last details in the failure."""
    begin(t, c.activity("a", t.queue, heartbeat=1, retry=c.retry_policy(attempts=1)))
    t.heartbeat(t.poll_activity(), "last words")
    finish(t)


@program
def heartbeat_timeout_retried(t: Tape) -> None:
    """A missed heartbeat is retried, and the details go to the next attempt."""
    begin(t, c.activity("a", t.queue, heartbeat=1, retry=c.retry_policy(initial=0.05)))
    t.heartbeat(t.poll_activity(), "so far")
    task = t.poll_activity()
    t.describe()
    t.complete_activity(task)
    finish(t)


@program
def schedule_to_close_across_attempts(t: Tape) -> None:
    """Schedule-to-close spans attempts; the last failure is the cause."""
    begin(
        t,
        c.activity(
            "a",
            t.queue,
            schedule_to_close=2,
            start_to_close=10,
            retry=c.retry_policy(initial=0.05, coefficient=1),
        ),
    )
    t.fail_activity(t.poll_activity(), application_failure("one", "E"))
    t.poll_activity()
    finish(t)


@program
def schedule_to_start_timeout_on_retry(t: Tape) -> None:
    """Schedule-to-start of a later attempt."""
    begin(
        t,
        c.activity(
            "a", t.queue, schedule_to_start=1, retry=c.retry_policy(initial=0.05, coefficient=1)
        ),
    )
    t.fail_activity(t.poll_activity(), application_failure("one", "E"))
    finish(t)


@program
def timeout_while_task_started(t: Tape) -> None:
    """A timeout behind a started workflow task is buffered."""
    begin(t, c.activity("a", t.queue, start_to_close=0.5, retry=c.retry_policy(attempts=1)))
    t.signal("s")
    task = t.poll()
    t.poll_activity()
    t.await_condition(lambda: not t.describe(quiet=True).pending_activities, "the timeout")
    t.history()
    t.complete(task)
    finish(t)
