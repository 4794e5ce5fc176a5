"""The HTTP/JSON form of the API."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import pytest
import requests
from temporalio import workflow
from temporalio.client import Client

from helpers import working

JSON = {"content-type": "application/json", "accept": "application/json"}
TIMEOUT = 20


@workflow.defn(name="HttpEcho")
class HttpEcho:
    def __init__(self) -> None:
        self.words: list[Any] = []

    @workflow.run
    async def run(self, first: str, second: dict) -> dict:
        await workflow.wait_condition(lambda: bool(self.words))
        return {"first": first, "second": second, "words": self.words}

    @workflow.signal
    def word(self, word: str, number: int) -> None:
        self.words.append([word, number])

    @workflow.query
    def seen(self, prefix: str) -> str:
        return f"{prefix}{len(self.words)}"


class Http:
    """The calls of one namespace."""

    def __init__(self, address: str) -> None:
        self.root = f"{address}/api/v1"
        self.base = f"{self.root}/namespaces/default"

    def get(self, path: str, **options: Any) -> requests.Response:
        headers = {"accept": "application/json"} | options.pop("headers", {})
        return requests.get(self.base + path, headers=headers, timeout=TIMEOUT, **options)

    def post(self, path: str, body: Any, **options: Any) -> requests.Response:
        data = body if isinstance(body, (str, bytes)) else json.dumps(body)
        headers = JSON | options.pop("headers", {})
        return requests.post(
            self.base + path, data=data, headers=headers, timeout=TIMEOUT, **options
        )

    def start(self, name: str, **fields: Any) -> requests.Response:
        return self.post(
            f"/workflows/{name}",
            {
                "workflowType": {"name": "HttpEcho"},
                "taskQueue": {"name": name},
                "input": ["one", {"two": 2}],
                "requestId": f"request-{name}",
            }
            | fields,
        )


@pytest.fixture
def api(http: str) -> Http:
    """The HTTP API."""
    return Http(http)


def error(response: requests.Response, status: int, code: int) -> dict[str, Any]:
    """Checks that an answer is an API error in JSON."""
    assert response.status_code == status, response.text
    body = response.json()
    assert body["code"] == code, body
    assert body["message"], body
    return body


async def test_a_workflow_over_http(api: Http, client: Client, name: str) -> None:
    """Start, describe, signal, query, history, count and terminate with shorthand payloads."""
    call = asyncio.to_thread
    started = await call(api.start, name, memo={"fields": {"key": "value"}})
    assert started.status_code == 200, started.text
    # "*" is what the real server 1.32 answers.
    assert started.headers["content-type"].split(";")[0] in ("application/json", "*")
    run_id = started.json()["runId"]
    assert started.json()["started"] is True
    # The same request again is the same run.
    assert (await call(api.start, name)).json()["runId"] == run_id

    async with working(client, name, [HttpEcho]):
        asked = await call(
            api.post, f"/workflows/{name}/query/seen", {"query": {"queryArgs": ["n="]}}
        )
        assert asked.status_code == 200, asked.text
        assert asked.json() == {"queryResult": ["n=0"]}
        signalled = await call(api.post, f"/workflows/{name}/signal/word", {"input": ["hi", 5]})
        assert signalled.status_code == 200, signalled.text
        result = await client.get_workflow_handle(name).result()
    assert result == {"first": "one", "second": {"two": 2}, "words": [["hi", 5]]}

    described = (await call(api.get, f"/workflows/{name}")).json()
    info = described["workflowExecutionInfo"]
    assert info["execution"] == {"workflowId": name, "runId": run_id}
    assert info["status"] == "WORKFLOW_EXECUTION_STATUS_COMPLETED"
    # 64-bit numbers are strings in the API's JSON.
    assert isinstance(info["historyLength"], str)
    assert info["memo"] == {"fields": {"key": "value"}}

    history = (await call(api.get, f"/workflows/{name}/history")).json()["history"]["events"]
    assert history[0]["eventType"] == "EVENT_TYPE_WORKFLOW_EXECUTION_STARTED"
    assert history[0]["workflowExecutionStartedEventAttributes"]["input"] == ["one", {"two": 2}]
    assert history[-1]["workflowExecutionCompletedEventAttributes"]["result"] == [result]

    ended = await call(api.post, f"/workflows/{name}/terminate", {"reason": "late"})
    body = error(ended, 404, 5)
    assert body["message"] == "workflow execution already completed"


def test_payloads_without_shorthand(api: Http, name: str) -> None:
    """The accept header turns the shorthand off, and long payloads are taken in."""
    long = {"payloads": [{"metadata": {"encoding": "anNvbi9wbGFpbg=="}, "data": "Im9uZSI="}]}
    assert api.start(name, input=long).status_code == 200
    accept = {"accept": "application/json+no-payload-shorthand"}
    for headers, wanted in (({}, ["one"]), (accept, long)):
        events = api.get(f"/workflows/{name}/history", headers=headers).json()
        started = events["history"]["events"][0]["workflowExecutionStartedEventAttributes"]
        assert started["input"] == wanted
    assert api.post(f"/workflows/{name}/terminate", {"reason": "done"}).json() == {}


def test_pretty(api: Http) -> None:
    """`?pretty` indents."""
    assert "\n  " not in api.get("").text.strip()
    assert "\n  " in api.get("?pretty").text
    assert api.get("?pretty").json() == api.get("").json()


def test_pages_and_query_parameters(api: Http, name: str) -> None:
    """Fields that are not in the path come from the query string."""
    api.start(name)
    for _ in range(4):
        api.post(f"/workflows/{name}/signal/word", {"input": ["x", 1]})
    path = f"/workflows/{name}/history?maximumPageSize=2"
    events: list[str] = []
    token = None
    for _ in range(10):
        page = api.get(path, params={"nextPageToken": token} if token else {}).json()
        events += [event["eventId"] for event in page["history"]["events"]]
        token = page.get("nextPageToken")
        if not token:
            break
    assert events == [str(n) for n in range(1, 7)]
    run_id = api.get(f"/workflows/{name}").json()["workflowExecutionInfo"]["execution"]["runId"]
    by_run = api.get(f"/workflows/{name}", params={"execution.runId": run_id})
    assert by_run.status_code == 200
    wrong = "00000000-0000-4000-8000-000000000000"
    error(api.get(f"/workflows/{name}", params={"execution.runId": wrong}), 404, 5)
    api.post(f"/workflows/{name}/terminate", {})


def test_conflict(api: Http, name: str) -> None:
    """409 with the details of WorkflowExecutionAlreadyStarted."""
    run_id = api.start(name).json()["runId"]
    body = error(api.start(name, requestId="another"), 409, 6)
    (detail,) = body["details"]
    kind = "temporal.api.errordetails.v1.WorkflowExecutionAlreadyStartedFailure"
    assert detail["@type"] == f"type.googleapis.com/{kind}"
    assert detail["runId"] == run_id
    api.post(f"/workflows/{name}/terminate", {})


def test_not_found(api: Http, name: str) -> None:
    """404 for a workflow, a namespace, a route."""
    body = error(api.get(f"/workflows/{name}"), 404, 5)
    assert body["message"] == f"workflow not found for ID: {name}"
    unknown = requests.get(f"{api.root}/namespaces/nowhere", timeout=TIMEOUT)
    body = error(unknown, 404, 5)
    assert body["details"][0]["namespace"] == "nowhere"
    error(requests.get(f"{api.root}/no-such-route", timeout=TIMEOUT), 404, 5)


def test_method_not_allowed(api: Http, name: str) -> None:
    """A route's wrong method is told apart from a route that is not there."""
    response = requests.delete(f"{api.base}/workflows/{name}", timeout=TIMEOUT)
    # The real server's gateway says 501 and UNIMPLEMENTED.
    error(response, response.status_code, 12)
    assert response.status_code in (405, 501)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"input": ', ""),
        ('{"nobodyKnowsThis": 1}', "nobodyKnowsThis"),
        ('{"signalName": 5}', "signalName"),
        ('{"workflowExecution": "w"}', "WorkflowExecution"),
        ('{"header": {"fields": []}}', "fields"),
        ('{"links": {}}', "links"),
        ('{"identity": "a", "identity": "b"}', "identity"),
        ('{"identity": "a"} {}', "trailing"),
        (b'{"identity": "\xff"}', ""),
        ('["not", "an", "object"]', ""),
        ("no json at all", ""),
    ],
)
def test_malformed_bodies(api: Http, name: str, body: str | bytes, told: str) -> None:
    """400 with what is wrong and where."""
    answer = error(api.post(f"/workflows/{name}/signal/word", body), 400, 3)
    assert told in answer["message"]
    assert re.search(r"\(line 1:\d+\)", answer["message"]), answer


