"""`values` is the graph's output, as the SDK's `runs.wait` returns it, however it is asked for."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk.client import SyncLangGraphClient

from prefect_langgraph import (
    LangGraphAssistant,
    LangGraphCredentials,
    RunFailedError,
    RunHandle,
    RunInterruptedError,
    create_thread,
    fan_out,
    get_run,
    join_run,
    join_runs,
    run_on_thread,
    run_stateless,
    start_run,
    start_runs,
    stream_to_logs,
)
from proxy import run_proxy

pytestmark = pytest.mark.usefixtures("prefect_server")

Ask = Callable[[str, Any, LangGraphCredentials], Any]

ASSISTANTS: dict[str, Any] = {
    "private": {"question": "q"},
    "unspoken": {"question": "q"},
    "opaque": {"question": "q"},
    "outer": {"question": "q"},
    "modelled": {"fullName": "x"},
    "quiet_spender": {"spend": [{"input": 1}]},
    "spender": {},
    "entry_final": "x",
    "root": ["a"],
}


def stateless(assistant: str, input: Any, credentials: LangGraphCredentials) -> Any:
    return run_stateless(assistant, input, credentials=credentials)


def on_thread(assistant: str, input: Any, credentials: LangGraphCredentials) -> Any:
    return run_on_thread(
        create_thread(credentials=credentials), assistant, input, credentials=credentials
    )


def joined(assistant: str, input: Any, credentials: LangGraphCredentials) -> Any:
    return join_run(start_run(assistant, input, credentials=credentials))


def looked_at(assistant: str, input: Any, credentials: LangGraphCredentials) -> Any:
    handle = start_run(assistant, input, credentials=credentials)
    while not (seen := get_run(handle)).status.ended:
        pass
    return seen.values


def batch(assistant: str, input: Any, credentials: LangGraphCredentials) -> Any:
    handles = start_runs(assistant, [input] * 12, credentials=credentials)
    first, *others = join_runs(handles).values
    assert others == [first] * 11
    return first


def batch_from_elsewhere(assistant: str, input: Any, credentials: LangGraphCredentials) -> Any:
    """As in another process: these handles were not made with the block that joins them."""
    handles = start_runs(assistant, [input] * 12, credentials=credentials)
    other = LangGraphCredentials(url=credentials.url, timeout_seconds=61)
    first, *others = join_runs(handles, credentials=other).values
    assert others == [first] * 11
    return first


def to_logs(assistant: str, input: Any, credentials: LangGraphCredentials) -> Any:
    return stream_to_logs(assistant, input, credentials=credentials)


def by_block(assistant: str, input: Any, credentials: LangGraphCredentials) -> Any:
    block = LangGraphAssistant(credentials=credentials, assistant_id=assistant)
    run = block.trigger(input)
    run.wait_for_completion()
    return run.fetch_result()


WAYS = [stateless, on_thread, joined, looked_at, batch, to_logs, by_block]


@pytest.mark.parametrize("assistant", ASSISTANTS)
def test_values_are_those_of_the_sdks_wait(
    assistant: str, odd_graphs: LangGraphCredentials, odd_client: SyncLangGraphClient
) -> None:
    given = ASSISTANTS[assistant]
    thread_id = odd_client.threads.create()["thread_id"]
    with ThreadPoolExecutor(len(WAYS)) as pool:
        asked = {way.__name__: pool.submit(way, assistant, given, odd_graphs) for way in WAYS}
        expected: Any = odd_client.runs.wait(thread_id, assistant, input=given)
        found = {name: values.result() for name, values in asked.items()}
    # With a second block in the process the handles of the others would not say whose they are.
    found["from elsewhere"] = batch_from_elsewhere(assistant, given, odd_graphs)
    assert without_ids(found) == dict.fromkeys(found, without_ids(expected))


def without_ids(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: without_ids(value) for key, value in values.items() if key != "id"}
    return [without_ids(value) for value in values] if isinstance(values, list) else values


@pytest.mark.parametrize("given", ["text", 0, [], [1, 2], {"a": {"b": 1}}, "", False], ids=repr)
def test_an_entrypoint_may_return_anything(given: Any, odd_graphs: LangGraphCredentials) -> None:
    assert run_stateless("entry", given, credentials=odd_graphs) == given
    assert batch("entry", given, odd_graphs) == given


@pytest.mark.parametrize("assistant", ["private", "unspoken"])
def test_an_interrupt_and_a_failure_show_no_more_than_the_output(
    assistant: str, odd_graphs: LangGraphCredentials
) -> None:
    thread_id = create_thread(credentials=odd_graphs)
    with pytest.raises(RunInterruptedError) as interrupted:
        run_on_thread(thread_id, assistant, {"ask": True}, credentials=odd_graphs)
    assert interrupted.value.values == {"total": 1}
    with pytest.raises(RunFailedError) as failed:
        run_stateless(assistant, {"fail": True}, credentials=odd_graphs)
    assert failed.value.values == {"total": 1}
    results = join_runs(
        start_runs(assistant, [{"ask": True}, {"fail": True}] * 6, credentials=odd_graphs),
        on_failure="collect",
    )
    assert results.values == [{"total": 1}] * 12


def test_an_assistant_of_a_graph_has_its_output(
    odd_graphs: LangGraphCredentials, odd_client: SyncLangGraphClient
) -> None:
    made = odd_client.assistants.create(graph_id="private", name=uuid.uuid4().hex)["assistant_id"]
    assert run_stateless(made, {"question": "q"}, credentials=odd_graphs) == {
        "answer": "42",
        "total": 1,
    }


def test_a_file_of_results_has_the_output(odd_graphs: LangGraphCredentials, tmp_path: Path) -> None:
    name = f"output-{uuid.uuid4().hex[:8]}"
    odd_graphs.save(name)
    path = tmp_path / "results.jsonl"
    inputs = [{"question": str(number)} for number in range(3)]
    result = fan_out("private", inputs, credentials=name, output_path=str(path))
    assert result.values == [{"answer": "42", "total": 1}] * 3
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["values"] for row in rows] == result.values


def test_runs_of_several_assistants_on_one_thread_have_their_own_outputs(
    odd_graphs: LangGraphCredentials,
) -> None:
    thread_id = create_thread(credentials=odd_graphs)
    first = start_run("private", {"question": "q"}, thread_id=thread_id, credentials=odd_graphs)
    assert join_run(first) == {"answer": "42", "total": 1}
    second = start_run("outer", {"question": "r"}, thread_id=thread_id, credentials=odd_graphs)
    assert join_run(second) == {"question": "r", "answer": "42"}
    # The server now shows of the thread's history what the second graph has, too.
    assert join_run(first) == {"answer": "42"}


@pytest.mark.parametrize("assistant", ["private", "unspoken", "spender"])
def test_what_the_output_is_made_of_is_asked_once(
    assistant: str, odd_graphs: LangGraphCredentials
) -> None:
    with run_proxy(odd_graphs.url) as proxy:
        counted = LangGraphCredentials(url=proxy.url)
        inputs = [{"question": str(number)} for number in range(40)]
        for _ in range(2):
            join_runs(start_runs(assistant, inputs, credentials=counted))
        run_stateless(assistant, {"question": "q"}, credentials=counted)
        assert proxy.count("GET", "/schemas$") == 1
        copies = proxy.count("POST", "/copy$")
        assert copies == (1 if assistant == "unspoken" else 0)
        before = proxy.count()
        run_stateless(assistant, {"question": "q"}, credentials=counted)
        handle = RunHandle(
            run_id=str(uuid.uuid4()), thread_id=str(uuid.uuid4()), assistant_id="x", url=proxy.url
        )
        assert handle.url == proxy.url
        assert proxy.count("GET", "/schemas$") == 1
        assert proxy.count() > before


def test_what_was_made_to_learn_the_output_is_gone(
    odd_graphs: LangGraphCredentials, odd_client: SyncLangGraphClient
) -> None:
    run_stateless("unspoken", {"question": "q"}, credentials=odd_graphs)
    other = LangGraphCredentials(url=odd_graphs.url, timeout_seconds=62)
    before = odd_client.threads.count()
    run_stateless("unspoken", {"question": "q"}, credentials=other)
    assert odd_client.threads.count() == before
