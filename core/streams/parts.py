"""A run's parts from its first to its checked end.

Invariants:
- After the last part comes the run's own outcome: nothing, or the error that a join would raise.
- When its consumer stops early, or its process is killed, the run is cancelled or left, as
  `on_disconnect` says.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Literal

import httpx

from prefect_langgraph.errors import DeploymentError, RunInterruptedError
from prefect_langgraph.models import RunHandle, RunStatus, StreamPart
from prefect_langgraph.results import OnInterrupt, RunResult
from prefect_langgraph.runs import operations
from prefect_langgraph.runs.call import Context, OnTimeout
from prefect_langgraph.streams.reader import FIRST, Position, StreamReader, broken
from prefect_langgraph.streams.watchdog import watchdog
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment
from prefect_langgraph.transport.generators import feed_control

OnDisconnect = Literal["cancel", "continue"]


class _StreamClient:
    """Streams have a pool of their own: held connections would starve everything else."""

    def __init__(self, deployment: Deployment) -> None:
        self.http: httpx.AsyncClient = deployment.connection.stream_client()
        deployment.add_client(self.http)


async def parts_of(
    context: Context,
    handle: RunHandle,
    *,
    deadline: Deadline,
    on_timeout: OnTimeout,
    on_interrupt: OnInterrupt,
    on_disconnect: OnDisconnect,
    stateless: bool,
    position: Position | None = None,
    modes: Sequence[str] | None = None,
    on_result: Callable[[RunResult], None] | None = None,
) -> AsyncGenerator[StreamPart, None]:
    """The parts of a run, then its outcome.

    Args:
        context: The call's.
        handle: The run.
        deadline: The caller's.
        on_timeout: What becomes of the run when the deadline passes first.
        on_interrupt: "return" ends without an error when the run waits for a person.
        on_disconnect: What becomes of the run when the consumer stops before its end.
        stateless: True when nobody but the consumer knows the run.
        position: Where to begin; None is the beginning, or where an earlier attempt of this call was.
        modes: Stream modes to give, None for all that the run has.
        on_result: Told the outcome of a run that raises nothing.
    """
    holds = on_disconnect == "cancel"
    if position is None:
        control = feed_control.get()
        positions = control.memory if control is not None else {}
        position = positions.setdefault(handle.run_id, Position())
    reader = StreamReader(
        context.deployment,
        context.deployment.part(_StreamClient).http,
        handle,
        position=position,
        deadline=deadline,
    )
    if holds:
        watchdog().hold(context.deployment.connection, handle)
    is_over = True
    try:
        try:
            async with contextlib.aclosing(reader.parts()) as parts:
                async for part in parts:
                    if modes is None or _is_of(part, modes):
                        yield part
        except BaseException as error:
            if not (deadline.passed and isinstance(error, TimeoutError | DeploymentError)):
                is_over = not holds
                is_over = is_over or await operations.try_to_cancel(context, handle)
                raise
        result = await operations.wait(
            context, handle, deadline=deadline, on_timeout=on_timeout, cancel_with_caller=holds
        )
    finally:
        # What could not be stopped is tried once more when this process ends.
        if is_over:
            watchdog().release(handle)
    await operations.release(context, [result], interrupted_too=stateless)
    _raise(result, on_interrupt, stateless)
    if not reader.began:
        raise broken(handle, None, "the run ended well, and the server has none of its parts")
    if on_result is not None:
        on_result(result)


def _raise(result: RunResult, on_interrupt: OnInterrupt, stateless: bool) -> None:
    if result.status is RunStatus.INTERRUPTED:
        if on_interrupt == "return":
            return
        if stateless:
            raise RunInterruptedError(
                f"Run {result.handle.run_id} of {result.handle.assistant_id} stopped for a person, "
                "and a stateless run keeps no thread to answer on. Give thread_id=, or "
                "on_interrupt='return' to end the stream there.",
                handle=result.handle,
                status=result.status,
                values=result.values,
                interrupts=result.interrupts,
            )
    result.raise_for_failure()


def _is_of(part: StreamPart, modes: Sequence[str]) -> bool:
    """Whether a part belongs to one of the modes; the first part belongs to all."""
    name = part.event.partition("/")[0]
    tuples = name == "messages" and "messages-tuple" in modes
    return part.event == FIRST or name in modes or tuples
