"""Starting many runs and waiting for them, with a limit on how many are in flight.

Invariants:
- There is one result per input, in order: of a run that ended, of a run that the server refused, or of
  a run that was never started because the fan-out stopped before.
- A fan-out that is cancelled cancels every run it started, and makes sure that they stopped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from prefect_langgraph.errors import DeploymentError, JoinTimeoutError, LangGraphError
from prefect_langgraph.logs import counted
from prefect_langgraph.many_runs import join
from prefect_langgraph.many_runs.batch import CHUNK, BatchStarter, Item
from prefect_langgraph.many_runs.budget import BudgetGuard
from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.ownership.claims import ClaimThreads, TakenOverError
from prefect_langgraph.ownership.pruning import PRUNE_SECONDS, Pruner
from prefect_langgraph.results import FanOutResult, RunFailure, RunResult
from prefect_langgraph.runs import operations
from prefect_langgraph.runs.call import Context, OnTimeout
from prefect_langgraph.runs.request import RunRequest
from prefect_langgraph.transport.deadline import Deadline

OnStarted = Callable[[Sequence[Item]], None]

OnEnded = Callable[[int, RunResult], None]

BeforeWaiting = Callable[[Sequence[RunHandle]], Awaitable[bool]]

REFILL_SHARE = 0.1
"""A limited fan-out starts more when this share of its limit is free, and not for every single run."""


class FanOut:
    """Many runs of one call.

    Args:
        context: Deployment, owner and logger of the call.
        requests: What to run, in order.
        operation: The name of the task or flow.
        deadline: The caller's.
        max_in_flight: How many runs may be on the server at once. None: no limit.
        stop_after: After this many failures the fan-out starts no more, and leaves the rest unfinished.
        guard: Starts no more once its budget is used up.
        budget_cancels: True also cancels what is in flight then.
        collects: True goes on when the server would not tell about one run; its result says so.
        known: Results that need no run, by the index of their request.
        on_started: Called with items as their runs are started or adopted.
        on_ended: Called with each result as it comes in, also that of a refused item.
        before_waiting: Awaited with the active runs once all are started, if there are any. True ends
            the waiting, as the deadline does. It may end the process instead.
        options: Further arguments of `BatchStarter`.
    """

    def __init__(
        self,
        context: Context,
        requests: Sequence[RunRequest],
        *,
        operation: str,
        deadline: Deadline,
        max_in_flight: int | None = None,
        stop_after: int | None = None,
        guard: BudgetGuard | None = None,
        budget_cancels: bool = False,
        collects: bool = False,
        known: Mapping[int, RunResult] | None = None,
        on_started: OnStarted | None = None,
        on_ended: OnEnded | None = None,
        before_waiting: BeforeWaiting | None = None,
        **options: Any,
    ) -> None:
        self._context = context
        self._deadline = deadline
        self._starter = BatchStarter(
            context, requests, operation=operation, deadline=deadline, **options
        )
        self._bound = max_in_flight
        self._stop_after = stop_after
        self._guard = guard
        self._budget_cancels = budget_cancels
        self._collects = collects
        self._errors: dict[int, DeploymentError] = {}
        self._on_started = on_started
        self._on_ended = on_ended
        self._before_waiting = before_waiting
        self._found: list[RunResult | None] = [None] * len(requests)
        for index, result in (known or {}).items():
            self._found[index] = result
            self.items[index].handle = result.handle
        self._open = [item for item in self.items if item.handle is None]
        self._reported: set[int] = set()
        self._waits: dict[int, asyncio.Task[None]] = {}
        self._done: list[int] = []
        self._in_flight = 0
        self._failures = 0
        self._started = 0
        self._late = False
        self._hands_over = True
        self._changed = asyncio.Event()

    @property
    def items(self) -> Sequence[Item]:
        """The runs, in order."""
        return self._starter.items

    async def start(self) -> list[RunHandle]:
        """Start all and return their handles; if one is refused or late, cancel the others.

        Raises:
            DeploymentError: The first refusal, with the index of its input in a note.
            JoinTimeoutError: The deadline passed before all were started.
        """
        # The results of runs that end meanwhile are left to the join.
        self._hands_over = False
        try:
            await self._guarded(self._feed(joins=self._bound is not None))
        finally:
            await self._stop_waiting()
        handles = [item.handle for item in self.items if item.handle is not None]
        refused = next((item for item in self.items if item.error is not None), None)
        if len(handles) < len(self.items):
            await self._cancel_active()
        if refused is not None and refused.error is not None:
            refused.error.add_note(
                f"input {refused.index} of {len(self.items)}; the others were cancelled"
            )
            raise refused.error
        if len(handles) < len(self.items):
            raise JoinTimeoutError(
                f"{len(self.items) - len(handles)} of {len(self.items)} runs were not started within "
                f"max_wait_seconds={self._deadline.max_wait_seconds or 0:g}; the others were "
                "cancelled. A retry starts all of them. Raise the limit, or max_in_flight.",
                max_wait_seconds=self._deadline.max_wait_seconds,
            )
        claims = self._starter.claim_ids
        for handle in handles if claims else []:
            # The claims are released with the first run that is released.
            self._context.deployment.part(ClaimThreads).add(handle.run_id, claims)
        return handles

    async def run(self, *, on_timeout: OnTimeout) -> FanOutResult:
        """Start all, wait for all, and return every result, whatever its status.

        Args:
            on_timeout: What happens with runs that have not ended at the deadline.
        """
        try:
            await self._guarded(self._feed_and_wait(), on_timeout=on_timeout)
        finally:
            await self._stop_waiting()
        for item in self._open:
            if item.handle is None:
                self._found[item.index] = self._not_started(item)
        handles = [item.handle or self._no_handle(item) for item in self._open]
        part, _ = await asyncio.gather(
            join.conclude(
                {join.location_of(handle): self._context for handle in handles},
                handles,
                [self._found[item.index] for item in self._open],
                on_failure="collect",
                deadline=self._deadline,
                on_timeout=on_timeout,
                stopped_early=self._stopped and not self._late,
                errors={
                    place: self._errors[item.index]
                    for place, item in enumerate(self._open)
                    if item.index in self._errors
                },
            ),
            self._context.deployment.clean_up(self._release_claims(), more_seconds=PRUNE_SECONDS),
        )
        for item, result in zip(self._open, part, strict=True):
            self._found[item.index] = result
            if item.handle is not None and result.status.ended:
                self._report(item.index, result)
        return FanOutResult(results=tuple(result for result in self._found if result is not None))

    # -- feeding ---------------------------------------------------------------------------------

    async def _feed_and_wait(self) -> None:
        await self._feed(joins=True)
        if self._before_waiting is not None and self._in_flight and not self._stopped:
            self._late = await self._before_waiting(self._active()) or self._late
        while self._in_flight and not self._stopped:
            await self._change()

    @property
    def _stopped(self) -> bool:
        failed = self._stop_after is not None and self._failures >= self._stop_after
        return failed or self._late or (self._budget_cancels and self._spent is not None)

    @property
    def _spent(self) -> str | None:
        """Which bound of the budget was reached, or None."""
        return self._guard.reached if self._guard is not None else None

    async def _feed(self, *, joins: bool) -> None:
        if not self._open:
            return
        await self._starter.prepare()
        self._note([item for item in self._open if item.handle is not None], joins)
        waiting = deque(item for item in self._open if item.handle is None)
        while waiting and not self._stopped and self._spent is None:
            room = CHUNK
            if self._bound is not None:
                room = self._bound - self._in_flight
                if room < min(max(1, int(self._bound * REFILL_SHARE)), len(waiting)):
                    await self._change()
                    continue
            size = min(room, CHUNK, len(waiting))
            if self._guard is not None:
                left = self._guard.runs_left(self._started)
                size = size if left is None else min(size, left)
                if not size:
                    break
            batch = [waiting.popleft() for _ in range(size)]
            self._started += size
            await self._starter.start(batch)
            self._note(batch, joins)
            self._late = self._late or any(not item.resolved for item in batch)

    def _note(self, items: Sequence[Item], joins: bool) -> None:
        started = [item for item in items if item.handle is not None]
        if started and self._on_started is not None:
            self._on_started(started)
        for item in items:
            if item.error is not None:
                self._end(item.index, self._not_started(item))
            elif item.handle is not None and joins:
                self._in_flight += 1
                wait = asyncio.create_task(self._wait(item.index, item.handle))
                self._waits[item.index] = wait
                wait.add_done_callback(partial(self._waited, item.index))

    async def _wait(self, index: int, handle: RunHandle) -> None:
        try:
            result = await operations.wait_until_ended(
                self._context, handle, deadline=self._deadline, exact=False, quiet=True
            )
        except DeploymentError as error:
            if not self._collects or len(self._errors) + 1 == len(self.items):
                raise
            self._errors[index] = error
            self._in_flight -= 1
            return
        self._in_flight -= 1
        if result is None:
            self._late = True
        elif self._hands_over:
            self._end(index, result)
        else:
            self._found[index] = result.model_copy(update={"values": None})

    def _waited(self, index: int, _: asyncio.Task[None]) -> None:
        self._done.append(index)
        self._changed.set()

    def _end(self, index: int, result: RunResult) -> None:
        self._found[index] = result
        self._failures += result.status is not RunStatus.SUCCESS
        if self._guard is not None:
            self._guard.note(result)
        self._report(index, result)

    def _report(self, index: int, result: RunResult) -> None:
        if index not in self._reported:
            self._reported.add(index)
            if self._on_ended is not None:
                self._on_ended(index, result)

    async def _change(self) -> None:
        """Wait until runs have ended; raise the error of a wait that failed."""
        try:
            async with asyncio.timeout(self._deadline.remaining()):
                await self._changed.wait()
        except TimeoutError:
            self._late = True
        self._changed.clear()
        while self._done:
            self._waits.pop(self._done.pop()).result()

    # -- cancelling ------------------------------------------------------------------------------

    async def _guarded(self, work: Any, *, on_timeout: OnTimeout = "cancel") -> None:
        """Do the work; if the caller is cancelled or the work fails, cancel every active run.

        Args:
            work: A coroutine.
            on_timeout: "leave" leaves the runs when the work fails.
        """
        task = asyncio.create_task(work)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled() or not isinstance(task.exception(), TakenOverError):
                await self._cancel_active()
            raise
        except TakenOverError as taken:
            # The other process owns the runs now, except our copies of runs that it has started too.
            await self.cancel(taken.late)
            raise
        except LangGraphError as error:
            if on_timeout == "cancel":
                await self._context.deployment.clean_up(self._cancel_doubtful())
            handles = self._active()
            contexts = {join.location_of(handle): self._context for handle in handles}
            raise await join.ended_by(error, contexts, handles, on_timeout) from error.__cause__
        except Exception:
            await self._context.deployment.clean_up(
                self._cancel_active(),
                more_seconds=join.time_to_cancel(len(self.items)).remaining() or 0.0,
            )
            raise

    def _active(self) -> list[RunHandle]:
        return [
            item.handle
            for item in self.items
            if item.handle is not None and self._found[item.index] is None
        ]

    async def _cancel_active(self) -> None:
        await self.cancel(self._active())

    async def _cancel_doubtful(self) -> None:
        """Cancel what a request has started whose answer was lost as the deadline passed."""
        found = await self._starter.look_for_doubtful()
        await self.cancel([item.handle for item in found if item.handle is not None])
        if found:
            await self._release_claims()

    async def cancel(self, handles: Sequence[RunHandle]) -> None:
        """Cancel runs after an error: what could not be confirmed is logged and not raised."""
        if not handles:
            return
        logger = self._context.logger
        contexts = {join.location_of(handle): self._context for handle in handles}
        deadline = join.time_to_cancel(len(handles))
        try:
            results = await join.cancel_many(contexts, handles, deadline=deadline)
            await join.release_many(contexts, results, deadline)
        except LangGraphError as error:
            logger.warning("Runs may still be running: %s", error)
        else:
            logger.info("Cancelled %s and stopped waiting", counted(len(handles), "run"))

    async def _release_claims(self) -> None:
        if self._context.owner.finalized:
            return
        try:
            await self._context.deployment.part(Pruner).prune(self._starter.claim_ids)
        except DeploymentError as error:
            self._context.logger.warning("Claims could not be released: %s", error)

    async def _stop_waiting(self) -> None:
        waits = list(self._waits.values())
        for task in waits:
            task.cancel()
        if waits:
            await asyncio.wait(waits)

    def _no_handle(self, item: Item) -> RunHandle:
        request = item.request
        return self._context.deployment.handle(
            "", "", request.assistant_id, key=item.text, item_key=request.item_key
        )

    def _not_started(self, item: Item) -> RunResult:
        handle = self._no_handle(item)
        if item.error is not None:
            failure = RunFailure(error=type(item.error).__name__, message=str(item.error))
            return RunResult(handle=handle, status=RunStatus.ERROR, error=failure)
        failure = RunFailure(error="NotStarted", message="the fan-out stopped before it was its turn")
        if self._spent is not None:
            failure = RunFailure(error="BudgetReached", message=self._spent)
        return RunResult(handle=handle, status=RunStatus.CANCELLED, error=failure)
