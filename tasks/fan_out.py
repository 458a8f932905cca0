"""Many runs at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect.runtime import task_run

from prefect_langgraph import _many, _runs
from prefect_langgraph._deadline import Deadline
from prefect_langgraph._loop import io_loop
from prefect_langgraph._many import OnFailure
from prefect_langgraph._runs import CancelAction, OnTimeout, check_choice
from prefect_langgraph.blocks.credentials import Credentials
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.models import FanOutResult, RunHandle
from prefect_langgraph.tasks._task import context_for_handle, langgraph_task


def _join_name() -> str:
    return f"join {_count()} runs"


def _cancel_name() -> str:
    return f"cancel {_count()} runs"


def _count() -> int:
    handles: Any = task_run.parameters.get("handles")
    return len(handles) if isinstance(handles, Sequence) else 0


async def _contexts(handles: Sequence[RunHandle], credentials: Credentials) -> _many.Contexts:
    if isinstance(handles, RunHandle) or not all(isinstance(item, RunHandle) for item in handles):
        raise InvalidRequestError("handles: give a list of RunHandles, as start_runs returns it.")
    contexts: dict[tuple[str, str | None], _runs.Context] = {}
    for handle in handles:
        if _many.place_of(handle) not in contexts:
            contexts[_many.place_of(handle)] = await context_for_handle(handle, credentials)
    return contexts


async def _join(
    handles: Sequence[RunHandle],
    *,
    credentials: Credentials,
    on_failure: OnFailure,
    max_wait_seconds: float | None,
    on_timeout: OnTimeout,
) -> FanOutResult:
    check_choice("on_failure", on_failure, ("raise", "fail_fast", "collect"))
    check_choice("on_timeout", on_timeout, ("cancel", "leave"))
    deadline = Deadline.after(max_wait_seconds)
    return await _many.join_many(
        await _contexts(handles, credentials),
        list(handles),
        on_failure=on_failure,
        deadline=deadline,
        on_timeout=on_timeout,
    )


async def _cancel(
    handles: Sequence[RunHandle],
    *,
    credentials: Credentials,
    action: CancelAction,
    max_wait_seconds: float | None,
) -> FanOutResult:
    check_choice("action", action, ("interrupt", "rollback"))
    deadline = Deadline.after(max_wait_seconds)
    contexts = await _contexts(handles, credentials)
    results = await _many.cancel_many(contexts, list(handles), deadline=deadline, action=action)
    await _many.release_many(contexts, results)
    return FanOutResult(results=tuple(results))


@langgraph_task("join_runs", run_name=_join_name)
def join_runs(
    handles: Sequence[RunHandle],
    *,
    credentials: Credentials = None,
    on_failure: OnFailure = "raise",
    max_wait_seconds: float | None = None,
    on_timeout: OnTimeout = "leave",
) -> FanOutResult:
    """Wait for many runs, for the price of one, and return every result in input order.

    Threads of their own are deleted together once the results are handed over, except those that
    wait for a person. A cancelled caller leaves the runs alone: it did not start them. A retry just
    joins again. `ajoin_runs` is the asynchronous twin.

    Args:
        handles: The runs; they may be of several deployments.
        credentials: Needed only where the handles' own do not lead to the deployment.
        on_failure: "raise" waits for all and raises one `FanOutError` that holds every result;
            "fail_fast" cancels the rest at the first failure, waits until that is so, and raises the
            same; "collect" returns the results whatever they are.
        max_wait_seconds: Wall clock for all of them together. None is unlimited.
        on_timeout: "leave" what has not ended when the time has passed, or "cancel" it.

    Returns:
        One `RunResult` per handle, in their order.

    Raises:
        FanOutError: Runs did not succeed, unless `on_failure` is "collect".
        JoinTimeoutError: `max_wait_seconds` passed, unless `on_failure` is "collect"; then the
            results say what has not ended.
        DeploymentError: A deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import join_runs, start_run
        >>> handles = [start_run("answer", {"question": text}) for text in ("a", "b")]
        >>> [result.status.value for result in join_runs(handles)]
        ['success', 'success']
    """
    return io_loop().run(_join, **locals())


@langgraph_task("join_runs", run_name=_join_name)
async def ajoin_runs(
    handles: Sequence[RunHandle],
    *,
    credentials: Credentials = None,
    on_failure: OnFailure = "raise",
    max_wait_seconds: float | None = None,
    on_timeout: OnTimeout = "leave",
) -> FanOutResult:
    """Wait for many runs: the asynchronous twin of `join_runs`."""
    return await io_loop().arun(_join, **locals())


@langgraph_task("cancel_runs", run_name=_cancel_name)
def cancel_runs(
    handles: Sequence[RunHandle],
    *,
    credentials: Credentials = None,
    action: CancelAction = "interrupt",
    max_wait_seconds: float | None = 120.0,
) -> FanOutResult:
    """Stop many runs, wait until it is so, and report how each ended.

    Safe to repeat, and harmless to runs that have ended. `acancel_runs` is the asynchronous twin.

    Args:
        handles: The runs; they may be of several deployments.
        credentials: Needed only where the handles' own do not lead to the deployment.
        action: "interrupt" keeps runs and checkpoints, "rollback" deletes them.
        max_wait_seconds: How long to wait for the server's confirmations. None is unlimited.

    Returns:
        One `RunResult` per handle, in their order: `cancelled`, or what it had become before.

    Raises:
        UnreachableError: Some stops could not be confirmed; the message counts and names them.

    Example:
        >>> from prefect_langgraph import cancel_runs, start_run
        >>> results = cancel_runs([start_run("worker", {"sleep": 60})])
    """
    return io_loop().run(_cancel, **locals())


@langgraph_task("cancel_runs", run_name=_cancel_name)
async def acancel_runs(
    handles: Sequence[RunHandle],
    *,
    credentials: Credentials = None,
    action: CancelAction = "interrupt",
    max_wait_seconds: float | None = 120.0,
) -> FanOutResult:
    """Stop many runs: the asynchronous twin of `cancel_runs`."""
    return await io_loop().arun(_cancel, **locals())