def test_where_is_the_line_too(api: Http, name: str) -> None:
    """A mistake in a long body is found by its line."""
    body = '{\n  "identity": "a",\n  "nobodyKnowsThis": 1\n}'
    answer = error(api.post(f"/workflows/{name}/signal/word", body), 400, 3)
    assert "(line 3:" in answer["message"]


def test_malformed_parameters(api: Http) -> None:
    """400 for a query parameter that is no number, and for a bad list query."""
    answer = error(api.get("/workflows?pageSize=notanumber"), 400, 3)
    assert "page_size" in answer["message"] or "pageSize" in answer["message"]
    error(api.get("/workflows", params={"query": "bad bad"}), 400, 3)


def test_body_too_large(api: Http, name: str) -> None:
    """A body over the limit is a 4xx, and the server goes on."""
    body = json.dumps({"input": ["x" * (6 << 20)]})
    response = api.post(f"/workflows/{name}/signal/word", body)
    assert response.status_code in (400, 413), response.text
    assert response.json()["message"]
    assert api.get("").status_code == 200


def test_a_large_body_within_the_limit(api: Http, name: str) -> None:
    """What fits is taken, chunked as well."""
    api.start(name)
    word = "x" * (1 << 20)
    body = json.dumps({"input": [word, 1]}).encode()
    chunks = (body[at : at + 50_000] for at in range(0, len(body), 50_000))
    response = requests.post(
        f"{api.base}/workflows/{name}/signal/word", data=chunks, headers=JSON, timeout=TIMEOUT
    )
    assert response.status_code == 200, response.text
    events = api.get(f"/workflows/{name}/history").json()["history"]["events"]
    signalled = events[-1]["workflowExecutionSignaledEventAttributes"]
    assert signalled["input"] == [word, 1]
    api.post(f"/workflows/{name}/terminate", {})


