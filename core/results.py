"""What became of runs: frozen, JSON, without secrets."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, overload

from pydantic import (
    Field,
)

from prefect_langgraph.errors import (
    FanOutError,
    RunCancelledError,
    RunError,
    RunFailedError,
    RunInterruptedError,
    RunLostError,
    RunTimeoutError,
)
from prefect_langgraph.links import STUDIO, filled
from prefect_langgraph.models import Answer, Model, Origin, RunHandle, RunStatus
from prefect_langgraph.texts import cut

_REASONS, _ALIKE, _REASON_CHARACTERS = 3, 3, 120


class Usage(Model):
    """Tokens that the AI messages of a run report, added up.

    A lower bound: of calls whose message is in the state that the run left. Calls whose message a graph
    does not keep, and attempts that were retried, report nothing.

    Attributes:
        input_tokens: Given to models.
        output_tokens: Said by models.
        total_tokens: Both, as the messages say.
        cached_tokens: Those of `input_tokens` that were read from a cache.
        by_model: The same for each model that messages name.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    by_model: dict[str, Usage] = Field(default_factory=dict)

    def __add__(self, other: Usage) -> Usage:
        by_model = dict(self.by_model)
        for name, usage in other.by_model.items():
            by_model[name] = by_model[name] + usage if name in by_model else usage
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            by_model=by_model,
        )


class FanOutUsage(Usage):
    """Tokens of many runs.

    Attributes:
        unreported: How many runs report none.
    """

    unreported: int = 0


SHOWN_CHARACTERS = 2000
"""How much of what a graph said is in the text of an error, which Prefect stores with the state."""


class RunFailure(Model):
    """Why a run did not succeed, as the server tells it.

    Attributes:
        error: The name of the graph's error.
        message: Its text, whole. As text, a failure has 2,000 characters of it.
    """

    error: str
    message: str = ""

    def __str__(self) -> str:
        text = f"{self.error}: {self.message}" if self.message else self.error
        if len(text) <= SHOWN_CHARACTERS:
            return text
        return f"{text[:SHOWN_CHARACTERS]}… ({len(text):,} characters; the error's detail has all)"


class RunResult(Model):
    """What became of a run.

    Attributes:
        handle: The run.
        status: How it stands. `values` are final only when it is `success`.
        values: The graph's output, as the SDK's `runs.wait` returns it; None while the run is on its
            way or when there is none. Of a run that did not succeed, what is there of the output.
        error: Why it did not succeed, None when it did or is still on its way.
        interrupts: `id` and `value` of each interrupt; empty at a static breakpoint.
        created_at: When the server took the run.
        ended_at: When it ended by the server's clock, or None.
        usage: Tokens that this run's messages report, and not those of runs before it on the thread;
            None when none does. A lower bound of what the run used: calls to a model whose message the
            graph does not keep are not counted.
    """

    handle: RunHandle
    status: RunStatus
    values: Any = None
    error: RunFailure | None = None
    interrupts: tuple[dict[str, Any], ...] = ()
    created_at: datetime | None = None
    ended_at: datetime | None = None
    usage: Usage | None = None

    @property
    def key(self) -> str | None:
        """The caller's own name for what was run: the `key` of its `RunItem`."""
        return self.handle.item_key

    @property
    def trace_url(self) -> str | None:
        """The page of the run's trace, where the block has a template for it; else None."""
        return self.handle.trace_url

    @property
    def studio_url(self) -> str | None:
        """The page of the run's thread in Studio, which is of use as long as the thread is there."""
        handle = self.handle
        if not handle.run_id:
            return None
        return handle.studio_url or filled(
            STUDIO,
            run_id=handle.run_id,
            thread_id=handle.thread_id,
            assistant_id=handle.assistant_id,
            url=handle.url,
        )

    @property
    def origin(self) -> Origin:
        """Whether the run was started, adopted or restarted by the call."""
        return self.handle.origin

    @property
    def seconds(self) -> float | None:
        """Seconds from creation to end by the server's clock, or None."""
        if self.created_at is None or self.ended_at is None:
            return None
        # The server gives a run with after_seconds a creation time that lies ahead.
        return max(0.0, (self.ended_at - self.created_at).total_seconds())

    def as_error(self) -> RunError | None:
        """The typed error for this result, or None when it succeeded or is on its way."""
        return error_of(self)

    def raise_for_failure(self) -> RunResult:
        """Return self, or raise the typed error when the run did not succeed."""
        if (error := self.as_error()) is not None:
            raise error
        return self


OnInterrupt = Literal["raise", "return"]
"""What a single run does when it stops for a person: a question that was expected is no failure."""


