"""`suspend_until_ended`: a flow run waits for hours, and holds no process while it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from prefect_langgraph.blocks.credentials import Credentials
from prefect_langgraph.errors import InvalidRequestError, JoinTimeoutError
from prefect_langgraph.many_runs import join
from prefect_langgraph.models import RunHandle
from prefect_langgraph.results import FanOutResult, RunResult
from prefect_langgraph.suspension.wait import Group, Wait
from prefect_langgraph.tasks._task import context_for_handle
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.loop import io_loop

WaitBy = Literal["process", "suspend"]
"""How a flow waits: in its process, or without one."""

STAY_SECONDS = 60.0
_READ_SECONDS = 30.0


def check_stay(stay_seconds: float) -> None:
    """Refuse a time to stay that is negative or not a number."""
    number = isinstance(stay_seconds, int | float) and not isinstance(stay_seconds, bool)
    if not number or not stay_seconds >= 0:
        raise InvalidRequestError(
            f"stay_seconds={stay_seconds!r}: give a number of seconds that is not negative."
        )


async def contexts_of(handles: Sequence[RunHandle], credentials: Credentials) -> join.Contexts:
    """The context that each handle needs."""
    many = isinstance(handles, Sequence) and not isinstance(handles, str)
    if not many or not all(isinstance(item, RunHandle) for item in handles):
        raise InvalidRequestError("handles: give a list of RunHandles, as start_runs returns it.")
    return {
        place: await context_for_handle(handle, credentials)
        for place, handle in {join.location_of(handle): handle for handle in handles}.items()
    }


async def _suspend_until_ended(
    handles: Sequence[RunHandle],
    *,
    credentials: Credentials,
    stay_seconds: float,
    max_wait_seconds: float | None,
) -> list[RunHandle]:
    check_stay(stay_seconds)
    deadline = Deadline.after(max_wait_seconds)
    contexts = await contexts_of(handles, credentials)
    if not handles:
        return []
    first = next(iter(contexts.values()))
    groups = [
        Group(
            context.deployment,
            [handle for handle in handles if join.location_of(handle) == place],
            context.deployment.connection.name,
        )
        for place, context in contexts.items()
    ]
    wait = Wait(
        groups,
        first.owner,
        first.logger,
        stay_seconds=stay_seconds,
        deadline=deadline,
    )
    if late := await wait.until_ended():
        raise await _timed_out(contexts, handles, late, deadline)
    return list(handles)


async def _timed_out(
    contexts: join.Contexts,
    handles: Sequence[RunHandle],
    late: Sequence[RunHandle],
    deadline: Deadline,
) -> JoinTimeoutError:
    """What to raise when the deadline passed, after what had not ended was cancelled."""
    ids = {handle.run_id for handle in late}
    ended = [handle for handle in handles if handle.run_id not in ids]
    stopped = await join.cancel_many(contexts, late, deadline=join.time_to_cancel(len(late)))
    read = await join.join_many(
        contexts,
        ended,
        on_failure="collect",
        deadline=Deadline.after(_READ_SECONDS),
        on_timeout="leave",
    )
    await join.release_many(contexts, stopped)
    by_run: dict[str, RunResult] = {result.handle.run_id: result for result in (*stopped, *read)}
    return join.deadline_passed(
        FanOutResult(results=tuple(by_run[handle.run_id] for handle in handles)),
        deadline,
        "cancel",
    )


def suspend_until_ended(
    handles: Sequence[RunHandle],
    *,
    credentials: Credentials = None,
    stay_seconds: float = STAY_SECONDS,
    max_wait_seconds: float | None = None,
) -> list[RunHandle]:
    """Wait until runs have ended, without a process while that takes long. For a flow, not for a task.

    Stays in the process for a while, then suspends the flow run: its process ends, and its worker's
    slot is free. When the runs have ended the flow run is resumed, by the flow `langgraph-resume` or by
    `prefect-langgraph resume`, one of which has to run. A worker then executes the flow from the top:
    tasks of this package adopt what they started, runs that failed included, and this call returns.
    Code of your own before it runs again, unless it is a task with `persist_result=True`.

    Where a flow run cannot suspend it waits in its process instead, and says so in its log: in a task
    or a subflow, without a Prefect deployment, without `with_finalizer`, and with a block that is not
    saved. Being resumed too early, by a click in Prefect's UI or a webhook, is harmless.

    `asuspend_until_ended` is the asynchronous twin.

    Args:
        handles: The runs, as `start_run` and `start_runs` return them.
        credentials: For handles whose block was not saved: a saved block's name, or a block. None takes
            the one that each handle names.
        stay_seconds: How long the process stays before it suspends, and again whenever it is resumed
            too early: starting a process costs seconds. 0 suspends at once.
        max_wait_seconds: Wall clock since the first execution, suspensions included. None is unlimited.

    Returns:
        The same handles, for `join_runs` or `join_run`.

    Raises:
        JoinTimeoutError: `max_wait_seconds` passed. What had not ended was cancelled; `result` holds
            every run.
        DeploymentError: The deployment refused to tell how the runs stand.

    Example:
        >>> from prefect import flow
        >>> from prefect_langgraph import join_runs, start_runs, suspend_until_ended, with_finalizer
        >>> @with_finalizer("default")
        ... @flow
        ... def nightly(questions: list[str]) -> list[dict]:
        ...     handles = start_runs("answer", [{"question": question} for question in questions])
        ...     suspend_until_ended(handles)
        ...     return join_runs(handles).values
        >>> len(nightly(["a", "b"]))
        2
    """
    return io_loop().run(
        _suspend_until_ended,
        handles,
        credentials=credentials,
        stay_seconds=stay_seconds,
        max_wait_seconds=max_wait_seconds,
    )


async def asuspend_until_ended(
    handles: Sequence[RunHandle],
    *,
    credentials: Credentials = None,
    stay_seconds: float = STAY_SECONDS,
    max_wait_seconds: float | None = None,
) -> list[RunHandle]:
    """Wait without a process until runs have ended: the asynchronous twin of `suspend_until_ended`."""
    return await io_loop().arun(
        _suspend_until_ended,
        handles,
        credentials=credentials,
        stay_seconds=stay_seconds,
        max_wait_seconds=max_wait_seconds,
    )