def test_every_form_of_a_payload(api: Http, name: str) -> None:
    """Short, in full, null, protobuf JSON and bytes, in and out."""
    full = {"metadata": {"encoding": "YmluYXJ5L3BsYWlu"}, "data": "AAEC"}
    null = {"metadata": {"encoding": "YmluYXJ5L251bGw="}}
    message = {"_protoMessageType": "a.B", "x": [1, 2.5, None]}
    short = ["text", 5, 1.5, True, None, [], {}, {"a": {"b": [None]}}, message]
    api.start(name, input=short)
    started = "workflowExecutionStartedEventAttributes"

    def first(path: str) -> Any:
        return api.get(f"/workflows/{name}/history{path}").json()["history"]["events"][0][started]

    wanted = [null if value is None else value for value in short]
    assert first("")["input"] == wanted
    long = first("?noPayloadShorthand")["input"]["payloads"]
    assert [set(payload) for payload in long if payload != null] == [{"metadata", "data"}] * 8
    # What came out goes in again, in either form.
    for again in (wanted, {"payloads": long}):
        api.post(f"/workflows/{name}/signal/word", {"input": again})
        event = api.get(f"/workflows/{name}/history").json()["history"]["events"][-1]
        assert event["workflowExecutionSignaledEventAttributes"]["input"] == wanted
    # One that has no short form makes all of them stand in full.
    api.post(f"/workflows/{name}/signal/word", {"input": [1, full]})
    event = api.get(f"/workflows/{name}/history").json()["history"]["events"][-1]
    payloads = event["workflowExecutionSignaledEventAttributes"]["input"]["payloads"]
    assert payloads[1] == full
    api.post(f"/workflows/{name}/terminate", {})


def test_forms_of_the_answer(api: Http) -> None:
    """Accept and parameters choose indentation; errors have it too."""
    pretty = api.get("", headers={"accept": "application/json+pretty"})
    assert "\n  " in pretty.text
    assert pretty.headers["content-type"] == "application/json+pretty"
    assert "\n  " in api.get("/workflows/nobody?pretty").text


