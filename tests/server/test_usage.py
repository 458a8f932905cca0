"""`usage` counts what a run added, and nothing before it."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from prefect_langgraph import (
    LangGraphCredentials,
    RunResult,
    RunStatus,
    Usage,
    create_thread,
    fan_out,
    get_run,
    join_runs,
    start_run,
    start_runs,
)

pytestmark = pytest.mark.usefixtures("prefect_server")


def counts(usage: Usage | None) -> tuple[int, int, int, int] | None:
    if usage is None:
        return None
    return usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.total_tokens


def on(
    thread_id: str | None, credentials: LangGraphCredentials, *spend: dict[str, Any], **more: Any
) -> RunResult:
    """What became of a run that spends this."""
    given = {"messages": [{"role": "user", "content": "Go"}], "spend": list(spend), **more}
    handle = start_run("spender", given, thread_id=thread_id, credentials=credentials)
    return join_runs([handle], on_failure="collect")[0]


def test_a_run_reports_its_tokens_by_model(odd_graphs: LangGraphCredentials) -> None:
    spend = [
        {"input": 10, "output": 5, "cached": 4, "model": "large"},
        {"input": 20, "output": 1, "model": "small"},
        {"input": 30, "output": 2, "model": "large"},
        {"input": 7, "output": 3},
        {},
    ]
    usage = on(None, odd_graphs, *spend).usage
    assert usage is not None
    assert counts(usage) == (67, 11, 4, 78)
    assert {name: counts(of) for name, of in usage.by_model.items()} == {
        "large": (40, 7, 4, 47),
        "small": (20, 1, 0, 21),
    }


def test_each_run_of_a_thread_reports_its_own(odd_graphs: LangGraphCredentials) -> None:
    thread_id = create_thread(credentials=odd_graphs)
    results = [
        on(thread_id, odd_graphs, {"input": 100, "output": 7}),
        on(thread_id, odd_graphs, {"input": 3, "output": 1}, {"input": 5, "output": 1}),
        on(thread_id, odd_graphs),
        on(thread_id, odd_graphs, {"input": 2}, fail=True),
        on(thread_id, odd_graphs, {"input": 9}, ask=True),
    ]
    answer: Any = {"resume": "yes"}
    resumed = start_run("spender", command=answer, thread_id=thread_id, credentials=odd_graphs)
    results += join_runs([resumed])
    expected = [(100, 7, 0, 107), (8, 2, 0, 10), None, (2, 0, 0, 2), (9, 0, 0, 9), (2, 1, 0, 3)]
    assert [counts(result.usage) for result in results] == expected
    assert [result.status for result in results[3:]] == [
        RunStatus.ERROR,
        RunStatus.INTERRUPTED,
        RunStatus.SUCCESS,
    ]
    # Joined together afterwards, here and as in another process.
    handles = [result.handle for result in results]
    again = join_runs(handles, on_failure="collect")
    assert [counts(result.usage) for result in again] == expected
    other = LangGraphCredentials(url=odd_graphs.url, timeout_seconds=63)
    elsewhere = join_runs(handles, on_failure="collect", credentials=other)
    assert [counts(result.usage) for result in elsewhere] == expected
    assert counts(get_run(handles[1], credentials=odd_graphs).usage) == (8, 2, 0, 10)


def test_runs_that_were_queued_on_one_thread_report_their_own(odd_graphs: LangGraphCredentials) -> None:
    thread_id = create_thread(credentials=odd_graphs)
    handles = [
        start_run("spender", {"spend": [{"input": n}]}, thread_id=thread_id, credentials=odd_graphs)
        for n in (1, 10, 100)
    ]
    found = join_runs(handles)
    assert [counts(result.usage) for result in found] == [
        (1, 0, 0, 1),
        (10, 0, 0, 10),
        (100, 0, 0, 100),
    ]
    assert counts(found.usage) == (111, 0, 0, 111)


def test_a_message_that_was_replaced_counts_for_the_run_that_replaced_it(
    odd_graphs: LangGraphCredentials,
) -> None:
    thread_id = create_thread(credentials=odd_graphs)
    first = on(thread_id, odd_graphs, {"id": "same", "input": 10})
    second = on(thread_id, odd_graphs, {"id": "same", "input": 4})
    assert [counts(run.usage) for run in (first, second)] == [(10, 0, 0, 10), (4, 0, 0, 4)]


def test_usage_is_counted_where_the_output_hides_the_messages(odd_graphs: LangGraphCredentials) -> None:
    handles = start_runs(
        "quiet_spender", [{"spend": [{"input": n}]} for n in range(1, 13)], credentials=odd_graphs
    )
    results = join_runs(handles)
    assert results.values == [{"asked": False}] * 12
    assert [counts(result.usage) for result in results] == [(n, 0, 0, n) for n in range(1, 13)]


def test_a_fan_out_adds_up_and_counts_those_that_report_nothing(
    odd_graphs: LangGraphCredentials, tmp_path: Path
) -> None:
    name = f"usage-{uuid.uuid4().hex[:8]}"
    odd_graphs.save(name)
    path = tmp_path / "results.jsonl"
    inputs: list[dict[str, Any]] = [
        {"spend": [{"input": 1, "output": 2, "cached": 1, "model": "a"}]},
        {"spend": [{}]},
        {"spend": [{"input": 4, "model": "a"}, {"input": 8, "model": "b"}]},
        {},
    ]
    for _ in range(2):  # the second time from the file
        result = fan_out("quiet_spender", inputs, credentials=name, output_path=str(path))
        assert counts(result.usage) == (13, 2, 1, 15)
        assert result.usage.unreported == 2
        assert {model: of.input_tokens for model, of in result.usage.by_model.items()} == {
            "a": 5,
            "b": 8,
        }
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(row["usage"] or {}).get("total_tokens") for row in rows] == [3, None, 12, None]
