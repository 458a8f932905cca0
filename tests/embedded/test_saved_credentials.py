"""The credentials block in a real Prefect server: saved, shown to others, loaded, found by name."""

from __future__ import annotations

import asyncio
import uuid

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_langgraph import (
    LangGraphAssistant,
    LangGraphCredentials,
    LangGraphError,
    create_thread,
    delete_thread,
)
from prefect_langgraph.blocks.credentials import resolve, resolve_for
from prefect_langgraph.testing import LangGraphServer, PrefectServer
from proxy import Answer, Fault, LoseRequest, run_proxy
from support.plain_sdk import sync_sdk

URL = "http://localhost:2024"
KEY = "lsv2_pt_s3cr3t"
TOKEN = "Bearer t0k3n-value"


@pytest.fixture
def name(prefect_server: PrefectServer) -> str:
    return f"saved-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def saved(name: str) -> LangGraphCredentials:
    block = LangGraphCredentials(url=URL, api_key=KEY, headers={"x-gateway": TOKEN}, max_connections=5)
    block.save(name)
    return block


def test_block_is_loaded_as_it_was_saved(saved: LangGraphCredentials, name: str) -> None:
    loaded = LangGraphCredentials.load(name)
    assert loaded.connection() == saved.connection()
    assert loaded.connection().all_headers() == {"x-gateway": TOKEN, "x-api-key": KEY}
    assert loaded.max_connections == 5
    assert loaded.saved_name == saved.saved_name == name


@pytest.mark.parametrize(
    "fault", [Answer(500), LoseRequest(), Answer(200, "<html>a gateway's page</html>")], ids=repr
)
def test_block_that_was_read_before_outlives_a_failure_of_prefects_api(
    saved: LangGraphCredentials,
    name: str,
    prefect_server: PrefectServer,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
) -> None:
    monkeypatch.setattr("prefect_langgraph.blocks.credentials._REMEMBER_SECONDS", 0.0)
    with (
        run_proxy(prefect_server.api_url.removesuffix("/api")) as proxy,
        temporary_settings({PREFECT_API_URL: f"{proxy.url}/api"}),
    ):
        asyncio.run(resolve(name))
        rule = proxy.on("GET", f"block_documents/name/{name}", fault)
        assert asyncio.run(resolve(name)) == saved.connection()
        assert rule.hits == 1


def test_saved_document_shows_no_secret_to_who_may_not_see_it(
    saved: LangGraphCredentials, name: str, prefect_server: PrefectServer
) -> None:
    path = f"/block_types/slug/langgraph-credentials/block_documents/name/{name}"
    answer = httpx.get(prefect_server.api_url + path).raise_for_status()
    data = answer.json()["data"]
    assert data["url"] == URL
    assert KEY not in answer.text
    assert TOKEN not in answer.text
    assert "x-gateway" in data["headers"]
    assert set(data["api_key"]) == {"*"}


def test_saved_document_keeps_the_secrets_for_who_may_see_them(
    saved: LangGraphCredentials, name: str, prefect_server: PrefectServer
) -> None:
    path = f"/block_types/slug/langgraph-credentials/block_documents/name/{name}"
    answer = httpx.get(prefect_server.api_url + path, params={"include_secrets": True})
    assert answer.json()["data"]["api_key"] == KEY


def test_saved_assistant_shows_no_secret_of_its_credentials(
    name: str, prefect_server: PrefectServer
) -> None:
    unsaved = LangGraphCredentials(url=URL, api_key=KEY, headers={"x-gateway": TOKEN})
    LangGraphAssistant(credentials=unsaved, assistant_id="answer").save(name)
    path = f"/block_types/slug/langgraph-assistant/block_documents/name/{name}"
    answer = httpx.get(prefect_server.api_url + path).raise_for_status()
    assert answer.json()["data"]["credentials"]["url"] == URL
    assert KEY not in answer.text
    assert TOKEN not in answer.text
    loaded = LangGraphAssistant.load(name)
    assert loaded.credentials.connection().all_headers() == {"x-gateway": TOKEN, "x-api-key": KEY}


def test_name_of_a_saved_block_gives_its_connection(saved: LangGraphCredentials, name: str) -> None:
    connection = asyncio.run(resolve(name))
    assert connection == saved.connection()
    assert connection.name == name


def test_handle_of_a_saved_block_needs_no_credentials(saved: LangGraphCredentials, name: str) -> None:
    assert asyncio.run(resolve_for(URL, name, None)) == saved.connection()


def test_name_that_nobody_saved_is_an_error_that_says_how_to_save_one(name: str) -> None:
    with pytest.raises(LangGraphError) as caught:
        asyncio.run(resolve(name))
    assert f"no saved LangGraphCredentials block named '{name}'" in caught.value.message
    assert f".save('{name}')" in caught.value.message


def test_call_without_credentials_uses_the_block_named_default(
    langgraph_server: LangGraphServer, prefect_server: PrefectServer
) -> None:
    LangGraphCredentials(url=langgraph_server.url).save("default", overwrite=True)
    thread_id = create_thread()
    with sync_sdk(langgraph_server.url) as client:
        assert client.threads.get(thread_id)["thread_id"] == thread_id
    delete_thread(thread_id)
