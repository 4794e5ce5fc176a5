"""Activities: timeouts, retries, heartbeats, cancellation, asynchronous completion."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    TimeoutError,
    TimeoutType,
)
from temporalio.service import RPCError, RPCStatusCode
from temporalio.workflow import ActivityCancellationType

from helpers import await_event, events, eventually, kind, kinds, working

FAST = RetryPolicy(initial_interval=timedelta(milliseconds=50), backoff_coefficient=1.0)
ONCE = RetryPolicy(maximum_attempts=1)
# Heartbeats that the SDK sends at once instead of gathering them.
EAGER_HEARTBEATS = {
    "max_heartbeat_throttle_interval": timedelta(milliseconds=50),
    "default_heartbeat_throttle_interval": timedelta(milliseconds=50),
}


@activity.defn
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@activity.defn
async def hang() -> None:
    """Never returns by itself, and never heartbeats."""
    await asyncio.sleep(3600)


@activity.defn
async def fail(kind_: str, times: int, non_retryable: bool) -> int:
    """Fails the first `times` attempts; gives the attempt that succeeded."""
    attempt = activity.info().attempt
    if attempt <= times:
        raise ApplicationError(
            f"attempt {attempt}", attempt, type=kind_, non_retryable=non_retryable
        )
    return attempt


@activity.defn
async def fail_with_delay(milliseconds: int) -> int:
    """Fails once and asks for its own delay."""
    if activity.info().attempt == 1:
        raise ApplicationError("later", next_retry_delay=timedelta(milliseconds=milliseconds))
    return activity.info().attempt


@activity.defn
async def beat_then_fail() -> list[Any]:
    """Heartbeats on two attempts and fails; the third gives what it found."""
    info = activity.info()
    found = list(info.heartbeat_details)
    if info.attempt < 3:
        activity.heartbeat(info.attempt, found)
        # The failure carries the last heartbeat's details.
        raise ApplicationError(f"attempt {info.attempt}")
    return found


@activity.defn
async def beat_then_hang() -> list[Any]:
    """Heartbeats once and falls silent; the second attempt gives what it found."""
    info = activity.info()
    if info.attempt == 1:
        activity.heartbeat("last words")
        await asyncio.sleep(3600)
    return list(info.heartbeat_details)


@activity.defn
async def beat_until_cancelled(answer: str) -> str:
    """Heartbeats until it is cancelled, then completes, fails or is cancelled."""
    try:
        while True:
            activity.heartbeat()
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        if answer == "complete":
            return "completed anyway"
        if answer == "fail":
            raise ApplicationError("failed anyway", non_retryable=True) from None
        raise


TOKENS: dict[str, bytes] = {}


@activity.defn
async def by_hand() -> str:
    """Is completed by somebody else."""
    TOKENS[activity.info().workflow_id] = activity.info().task_token
    activity.raise_complete_async()


@workflow.defn
class RunActivity:
    """Runs one activity by name with options given as plain values."""

    @workflow.run
    async def run(self, name: str, args: list[Any], options: dict[str, Any]) -> Any:
        retry = options.pop("retry", None)
        return await workflow.execute_activity(
            name,
            args=args,
            activity_id="the-activity",
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=retry.get("initial", 0.05)),
                backoff_coefficient=retry.get("coefficient", 1.0),
                maximum_attempts=retry.get("attempts", 0),
                non_retryable_error_types=retry.get("non_retryable"),
            )
            if retry is not None
            else None,
            **{key: timedelta(seconds=value) for key, value in options.items()},
        )


@workflow.defn
class CancelActivity:
    """Starts an activity, cancels it on a signal, tells how it ended."""

    def __init__(self) -> None:
        self.go = False

    @workflow.run
    async def run(self, name: str, args: list[Any], cancellation: int) -> str:
        handle = workflow.start_activity(
            name,
            args=args,
            activity_id="the-activity",
            start_to_close_timeout=timedelta(seconds=30),
            heartbeat_timeout=timedelta(seconds=10),
            cancellation_type=ActivityCancellationType(cancellation),
            retry_policy=ONCE,
        )
        await workflow.wait_condition(lambda: self.go)
        handle.cancel()
        try:
            return f"completed: {await handle}"
        except ActivityError as error:
            return f"{type(error.cause).__name__}"

    @workflow.signal
    def cancel_it(self) -> None:
        self.go = True


@workflow.defn
class Local:
    """Runs a local activity."""

    @workflow.run
    async def run(self, name: str, args: list[Any]) -> Any:
        return await workflow.execute_local_activity(
            name,
            args=args,
            start_to_close_timeout=timedelta(seconds=20),
            retry_policy=RetryPolicy(
                initial_interval=timedelta(milliseconds=10), maximum_attempts=3
            ),
        )


@activity.defn
async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"


WORKFLOWS = [RunActivity, CancelActivity, Local]
ACTIVITIES = [
    greet,
    hang,
    fail,
    fail_with_delay,
    beat_then_fail,
    beat_then_hang,
    beat_until_cancelled,
    by_hand,
    nap,
]


def worker(client: Client, queue: str):
    """A worker of everything above that stops its activities at once at the end."""
    return working(
        client,
        queue,
        WORKFLOWS,
        ACTIVITIES,
        graceful_shutdown_timeout=timedelta(0),
        **EAGER_HEARTBEATS,
    )


async def start(client: Client, name: str, activity_name: str, args: list, **options: Any):
    return await client.start_workflow(
        RunActivity.run, args=[activity_name, args, options], id=name, task_queue=name
    )


async def activity_error(handle) -> ActivityError:
    """The activity error that failed the workflow."""
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert isinstance(caught.value.cause, ActivityError)
    return caught.value.cause


async def test_success(client: Client, name: str) -> None:
    """An activity's result."""
    async with worker(client, name):
        handle = await start(client, name, "greet", ["world"], start_to_close_timeout=10)
        assert await handle.result() == "Hello, world!"


