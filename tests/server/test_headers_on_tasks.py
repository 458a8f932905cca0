"""Headers on every task that makes a run: they arrive, and a policy is asked before anything leaves."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pydantic import SecretStr

from prefect_langgraph import (
    HeaderPolicy,
    HeaderPolicyError,
    LangGraphAssistant,
    LangGraphCredentials,
    RunHandle,
    arun_stateless,
    astart_runs,
    astream_run,
    create_thread,
    join_run,
    join_runs,
    run_on_thread,
    run_stateless,
    start_run,
    start_runs,
    stream_run,
    stream_to_logs,
)
from prefect_langgraph.headers import HeaderPolicyWarning, HeaderValue
from prefect_langgraph.testing import LangGraphServer
from proxy import Proxy

pytestmark = pytest.mark.usefixtures("prefect_server")

Way = Callable[[LangGraphCredentials, Mapping[str, HeaderValue] | None], Any]


def _handles(handles: list[RunHandle], credentials: LangGraphCredentials) -> Any:
    return join_runs(handles, credentials=credentials).values[0]


async def _parts(credentials: LangGraphCredentials, headers: Any) -> Any:
    stream = astream_run("headers", {}, stream_mode="values", credentials=credentials, headers=headers)
    return [part.data async for part in stream][-1]


async def _batch(credentials: LangGraphCredentials, headers: Any) -> list[RunHandle]:
    return await astart_runs("headers", [{}], credentials=credentials, headers=headers)


WAYS: dict[str, Way] = {
    "run_stateless": lambda c, h: run_stateless("headers", {}, credentials=c, headers=h),
    "arun_stateless": lambda c, h: asyncio.run(arun_stateless("headers", {}, credentials=c, headers=h)),
    "run_on_thread": lambda c, h: run_on_thread(
        uuid.uuid4(), "headers", {}, if_not_exists="create", credentials=c, headers=h
    ),
    "start_run": lambda c, h: join_run(
        start_run("headers", {}, credentials=c, headers=h), credentials=c
    ),
    "start_runs": lambda c, h: _handles(start_runs("headers", [{}], credentials=c, headers=h), c),
    "astart_runs": lambda c, h: _handles(asyncio.run(_batch(c, h)), c),
    "stream_run": lambda c, h: (
        list(stream_run("headers", {}, stream_mode="values", credentials=c, headers=h))[-1].data
    ),
    "astream_run": lambda c, h: asyncio.run(_parts(c, h)),
    "stream_to_logs": lambda c, h: stream_to_logs("headers", {}, credentials=c, headers=h),
}


def given(values: Any) -> dict[str, Any]:
    """What the graph saw, without what every request has."""
    return {key: value for key, value in values["given"].items() if key.startswith("x-own")}


@pytest.mark.parametrize("way", WAYS)
def test_headers_of_the_call_lie_over_those_of_the_block(
    way: str, langgraph_server: LangGraphServer
) -> None:
    block = LangGraphCredentials(
        url=langgraph_server.url, headers={"X-Own-Team": "block", "X-Own-User": "block"}
    )
    headers: dict[str, HeaderValue] = {"x-own-user": "call", "X-OWN-Plan": SecretStr("secret")}
    assert given(WAYS[way](block, headers)) == {
        "x-own-team": "block",
        "x-own-user": "call",
        "x-own-plan": "secret",
    }


@pytest.mark.parametrize("way", [*WAYS, "trigger"])
def test_header_that_the_policy_refuses_never_leaves(way: str, proxy: Proxy) -> None:
    policy = HeaderPolicy(includes=("x-own-*",))
    block = LangGraphCredentials(url=proxy.url, headers={"X-Team": "value-77"}, header_policy=policy)
    assistant = LangGraphAssistant(credentials=block, assistant_id="headers")
    ways: dict[str, Way] = {**WAYS, "trigger": lambda c, h: assistant.trigger({})}
    with pytest.raises(HeaderPolicyError, match="`X-Team` would not reach the graph") as caught:
        ways[way](block, {"x-own-user": "call"})
    assert "value-77" not in str(caught.value)
    assert proxy.requests == []


def test_denied_header_of_the_call_is_refused(credentials: LangGraphCredentials) -> None:
    strict = credentials.model_copy(update={"header_policy": HeaderPolicy(includes=("*",))})
    with pytest.raises(HeaderPolicyError, match="deny list"):
        run_stateless("headers", {}, credentials=strict, headers={"Cookie": "a=b"})


def test_policy_that_warns_lets_the_run_go_and_says_so_in_the_log(
    langgraph_server: LangGraphServer, caplog: pytest.LogCaptureFixture
) -> None:
    policy = HeaderPolicy(includes=("x-own-*",), on_violation="warn")
    block = LangGraphCredentials(url=langgraph_server.url, header_policy=policy)
    with pytest.warns(HeaderPolicyWarning, match="X-Team"):
        values = run_stateless("headers", {}, credentials=block, headers={"X-Team": "value-77"})
    assert values["given"]["x-team"] == "value-77"
    (line,) = [r for r in caplog.records if r.message.startswith("Header policy: ")]
    assert line.levelno == logging.WARNING
    assert "X-Team" in line.message
    assert "value-77" not in caplog.text


def test_policy_is_saved_with_the_block(credentials: LangGraphCredentials) -> None:
    policy = HeaderPolicy(includes=("x-own-*",), server_only=("authorization",), on_violation="warn")
    LangGraphCredentials(url=credentials.url, header_policy=policy).save("policed", overwrite=True)
    loaded = LangGraphCredentials.load("policed")
    assert loaded.header_policy == policy
    assert loaded.connection().header_policy == policy


def test_requests_that_make_no_run_are_not_held_against_the_policy(
    credentials: LangGraphCredentials,
) -> None:
    strict = credentials.model_copy(update={"header_policy": HeaderPolicy()})
    assert uuid.UUID(create_thread(headers={"X-Team": "a"}, credentials=strict))


def test_header_that_no_request_can_hold_is_refused_and_not_shown(
    credentials: LangGraphCredentials,
) -> None:
    with pytest.raises(HeaderPolicyError) as caught:
        run_stateless("headers", {}, credentials=credentials, headers={"X-User": "se\ncret-77"})
    assert "cret-77" not in str(caught.value)
