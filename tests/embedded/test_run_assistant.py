"""`run_assistant`: a saved assistant as a flow; what it came to is shown where that was asked for."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prefect.states import State

from prefect_langgraph import (
    JoinTimeoutError,
    LangGraphAssistant,
    LangGraphCredentials,
    LangGraphError,
    RunFailedError,
    run_assistant,
)
from prefect_langgraph.flows.run_assistant import SHOWN_CHARACTERS, table_rows
from prefect_langgraph.testing import LangGraphServer, PrefectServer
from support.leftovers import left_by
from support.plain_sdk import sync_sdk


@pytest.fixture
def worker(prefect_server: PrefectServer, langgraph_server: LangGraphServer) -> str:
    """A saved assistant whose credentials were never saved by themselves."""
    name = f"worker-{uuid.uuid4().hex[:8]}"
    credentials = LangGraphCredentials(url=langgraph_server.url)
    LangGraphAssistant(credentials=credentials, assistant_id="worker").save(name)
    return name


@pytest.fixture
def shown(worker: str, prefect_server: PrefectServer) -> Callable[[], list[dict[str, Any]]]:
    """Gives the tables that were made of the assistant's values."""

    def ask() -> list[dict[str, Any]]:
        wanted = {"artifacts": {"key": {"any_": [f"langgraph-assistant-{worker}"]}}}
        rows = httpx.post(f"{prefect_server.api_url}/artifacts/filter", json=wanted)
        return [json.loads(row["data"]) for row in rows.raise_for_status().json()]

    return ask


def test_values_are_the_result_and_are_shown_to_nobody_unless_asked(
    worker: str, shown: Callable[[], list[dict[str, Any]]]
) -> None:
    assert run_assistant(worker, {"tag": "a"})["result"] == "a"
    assert shown() == []
    assert run_assistant(worker, {"tag": "b"}, show_values=True)["result"] == "b"
    [table] = shown()
    assert {"name": "result", "value": "b"} in table
    assert {"name": "steps", "value": '["prepare", "work", "finish"]'} in table


def test_long_value_is_shown_by_its_beginning(
    worker: str, shown: Callable[[], list[dict[str, Any]]]
) -> None:
    size = SHOWN_CHARACTERS + 1
    assert len(run_assistant(worker, {"size": size}, show_values=True)["payload"]) == size
    [row] = [row for row in shown()[0] if row["name"] == "payload"]
    assert row["value"] == "x" * (SHOWN_CHARACTERS - 1) + "…"


def test_values_that_are_no_object_are_one_row() -> None:
    assert table_rows(["a", 1]) == [{"name": "values", "value": '["a", 1]'}]


def test_failed_run_fails_the_flow_run(worker: str) -> None:
    with pytest.raises(RunFailedError, match="worker"):
        run_assistant(worker, {"fail": "no luck"})


def test_run_past_its_deadline_fails_the_flow_run_and_is_cancelled(
    worker: str, langgraph_server: LangGraphServer
) -> None:
    ids: list[object] = []

    def note(flow: Any, run: Any, state: State[Any]) -> None:
        ids.append(run.id)

    noted = run_assistant.with_options(
        on_failure=[*(run_assistant.on_failure_hooks or []), note], name="noted"
    )
    with pytest.raises(JoinTimeoutError):
        noted(worker, {"sleep": 600}, max_wait_seconds=1)
    with sync_sdk(langgraph_server.url) as client:
        assert not left_by(client, ids[0])


def test_name_that_nobody_saved_is_an_error_that_says_how_to_save_one(
    prefect_server: PrefectServer,
) -> None:
    with pytest.raises(LangGraphError, match="no saved LangGraphAssistant block named 'nobody'"):
        run_assistant("nobody")