async def test_start_to_close_timeout(client: Client, name: str) -> None:
    """One attempt that takes too long."""
    async with worker(client, name):
        handle = await start(
            client, name, "hang", [], start_to_close_timeout=0.5, retry={"attempts": 1}
        )
        error = await activity_error(handle)
    assert isinstance(error.cause, TimeoutError)
    assert error.cause.type == TimeoutType.START_TO_CLOSE
    assert error.activity_id == "the-activity"


async def test_start_to_close_timeout_is_retried(client: Client, name: str) -> None:
    """A start-to-close timeout counts as an attempt like any failure."""
    async with worker(client, name):
        handle = await start(
            client, name, "hang", [], start_to_close_timeout=0.3, retry={"attempts": 2}
        )
        error = await activity_error(handle)
    assert isinstance(error.cause, TimeoutError)
    assert error.cause.type == TimeoutType.START_TO_CLOSE
    started = [e for e in await events(handle) if kind(e) == "ACTIVITY_TASK_STARTED"]
    assert [e.activity_task_started_event_attributes.attempt for e in started] == [2]


async def test_schedule_to_start_timeout(client: Client, name: str) -> None:
    """Nobody takes it from its queue: final, whatever the policy."""
    async with working(client, name, WORKFLOWS):
        handle = await start(
            client,
            name,
            "greet",
            ["x"],
            schedule_to_start_timeout=0.5,
            start_to_close_timeout=10,
        )
        error = await activity_error(handle)
    assert isinstance(error.cause, TimeoutError)
    assert error.cause.type == TimeoutType.SCHEDULE_TO_START


async def test_schedule_to_close_timeout(client: Client, name: str) -> None:
    """Schedule-to-close spans every attempt; the last failure is inside."""
    async with worker(client, name):
        handle = await start(
            client,
            name,
            "fail",
            ["E", 10**6, False],
            schedule_to_close_timeout=1,
            retry={"initial": 0.4},
        )
        error = await activity_error(handle)
    # Either the time ran out while it waited, or the next attempt would come too late.
    if isinstance(error.cause, TimeoutError):
        assert error.cause.type == TimeoutType.SCHEDULE_TO_CLOSE
        assert isinstance(error.cause.cause, ApplicationError)
    else:
        assert isinstance(error.cause, ApplicationError)
        assert error.retry_state is not None and error.retry_state.name == "TIMEOUT"


async def test_heartbeat_timeout(client: Client, name: str) -> None:
    """A silent activity times out, with its last details."""
    async with worker(client, name):
        handle = await start(
            client,
            name,
            "beat_then_hang",
            [],
            start_to_close_timeout=30,
            heartbeat_timeout=1,
            retry={"attempts": 1},
        )
        error = await activity_error(handle)
    assert isinstance(error.cause, TimeoutError)
    assert error.cause.type == TimeoutType.HEARTBEAT
    assert list(error.cause.last_heartbeat_details) == ["last words"]