def test_a_workflow_id_with_a_slash(everspan_http: str, name: str) -> None:
    """An encoded slash is part of the ID, where it would be another path otherwise."""
    api = Http(everspan_http)
    encoded = f"a%2F{name}%20%C3%A4"
    assert api.start(encoded, taskQueue={"name": name}).status_code == 200
    info = api.get(f"/workflows/{encoded}").json()["workflowExecutionInfo"]
    assert info["execution"]["workflowId"] == f"a/{name} ä"
    api.post(f"/workflows/{encoded}/terminate", {})


def test_without_the_prefix(http: str, api: Http) -> None:
    """Each route has two paths."""
    for short, long in (("cluster", "cluster-info"), ("system-info", "system-info")):
        answers = [
            requests.get(f"{root}/{path}", timeout=TIMEOUT).json()
            for root, path in ((http, short), (api.root, long))
        ]
        assert answers[0] == answers[1]
    described = requests.get(f"{http}/cluster/namespaces/default", timeout=TIMEOUT).json()
    assert described == api.get("").json()


def test_a_namespace_over_http(api: Http, name: str) -> None:
    """Registered, described, updated; a second of that name is a 409."""
    fields = {
        "namespace": name,
        "workflowExecutionRetentionPeriod": "86400s",
        "description": "first",
        "data": {"k": "v"},
    }

    def post(path: str, body: Any) -> requests.Response:
        return requests.post(f"{api.root}/namespaces{path}", json=body, timeout=TIMEOUT)

    registered = post("", fields)
    assert registered.json() == {}, registered.text
    error(post("", fields), 409, 6)
    # The real server's other nodes read their list of namespaces now and then.
    deadline = time.monotonic() + 20
    while True:
        described = requests.get(f"{api.root}/namespaces/{name}", timeout=TIMEOUT)
        if described.status_code == 200 or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert described.json()["namespaceInfo"]["data"] == {"k": "v"}
    updated = post(f"/{name}/update", {"updateInfo": {"description": "second"}})
    assert updated.json()["namespaceInfo"]["description"] == "second"


def test_timeout_of_a_call(api: Http, name: str) -> None:
    """grpc-timeout bounds a long poll; what is no timeout is a 400."""
    api.start(name)
    path = f"/workflows/{name}/history?waitNewEvent=true&historyEventFilterType=2"
    began = time.monotonic()
    answer = api.get(path, headers={"grpc-timeout": "1500m"})
    took = time.monotonic() - began
    assert answer.status_code in (200, 504), answer.text
    assert took < 10, took
    answer = error(api.get("", headers={"grpc-timeout": "soon"}), 400, 3)
    assert "soon" in answer["message"]
    api.post(f"/workflows/{name}/terminate", {})


def test_what_is_not_built(everspan_http: str) -> None:
    """An RPC that is not there yet is a 501 that names it."""
    path = f"{everspan_http}/api/v1/nexus/endpoints"
    answer = error(requests.get(path, timeout=TIMEOUT), 501, 12)
    assert "ListNexusEndpoints" in answer["message"]


def test_list_and_count(api: Http, name: str) -> None:
    """Workflows are listed and counted over HTTP."""
    api.start(name)
    query = {"query": f"WorkflowId = '{name}'"}
    found: list[Any] = []
    count = "0"
    deadline = time.monotonic() + 10
    while not (found and count == "1") and time.monotonic() < deadline:
        # The real server's index is a step behind, and its callers may ask ten times a second.
        time.sleep(0.2)
        found = api.get("/workflows", params=query).json().get("executions", [])
        count = api.get("/workflow-count", params=query).json().get("count", "0")
    assert [row["execution"]["workflowId"] for row in found] == [name]
    assert count == "1"
    api.post(f"/workflows/{name}/terminate", {})


def test_namespace_cluster_and_system(api: Http) -> None:
    """The routes that name no workflow."""
    assert api.get("").json()["namespaceInfo"]["name"] == "default"
    namespaces = requests.get(f"{api.root}/namespaces", timeout=TIMEOUT).json()["namespaces"]
    assert "default" in [entry["namespaceInfo"]["name"] for entry in namespaces]
    for path, key in (("system-info", "serverVersion"), ("cluster-info", "clusterId")):
        assert requests.get(f"{api.root}/{path}", timeout=TIMEOUT).json()[key]
