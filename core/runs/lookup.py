"""Questions about threads and runs, each answer held against what was asked.

A `Lookup` decides nothing about a run's outcome (see `_outcomes`) and remembers nothing but what the
server turned out not to support.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from langgraph_sdk.schema import RunSelectField

from prefect_langgraph.errors import DeploymentError, InvalidRequestError, NotFoundError
from prefect_langgraph.models import RunHandle
from prefect_langgraph.results import RunResult
from prefect_langgraph.runs import outcomes
from prefect_langgraph.transport.answers import STREAMED, StrangeAnswerError
from prefect_langgraph.transport.deadline import Deadline

if TYPE_CHECKING:
    from prefect_langgraph.transport.deployment import Deployment

T = TypeVar("T")

Row = dict[str, Any]

PAGE = 1000  # the most threads that the server answers for at once

FETCH_BYTES = 8_000_000  # of values in one answer

FIRST_FETCH = 16

_NEWEST = 50

_HISTORY_PAGE = 100


class Lookup:
    """Reads threads and runs of one deployment, on the shared loop."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.searches_by_ids = True
        self._run_fields: list[RunSelectField] | None = ["run_id", "status"]
        # Threads to fetch with values at once, from the size of the answers so far.
        self.fetch_size = FIRST_FETCH

    @property
    def patience_seconds(self) -> float:
        """How long a server may take to come back."""
        return self._deployment.connection.patience_seconds

    async def threads(self, ids: Sequence[str], *, select: list[str] | None = None) -> list[Row] | None:
        """The threads with these ids, or None when this server cannot be asked so."""
        if not ids:
            raise ValueError("an empty list of ids would match every thread of the server")
        body: Row = {"ids": list(ids), "limit": len(ids), "offset": 0}
        if select is not None:
            body["select"] = select
        try:
            found, size = await self._deployment.send(
                lambda: self._search(body, capped=select is None and len(ids) > 1),
                doing=f"ask for {len(ids)} threads",
                deadline=Deadline(),
                patient=False,
                within_wait=True,
            )
        except (InvalidRequestError, NotFoundError):
            self.searches_by_ids = False
            return None
        if found is None:
            return await self._threads_in_parts(ids)
        asked, names = set(ids), {"thread_id", "status"}
        if any(not names <= row.keys() or row["thread_id"] not in asked for row in found):
            self.searches_by_ids = False
            return None
        if select is None and found:
            self.fetch_size = max(1, min(PAGE, FETCH_BYTES * len(found) // max(size, 1)))
        return found

    async def _threads_in_parts(self, ids: Sequence[str]) -> list[Row] | None:
        self.fetch_size = max(1, len(ids) // 4)
        found: list[Row] = []
        start = 0
        while start < len(ids):
            part = ids[start : start + self.fetch_size]
            start += len(part)
            more = await self.threads(part)
            if more is None:
                return None
            found += more
        return found

    async def _search(self, body: Row, *, capped: bool) -> tuple[list[Row] | None, int]:
        """The rows and the size of the answer; no rows when it would be too large to take at once.

        The SDK's own search takes whatever comes, and how much that is nobody knows before.
        """
        http = self._deployment.client.http.client
        content, kind = orjson.dumps(body), {"content-type": "application/json"}
        streamed = {STREAMED: True}
        async with http.stream(
            "POST", "/threads/search", content=content, headers=kind, extensions=streamed
        ) as response:
            if not response.is_success:
                await response.aread()
                response.raise_for_status()
            answer = bytearray()
            async for piece in response.aiter_bytes():
                answer += piece
                if capped and len(answer) > 2 * FETCH_BYTES:
                    return None, len(answer)
        found = orjson.loads(answer)
        rows = found if isinstance(found, list) else [None]
        if not all(isinstance(row, dict) and "thread_id" in row for row in rows):
            raise StrangeAnswerError("the answer is no list of threads")
        return found, len(answer)

    async def newest_runs(self, thread_id: str, deadline: Deadline) -> list[Row]:
        """`run_id` and `status` of a thread's newest runs; empty when the thread has none.

        Empty also when the server refuses the question: then the run's own row decides.
        """
        runs = self._deployment.client.runs
        try:
            found = await self._send(
                lambda: runs.list(thread_id, limit=_NEWEST, select=self._run_fields), deadline
            )
        except NotFoundError:
            return []
        except InvalidRequestError:
            if self._run_fields is None:
                return []
            try:
                found = await self._send(lambda: runs.list(thread_id, limit=_NEWEST), deadline)
            except (InvalidRequestError, NotFoundError):
                return []
            self._run_fields = None
        return [dict(run) for run in found if {"run_id", "status"} <= run.keys()]

    async def run(self, handle: RunHandle, deadline: Deadline) -> Row | None:
        """A run's row, or None when the server says that there is none."""
        runs = self._deployment.client.runs
        try:
            return dict(await self._send(lambda: runs.get(handle.thread_id, handle.run_id), deadline))
        except NotFoundError:
            return None

    async def outcome(
        self, handle: RunHandle, *, is_newest: bool, deadline: Deadline
    ) -> RunResult | None:
        """How a run stands, from its own row and its own newest checkpoint; None without a row."""
        run = await self.run(handle, deadline)
        if run is None:
            return None
        if not outcomes.RUN_STATUSES[run["status"]].ended:
            return outcomes.from_run(handle, run, None)
        try:
            state = await self._own_state(handle, deadline)
        except NotFoundError:
            return None  # deleted since, with its thread
        needs_thread = run["status"] == "error" and is_newest
        thread = (
            await self._deployment.thread(handle.thread_id, deadline, patient=False)
            if needs_thread
            else None
        )
        return outcomes.from_run(handle, run, state, thread=thread)

    async def _own_state(self, handle: RunHandle, deadline: Deadline) -> Row | None:
        """The newest checkpoint that a run wrote, or None when it wrote none."""
        threads, wanted = self._deployment.client.threads, {"run_id": handle.run_id}
        limit, before = 1, None
        while True:
            asked_for, asked_before = limit, before
            history = await self._send(
                lambda: threads.get_history(
                    handle.thread_id,
                    limit=asked_for,  # noqa: B023
                    before=asked_before,  # noqa: B023
                    metadata=wanted,
                ),
                deadline,
            )
            for state in history:
                if (state.get("metadata") or {}).get("run_id") == handle.run_id:
                    return dict(state)
            if not history:
                return None
            # A server that ignores the filter: the run's own are further back.
            limit, before = _HISTORY_PAGE, history[-1]["checkpoint"]
            if before == asked_before:
                raise DeploymentError(
                    f"{self._deployment.url} does not tell which state {handle} left: it ignores both "
                    "metadata and before of a history.",
                    url=self._deployment.url,
                )

    async def _send(
        self, request: Callable[[], Awaitable[T]], deadline: Deadline, *, patient: bool = False
    ) -> T:
        return await self._deployment.send(
            request,
            doing="ask for a run",
            deadline=deadline,
            patient=patient or deadline.end is not None,
            within_wait=True,
        )