async def test_heartbeat_timeout_is_retried_with_details(client: Client, name: str) -> None:
    """After a heartbeat timeout the next attempt finds the details."""
    async with worker(client, name):
        handle = await start(
            client,
            name,
            "beat_then_hang",
            [],
            start_to_close_timeout=30,
            heartbeat_timeout=1,
            retry={},
        )
        assert await handle.result() == ["last words"]


async def test_heartbeat_details_across_attempts(client: Client, name: str) -> None:
    """Each attempt finds what the one before left."""
    async with worker(client, name):
        handle = await start(
            client, name, "beat_then_fail", [], start_to_close_timeout=10, retry={}
        )
        assert await handle.result() == [2, [1, []]]


async def test_retries_until_success(client: Client, name: str) -> None:
    """Failed attempts leave no event; the started event names the last attempt."""
    async with worker(client, name):
        handle = await start(
            client, name, "fail", ["E", 2, False], start_to_close_timeout=10, retry={}
        )
        assert await handle.result() == 3
    found = await events(handle)
    started = [e for e in found if kind(e) == "ACTIVITY_TASK_STARTED"]
    assert len(started) == 1
    attributes = started[0].activity_task_started_event_attributes
    assert attributes.attempt == 3
    assert attributes.last_failure.message == "attempt 2"


async def test_maximum_attempts(client: Client, name: str) -> None:
    """The policy's attempts run out."""
    async with worker(client, name):
        handle = await start(
            client,
            name,
            "fail",
            ["E", 9, False],
            start_to_close_timeout=10,
            retry={"attempts": 2},
        )
        error = await activity_error(handle)
    assert error.retry_state is not None
    assert error.retry_state.name == "MAXIMUM_ATTEMPTS_REACHED"
    assert isinstance(error.cause, ApplicationError)
    assert error.cause.message == "attempt 2"


@pytest.mark.parametrize("how", ["failure", "policy"])
async def test_non_retryable(client: Client, name: str, how: str) -> None:
    """Marked non-retryable by the failure or named by the policy."""
    async with worker(client, name):
        handle = await start(
            client,
            name,
            "fail",
            ["Fatal", 9, how == "failure"],
            start_to_close_timeout=10,
            retry={"non_retryable": ["Fatal"]} if how == "policy" else {},
        )
        error = await activity_error(handle)
    assert error.retry_state is not None
    assert error.retry_state.name == "NON_RETRYABLE_FAILURE"
    assert isinstance(error.cause, ApplicationError)
    assert (error.cause.type, list(error.cause.details)) == ("Fatal", [1])


async def test_next_retry_delay(client: Client, name: str) -> None:
    """The failure's own delay goes before the policy's interval of a minute."""
    async with worker(client, name):
        begun = time.monotonic()
        handle = await start(
            client,
            name,
            "fail_with_delay",
            [500],
            start_to_close_timeout=10,
            retry={"initial": 60},
        )
        assert await handle.result() == 2
        assert 0.5 <= time.monotonic() - begun < 30


async def test_retry_interval_is_kept(client: Client, name: str) -> None:
    """The second attempt does not come before the interval, nor the third before twice it."""
    async with worker(client, name):
        begun = time.monotonic()
        handle = await start(
            client,
            name,
            "fail",
            ["E", 2, False],
            start_to_close_timeout=10,
            retry={"initial": 0.4, "coefficient": 2.0},
        )
        assert await handle.result() == 3
        assert time.monotonic() - begun >= 1.2


async def test_describe_pending(client: Client, name: str) -> None:
    """A pending activity's attempt, state and last failure."""
    async with worker(client, name):
        handle = await start(
            client,
            name,
            "fail",
            ["E", 9, False],
            start_to_close_timeout=10,
            retry={"initial": 30, "attempts": 7},
        )

        async def failed_once() -> Any:
            pending = (await handle.describe()).raw_description.pending_activities
            return pending if pending and pending[0].HasField("last_failure") else None

        pending = await eventually(failed_once, "the first failure")
    assert len(pending) == 1
    assert pending[0].activity_id == "the-activity"
    assert pending[0].activity_type.name == "fail"
    assert pending[0].state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
    assert pending[0].attempt == 2
    assert pending[0].maximum_attempts == 7
    assert pending[0].last_failure.message == "attempt 1"
    assert pending[0].last_failure.application_failure_info.type == "E"
    assert pending[0].last_worker_identity
    await handle.terminate()


