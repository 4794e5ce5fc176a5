"""Tasks that come with answers instead of polls."""

from __future__ import annotations

from datetime import timedelta

from temporalio import activity, workflow
from temporalio.api.common.v1 import WorkflowType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    GetSystemInfoRequest,
    RespondWorkflowTaskCompletedRequest,
    StartWorkflowExecutionRequest,
)
from temporalio.client import Client

from harness import Process
from helpers import events, kinds, working


@activity.defn
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@workflow.defn
class Greeter:
    @workflow.run
    async def run(self, name: str) -> str:
        greetings = [
            await workflow.execute_activity(
                greet, name, start_to_close_timeout=timedelta(seconds=20)
            )
            for _ in range(3)
        ]
        return greetings[-1]


async def test_the_capability_is_told(client: Client) -> None:
    info = await client.workflow_service.get_system_info(GetSystemInfoRequest())
    assert info.capabilities.eager_workflow_start


async def test_activities_without_an_activity_poller(client: Client, name: str) -> None:
    """One slot of an activity worker and no poll but its own: eager or not, all complete."""
    async with working(client, name, [Greeter], [greet], max_concurrent_activities=2):
        assert (
            await client.execute_workflow(Greeter.run, "you", id=name, task_queue=name)
            == "Hello, you!"
        )
    history = await events(client.get_workflow_handle(name))
    started = [e for e in history if e.HasField("activity_task_started_event_attributes")]
    assert len(started) == 3
    for event in started:
        attributes = event.activity_task_started_event_attributes
        assert attributes.identity and attributes.request_id and attributes.attempt == 1


async def test_eager_start_by_the_sdk(client: Client, name: str) -> None:
    async with working(client, name, [Greeter], [greet]):
        handle = await client.start_workflow(
            Greeter.run, "you", id=name, task_queue=name, request_eager_start=True
        )
        assert await handle.result() == "Hello, you!"
    started = (await events(handle))[0].workflow_execution_started_event_attributes
    assert started.eager_execution_accepted


async def test_an_eager_task_survives_a_kill(durable_server: Process, name: str) -> None:
    """What the answer to the start held is recorded: the token is good after a crash."""
    client = await Client.connect(durable_server.address)
    request = StartWorkflowExecutionRequest(
        namespace="default",
        workflow_id=name,
        request_id=name,
        workflow_type=WorkflowType(name="Any"),
        task_queue=TaskQueue(name=name),
        request_eager_execution=True,
        workflow_task_timeout=timedelta(seconds=60),
    )
    response = await client.workflow_service.start_workflow_execution(request)
    task = response.eager_workflow_task
    assert task.task_token and len(task.history.events) == 3
    durable_server.restart()
    again = await client.workflow_service.start_workflow_execution(request)
    assert again.run_id == response.run_id
    assert again.eager_workflow_task.task_token == task.task_token
    done = RespondWorkflowTaskCompletedRequest(namespace="default", task_token=task.task_token)
    command = done.commands.add(command_type=1)
    attributes = command.schedule_activity_task_command_attributes
    attributes.activity_id = "a"
    attributes.activity_type.name = "act"
    attributes.task_queue.name = name
    attributes.start_to_close_timeout.FromSeconds(60)
    attributes.request_eager_execution = True
    answer = await client.workflow_service.respond_workflow_task_completed(done)
    durable_server.restart()
    handle = client.get_async_activity_handle(task_token=answer.activity_tasks[0].task_token)
    await handle.complete("done")
    assert (await kinds(client.get_workflow_handle(name)))[-3:] == [
        "ACTIVITY_TASK_STARTED",
        "ACTIVITY_TASK_COMPLETED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
