"""A cron that lives as long as a block of code."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any
from uuid import UUID

import anyio
from langgraph_sdk.schema import All, Config, Durability, MultitaskStrategy, StreamMode
from prefect.exceptions import Pause

from prefect_langgraph.arguments import check_positive
from prefect_langgraph.blocks.credentials import Credentials
from prefect_langgraph.crons import operations
from prefect_langgraph.crons.models import CronHandle, OnRunCompleted
from prefect_langgraph.crons.request import CronRequest, build
from prefect_langgraph.crons.results import CronRuns
from prefect_langgraph.errors import InvalidRequestError, LangGraphError
from prefect_langgraph.results import FanOutResult
from prefect_langgraph.schedules import ScheduleLike
from prefect_langgraph.tasks._task import context_for
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.loop import CLEANUP_SECONDS, io_loop


@dataclass(frozen=True)
class _Options:
    credentials: Credentials
    idempotency_key: str | None
    once: bool
    gathers: bool
    max_wait_seconds: float | None


def _goes_on(kind: type[BaseException] | None) -> bool:
    """True when the flow run was suspended: its next execution takes over the cron and closes it."""
    return kind is not None and issubclass(kind, Pause)


class TemporaryCron:
    """A cron while its block runs, and the results of its runs. Made by `temporary_cron`.

    Attributes:
        cancel_runs: Whether the end of the block cancels what is still running. May be set meanwhile.
    """

    def __init__(self, request: CronRequest, options: _Options, *, cancel_runs: bool) -> None:
        self.cancel_runs = cancel_runs
        self._request = request
        self._options = options
        self._runs: CronRuns | None = None
        self._results = FanOutResult()

    @property
    def handle(self) -> CronHandle:
        """The cron, as it was created."""
        return self._opened.handle

    @property
    def results(self) -> FanOutResult:
        """What its runs came to so far, in order of the firings.

        Filled by `collect` and at the end of the block; with `on_run_completed="keep"` or on a thread.
        """
        return self._results

    def collect(
        self, *, at_least: int | None = 1, max_wait_seconds: float | None = None
    ) -> FanOutResult:
        """Wait until runs have ended, and return all results so far.

        Their threads are deleted once the results were read. `acollect` is the asynchronous twin.

        Args:
            at_least: How many results are enough. None waits until the time has passed.
            max_wait_seconds: Wall clock. When it has passed, what there is is returned. None is
                unlimited.

        Returns:
            The results so far, in order of the firings, whatever became of the runs.

        Raises:
            InvalidRequestError: The cron keeps no results, since on_run_completed is "delete".
        """
        return io_loop().run(self._collect, at_least, max_wait_seconds)

    async def acollect(
        self, *, at_least: int | None = 1, max_wait_seconds: float | None = None
    ) -> FanOutResult:
        """Wait until runs have ended: the asynchronous twin of `collect`."""
        return await io_loop().arun(self._collect, at_least, max_wait_seconds)

    def __enter__(self) -> TemporaryCron:
        io_loop().run(self._open)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if _goes_on(kind):
            return
        hurry = asyncio.Event()
        call = io_loop().begin(self._close, kind is not None, hurry)
        try:
            call.wait()
        except BaseException:
            # Not a cancellation: the cron has to be deleted all the same.
            call.post(hurry.set)
            call.wait(CLEANUP_SECONDS)
            raise
        call.outcome.result()

    async def __aenter__(self) -> TemporaryCron:
        await io_loop().arun(self._open)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if _goes_on(kind):
            return
        hurry, cancelled = asyncio.Event(), None
        call = io_loop().begin(self._close, kind is not None, hurry)
        ended = asyncio.wrap_future(call.outcome)
        # In a cancelled scope every wait would end at once, and the cron would stay.
        with anyio.CancelScope(shield=kind is not None):
            while not ended.done():
                try:
                    await asyncio.wait([ended])
                except asyncio.CancelledError as error:
                    cancelled = error
                    call.post(hurry.set)
        if cancelled is not None:
            ended.exception()  # the cancellation is what the caller gets
            raise cancelled
        ended.result()

    @property
    def _opened(self) -> CronRuns:
        if self._runs is None:
            raise LangGraphError("The cron of temporary_cron exists only inside its block.")
        return self._runs

    async def _open(self) -> None:
        if self._runs is not None:
            raise LangGraphError("A temporary_cron is for one block. Make another for the next.")
        context = await context_for(self._options.credentials)
        request = await operations.fit_for_server(context, self._request, deleted_in_time=True)
        handle = await operations.create(
            context,
            request,
            idempotency_key=self._options.idempotency_key,
            once=self._options.once,
            owns_threads=True,
        )
        self._runs = CronRuns(context, handle, request, gathers=self._options.gathers)
        last_fire = self._request.cron.last_fire
        if last_fire is not None and request.cron.last_fire is None:
            self._runs.delete_after(last_fire)

    async def _collect(self, at_least: int | None, max_wait_seconds: float | None) -> FanOutResult:
        deadline = Deadline.after(max_wait_seconds)
        if at_least is None and max_wait_seconds is None:
            raise InvalidRequestError("at_least and max_wait_seconds are both None: give one of them.")
        if at_least is not None and (isinstance(at_least, bool) or at_least < 1):
            raise InvalidRequestError(f"at_least={at_least!r}: give one or more, or None.")
        if not self._options.gathers:
            raise InvalidRequestError(
                "The server deletes each result of this cron with its run. Make it with "
                'on_run_completed="keep" to collect them.'
            )
        self._results = await self._opened.gather(at_least, deadline)
        return self._results

    async def _close(self, failed: bool, hurry: asyncio.Event) -> None:
        runs = self._opened
        try:
            if failed or not await self._closed_in_peace(runs, hurry):
                await runs.close_quietly(cancels=self.cancel_runs)
        finally:
            self._results = runs.result

    async def _closed_in_peace(self, runs: CronRuns, hurry: asyncio.Event) -> bool:
        """Close and wait for runs; False when the caller did not want to wait any longer."""
        closing = asyncio.create_task(
            runs.close(
                cancels=self.cancel_runs,
                waits=True,
                deadline=Deadline.after(self._options.max_wait_seconds),
            )
        )
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait([closing, hurried], return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not closing.done():
            closing.cancel()
            await asyncio.wait([closing])
            return False
        closing.result()
        return True


def temporary_cron(
    assistant_id: str | UUID,
    schedule: ScheduleLike,
    input: Any = None,
    *,
    thread_id: str | UUID | None = None,
    timezone: str | None = None,
    allow_seconds: bool = False,
    end_time: datetime | None = None,
    lease: timedelta | None = None,
    on_run_completed: OnRunCompleted = "delete",
    multitask_strategy: MultitaskStrategy = "reject",
    cancel_runs: bool = False,
    max_wait_seconds: float | None = None,
    credentials: Credentials = None,
    config: Config | None = None,
    context: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    webhook: str | None = None,
    interrupt_before: All | Sequence[str] | None = None,
    interrupt_after: All | Sequence[str] | None = None,
    stream_mode: StreamMode | Sequence[StreamMode] | None = None,
    stream_subgraphs: bool | None = None,
    stream_resumable: bool | None = None,
    durability: Durability | None = None,
    headers: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    once: bool = True,
) -> TemporaryCron:
    """A cron for the time of a `with` or `async with` block.

    The cron is created when the block begins and deleted when it ends, however it ends: also by an
    exception, Ctrl-C or a cancellation. Where not even that is possible (the process is killed), the
    flow's finalizer or the sweep deletes it, and with a `lease` it dies by itself. A flow run that is
    suspended inside the block keeps the cron. A second execution of the flow run takes over the cron
    that the first left behind.

    With `on_run_completed="keep"`, or on a thread, the end of the block waits for the runs that are
    still on their way, reads the result of each and deletes its thread. A block that ends by an
    exception does not wait.

    Args:
        assistant_id: The assistant's id or the graph's name.
        schedule: A cron string or a Prefect schedule.
        input: The graph's input, as JSON.
        thread_id: The thread all runs go to. None gives each firing a thread of its own.
        timezone: An IANA name. None takes the schedule's own, and UTC without one.
        allow_seconds: Says that the sixth field means seconds, as the server reads it.
        end_time: When it stops firing, with a timezone, should the block go on.
        lease: As in `create_cron`.
        on_run_completed: "keep" collects the results, "delete" lets the server delete them.
        multitask_strategy: On a thread that is busy: "reject" skips the firing.
        cancel_runs: True cancels what is still running when the block ends.
        max_wait_seconds: How long the end of the block waits for runs before it cancels them. None is
            unlimited.
        credentials: A saved block's name, a block, or None for the block named `default`.
        config: What the graph reads as `config`: {"configurable": {...}, "recursion_limit": 50}.
        context: What the graph reads as `runtime.context`.
        metadata: For the cron and its runs, beside this package's own tags.
        webhook: Called by the server when a run ends.
        interrupt_before: Nodes to stop before, or "*".
        interrupt_after: Nodes to stop after, or "*".
        stream_mode: What the server keeps for those who stream its runs.
        stream_subgraphs: True streams subgraphs too.
        stream_resumable: True lets a stream be read again from its beginning.
        durability: "sync", "async" or "exit".
        headers: Refused: no header of ours reaches a cron's runs.
        idempotency_key: Replaces the key that is derived from the flow run.
        once: False takes over nothing from an earlier attempt.

    Returns:
        What `as` gives: `handle`, `collect()`, and after the block `results`.

    Raises:
        ScheduleError: The schedule cannot be expressed as a Deploy cron.
        HeaderPolicyError: Headers were given.
        DeploymentError: The deployment refused the request or could not be asked. At the end of a
            block that went well: the cron may still be there.

    Example:
        >>> from prefect_langgraph import temporary_cron
        >>> with temporary_cron("answer", "*/5 * * * *", {"question": "?"}) as cron:
        ...     fires = cron.handle.next_run_date
    """
    request = build(
        assistant_id,
        schedule,
        input=input,
        thread_id=thread_id,
        timezone=timezone,
        allow_seconds=allow_seconds,
        end_time=end_time,
        lease=lease,
        on_run_completed=on_run_completed,
        multitask_strategy=multitask_strategy,
        config=config,
        context=context,
        metadata=metadata,
        webhook=webhook,
        interrupt_before=interrupt_before,
        interrupt_after=interrupt_after,
        stream_mode=stream_mode,
        stream_subgraphs=stream_subgraphs,
        stream_resumable=stream_resumable,
        durability=durability,
        headers=headers,
    )
    check_positive("max_wait_seconds", max_wait_seconds)
    if not isinstance(cancel_runs, bool):
        raise InvalidRequestError(f"cancel_runs={cancel_runs!r}: give True or False.")
    options = _Options(
        credentials=credentials,
        idempotency_key=idempotency_key,
        once=once,
        gathers=on_run_completed == "keep" or thread_id is not None,
        max_wait_seconds=max_wait_seconds,
    )
    return TemporaryCron(request, options, cancel_runs=cancel_runs)