def values_of(result: RunResult, on_interrupt: OnInterrupt = "raise") -> Any:
    """The values of a run that ended, or the typed error where it did not succeed.

    With "return" a run that stopped for a person has its questions as `__interrupt__`, as in what the
    SDK's `runs.wait` returns.
    """
    if result.status is not RunStatus.INTERRUPTED or on_interrupt == "raise":
        return result.raise_for_failure().values
    values = result.values if isinstance(result.values, dict) else {}
    return {**values, "__interrupt__": [dict(item) for item in result.interrupts]}


class FanOutResult(Model, Sequence[RunResult]):
    """The results of many runs, in input order.

    Attributes:
        results: One for each.
        answers: What people were asked on the way, and answered: see `ask_interrupts`.

    Example:
        >>> FanOutResult(results=()).counts
        {}
    """

    results: tuple[RunResult, ...] = Field(default_factory=tuple)
    answers: tuple[Answer, ...] = Field(default_factory=tuple)

    @overload
    def __getitem__(self, index: int) -> RunResult: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RunResult]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self.results[index]

    def keys(self) -> Iterable[str]:
        """Nothing: Prefect calls `dict(model)`, to look for futures in each value of each run."""
        return ()

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[RunResult]:  # type: ignore[override]
        return iter(self.results)

    @property
    def values(self) -> list[Any]:
        """The values of every run in input order; None where a run has none."""
        return [result.values for result in self.results]

    @property
    def failed(self) -> list[RunResult]:
        """The results that are not a success, in input order."""
        return [result for result in self.results if result.status is not RunStatus.SUCCESS]

    @property
    def usage(self) -> FanOutUsage:
        """The tokens of all runs, added up, and how many runs report none."""
        reported = [result.usage for result in self.results if result.usage is not None]
        total = sum(reported, Usage())
        started = sum(bool(result.handle.run_id) for result in self.results)
        fields = {name: getattr(total, name) for name in Usage.model_fields}
        return FanOutUsage(**fields, unreported=started - len(reported))

    @property
    def counts(self) -> dict[RunStatus, int]:
        """How many runs have each status. A status that no run has is absent."""
        return dict(Counter(result.status for result in self.results))

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat row per run, in input order, for pandas, polars or SQLite.

        A graph's output that is an object gives a column for each of its values, named as they are; any
        other output is the column `values`. What is no plain value is JSON text. The other columns are
        `key`, `status`, `error`, `seconds`, `total_tokens`, `run_id`, `thread_id` and, where any run
        has one, `trace_url`, with `run_` in front where the output has a value of that name.

        Example:
            >>> from prefect_langgraph import RunItem, join_runs, start_runs
            >>> items = [RunItem(key="row-1", input={"question": "What is 6 x 7?"})]
            >>> row = join_runs(start_runs("answer", items)).to_rows()[0]
            >>> row["key"], row["status"], row["answer"]
            ('row-1', 'success', 'You asked: What is 6 x 7?')
        """
        traced = any(result.trace_url for result in self.results)
        return [_row_of(result, traced=traced) for result in self.results]

    def raise_for_failures(self) -> FanOutResult:
        """Return self, or raise one `FanOutError` that holds every result."""
        errors = [error for result in self.results if (error := result.as_error()) is not None]
        if errors:
            shown = ", ".join(f"{count} {status}" for status, count in sorted(self.counts.items()))
            raise FanOutError(
                f"{len(errors)} of {len(self.results)} runs did not succeed ({shown}). "
                f"{_reasons(self.results)}. `.result` holds every run.",
                errors,
                self,
            )
        return self


def _row_of(result: RunResult, *, traced: bool) -> dict[str, Any]:
    values = result.values
    output = values if isinstance(values, Mapping) else {} if values is None else {"values": values}
    about = {
        "key": result.key,
        "status": str(result.status),
        "error": str(result.error) if result.error is not None else None,
        "seconds": result.seconds,
        "total_tokens": result.usage.total_tokens if result.usage is not None else None,
        "run_id": result.handle.run_id or None,
        "thread_id": result.handle.thread_id or None,
    }
    if traced:
        about["trace_url"] = result.trace_url
    named = {f"run_{name}" if name in output else name: value for name, value in about.items()}
    return {**named, **{str(name): _plain(value) for name, value in output.items()}}


def _plain(value: Any) -> Any:
    """A value as a cell of a table holds it."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def error_of(result: RunResult) -> RunError | None:
    """The typed error for a result; None when it succeeded or is on its way."""
    handle, values, status = result.handle, result.values, result.status
    if not status.ended or status is RunStatus.SUCCESS:
        return None
    if not handle.run_id:
        return _error_of_none(result)
    where = f"Run {handle.run_id} of {handle.assistant_id} on thread {handle.thread_id}"
    trace = f" Trace: {handle.trace_url}" if handle.trace_url else ""
    if status is RunStatus.ERROR:
        failure = result.error or RunFailure(error="Error")
        advice = "The graph raised this; a retry starts a fresh run."
        if failure.error == "UnknownInterruptError":
            advice = "The question was answered before, or never asked: see get_thread_state."
        return RunFailedError(
            f"{where} failed: {failure}. {advice}{trace}",
            handle=handle,
            status=status,
            values=values,
            error=failure.error,
            detail=failure.message,
        )
    if status is RunStatus.TIMEOUT:
        return RunTimeoutError(
            f"{where} was stopped by the server's own job timeout. Split the work or raise the "
            f"server's limit; a retry starts a fresh run.{trace}",
            handle=handle,
            status=status,
            values=values,
        )
    if status is RunStatus.CANCELLED:
        return RunCancelledError(
            f"{where} was cancelled. A retry starts a fresh run.{trace}",
            handle=handle,
            status=status,
            values=values,
        )
    if status is RunStatus.INTERRUPTED:
        count = len(result.interrupts)
        nothing = result.error is not None
        did = f"{where} did nothing: its thread is at " if nothing else f"{where} stopped at "
        at = f"{count} interrupt{'s' if count > 1 else ''}" if count else "a static breakpoint"
        return RunInterruptedError(
            f"{did}{at} and waits for a person. {_how_to_answer(result.interrupts)}",
            handle=handle,
            status=status,
            values=values,
            interrupts=result.interrupts,
        )
    return RunLostError(
        f"{where} is not known to {handle.url}: deleted, rolled back, expired, or never there. "
        "A retry starts a fresh run.",
        handle=handle,
        status=status,
        values=values,
    )


