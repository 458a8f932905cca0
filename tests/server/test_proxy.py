"""The proxy that other tests rely on: what it passes, counts and breaks."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from langgraph_sdk.client import SyncLangGraphClient

from prefect_langgraph import LangGraphCredentials
from proxy import (
    Answer,
    CutBody,
    Hold,
    LoseRequest,
    LoseResponse,
    Proxy,
    Rewrite,
    Silence,
    gateway_page,
    unhandled_500,
)
from support.waiting import PATIENCE


@pytest.fixture
def http(proxy: Proxy) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=proxy.url, timeout=PATIENCE) as client:
        yield client


def create(http: httpx.Client) -> str:
    return str(http.post("/threads", json={}).raise_for_status().json()["thread_id"])


def test_requests_without_a_fault_pass_on_one_connection_and_are_counted(
    http: httpx.Client, proxy: Proxy
) -> None:
    thread_id = create(http)
    assert http.get(f"/threads/{thread_id}").json()["thread_id"] == thread_id
    assert http.delete(f"/threads/{thread_id}").status_code == 204
    assert http.get("/threads/none").status_code == 422
    assert [request.method for request in proxy.requests] == ["POST", "GET", "DELETE", "GET"]
    assert proxy.count("GET", r"/threads/[^/]+$") == 2
    assert proxy.connections == 1


def test_streams_pass_as_they_come(proxy: Proxy) -> None:
    with LangGraphCredentials(url=proxy.url).get_sync_client() as client:
        stream = client.runs.stream(None, "worker", input={"tag": "a"}, stream_mode="updates")
        assert [part.event for part in stream] == ["metadata", "updates", "updates", "updates"]


def test_lost_request_never_reaches_the_server_and_lost_response_does(
    http: httpx.Client, proxy: Proxy, client: SyncLangGraphClient
) -> None:
    for fault, there in ((LoseRequest(), 0), (LoseResponse(), 1)):
        proxy.on("POST", "/threads$", fault)
        mark = type(fault).__name__
        with pytest.raises(httpx.RemoteProtocolError):
            http.post("/threads", json={"metadata": {"mark": mark, "proxy": proxy.url}})
        found = client.threads.search(metadata={"mark": mark, "proxy": proxy.url})
        assert len(found) == there


def test_fault_is_shown_as_often_and_as_late_as_asked_for(http: httpx.Client, proxy: Proxy) -> None:
    rule = proxy.on("GET", "/ok", Answer(429, retry_after=2), times=2, after=1)
    answers = [http.get("/ok") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 429, 429, 200]
    assert answers[1].headers["retry-after"] == "2"
    assert rule.hits == 2


def test_unhandled_500_is_text_and_closes_the_connection(http: httpx.Client, proxy: Proxy) -> None:
    proxy.on("GET", "/ok", unhandled_500())
    answer = http.get("/ok")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "text/plain"
    assert http.get("/ok").status_code == 200
    assert proxy.connections == 2


@pytest.mark.parametrize("status", [200, 404, 502])
def test_gateways_page_is_html_that_the_server_has_not_made(
    http: httpx.Client, proxy: Proxy, status: int
) -> None:
    proxy.on("GET", "/ok", gateway_page(status))
    answer = http.get("/ok")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html"
    assert proxy.done("GET", "/ok") == []


def test_silence_takes_the_request_and_says_nothing(http: httpx.Client, proxy: Proxy) -> None:
    proxy.on("GET", "/ok", Silence())
    with pytest.raises(httpx.ReadTimeout):
        http.get("/ok", timeout=0.2)
    assert proxy.count("GET", "/ok") == 1
    assert proxy.done("GET", "/ok") == []
    assert http.get("/ok").status_code == 200


def test_cut_body_breaks_off_within_the_answer(http: httpx.Client, proxy: Proxy) -> None:
    proxy.on("GET", "/info", CutBody(after_bytes=5))
    with pytest.raises(httpx.RemoteProtocolError, match="received 5 bytes"):
        http.get("/info")


def test_rewrite_changes_what_is_asked_and_what_is_answered(http: httpx.Client, proxy: Proxy) -> None:
    mark = {"metadata": {"rewritten": proxy.url}}
    proxy.on("POST", "/threads$", Rewrite(lambda _: mark, lambda row: {"was": row["metadata"]}))
    assert http.post("/threads", json={}).json()["was"]["rewritten"] == proxy.url


def test_held_answer_comes_after_its_release(http: httpx.Client, proxy: Proxy) -> None:
    hold = Hold(answer=True)
    hold.release()
    proxy.on("GET", "/ok", hold)
    assert http.get("/ok").status_code == 200
    assert hold.reached.is_set()


def test_refused_connections_are_taken_again_on_the_same_port(http: httpx.Client, proxy: Proxy) -> None:
    assert http.get("/ok").status_code == 200
    proxy.refuse()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{proxy.url}/ok")
    proxy.accept()
    assert httpx.get(f"{proxy.url}/ok").status_code == 200


def test_client_that_hangs_up_is_hung_up_on_at_the_server(
    proxy: Proxy, client: SyncLangGraphClient
) -> None:
    thread_id = client.threads.create()["thread_id"]
    with LangGraphCredentials(url=proxy.url).get_sync_client() as through:
        stream = through.runs.stream(
            thread_id, "worker", input={"sleep": 60}, on_disconnect="cancel", stream_mode="updates"
        )
        assert next(stream).event == "metadata"
        run = client.runs.list(thread_id)[0]
        stream.close()
    client.runs.join(thread_id, run["run_id"])
    assert client.runs.get(thread_id, run["run_id"])["status"] == "interrupted"
