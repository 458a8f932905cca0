"""When a budget is used up, by what runs report."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from prefect_langgraph import Budget, Price, RunHandle, RunResult, RunStatus, Usage
from prefect_langgraph.many_runs.budget import BLIND_RUNS, BudgetGuard, cost_of

HANDLE = RunHandle(run_id="r", thread_id="t", assistant_id="agent", url="http://localhost:2024")
ANY = {"*": Price(input=1.0, output=1.0)}


def ended(
    tokens: int | None = None, status: RunStatus = RunStatus.SUCCESS, **models: Usage
) -> RunResult:
    usage = None
    if tokens is not None:
        usage = Usage(input_tokens=tokens, total_tokens=tokens, by_model=models)
    return RunResult(handle=HANDLE, status=status, usage=usage)


def after(budget: Budget, *results: RunResult) -> str | None:
    guard = BudgetGuard(budget)
    for result in results:
        guard.note(result)
    return guard.reached


def test_tokens_are_used_up_when_the_runs_that_ended_report_as_many() -> None:
    assert after(Budget(tokens=10), ended(4), ended(5)) is None
    assert after(Budget(tokens=10), ended(4), ended(6)) == "10 of 10 tokens were used"


def test_failures_count_whatever_they_cost() -> None:
    failed = ended(1, RunStatus.ERROR)
    assert after(Budget(failures=2), failed, ended(1)) is None
    assert after(Budget(failures=2), failed, failed) == "2 runs did not succeed"


def test_runs_left_never_exceed_the_bound() -> None:
    guard = BudgetGuard(Budget(runs=3))
    assert [guard.runs_left(started) for started in (0, 2, 3, 9)] == [3, 1, 0, 0]
    assert guard.reached == "3 runs were started"
    assert BudgetGuard(Budget(tokens=1)).runs_left(9) is None


def test_what_reports_nothing_is_stopped_since_the_budget_is_blind() -> None:
    silent = [ended()] * BLIND_RUNS
    assert after(Budget(tokens=10), *silent[1:]) is None
    assert "bounds nothing" in str(after(Budget(tokens=10), *silent))
    assert "bounds nothing" in str(after(Budget(cost=1.0, prices=ANY), *silent))
    assert after(Budget(tokens=10), ended(1), *silent) is None
    assert after(Budget(failures=1), *silent) is None


def test_cost_is_what_each_model_costs_and_cached_tokens_may_be_cheaper() -> None:
    usage = Usage(input_tokens=3_000_000, output_tokens=1_000_000, cached_tokens=2_000_000)
    assert cost_of(usage, Price(input=3.0, output=15.0)) == pytest.approx(24.0)
    assert cost_of(usage, Price(input=3.0, output=15.0, cached=0.3)) == pytest.approx(18.6)
    prices = {"a": Price(input=10.0, output=0.0), "*": Price(input=1.0, output=0.0)}
    million = Usage(input_tokens=1_000_000, total_tokens=1_000_000)
    both: dict[str, Any] = {"a": million, "b": million}
    assert after(Budget(cost=11.5, prices=prices), ended(2_000_000, **both)) is None
    assert (
        after(Budget(cost=11.0, prices=prices), ended(2_000_000, **both)) == "11.00 of 11.00 were spent"
    )


def test_model_without_a_price_makes_the_budget_blind() -> None:
    prices = {"a": Price(input=1.0, output=1.0)}
    said = after(Budget(cost=1.0, prices=prices), ended(1, b=Usage(input_tokens=1)))
    assert said == "b has no price, so the budget bounds nothing"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tokens": 0},
        {"failures": -1},
        {"cost": 1.0},
        {"runs": 1.5},
        {"prices": {"*": {"input": 1}}},
    ],
)
def test_budget_that_bounds_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Budget.model_validate(fields)
