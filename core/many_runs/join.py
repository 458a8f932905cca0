"""Waiting for many runs, and cancelling them.

Invariants:
- Results are in the order of the handles, one for each, however its run ended.
- Runs that a policy stops early are cancelled and waited for before anything is raised.
- Threads are released together, after the last outcome was read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from prefect_langgraph.errors import (
    DeploymentError,
    JoinTimeoutError,
    LangGraphError,
    UnreachableError,
)
from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.results import FanOutResult, RunFailure, RunResult
from prefect_langgraph.runs import operations
from prefect_langgraph.runs.call import CancelAction, Context, OnTimeout
from prefect_langgraph.runs.poller import Poller
from prefect_langgraph.transport.deadline import Deadline

OnFailure = Literal["raise", "fail_fast", "collect"]

OnResult = Callable[[int, RunResult], None]

# One context for each deployment of the handles, by address and block name.
Contexts = Mapping[tuple[str, str | None], Context]

ONE_LINE_EACH = 20
"""Up to this many runs, each gets its own log lines; more runs share one line."""

_CANCEL_CONCURRENCY = 16

_CANCEL_SECONDS_EACH = 0.05

_SHOWN = 5


def location_of(handle: RunHandle) -> tuple[str, str | None]:
    """The key in `Contexts` of the context that a handle needs."""
    return handle.url, handle.credentials


async def join_many(
    contexts: Contexts,
    handles: Sequence[RunHandle],
    *,
    on_failure: OnFailure,
    deadline: Deadline,
    on_timeout: OnTimeout,
    on_result: OnResult | None = None,
) -> FanOutResult:
    """Wait for runs and return the result of each, by the policy `on_failure`."""
    if not handles:
        return FanOutResult()
    errors: dict[int, DeploymentError] = {}
    try:
        found = await wait_all(contexts, handles, on_failure, deadline, on_result, errors)
    except LangGraphError as error:
        raise await ended_by(error, contexts, handles, on_timeout) from error.__cause__
    return await conclude(
        contexts,
        handles,
        found,
        on_failure=on_failure,
        deadline=deadline,
        on_timeout=on_timeout,
        stopped_early=on_failure == "fail_fast"
        and any(item is not None and item.status is not RunStatus.SUCCESS for item in found),
        errors=errors,
    )


async def ended_by(
    error: LangGraphError, contexts: Contexts, handles: Sequence[RunHandle], on_timeout: OnTimeout
) -> LangGraphError:
    """Cancel or leave the runs after an error, and return the error, which now says which it was."""
    if not handles:
        return error
    if on_timeout == "leave":
        return error.with_more("The runs that have not ended go on; join them again.")
    try:
        deadline = time_to_cancel(len(handles))
        await release_many(contexts, await cancel_many(contexts, handles, deadline=deadline))
    except LangGraphError as unsure:
        return error.with_more(str(unsure))
    return error.with_more("The runs that had not ended were cancelled.")


async def conclude(
    contexts: Contexts,
    handles: Sequence[RunHandle],
    found: Sequence[RunResult | None],
    *,
    on_failure: OnFailure,
    deadline: Deadline,
    on_timeout: OnTimeout,
    stopped_early: bool,
    errors: Mapping[int, DeploymentError] | None = None,
) -> FanOutResult:
    """Cancel or leave the runs that have not ended, release the others, and return or raise.

    Args:
        contexts: The contexts of the handles.
        handles: The runs.
        found: The result of each; None for runs that have not ended.
        on_failure: The caller's policy.
        deadline: The caller's.
        on_timeout: What happens with runs that have not ended at the deadline.
        stopped_early: True when failures stopped the waiting, which cancels the rest.
        errors: Of runs that the server would not tell about, why; they have no outcome.
    """
    results = list(found)
    late = [index for index, item in enumerate(results) if item is None]
    if late and (stopped_early or on_timeout == "cancel"):
        cancelled = await _cancel_late(contexts, [handles[index] for index in late])
        for index, outcome in zip(late, cancelled, strict=True):
            results[index] = outcome
    for index in late:
        results[index] = results[index] or _still(contexts, handles[index])
    for index, error in (errors or {}).items():
        known = results[index]
        if known is not None and known.error is None:
            results[index] = known.model_copy(update={"error": failure_of(error)})
    result = FanOutResult(results=tuple(item for item in results if item is not None))
    await release_many(contexts, result, deadline)
    _log(contexts, handles, result)
    if late and not stopped_early and on_failure != "collect":
        raise deadline_passed(result, deadline, on_timeout)
    return result if on_failure == "collect" else result.raise_for_failures()


def failure_of(error: DeploymentError) -> RunFailure:
    """What a result says of a run that the server would not tell about."""
    return RunFailure(error=type(error).__name__, message=str(error))


async def _cancel_late(contexts: Contexts, handles: Sequence[RunHandle]) -> Sequence[RunResult | None]:
    """Cancel runs; None for each if the server does not confirm in time that they stopped."""
    first = contexts[location_of(handles[0])].deployment
    deadline = time_to_cancel(len(handles))
    cancelled = await first.clean_up(
        cancel_many(contexts, handles, deadline=deadline),
        more_seconds=_CANCEL_SECONDS_EACH * len(handles),
    )
    return cancelled if cancelled is not None else [None] * len(handles)


async def wait_all(
    contexts: Contexts,
    handles: Sequence[RunHandle],
    on_failure: OnFailure,
    deadline: Deadline,
    on_result: OnResult | None,
    errors: dict[int, DeploymentError],
) -> list[RunResult | None]:
    """The result of each run; None for runs that had not ended when the waiting stopped.

    Where failures are collected, one run that the server would not tell about is noted in `errors`.
    """
    few = len(handles) <= ONE_LINE_EACH
    found: list[RunResult | None] = [None] * len(handles)
    failed = asyncio.Event()

    async def one(index: int) -> None:
        try:
            result = await operations.wait_until_ended(
                contexts[location_of(handles[index])],
                handles[index],
                deadline=deadline,
                exact=few,
                quiet=not few,
            )
        except DeploymentError as error:
            if on_failure != "collect":
                raise
            errors[index] = error
            return
        if result is None:
            return
        found[index] = result
        if result.status is not RunStatus.SUCCESS:
            failed.set()
        if on_result is not None:
            on_result(index, result)

    waits = [asyncio.create_task(one(index)) for index in range(len(handles))]
    stop = asyncio.create_task(failed.wait())
    try:
        everything = asyncio.gather(*waits)
        # Retrieve its error even if the waiting stops first, or asyncio would log it as forgotten.
        everything.add_done_callback(lambda done: done.cancelled() or done.exception())
        stops: list[asyncio.Future[Any]] = [stop] if on_failure == "fail_fast" else []
        await asyncio.wait([everything, *stops], return_when=asyncio.FIRST_COMPLETED)
        if everything.done():
            everything.result()
        if len(errors) == len(handles):
            raise errors[0]  # there is nothing to collect
    finally:
        for task in (*waits, stop):
            task.cancel()
        await asyncio.wait([*waits, stop])
    return found


def time_to_cancel(count: int) -> Deadline:
    """How long the server may take to confirm that this many runs stopped; each takes a request."""
    return Deadline.after(operations.CANCEL_SECONDS + _CANCEL_SECONDS_EACH * count)


async def cancel_many(
    contexts: Contexts,
    handles: Sequence[RunHandle],
    *,
    deadline: Deadline,
    action: CancelAction = "interrupt",
) -> list[RunResult]:
    """Cancel runs and wait until the server says how each ended.

    Raises:
        UnreachableError: The server did not confirm some; the message counts and names them.
    """
    slots = asyncio.Semaphore(_CANCEL_CONCURRENCY)

    async def one(handle: RunHandle) -> RunResult:
        deployment = contexts[location_of(handle)].deployment
        return await operations.cancel(
            deployment, handle, deadline=deadline, action=action, slots=slots
        )

    answers = await asyncio.gather(*(one(handle) for handle in handles), return_exceptions=True)
    results: list[RunResult] = []
    unsure: list[tuple[RunHandle, BaseException]] = []
    for handle, answer in zip(handles, answers, strict=True):
        if isinstance(answer, RunResult):
            results.append(answer)
        elif isinstance(answer, LangGraphError):
            unsure.append((handle, answer))
        else:
            raise answer
    if unsure:
        shown = "; ".join(f"{handle}: {error}" for handle, error in unsure[:_SHOWN])
        more = f"; and {len(unsure) - _SHOWN} more" if len(unsure) > _SHOWN else ""
        error = UnreachableError(
            f"{len(unsure)} of {len(handles)} runs may still be running: the server did not confirm "
            f"that they stopped. Cancelling again is safe. {shown}{more}",
            url=unsure[0][0].url,
        )
        deadline.mark(error)
        raise error
    return results


async def release_many(
    contexts: Contexts, results: Sequence[RunResult], deadline: Deadline | None = None
) -> None:
    """Release the threads that existed only for these runs, together for each deployment."""
    for location, context in contexts.items():
        await operations.release(
            context,
            [result for result in results if location_of(result.handle) == location],
            deadline=deadline,
        )


def _still(contexts: Contexts, handle: RunHandle) -> RunResult:
    """The result of a run that had not ended at the deadline, with the status last seen."""
    status = contexts[location_of(handle)].deployment.part(Poller).status_of(handle)
    return RunResult(handle=handle, status=status or RunStatus.RUNNING)


def _log(contexts: Contexts, handles: Sequence[RunHandle], result: FanOutResult) -> None:
    if len(handles) > ONE_LINE_EACH:
        logger = next(iter(contexts.values())).logger
        shown = ", ".join(f"{count} {status}" for status, count in sorted(result.counts.items()))
        logger.info("Joined %d runs: %s", len(handles), shown)


def deadline_passed(
    result: FanOutResult, deadline: Deadline, on_timeout: OnTimeout
) -> JoinTimeoutError:
    """The error for a deadline that passed before all runs had ended; it has every result."""
    late = [item for item in result if not item.status.ended] or [
        item for item in result if item.status is RunStatus.CANCELLED
    ]
    done = "They go on."
    if on_timeout == "cancel":
        sure = all(item.status.ended for item in late)
        done = "They were cancelled." if sure else "It could not be confirmed that they were cancelled."
    first = late[0] if late else result[0]
    return JoinTimeoutError(
        f"{len(late)} of {len(result)} runs passed "
        f"max_wait_seconds={deadline.max_wait_seconds or 0:g}, the first {first.handle}. {done} "
        "See .result for every run; raise the limit, join again, "
        "or use on_failure='collect'.",
        handle=first.handle,
        max_wait_seconds=deadline.max_wait_seconds,
        status=first.status,
        result=result,
    )