_SHOWN_INTERRUPTS = 10


def _how_to_answer(interrupts: Sequence[Mapping[str, Any]]) -> str:
    """What to do about interrupts: the server takes one answer to several only by their ids."""
    call = "run_on_thread(thread_id, assistant_id, command={'resume': %s})"
    if len(interrupts) < 2:
        return f"Answer with {call % '...'}."
    ids = [str(item.get("id")) for item in interrupts]
    shown = ", ".join(f"'{interrupt_id}': ..." for interrupt_id in ids[:_SHOWN_INTERRUPTS])
    more = ", ..." if len(ids) > _SHOWN_INTERRUPTS else ""
    return (
        f"Answer each by its id with {call % f'{{{shown}{more}}}'}; those that get no answer go on "
        "waiting."
    )


def _error_of_none(result: RunResult) -> RunError:
    """The error for an input of a fan-out that never became a run."""
    handle, failure = result.handle, result.error
    if result.status is RunStatus.ERROR:
        return RunFailedError(
            f"A run of {handle.assistant_id} was not started: {failure}",
            handle=handle,
            status=result.status,
            error=failure.error if failure is not None else None,
            detail=failure.message if failure is not None else None,
        )
    spent = failure is not None and failure.error == "BudgetReached"
    why = f"the budget was reached, {failure.message}" if failure is not None and spent else ""
    return RunCancelledError(
        f"A run of {handle.assistant_id} was never started: "
        f"{why or 'the fan-out stopped before its turn'}.",
        handle=handle,
        status=result.status,
    )


def _reasons(results: Iterable[RunResult]) -> str:
    """Why runs did not succeed, the most frequent reasons first: all that a notification shows."""
    kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        if result.as_error() is not None:
            failure = result.error
            started = result.handle.run_id or result.status is RunStatus.ERROR
            kind = failure.error if failure is not None else str(result.status)
            kinds[kind if started else "never started"][
                failure.message if failure is not None else ""
            ] += 1
    found: list[tuple[int, str]] = []
    for kind, messages in kinds.items():
        if len(messages) > _ALIKE:
            # Each names its own row, say: together they are one reason.
            first, _ = messages.most_common(1)[0]
            found.append((messages.total(), _short(f"{kind}, such as: {first}")))
        else:
            found += [
                (count, _short(f"{kind}: {message}" if message else kind))
                for message, count in messages.items()
            ]
    found.sort(key=lambda reason: -reason[0])
    shown = [f"{count}x {reason}" for count, reason in found[:_REASONS]]
    if more := len(found) - len(shown):
        shown.append(f"{more} other reason{'s' if more > 1 else ''}")
    return "; ".join(shown)


def _short(text: str) -> str:
    """A text on one line of bounded length."""
    return cut(" ".join(text.split()), _REASON_CHARACTERS)
