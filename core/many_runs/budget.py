"""Whether a budget is used up, by what the runs that ended report. Pure."""

from __future__ import annotations

from prefect_langgraph.models import Budget, Price, RunStatus
from prefect_langgraph.results import RunResult, Usage

BLIND_RUNS = 20
"""After so many runs of which none reports tokens, a bound on tokens or cost bounds nothing."""

_MILLION = 1_000_000


class BudgetGuard:
    """Counts what runs report, until a budget is used up.

    Args:
        budget: The bounds.

    Attributes:
        reached: Which bound was reached, in words; None while none is.
        tokens: What was reported so far.
        cost: The same in money; 0.0 without prices.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.reached: str | None = None
        self.tokens = 0
        self.cost = 0.0
        self._failures = 0
        self._silent = 0
        self._reports = 0
        self._unpriced: set[str] = set()

    def runs_left(self, started: int) -> int | None:
        """How many more runs may be started; None is any number."""
        if self._budget.runs is None:
            return None
        left = max(self._budget.runs - started, 0)
        if not left:
            self.reached = self.reached or f"{self._budget.runs:,} runs were started"
        return left

    def note(self, result: RunResult) -> None:
        """Count a run that ended."""
        self._failures += result.status is not RunStatus.SUCCESS
        if result.usage is None:
            self._silent += 1
        else:
            self._reports += 1
            self.tokens += result.usage.total_tokens
            self.cost += self._cost_of(result.usage)
        self.reached = self.reached or self._reason()

    def __str__(self) -> str:
        budget = self._budget
        if budget.cost is not None:
            return f"{self.cost:,.2f} of a budget of {budget.cost:,.2f}."
        if budget.tokens is not None:
            return f"{self.tokens:,} of a budget of {budget.tokens:,} tokens."
        return ""

    def _reason(self) -> str | None:
        budget = self._budget
        if budget.tokens is not None and self.tokens >= budget.tokens:
            return f"{self.tokens:,} of {budget.tokens:,} tokens were used"
        if budget.cost is not None and self.cost >= budget.cost:
            return f"{self.cost:,.2f} of {budget.cost:,.2f} were spent"
        if budget.failures is not None and self._failures >= budget.failures:
            return f"{self._failures:,} runs did not succeed"
        if budget.tokens is None and budget.cost is None:
            return None
        if not self._reports and self._silent >= BLIND_RUNS:
            return f"none of {self._silent} runs reports its tokens, so the budget bounds nothing"
        if budget.cost is not None and self._unpriced:
            return f"{', '.join(sorted(self._unpriced))} has no price, so the budget bounds nothing"
        return None

    def _cost_of(self, usage: Usage) -> float:
        if self._budget.cost is None:
            return 0.0
        parts = usage.by_model or {"a model that its messages do not name": usage}
        return sum(self._priced(name, part) for name, part in parts.items())

    def _priced(self, name: str, usage: Usage) -> float:
        price = self._budget.prices.get(name) or self._budget.prices.get("*")
        if price is None:
            self._unpriced.add(name)
            return 0.0
        return cost_of(usage, price)


def cost_of(usage: Usage, price: Price) -> float:
    """What tokens of one model cost."""
    cached = price.input if price.cached is None else price.cached
    fresh = max(usage.input_tokens - usage.cached_tokens, 0)
    given = fresh * price.input + usage.cached_tokens * cached
    return (given + usage.output_tokens * price.output) / _MILLION
