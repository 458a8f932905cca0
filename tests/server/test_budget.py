"""A fan-out that stops in time: by what its runs report, on the real server."""

from __future__ import annotations

import json
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import pytest

from prefect_langgraph import (
    Budget,
    FanOutError,
    FanOutResult,
    LangGraphCredentials,
    Price,
    RunItem,
    RunStatus,
    fan_out,
    join_runs,
    start_runs,
)

pytestmark = pytest.mark.usefixtures("prefect_server")

TOKENS = 100
WIDE = 4  # runs in flight


@pytest.fixture
def block(credentials: LangGraphCredentials) -> str:
    """A saved block for the shared server."""
    name = f"budget-{uuid.uuid4().hex[:8]}"
    credentials.save(name)
    return name


def spend(block: str, count: int, work: dict[str, Any] | None = None, **options: Any) -> FanOutResult:
    """A fan-out of runs that report their tokens, a few at once."""
    usage = {"input_tokens": TOKENS - 10, "output_tokens": 10, "total_tokens": TOKENS}
    inputs = [{"tag": f"{number}", "usage": usage, **(work or {})} for number in range(count)]
    return run(block, inputs, **options)


def run(block: str, inputs: list[Any], **options: Any) -> FanOutResult:
    given = {"on_failure": "collect", "max_in_flight": WIDE, "credentials": block, **options}
    result: FanOutResult = fan_out("worker", inputs, **given)
    return result


def not_started(result: FanOutResult) -> list[str]:
    """Why runs were not started."""
    return [
        item.error.message
        for item in result
        if item.error is not None and item.error.error == "BudgetReached"
    ]


def test_tokens_stop_a_fan_out_and_exceed_the_budget_by_what_is_in_flight(block: str) -> None:
    result = spend(block, 40, budget=Budget(tokens=10 * TOKENS))
    used = result.usage.total_tokens
    assert 10 * TOKENS <= used <= (10 + WIDE) * TOKENS
    assert result.counts == {
        RunStatus.SUCCESS: used // TOKENS,
        RunStatus.CANCELLED: 40 - used // TOKENS,
    }
    reasons = not_started(result)
    assert len(reasons) == 40 - used // TOKENS
    assert "tokens were used" in reasons[0]
    assert [item.values["result"] for item in result if item.values] == [
        str(number) for number in range(used // TOKENS)
    ]


def test_cost_by_prices_of_the_caller(block: str) -> None:
    dear = Price(input=1_000_000.0, output=0.0)  # of each run 90
    result = spend(block, 20, budget=Budget(cost=200.0, prices={"*": dear}))
    assert 3 <= result.counts[RunStatus.SUCCESS] <= 3 + WIDE
    assert "were spent" in not_started(result)[0]


def test_runs_are_counted_exactly_and_failures_stop_what_goes_wrong(block: str) -> None:
    result = spend(block, 12, budget=Budget(runs=5))
    assert result.counts == {RunStatus.SUCCESS: 5, RunStatus.CANCELLED: 7}
    with pytest.raises(FanOutError, match="runs did not succeed"):
        spend(block, 30, {"fail": "no luck"}, budget=Budget(failures=3), on_failure="raise")


def test_graph_that_reports_nothing_is_stopped_after_twenty_runs(block: str) -> None:
    result = spend(block, 60, {"usage": None}, budget=Budget(tokens=1))
    assert 20 <= result.counts[RunStatus.SUCCESS] <= 20 + WIDE
    assert "bounds nothing" in not_started(result)[0]


def test_cancel_ends_what_is_in_flight(block: str) -> None:
    long = {"sleep": 60}
    usage = {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10}
    items = [RunItem(input={"tag": "short", "usage": usage}), *(RunItem(input=long) for _ in range(9))]
    result = run(block, items, items=True, budget=Budget(tokens=5), on_budget="cancel")
    assert result[0].status is RunStatus.SUCCESS
    assert {item.status for item in result[1:]} == {RunStatus.CANCELLED}


def test_later_run_goes_on_where_the_budget_ended(block: str, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    first = spend(block, 12, budget=Budget(runs=5), output_path=str(path))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["status"] for row in rows].count("cancelled") == 7
    second = spend(block, 12, budget=Budget(runs=5), output_path=str(path))
    third = spend(block, 12, budget=Budget(runs=5), output_path=str(path))
    counts = [each.counts[RunStatus.SUCCESS] for each in (first, second, third)]
    assert counts == [5, 10, 12]


def test_keys_come_back_in_results_files_rows_and_joins(block: str, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    items = [
        RunItem(key="row-a", input={"tag": "a"}),
        RunItem(key="row-b", input={"fail": "no luck"}),
        RunItem(input={"tag": "c"}),
    ]
    result = run(block, items, items=True, output_path=str(path))
    assert [item.key for item in result] == ["row-a", "row-b", None]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["key"] for row in rows] == ["row-a", "row-b", None]
    again = run(block, items, items=True, output_path=str(path))
    assert [item.key for item in again] == ["row-a", "row-b", None]
    joined = join_runs(start_runs("worker", items, credentials=block), on_failure="collect")
    assert [item.key for item in joined] == ["row-a", "row-b", None]
    flat = joined.to_rows()
    assert [row["result"] for row in flat][::2] == ["a", "c"]
    assert flat[1]["error"] == "RuntimeError: no luck"
    with sqlite3.connect(":memory:") as database:
        names = ["key", "status", "result", "error", "run_id"]
        database.execute(f"create table runs ({', '.join(names)})")
        cells = [[row.get(name) for name in names] for row in flat]
        database.executemany("insert into runs values (?, ?, ?, ?, ?)", cells)
        found = database.execute("select key from runs where status = 'error'").fetchall()
    assert found == [("row-b",)]
