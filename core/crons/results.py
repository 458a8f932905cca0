"""The results of a temporary cron, which is deleted at the end of its `with` block.

Invariants:
- The cron is deleted before the last search for its runs, so that none starts unnoticed afterwards. The
  exception is a run that the server was about to start; it has the flow run's tags.
- A run's own thread is released only after its result was read, or its run was cancelled.
- An error in the block is never replaced by one of the clean-up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any

from prefect_langgraph.crons import operations
from prefect_langgraph.crons.models import CronHandle
from prefect_langgraph.crons.request import CronRequest, moment
from prefect_langgraph.errors import LangGraphError, NotFoundError
from prefect_langgraph.many_runs import join
from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.ownership.tags import KEY
from prefect_langgraph.results import FanOutResult, RunResult
from prefect_langgraph.runs import operations as run_operations
from prefect_langgraph.runs.call import Context
from prefect_langgraph.schedules.clock import server_fires
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.paging import Row, pages

_PAGE = 200

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0

_SEARCHES_PER_FIRING = 4


class CronRuns:
    """The runs of one cron, on the shared loop.

    Args:
        context: Deployment, owner and logger of the call.
        handle: The cron.
        request: The request that created it.
        gathers: True waits for its runs and collects their results.
    """

    def __init__(
        self, context: Context, handle: CronHandle, request: CronRequest, *, gathers: bool
    ) -> None:
        self.handle = handle
        self._context = context
        self._request = request
        self._gathers = gathers
        self._results: list[RunResult] = []
        self._watches: dict[str, tuple[RunHandle, asyncio.Task[RunResult | None]]] = {}
        self._known: set[str] = set()
        self._deletion: asyncio.Task[None] | None = None

    @property
    def result(self) -> FanOutResult:
        """The results so far, in order of the firings."""
        first = datetime.min.replace(tzinfo=UTC)
        return FanOutResult(
            results=tuple(sorted(self._results, key=lambda result: result.created_at or first))
        )

    def delete_after(self, last_fire: datetime) -> None:
        """Delete the cron after its last date, where the server cannot end it."""

        async def delete() -> None:
            pause = (last_fire - datetime.now(UTC)).total_seconds() + 1
            await asyncio.sleep(max(0.0, pause))
            await operations.delete(self._context, self.handle)

        self._deletion = asyncio.create_task(delete())

    async def gather(self, at_least: int | None, deadline: Deadline) -> FanOutResult:
        """Collect results until there are enough or the deadline has passed."""
        pause = self._pause()
        while True:
            await self._find()
            await self._collect()
            enough = at_least is not None and len(self._results) >= at_least
            if enough or deadline.passed:
                return self.result
            left = deadline.remaining()
            seconds = pause if left is None else min(pause, left)
            if waiting := self._unread():
                await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(seconds)

    async def close(self, *, cancels: bool, waits: bool, deadline: Deadline) -> FanOutResult:
        """Delete the cron, and then cancel, wait for or leave the runs that it had started."""
        if self._deletion is not None:
            self._deletion.cancel()
        await operations.delete(self._context, self.handle)
        if self._gathers or cancels:
            await self._find()
        if cancels:
            await self._cancel()
        if waits and self._gathers:
            while (waiting := self._unread()) and not deadline.passed:
                await asyncio.wait(waiting, timeout=deadline.remaining())
                await self._collect()
            if self._unread():
                await self._cancel()
        await self._collect()
        if left := len(self._unread()):
            self._context.logger.warning(
                "%s was deleted; %d of its runs go on (cancel_runs=True cancels them)",
                self.handle,
                left,
            )
        await self._stop_watching()
        return self.result

    async def close_quietly(self, *, cancels: bool) -> None:
        """Close after an error in the block; whatever fails here is only logged."""
        try:
            await self.close(cancels=cancels, waits=False, deadline=Deadline())
        except LangGraphError as error:
            self._context.logger.warning(
                "%s may still fire, or runs of it go on: %s", self.handle, error
            )

    async def _cancel(self) -> None:
        """Cancel the active runs, and those that were started meanwhile."""
        while True:
            await self._collect()
            active = [handle for handle, _ in self._watches.values()]
            if not active:
                return
            contexts = {join.location_of(handle): self._context for handle in active}
            ended = await join.cancel_many(
                contexts, active, deadline=Deadline.after(run_operations.CANCEL_SECONDS)
            )
            await self._record(ended)
            await self._find()

    async def _stop_watching(self) -> None:
        tasks = [task for _, task in self._watches.values()]
        self._watches.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- results ---------------------------------------------------------------------------------

    def _unread(self) -> list[asyncio.Task[RunResult | None]]:
        return [task for _, task in self._watches.values()]

    async def _collect(self) -> None:
        """Record the results of the watches that have ended."""
        # The poller may know an outcome that has not reached its watch yet.
        await asyncio.sleep(0)
        ended = [task.result() for _, task in self._watches.values() if task.done()]
        await self._record([result for result in ended if result is not None])

    async def _record(self, results: list[RunResult]) -> None:
        new = [result for result in results if result.handle.run_id in self._watches]
        for result in new:
            _, task = self._watches.pop(result.handle.run_id)
            task.cancel()
            if result.status is RunStatus.LOST and not self._gathers:
                continue  # the server deleted it with its thread, as on_run_completed asked
            self._results.append(result)
        # Nobody answers an interrupt of a firing.
        await run_operations.release(self._context, new, interrupted_too=True)

    # -- finding them ----------------------------------------------------------------------------

    def _pause(self) -> float:
        """Seconds between two searches: several searches per firing."""
        cron = self._request.cron
        fires = list(islice(server_fires(cron.schedule, cron.timezone, datetime.now(UTC)), 2))
        gap = (fires[1] - fires[0]).total_seconds() if len(fires) == 2 else _LONGEST_PAUSE
        return min(max(gap / _SEARCHES_PER_FIRING, _SHORTEST_PAUSE), _LONGEST_PAUSE)

    async def _find(self) -> None:
        """Begin to watch the runs that were started since the last search."""
        found = self._on_thread() if self._request.thread_id is not None else self._by_threads()
        async for handle in found:
            watch = run_operations.wait_until_ended(
                self._context, handle, deadline=Deadline(), exact=False, quiet=True
            )
            self._watches[handle.run_id] = (handle, asyncio.create_task(watch))

    def _run_handle(self, thread_id: str, run_id: str) -> RunHandle:
        return self._context.deployment.handle(
            run_id,
            thread_id,
            self.handle.assistant_id,
            owns_thread=self._request.thread_id is None,
        )

    async def _by_threads(self) -> AsyncIterator[RunHandle]:
        """The new runs of a cron whose firings each have a thread."""
        threads = pages(
            self._context.deployment,
            partial(
                self._context.deployment.client.threads.search,
                metadata={KEY: self.handle.key},
                sort_by="created_at",
                sort_order="desc",
                select=["thread_id", "metadata"],
            ),
            "thread_id",
            doing=f"look for runs of {self.handle}",
            size=_PAGE,
        )
        async for page in threads:
            mine = [
                thread["thread_id"]
                for thread in page
                if (thread.get("metadata") or {}).get(KEY) == self.handle.key
            ]
            new = [thread_id for thread_id in mine if thread_id not in self._known]
            for thread_id in new:
                # Not found: deleted meanwhile, with its run, which must have ended.
                with contextlib.suppress(NotFoundError):
                    newest = await anext(self._runs_on(thread_id, 1))
                    for run in newest:
                        self._known.add(thread_id)
                        yield self._run_handle(thread_id, run["run_id"])
            if not new:
                return

    async def _on_thread(self) -> AsyncIterator[RunHandle]:
        """The new runs of a cron on the caller's thread."""
        thread_id = str(self._request.thread_id)
        async for page in self._runs_on(thread_id, _PAGE):
            mine = [
                run["run_id"] for run in page if (run.get("metadata") or {}).get(KEY) == self.handle.key
            ]
            new = [run_id for run_id in mine if run_id not in self._known]
            for run_id in new:
                self._known.add(run_id)
                yield self._run_handle(thread_id, run_id)
            if (mine and not new) or (page and self._is_older(page[-1])):
                return

    def _is_older(self, run: Mapping[str, Any]) -> bool:
        """True for a run older than the cron: no run of the cron comes after it in the list."""
        created, since = moment(run.get("created_at")), self.handle.created_at
        return created is not None and since is not None and created < since

    def _runs_on(self, thread_id: str, size: int) -> AsyncIterator[list[Row]]:
        deployment = self._context.deployment
        return pages(
            deployment,
            partial(deployment.client.runs.list, thread_id),
            "run_id",
            doing=f"look for runs of {self.handle}",
            size=size,
        )
