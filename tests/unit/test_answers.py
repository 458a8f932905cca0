"""A gateway's answer is told from the deployment's own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from prefect_langgraph.transport.answers import StrangeAnswerError, refuse_strange_answer
from prefect_langgraph.transport.http_errors import is_transient, not_executed

ID = "00000000-0000-0000-0000-000000000000"
HTML = "<html>nobody here</html>"
LISTS = [
    ("POST", "/threads/search", [{"thread_id": ID, "status": "idle"}]),
    ("POST", f"/threads/{ID}/history", [{"values": {}, "checkpoint": {}}]),
    ("GET", f"/threads/{ID}/runs", [{"run_id": ID, "status": "running"}]),
    ("POST", "/runs/batch", [{"run_id": ID}]),
    ("POST", "/runs/crons/search", [{"cron_id": ID}]),
    ("POST", "/assistants/search", [{"assistant_id": ID}]),
]
OBJECTS = [
    ("POST", "/threads", {"thread_id": ID}),
    ("GET", f"/threads/{ID}", {"thread_id": ID}),
    ("PATCH", f"/threads/{ID}", {"thread_id": ID}),
    ("GET", f"/threads/{ID}/state", {"values": {}}),
    ("POST", f"/threads/{ID}/runs", {"run_id": ID}),
    ("GET", f"/threads/{ID}/runs/{ID}", {"run_id": ID}),
    ("POST", "/runs/crons", {"cron_id": ID}),
    ("POST", f"/threads/{ID}/runs/crons", {"cron_id": ID}),
    ("PATCH", f"/runs/crons/{ID}", {"cron_id": ID}),
]


def check(method: str, path: str, status: int, body: Any, kind: str = "application/json") -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    asyncio.run(
        refuse_strange_answer(
            httpx.Response(
                status,
                content=content,
                headers={"content-type": kind},
                request=httpx.Request(method, f"https://agents.example.com/prefix{path}"),
            )
        )
    )


@pytest.mark.parametrize(("method", "path", "body"), [*LISTS, *OBJECTS])
def test_answer_of_the_server_passes(method: str, path: str, body: Any) -> None:
    check(method, path, 200, body)


@pytest.mark.parametrize(("method", "path", "_"), LISTS)
def test_empty_list_is_an_answer(method: str, path: str, _: Any) -> None:
    check(method, path, 200, [])
    check(method, path, 200, " [ ]\n")


@pytest.mark.parametrize(("method", "path", "_"), [*LISTS, *OBJECTS])
@pytest.mark.parametrize(
    "body", ["null", '"ok"', "[", "{}", '{"status": "ok"}', '[{"status": "ok"}]', '["ok"]', "", HTML]
)
def test_json_of_another_shape_is_strange(method: str, path: str, _: Any, body: str) -> None:
    with pytest.raises(StrangeAnswerError, match="200"):
        check(method, path, 200, body)


@pytest.mark.parametrize(("method", "path", "_"), OBJECTS)
def test_list_is_no_object(method: str, path: str, _: Any) -> None:
    with pytest.raises(StrangeAnswerError):
        check(method, path, 200, [])


@pytest.mark.parametrize(
    ("body", "kind"),
    [(HTML, "text/html"), ("404 page not found", "text/plain"), ([], "application/json"), ("", "")],
)
def test_404_without_a_detail_is_strange_and_may_be_over_soon(body: Any, kind: str) -> None:
    with pytest.raises(StrangeAnswerError, match="404") as caught:
        check("GET", f"/threads/{ID}", 404, body, kind)
    assert is_transient(caught.value)
    # It may have passed the request on before it lost sight of the server.
    assert not not_executed(caught.value)


def test_404_of_the_server_passes() -> None:
    check("GET", f"/threads/{ID}", 404, {"detail": "Thread not found"})


def test_html_is_strange_whatever_was_asked() -> None:
    with pytest.raises(StrangeAnswerError, match="text/html"):
        check("DELETE", f"/threads/{ID}", 200, HTML, "text/html; charset=utf-8")


def test_no_content_is_an_answer() -> None:
    check("DELETE", f"/threads/{ID}", 204, "", "")
    check("POST", f"/threads/{ID}/runs/{ID}/cancel", 202, "", "")


NOTHING = [
    ("DELETE", f"/threads/{ID}"),
    ("DELETE", f"/runs/crons/{ID}"),
    ("POST", f"/threads/{ID}/runs/{ID}/cancel"),
]


@pytest.mark.parametrize(("method", "path"), NOTHING)
@pytest.mark.parametrize("body", ["", "null", "{}"])
def test_deletion_is_answered_without_a_body(method: str, path: str, body: str) -> None:
    check(method, path, 200, body)


@pytest.mark.parametrize(("method", "path"), NOTHING)
@pytest.mark.parametrize("body", ['{"status": "ok"}', '"ok"', "[]", "ok"])
def test_deletion_that_somebody_else_answers_is_not_done(method: str, path: str, body: str) -> None:
    with pytest.raises(StrangeAnswerError):
        check(method, path, 200, body)