async def test_describe_started(client: Client, name: str) -> None:
    """A started activity's state and heartbeat details."""
    async with worker(client, name):
        handle = await start(client, name, "beat_then_hang", [], start_to_close_timeout=30)

        async def beaten() -> Any:
            pending = (await handle.describe()).raw_description.pending_activities
            return pending if pending and pending[0].heartbeat_details.payloads else None

        pending = await eventually(beaten, "the heartbeat")
        assert pending[0].state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
        assert pending[0].attempt == 1
        assert pending[0].heartbeat_details.payloads[0].data == b'"last words"'
        assert pending[0].HasField("last_heartbeat_time")
        await handle.terminate()


@pytest.mark.parametrize(
    ("cancellation", "answer", "end"),
    [
        (ActivityCancellationType.WAIT_CANCELLATION_COMPLETED, "cancel", "CancelledError"),
        (
            ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            "complete",
            "completed: completed anyway",
        ),
        (ActivityCancellationType.WAIT_CANCELLATION_COMPLETED, "fail", "ApplicationError"),
        (ActivityCancellationType.TRY_CANCEL, "cancel", "CancelledError"),
        (ActivityCancellationType.ABANDON, "cancel", "CancelledError"),
    ],
)
async def test_cancellation(
    client: Client, name: str, cancellation: ActivityCancellationType, answer: str, end: str
) -> None:
    """Each cancellation type, delivered on the heartbeat."""
    async with worker(client, name):
        handle = await client.start_workflow(
            CancelActivity.run,
            args=["beat_until_cancelled", [answer], int(cancellation)],
            id=name,
            task_queue=name,
        )

        async def started() -> bool:
            pending = (await handle.describe()).raw_description.pending_activities
            return bool(pending) and pending[0].state == 2

        await eventually(started, "the activity's start")
        await handle.signal(CancelActivity.cancel_it)
        assert await handle.result() == end
    found = await kinds(handle)
    abandoned = cancellation == ActivityCancellationType.ABANDON
    assert ("ACTIVITY_TASK_CANCEL_REQUESTED" in found) == (not abandoned)


async def test_cancellation_before_start(client: Client, name: str) -> None:
    """An activity that no worker took is cancelled by the server at once."""
    async with working(client, name, WORKFLOWS):
        handle = await client.start_workflow(
            CancelActivity.run,
            args=[
                "nobody-has-this",
                [],
                int(ActivityCancellationType.WAIT_CANCELLATION_COMPLETED),
            ],
            id=name,
            task_queue=name,
        )
        await await_event(handle, "ACTIVITY_TASK_SCHEDULED")
        await handle.signal(CancelActivity.cancel_it)
        assert await handle.result() == "CancelledError"
    assert "ACTIVITY_TASK_CANCELED" in await kinds(handle)


async def test_asynchronous_completion_by_token(client: Client, name: str) -> None:
    """Completed by somebody who has the task token."""
    async with worker(client, name):
        handle = await start(client, name, "by_hand", [], start_to_close_timeout=20)
        await eventually(lambda: name in TOKENS, "the token")
        by_token = client.get_async_activity_handle(task_token=TOKENS[name])
        await by_token.heartbeat("nearly")
        await by_token.complete("by token")
        assert await handle.result() == "by token"
        with pytest.raises(RPCError) as caught:
            await by_token.complete("again")
        assert caught.value.status == RPCStatusCode.NOT_FOUND


async def test_asynchronous_completion_by_id(client: Client, name: str) -> None:
    """Completed by somebody who knows workflow and activity ID."""
    async with worker(client, name):
        handle = await start(client, name, "by_hand", [], start_to_close_timeout=20)
        await eventually(lambda: name in TOKENS, "the start")
        by_id = client.get_async_activity_handle(
            workflow_id=name, run_id=handle.result_run_id, activity_id="the-activity"
        )
        await by_id.heartbeat("nearly")
        await by_id.complete("by id")
        assert await handle.result() == "by id"


async def test_asynchronous_failure_by_id(client: Client, name: str) -> None:
    """Failed by somebody who knows workflow and activity ID."""
    async with worker(client, name):
        handle = await start(client, name, "by_hand", [], start_to_close_timeout=20)
        await eventually(lambda: name in TOKENS, "the start")
        by_id = client.get_async_activity_handle(
            workflow_id=name, run_id=None, activity_id="the-activity"
        )
        await by_id.fail(ApplicationError("by id", type="E", non_retryable=True))
        error = await activity_error(handle)
    assert isinstance(error.cause, ApplicationError)
    assert (error.cause.message, error.cause.type) == ("by id", "E")


