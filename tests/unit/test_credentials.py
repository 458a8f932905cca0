"""The credentials block: a checked address, and secrets that nothing shows."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from prefect_langgraph import InvalidRequestError, LangGraphCredentials, LangGraphError, RunHandle
from prefect_langgraph.blocks import credentials as credentials_module
from prefect_langgraph.blocks.credentials import resolve, resolve_for
from prefect_langgraph.transport.deployment import KEPT_UNUSED, Deployment, deployment_for
from prefect_langgraph.transport.loop import IOLoop

URL = "http://localhost:2024"
KEY = "lsv2_pt_s3cr3t"
TOKEN = "Bearer t0k3n-value"
KEY_VARIABLES = ["LANGGRAPH_API_KEY", "LANGSMITH_API_KEY", "LANGCHAIN_API_KEY"]


@pytest.fixture
def block() -> LangGraphCredentials:
    return LangGraphCredentials(url=URL, api_key=KEY, headers={"X-Gateway": TOKEN})


# The address


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://localhost:2024", "http://localhost:2024"),
        ("http://localhost:2024/", "http://localhost:2024"),
        (" https://agents.example.com \n", "https://agents.example.com"),
        ("https://example.com/prefix/", "https://example.com/prefix"),
        ("http://[::1]:2024", "http://[::1]:2024"),
        ("HTTPS://Agents.Example.com", "HTTPS://Agents.Example.com"),
    ],
)
def test_address_is_kept_without_its_trailing_slash(given: str, kept: str) -> None:
    assert LangGraphCredentials(url=given).url == kept


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "must begin with http"),
        ("localhost:2024", "must begin with http"),
        ("agents.example.com", "must begin with http"),
        ("ftp://example.com", "must begin with http"),
        ("http://", "name a host"),
        ("http:///path", "name a host"),
        ("http://host:port", "cannot be read"),
        ("http://host:99999", "cannot be read"),
        ("http://[::1", "cannot be read"),
        ("http://host?key=1", "query or a fragment"),
        ("http://host#part", "query or a fragment"),
    ],
)
def test_address_that_is_none_is_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        LangGraphCredentials(url=url)


@pytest.mark.parametrize(
    "url", [f"http://user:{KEY}@host", f"http://{KEY}@host", f"ftp://u:{KEY}@host"]
)
def test_address_with_a_password_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LangGraphCredentials(url=url)
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("field", ["max_connections", "timeout_seconds", "patience_seconds"])
@pytest.mark.parametrize("value", [0, -1])
def test_limit_that_is_not_positive_is_refused(field: str, value: int) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        LangGraphCredentials(url=URL, **{field: value})


# Secrets are shown nowhere

SHOWN: dict[str, Callable[[LangGraphCredentials], str]] = {
    "repr": repr,
    "str": str,
    "format": "{}".format,
    "model_dump": lambda block: repr(block.model_dump()),
    "model_dump_json": lambda block: block.model_dump_json(),
    "dict": lambda block: repr(dict(block)),
    "schema": lambda block: json.dumps(type(block).model_json_schema()),
    "connection": lambda block: repr(block.connection()),
    "fingerprint": lambda block: block.connection().fingerprint(),
    "handle": lambda block: RunHandle(
        run_id="r", thread_id="t", assistant_id="a", url=block.url
    ).model_dump_json(),
}


@pytest.mark.parametrize("way", SHOWN)
def test_secrets_are_not_shown(way: str, block: LangGraphCredentials) -> None:
    shown = SHOWN[way](block)
    assert KEY not in shown
    assert TOKEN not in shown


def test_secrets_are_not_logged(block: LangGraphCredentials, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("user").warning("%s %r %s", block, block, block.connection())
    assert KEY not in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    "fields",
    [
        {"url": URL, "api_key": {"wrong": KEY}},
        {"url": URL, "headers": KEY},
        {"url": URL, "headers": {"x-token": {"wrong": KEY}}},
        {"url": URL, "max_connections": KEY},
        {"url": {"wrong": KEY}},
        {"url": URL, "apikey": SecretStr(KEY), "timeout_seconds": "soon"},
    ],
)
def test_secret_in_the_wrong_place_is_refused_without_showing_it(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        LangGraphCredentials(**fields)
    assert KEY not in "".join(traceback.format_exception(caught.value))


# Headers


@pytest.mark.parametrize("name", ["x-api-key", "X-Api-Key", "X-API-KEY"])
def test_key_among_the_headers_is_refused_without_showing_it(name: str) -> None:
    with pytest.raises(ValidationError, match="api_key") as caught:
        LangGraphCredentials(url=URL, headers={name: KEY})
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "headers", [{"x token": TOKEN}, {"x-token": f"{TOKEN}\r\nx-more: 1"}, {"": TOKEN}]
)
def test_header_that_cannot_be_sent_is_refused_without_showing_it(headers: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as caught:
        LangGraphCredentials(url=URL, headers=headers)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


# The environment


@pytest.fixture
def keys_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEY_VARIABLES:
        monkeypatch.setenv(name, f"{KEY}-{name}")


def sent_by_clients(block: LangGraphCredentials) -> list[dict[str, str]]:
    async def asynchronous() -> dict[str, str]:
        async with block.get_client() as client:
            return dict(client.http.client.headers)

    with block.get_sync_client() as client:
        return [dict(client.http.client.headers), asyncio.run(asynchronous())]


@pytest.mark.usefixtures("keys_in_environment")
def test_no_key_is_taken_from_the_environment() -> None:
    block = LangGraphCredentials(url=URL)
    assert block.api_key is None
    for headers in (block.connection().all_headers(), *sent_by_clients(block)):
        assert "x-api-key" not in headers
        assert KEY not in repr(headers)


def test_clients_carry_key_and_headers(block: LangGraphCredentials) -> None:
    for headers in sent_by_clients(block):
        assert headers["x-api-key"] == KEY
        assert headers["x-gateway"] == TOKEN


@pytest.mark.parametrize("url_variable", ["LANGGRAPH_API_URL", "LANGGRAPH_URL"])
@pytest.mark.parametrize("set_from", range(len(KEY_VARIABLES)))
def test_environment_is_read_when_asked_for_in_the_order_of_the_sdk(
    monkeypatch: pytest.MonkeyPatch, url_variable: str, set_from: int
) -> None:
    monkeypatch.setenv(url_variable, URL)
    for name in KEY_VARIABLES[set_from:]:
        monkeypatch.setenv(name, f"{KEY}-{name}")
    block = LangGraphCredentials.from_env()
    assert block.url == URL
    assert block.api_key is not None
    assert block.api_key.get_secret_value() == f"{KEY}-{KEY_VARIABLES[set_from]}"


@pytest.mark.usefixtures("keys_in_environment")
def test_fields_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGGRAPH_API_URL", "http://elsewhere")
    block = LangGraphCredentials.from_env(url=URL, api_key=None, max_connections=3)
    assert (block.url, block.api_key, block.max_connections) == (URL, None, 3)


def test_environment_without_an_address_is_an_error_that_names_the_variables() -> None:
    with pytest.raises(InvalidRequestError, match="LANGGRAPH_API_URL or LANGGRAPH_URL"):
        LangGraphCredentials.from_env()


def test_environment_without_a_key_gives_a_block_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGGRAPH_URL", URL)
    assert LangGraphCredentials.from_env().api_key is None


# What a call makes of its credentials


def test_block_is_its_own_connection(block: LangGraphCredentials) -> None:
    connection = asyncio.run(resolve(block))
    assert connection == block.connection()
    assert connection.name is None
    assert connection.secrets == (KEY, TOKEN)


@pytest.mark.parametrize("credentials", [7, {"url": URL}, [URL]])
def test_what_is_no_block_and_no_name_is_refused(credentials: Any) -> None:
    with pytest.raises(InvalidRequestError, match="credentials is a"):
        asyncio.run(resolve(credentials))


def test_handle_of_an_unsaved_block_works_in_the_process_that_made_it() -> None:
    block = LangGraphCredentials(url="http://made-here")
    asyncio.run(resolve(block))
    assert asyncio.run(resolve_for("http://made-here", None, None)) == block.connection()


def test_handle_of_an_unsaved_block_asks_for_credentials_elsewhere() -> None:
    with pytest.raises(LangGraphError, match=r"this process knows no such block"):
        asyncio.run(resolve_for("http://made-elsewhere", None, None))


def test_handle_of_several_unsaved_blocks_does_not_guess() -> None:
    for key in ("one", "two"):
        asyncio.run(resolve(LangGraphCredentials(url="http://made-twice", api_key=key)))
    with pytest.raises(LangGraphError, match="several"):
        asyncio.run(resolve_for("http://made-twice", None, None))


def test_handle_of_another_deployment_is_refused(block: LangGraphCredentials) -> None:
    with pytest.raises(InvalidRequestError, match=r"http://other.*lead to http://localhost:2024"):
        asyncio.run(resolve_for("http://other", None, block))


def test_equal_blocks_share_a_client_and_others_do_not() -> None:
    loop = IOLoop()

    async def deployment_of(block: LangGraphCredentials) -> int:
        return id(deployment_for(block.connection()))

    one = LangGraphCredentials(url=URL, api_key=KEY)
    same = LangGraphCredentials(url=URL + "/", api_key=KEY)
    other_key = LangGraphCredentials(url=URL, api_key=KEY + "2")
    other_header = LangGraphCredentials(url=URL, api_key=KEY, headers={"x-gateway": TOKEN})
    try:
        found = [loop.run(deployment_of, block) for block in (one, same, other_key, other_header)]
    finally:
        loop.close()
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_clients_that_nobody_uses_are_closed_but_for_the_last_few() -> None:
    loop = IOLoop()
    kept = asyncio.Event()

    async def deployment_of(number: int) -> Deployment:
        return deployment_for(LangGraphCredentials(url=URL, api_key=f"{KEY}{number}").connection())

    async def use_until_told() -> Deployment:
        deployment = await deployment_of(-1)
        await kept.wait()
        return deployment

    async def open_clients(found: list[Deployment]) -> list[bool]:
        await asyncio.sleep(0)  # those that are being closed
        return [not deployment.client.http.client.is_closed for deployment in found]

    try:
        using = loop.begin(use_until_told)
        found = [loop.run(deployment_of, number) for number in range(300)]
        open_now = loop.run(open_clients, found)
        using.post(kept.set)
        used = using.outcome.result(timeout=30)
        assert not used.client.http.client.is_closed
    finally:
        loop.close()
    # One that was just made is in use until its task has ended.
    assert sum(open_now) <= KEPT_UNUSED + 1
    assert open_now[-KEPT_UNUSED:] == [True] * KEPT_UNUSED


def test_blocks_that_were_not_saved_are_not_remembered_for_ever() -> None:
    for number in range(20):
        block = LangGraphCredentials(url=URL, api_key=f"{KEY}{number}")
        asyncio.run(resolve(block))
    assert len(credentials_module._unsaved[URL]) == 2
    with pytest.raises(LangGraphError, match="several such blocks"):
        asyncio.run(resolve_for(URL, None, None))
    for number in range(credentials_module._REMEMBERED_ADDRESSES + 5):
        asyncio.run(resolve(LangGraphCredentials(url=f"{URL}/{number}")))
    assert len(credentials_module._unsaved) == credentials_module._REMEMBERED_ADDRESSES


def test_empty_key_is_no_key() -> None:
    block = LangGraphCredentials(url="http://localhost:2024", api_key="")
    assert block.api_key is None
    assert block.connection().api_key is None
