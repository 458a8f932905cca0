"""Deleting threads that existed for one run, and remembering what became of those runs."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import orjson

from prefect_langgraph.errors import InvalidRequestError, NotFoundError
from prefect_langgraph.models import RunHandle
from prefect_langgraph.results import RunResult
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment
from prefect_langgraph.transport.paging import PAGE, each

PRUNE_SECONDS = 30.0

_GATHER_SECONDS = 0.01

_ROUNDS = 3

_ONE_BY_ONE_SECONDS = 300.0

_REMEMBERED_RESULTS = 1000

_REMEMBERED_BYTES = 16_000_000


class Pruner:
    """Deletes threads of one deployment; what is asked for at about the same time goes together."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        # A server that cannot delete many at once may be replaced by one that can.
        self._one_by_one_until = 0.0
        self._waiting: set[str] = set()
        self._next: asyncio.Task[None] | None = None

    async def prune(self, thread_ids: Iterable[str]) -> None:
        """Delete threads. Threads that are gone already are fine.

        Raises:
            DeploymentError: The server could not confirm that they are gone.
        """
        ids = set(thread_ids)
        if not ids:
            return
        self._waiting |= ids
        if self._next is None or self._next.done():
            # Without the first caller's context: what it has to say is for nobody's log alone.
            loop = asyncio.get_running_loop()
            self._next = loop.create_task(self._prune_soon(), context=contextvars.Context())
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._deployment.used_by(self._next)
        # Shielded: others wait for the same request.
        await asyncio.shield(self._next)

    async def _prune_soon(self) -> None:
        await asyncio.sleep(_GATHER_SECONDS)
        ids = sorted(self._waiting)
        self._waiting.clear()
        self._next = None
        for start in range(0, len(ids), PAGE):
            await self._prune_page(ids[start : start + PAGE])

    async def _prune_page(self, ids: Sequence[str]) -> None:
        deadline = Deadline.after(PRUNE_SECONDS)
        for _ in range(_ROUNDS):
            if time.monotonic() < self._one_by_one_until:
                break
            if await self._prune_together(ids, deadline):
                return
            # Where everybody sees only their own, one thread that is gone refuses the whole request.
            there = await self._there(ids, deadline)
            if there is None or len(there) == len(ids):
                self._one_by_one_until = time.monotonic() + _ONE_BY_ONE_SECONDS  # an older server
                break
            if not there:
                return
            ids = there
        await self._delete_each(ids, deadline)

    async def _prune_together(self, ids: Sequence[str], deadline: Deadline) -> bool:
        """True when all are gone; False when the server refuses."""
        threads = self._deployment.client.threads
        try:
            await self._deployment.send(
                lambda: threads.prune(ids), doing=f"delete {len(ids)} threads", deadline=deadline
            )
        except (InvalidRequestError, NotFoundError):
            return False
        return True

    async def _there(self, ids: Sequence[str], deadline: Deadline) -> list[str] | None:
        """Those of the threads that there are; None where the server cannot be asked so."""
        threads = self._deployment.client.threads
        try:
            rows = await self._deployment.send(
                lambda: threads.search(ids=ids, limit=len(ids), select=["thread_id"]),
                doing=f"ask for {len(ids)} threads",
                deadline=deadline,
            )
        except (InvalidRequestError, NotFoundError):
            return None
        found = [row["thread_id"] for row in rows]
        return found if set(found) <= set(ids) else None

    async def _delete_each(self, ids: Sequence[str], deadline: Deadline) -> None:
        threads = self._deployment.client.threads

        async def delete(thread_id: str) -> None:
            # Not found: gone already.
            with contextlib.suppress(NotFoundError):
                await self._deployment.send(
                    lambda: threads.delete(thread_id),
                    doing=f"delete thread {thread_id}",
                    deadline=deadline,
                )

        await each(ids, delete)


class ReleasedResults:
    """The last results of runs whose threads were deleted, for a second join to return the same."""

    def __init__(self, _deployment: Deployment) -> None:
        self._results: OrderedDict[str, tuple[RunResult, int]] = OrderedDict()
        self._bytes = 0

    def add(self, result: RunResult) -> None:
        """Remember a result, within bounds of number and bytes."""
        size = len(orjson.dumps(result.values, option=orjson.OPT_NON_STR_KEYS))
        if size > _REMEMBERED_BYTES // 4 or result.handle.run_id in self._results:
            return
        self._results[result.handle.run_id] = (result, size)
        self._bytes += size
        while len(self._results) > _REMEMBERED_RESULTS or self._bytes > _REMEMBERED_BYTES:
            _, (_, freed) = self._results.popitem(last=False)
            self._bytes -= freed

    def get(self, handle: RunHandle) -> RunResult | None:
        """The result of a released run, as seen through this handle."""
        found = self._results.get(handle.run_id)
        return found[0].model_copy(update={"handle": handle}) if found is not None else None
