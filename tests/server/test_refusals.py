"""What is wrong with a call is said clearly, before a request where that is possible."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from prefect_langgraph import (
    AuthenticationError,
    InvalidRequestError,
    LangGraphCredentials,
    NotFoundError,
    RateLimitedError,
    RunFailedError,
    RunHandle,
    UnreachableError,
    create_thread,
    join_run,
    run_on_thread,
    run_stateless,
    start_run,
)
from prefect_langgraph.testing import run_langgraph_server
from proxy import Answer, Proxy, unhandled_500

pytestmark = pytest.mark.usefixtures("prefect_server")

GRAPHS = Path(__file__).resolve().parents[2] / "examples" / "agent" / "graphs.py"
AUTH = """
from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def check(headers: dict) -> str:
    if headers.get(b"x-api-key") != b"the-right-key":
        raise Auth.exceptions.HTTPException(status_code=401, detail="unknown key")
    return "me"
"""
CREATE_RUN = r"/threads/[^/]+/runs$"


@pytest.fixture(scope="module")
def guarded_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "auth.py").write_text(AUTH, encoding="utf-8")
    config = {
        "dependencies": ["."],
        "graphs": {"answer": f"{GRAPHS}:answer"},
        "auth": {"path": "./auth.py:auth"},
    }
    (folder / "langgraph.json").write_text(json.dumps(config), encoding="utf-8")
    with run_langgraph_server(folder / "langgraph.json") as server:
        yield server.url


def test_right_key_is_let_in_and_a_wrong_one_is_an_authentication_error(guarded_url: str) -> None:
    right = LangGraphCredentials(url=guarded_url, api_key="the-right-key")
    assert run_stateless("answer", {"question": "?"}, credentials=right)["answer"] == "You asked: ?"
    wrong_key = LangGraphCredentials(url=guarded_url, api_key="the-wrong-key")
    for wrong in (wrong_key, LangGraphCredentials(url=guarded_url)):
        with pytest.raises(AuthenticationError) as caught:
            run_stateless("answer", {"question": "?"}, credentials=wrong)
        assert caught.value.status_code == 401
        assert "the-wrong-key" not in str(caught.value)


def test_wrong_url_is_an_unreachable_error_that_names_it() -> None:
    nobody = LangGraphCredentials(url="http://127.0.0.1:9", patience_seconds=0.5)
    with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:9"):
        run_stateless.with_options(retries=0)("answer", {}, credentials=nobody)


@pytest.mark.parametrize("assistant_id", ["nobody", "5d1f7a52-6f0c-4a44-9d2e-0b3c1de2a111"])
def test_unknown_assistant_is_refused_and_leaves_no_thread(
    credentials: LangGraphCredentials, client: Any, assistant_id: str
) -> None:
    before = client.threads.count()
    with pytest.raises((InvalidRequestError, NotFoundError)) as caught:
        run_stateless(assistant_id, {}, credentials=credentials)
    assert assistant_id in str(caught.value)
    assert client.threads.count() == before


@pytest.mark.parametrize(
    "call",
    [
        lambda block: run_on_thread("no-uuid", "answer", {}, credentials=block),
        lambda block: run_stateless("answer", {"it": object()}, credentials=block),
        lambda block: run_stateless("answer", {}, credentials=block, max_wait_seconds=-1),
        lambda block: run_stateless("answer", {}, credentials=block, max_wait_seconds=0),
        lambda block: run_stateless("answer", {}, credentials=block, on_timeout="later"),
        lambda block: run_stateless("answer", {}, credentials=block, max_wait_seconds=10**400),
        lambda block: run_stateless("answer", {"it": "\ud800"}, credentials=block),
        lambda block: run_stateless("answer", {}, credentials=block, idempotency_key="\ud800"),
        lambda block: run_stateless("answer", {}, credentials="\ud800"),
        lambda block: start_run("", {}, credentials=block),
        lambda block: join_run(
            RunHandle(run_id="r", thread_id="t", assistant_id="a", url=block.url),
            credentials=block,
            max_wait_seconds=-1,
        ),
    ],
)
def test_bad_input_is_refused_before_any_request(
    through_proxy: LangGraphCredentials, proxy: Proxy, call: Any
) -> None:
    with pytest.raises(InvalidRequestError):
        call(through_proxy)
    assert not proxy.seen()


def test_rate_limit_and_overload_are_waited_out(
    through_proxy: LangGraphCredentials, proxy: Proxy
) -> None:
    proxy.on("POST", r"/threads$", times=1, fault=Answer(429, retry_after=1))
    proxy.on("POST", CREATE_RUN, times=1, fault=Answer(429, retry_after=0.2))
    proxy.on("GET", r"/runs", times=2, fault=Answer(503))
    values = run_stateless("answer", {"question": "?"}, credentials=through_proxy)
    assert values["answer"] == "You asked: ?"


def test_rate_limit_beyond_the_deadline_is_a_rate_limited_error(
    through_proxy: LangGraphCredentials, proxy: Proxy
) -> None:
    proxy.on("POST", r"/threads$", fault=Answer(429, retry_after=600))
    with pytest.raises(RateLimitedError) as caught:
        run_stateless.with_options(retries=0)(
            "answer", {}, credentials=through_proxy, max_wait_seconds=1
        )
    assert caught.value.retry_after == 600


def test_bare_500_with_a_closed_connection_is_survived(
    through_proxy: LangGraphCredentials, proxy: Proxy
) -> None:
    proxy.on("GET", r"/runs", times=1, fault=unhandled_500())
    values = run_stateless("answer", {"question": "?"}, credentials=through_proxy)
    assert values["answer"] == "You asked: ?"


def test_task_retries_what_is_transient_and_never_what_the_graph_did(
    through_proxy: LangGraphCredentials, proxy: Proxy
) -> None:
    quick = LangGraphCredentials(url=proxy.url, patience_seconds=0.2)
    task = run_stateless.with_options(retry_delay_seconds=0)
    proxy.on("POST", r"/threads$", times=3, fault=Answer(503))

    @flow
    def calls() -> Any:
        values = task("answer", {"question": "?"}, credentials=quick)
        created = proxy.count("POST", CREATE_RUN)
        with pytest.raises(RunFailedError):
            task("worker", {"fail": "no luck"}, credentials=quick)
        return values, created, proxy.count("POST", CREATE_RUN)

    values, created, after = calls()
    assert values["answer"] == "You asked: ?"
    assert (created, after) == (1, 2)


def test_lost_answer_of_a_new_thread_makes_no_second_thread(
    through_proxy: LangGraphCredentials, proxy: Proxy, client: Any
) -> None:
    proxy.on("POST", r"/threads$", times=1, fault=unhandled_500())
    mark = {"test": uuid.uuid4().hex}
    thread_id = create_thread(metadata=mark, credentials=through_proxy)
    assert [thread["thread_id"] for thread in client.threads.search(metadata=mark)] == [thread_id]