async def test_asynchronous_cancellation(client: Client, name: str) -> None:
    """A heartbeat by ID learns of the cancellation and reports it."""
    async with worker(client, name):
        handle = await client.start_workflow(
            CancelActivity.run,
            args=[
                "by_hand",
                [],
                int(ActivityCancellationType.WAIT_CANCELLATION_COMPLETED),
            ],
            id=name,
            task_queue=name,
        )
        await eventually(lambda: name in TOKENS, "the start")
        by_id = client.get_async_activity_handle(
            workflow_id=name, run_id=None, activity_id="the-activity"
        )
        await handle.signal(CancelActivity.cancel_it)
        await await_event(handle, "ACTIVITY_TASK_CANCEL_REQUESTED")

        async def told() -> bool:
            try:
                await by_id.heartbeat()
            except Exception as error:
                assert type(error).__name__ == "AsyncActivityCancelledError", error
                return True
            return False

        await eventually(told, "the cancellation on a heartbeat")
        await by_id.report_cancellation("cleaned up")
        assert await handle.result() == "CancelledError"


async def test_unknown_activity_by_id(client: Client, name: str) -> None:
    """By the ID of an activity that is not there: NOT_FOUND."""
    async with worker(client, name):
        handle = await start(client, name, "by_hand", [], start_to_close_timeout=20)
        await eventually(lambda: name in TOKENS, "the start")
        wrong = client.get_async_activity_handle(
            workflow_id=name, run_id=None, activity_id="another"
        )
        with pytest.raises(RPCError) as caught:
            await wrong.complete("x")
        assert caught.value.status == RPCStatusCode.NOT_FOUND
        await handle.terminate()


async def test_local_activity(client: Client, name: str) -> None:
    """A short local activity leaves a marker in the task that ran it."""
    async with worker(client, name):
        handle = await client.start_workflow(
            Local.run, args=["greet", ["here"]], id=name, task_queue=name
        )
        assert await handle.result() == "Hello, here!"
    found = await kinds(handle)
    assert found.count("MARKER_RECORDED") == 1
    assert found.count("WORKFLOW_TASK_COMPLETED") == 1


async def test_local_activity_retries(client: Client, name: str) -> None:
    """A local activity is retried by the worker."""
    async with worker(client, name):
        handle = await client.start_workflow(
            Local.run, args=["fail", ["E", 2, False]], id=name, task_queue=name
        )
        assert await handle.result() == 3


async def test_long_local_activity_heartbeats_its_task(client: Client, name: str) -> None:
    """A local activity longer than the task timeout keeps its workflow task alive."""
    async with worker(client, name):
        handle = await client.start_workflow(
            Local.run,
            args=["nap", [2.5]],
            id=name,
            task_queue=name,
            task_timeout=timedelta(seconds=1),
        )
        assert await handle.result() == "rested"
    found = await kinds(handle)
    assert found.count("WORKFLOW_TASK_COMPLETED") > 1
    assert "WORKFLOW_TASK_TIMED_OUT" not in found
    assert found.count("MARKER_RECORDED") == 1


async def test_many_at_once(client: Client, name: str) -> None:
    """Fifty activities of one task all complete."""
    async with working(client, name, [FanOut], [greet]):
        assert await client.execute_workflow(FanOut.run, 50, id=name, task_queue=name) == 50


@workflow.defn
class FanOut:
    @workflow.run
    async def run(self, count: int) -> int:
        said = await asyncio.gather(
            *(
                workflow.execute_activity(
                    greet, str(n), start_to_close_timeout=timedelta(seconds=20)
                )
                for n in range(count)
            )
        )
        assert said == [f"Hello, {n}!" for n in range(count)]
        return len(said)


async def test_cancelled_workflow_cancels_activity(client: Client, name: str) -> None:
    """A workflow's cancellation reaches its running activity."""
    async with worker(client, name):
        handle = await start(
            client,
            name,
            "beat_until_cancelled",
            ["cancel"],
            start_to_close_timeout=30,
            heartbeat_timeout=10,
        )

        async def started() -> bool:
            pending = (await handle.describe()).raw_description.pending_activities
            return bool(pending) and pending[0].state == 2

        await eventually(started, "the activity's start")
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
        assert isinstance(caught.value.cause, CancelledError)
