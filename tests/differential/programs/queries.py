"""Queries: alone, with a workflow task, to closed runs, rejected, failed."""

from __future__ import annotations

from temporalio.api.enums.v1 import query_pb2 as enums
from temporalio.api.query.v1 import message_pb2 as query_pb2
from temporalio.api.workflowservice.v1 import request_response_pb2 as api

import commands as c
from driver import Question, Tape, payloads, seconds
from programs import program


@program
def query_alone(t: Tape) -> None:
    """No task is due: the query goes by itself and leaves no event."""
    t.start()
    t.complete(t.poll(), c.timer("t", 60))
    answer = t.query()
    t.answer_query(t.poll(), "the answer")
    answer()
    answer = t.query(run_id="")
    t.answer_query(t.poll(), error="cannot say")
    answer()
    t.history()
    t.terminate()


@program
def query_closed(t: Tape) -> None:
    """A closed run answers from its history; conditions can reject."""
    t.start()
    t.complete(t.poll(), c.complete("done"))
    answer = t.query()
    t.answer_query(t.poll(), "from the grave")
    answer()
    t.query(reject=enums.QUERY_REJECT_CONDITION_NOT_OPEN)()
    answer = t.query(reject=enums.QUERY_REJECT_CONDITION_NOT_COMPLETED_CLEANLY)
    t.answer_query(t.poll(), "clean")
    answer()
    answer = t.query(reject=enums.QUERY_REJECT_CONDITION_NONE)
    t.answer_query(t.poll(), "none")
    answer()


@program
def query_terminated(t: Tape) -> None:
    """A terminated run did not complete cleanly."""
    t.start()
    t.complete(t.poll())
    t.terminate()
    t.query(reject=enums.QUERY_REJECT_CONDITION_NOT_OPEN)()
    t.query(reject=enums.QUERY_REJECT_CONDITION_NOT_COMPLETED_CLEANLY)()
    answer = t.query()
    t.answer_query(t.poll(), "still here")
    answer()


@program
def query_sticky(t: Tape) -> None:
    """A query goes to the sticky queue, without history."""
    t.start()
    t.complete(t.poll(), c.timer("t", 60), sticky=10)
    with t.polling_sticky() as sticky:
        answer = t.query()
        t.answer_query(sticky(), "sticky")
    answer()
    t.terminate()


@program
def query_with_task(t: Tape) -> None:
    """A query that meets a scheduled task after the first rides on it."""
    t.start()
    task = t.poll()
    t.signal("behind")
    answer = _buffered_query(t)
    t.complete(task, c.timer("t", 60))
    task = t.poll()
    results = {
        key: query_pb2.WorkflowQueryResult(result_type=1, answer=payloads("with the task"))
        for key in task.queries
    }
    t.complete(task, c.complete(), query_results=results)
    answer()
    t.history()


def _buffered_query(t: Tape) -> Question:
    """Asks a query and returns when the server has it, behind the started task.

    The server shows buffered queries nowhere, but it buffers one at most: a probe that is
    refused or given up tells that the query is there. Where the probe came first, the
    query was refused and is asked again.
    """
    while True:
        answer = t.query()
        with t.muted():
            t.query("probe", timeout=1)()
        if not answer.done():
            return answer


@program
def query_refused(t: Tape) -> None:
    """A query without a type, and answers to query tasks that no server made."""
    t.start()
    t.complete(t.poll())
    t.query("")()
    for token in (b"", b"\xff\xff not a token"):
        t.call(
            "RespondQueryTaskCompleted",
            api.RespondQueryTaskCompletedRequest(namespace=t.namespace, task_token=token),
            fails=True,
        )
    t.terminate()


@program
def query_before_first_task(t: Tape) -> None:
    """A run whose first workflow task comes later than the caller waits."""
    t.start(workflow_start_delay=seconds(60))
    t.query(timeout=5)()
    t.terminate()
    t.history()
