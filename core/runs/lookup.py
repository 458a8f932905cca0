"""Questions about threads and runs, each answer held against what was asked.

A `Lookup` decides nothing about a run's outcome (see `outcomes`) and remembers nothing but what the
server turned out not to support. It quotes nothing that the server says: an answer about a run may
hold what the run was given.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from langgraph_sdk.schema import RunSelectField

from prefect_langgraph.errors import (
    DeploymentError,
    InvalidRequestError,
    NotFoundError,
)
from prefect_langgraph.logs import run_logger
from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.results import RunResult
from prefect_langgraph.runs import outcomes
from prefect_langgraph.transport.answers import STREAMED
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.http_errors import UnreadableAnswerError, row_of, rows_of

if TYPE_CHECKING:
    from prefect_langgraph.transport.deployment import Deployment

T = TypeVar("T")
Row = dict[str, Any]

PAGE = 1000  # the most threads that the server answers for at once
FETCH_BYTES = 2_000_000  # of values in one answer: to read more would keep the loop for too long
FIRST_FETCH = 16
FIRST_PAUSE, LAST_PAUSE = 2.0, 300.0  # between attempts to search by ids, on a server that does not
_NEWEST = 50
_STREAMED = {STREAMED: True}
_HINT_BYTES = 64_000
_RUN_FIELDS: tuple[RunSelectField, ...] = ("run_id", "status", "created_at", "updated_at")
_HISTORY_PAGE = 100


def before_of(state: Row) -> Any:
    """What asks for the states before this one: not the checkpoint alone, for which servers fail."""
    return {"configurable": state["checkpoint"]}


class Lookup:
    """Reads threads and runs of one deployment, on the shared loop.

    Where a method takes `once`, True asks one time and no longer than until the deadline; otherwise
    what is transient is waited out for the connection's patience.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._search_again = 0.0
        self._search_pause = FIRST_PAUSE
        self._run_fields: list[RunSelectField] | None = [*_RUN_FIELDS]
        # Threads to fetch with values at once, from the size of the answers so far.
        self.fetch_size = FIRST_FETCH

    @property
    def patience_seconds(self) -> float:
        """How long a server may take to come back."""
        return self._deployment.connection.patience_seconds

    @property
    def searches_by_ids(self) -> bool:
        """False for a while after the server did not answer a search as it should."""
        return time.monotonic() >= self._search_again

    def pause_search(self, why: str) -> None:
        """Ask one by one for a while, then try to search again; said once."""
        if self._search_pause == FIRST_PAUSE:
            run_logger().warning(
                "%s %s: its threads are asked for one by one, until a search works again",
                self._deployment.url,
                why,
            )
        self._search_again = time.monotonic() + self._search_pause
        self._search_pause = min(self._search_pause * 2, LAST_PAUSE)

    async def threads(
        self,
        ids: Sequence[str],
        *,
        select: list[str] | None = None,
        limit: Deadline | None = None,
    ) -> list[Row] | None:
        """The threads with these ids, or None when this server cannot be asked so.

        Args:
            ids: The threads; at least one.
            select: The fields wanted, or None for all.
            limit: Ask one time and no longer than until then. None waits out what is transient.
        """
        if not ids:
            raise ValueError("an empty list of ids would match every thread of the server")
        body: Row = {"ids": list(ids), "limit": len(ids), "offset": 0}
        if select is not None:
            body["select"] = select
        try:
            answer, size = await self._send(
                lambda: self._search(body, capped=select is None and len(ids) > 1),
                limit or Deadline(),
                once=limit is not None,
                doing=f"ask for {len(ids)} threads",
            )
        except (InvalidRequestError, NotFoundError) as error:
            self.pause_search(f"does not search threads by ids ({error.status_code})")
            return None
        if answer is None:
            return await self._threads_in_parts(ids, limit)
        found = _threads_in(answer, set(ids))
        if found is None:
            self.pause_search("answers a search of threads with something else")
            return None
        if found:
            self._search_pause = FIRST_PAUSE
        if select is None and found:
            self.fetch_size = max(1, min(PAGE, FETCH_BYTES * len(found) // max(size, 1)))
        return found

    async def _threads_in_parts(self, ids: Sequence[str], limit: Deadline | None) -> list[Row] | None:
        self.fetch_size = max(1, len(ids) // 4)
        found: list[Row] = []
        start = 0
        while start < len(ids):
            part = ids[start : start + self.fetch_size]
            start += len(part)
            more = await self.threads(part, limit=limit)
            if more is None:
                return None
            found += more
        return found

    async def _search(self, body: Row, *, capped: bool) -> tuple[Any, int]:
        """The answer and its size; None when it would be too large to take at once.

        The SDK's own search takes whatever comes, and how much that is nobody knows before.
        """
        http = self._deployment.client.http.client
        content, kind = orjson.dumps(body), {"content-type": "application/json"}
        async with http.stream(
            "POST", "/threads/search", content=content, headers=kind, extensions=_STREAMED
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
        return ([] if found is None else found), len(answer)

    async def newest_runs(self, thread_id: str, deadline: Deadline, *, once: bool = False) -> list[Row]:
        """A thread's newest runs, each with `run_id` and `status`; empty when the thread has none.

        Raises:
            InvalidRequestError: The server refuses the question, so what is there is not known.
        """
        runs = self._deployment.client.runs

        async def ask(fields: list[RunSelectField] | None) -> list[Row]:
            return rows_of(await runs.list(thread_id, limit=_NEWEST, select=fields))

        fields = self._run_fields
        try:
            found = await self._send(lambda: ask(fields), deadline, once=once)
        except NotFoundError:
            return []
        except InvalidRequestError:
            if fields is None:
                raise
            try:
                found = await self._send(lambda: ask(None), deadline, once=once)
            except NotFoundError:
                return []
            self._run_fields = None
        return [run for run in found if _is_text(run, "run_id", "status")]

    async def newest_runs_told(
        self, thread_id: str, deadline: Deadline, *, once: bool = False
    ) -> list[Row]:
        """The same; empty also when the server refuses the question: a run's own row decides then."""
        try:
            return await self.newest_runs(thread_id, deadline, once=once)
        except InvalidRequestError:
            return []

    async def run(self, handle: RunHandle, deadline: Deadline, *, once: bool = False) -> Row | None:
        """A run's row, or None when the server says that there is none."""
        runs = self._deployment.client.runs

        async def ask() -> Row:
            row = row_of(await runs.get(handle.thread_id, handle.run_id), "run_id", "status")
            if row["run_id"] != handle.run_id or row["status"] not in outcomes.RUN_STATUSES:
                raise UnreadableAnswerError("another run, or a status that is not known")
            return row

        try:
            return await self._send(ask, deadline, once=once)
        except NotFoundError:
            return None

    async def hint_of_end(self, handle: RunHandle) -> bool:
        """Hold the server's join of a run: True once it was answered, which hints at the run's end.

        False when it is not held any more. What a join says of a run is not to be believed, so it is
        not looked at.
        """
        http = self._deployment.client.http.client
        path = f"/threads/{handle.thread_id}/runs/{handle.run_id}/join"

        async def join() -> bool:
            async with http.stream("GET", path, extensions=_STREAMED) as response:
                size = 0
                async for piece in response.aiter_raw():
                    size += len(piece)
                    # To read more would cost more than a new connection.
                    if size > _HINT_BYTES:
                        break
                return response.is_success

        return await self._deployment.hold(join)

    async def outcome(
        self, handle: RunHandle, newest: Sequence[Row], *, deadline: Deadline, history_fails: bool
    ) -> RunResult | None:
        """How a run stands, from its own row and its own newest checkpoint; None without a row.

        Each question is asked once.

        Args:
            handle: The run.
            newest: The newest runs of its thread, just read. Its own row is asked for where it is not
                whole among them.
            deadline: Until when the questions may take.
            history_fails: True when its history was asked for in vain: what else can be read decides.
        """
        # The thread's row is about this run.
        is_newest = bool(newest) and newest[0]["run_id"] == handle.run_id
        run = _whole_row(handle, newest) or await self.run(handle, deadline, once=True)
        if run is None:
            return None
        status = outcomes.RUN_STATUSES[run["status"]]
        if not status.ended:
            return outcomes.from_run(handle, run, None)
        thread: Row | None = None
        try:
            state: Mapping[str, Any] | None = await self._own_state(handle, deadline)
            if state is None and status is RunStatus.SUCCESS:
                state = await self._confirmed_state(handle, deadline)
        except NotFoundError:
            return None  # deleted since, with its thread
        except DeploymentError as error:
            # A state that JSON cannot express is a 500 for ever, one that its graph refuses is a 400,
            # and a gateway may keep histories alone from being read.
            is_final = isinstance(error, InvalidRequestError)
            is_fault = run["status"] == "error" and error.status_code == 500
            if not (is_final or is_fault or history_fails):
                raise
            if is_newest:
                thread = await self._deployment.thread(handle.thread_id, deadline, once=True)
                if thread is None:
                    return None  # deleted since
            elif status is RunStatus.SUCCESS:
                raise  # what it left cannot be told from what came after
            stands = thread["status"] if thread is not None else None
            if not is_final and (stands == "busy" or not (history_fails or stands == "error")):
                raise
            state = outcomes.state_of(thread) if thread is not None else None
        if thread is None and run["status"] == "error" and is_newest:
            thread = await self._deployment.thread(handle.thread_id, deadline, once=True)
        return outcomes.from_run(handle, run, state, thread=thread)

    async def _own_state(self, handle: RunHandle, deadline: Deadline) -> Row | None:
        """The newest checkpoint that a run wrote, or None when it wrote none."""
        threads, wanted = self._deployment.client.threads, {"run_id": handle.run_id}
        limit, before = 1, None

        async def ask() -> list[Row]:
            history = await threads.get_history(
                handle.thread_id, limit=limit, before=before, metadata=wanted
            )
            return rows_of(history, "checkpoint")

        while True:
            asked_before = before
            history = await self._send(ask, deadline, once=True)
            for state in history:
                if (state.get("metadata") or {}).get("run_id") == handle.run_id:
                    return state
            if not history:
                return None
            # A server that ignores the filter: the run's own are further back.
            limit, before = _HISTORY_PAGE, before_of(history[-1])
            if before == asked_before:
                raise DeploymentError(
                    f"{self._deployment.url} does not tell which state {handle} left: it ignores both "
                    "metadata and before of a history.",
                    url=self._deployment.url,
                )

    async def _confirmed_state(self, handle: RunHandle, deadline: Deadline) -> Row | None:
        """The newest checkpoint of a run that ended well and seems to have written none.

        An empty list may be a gateway's, so the thread is to agree with it.
        """
        thread = await self._deployment.thread(handle.thread_id, deadline, once=True)
        if thread is not None and thread.get("values") is not None:
            threads = self._deployment.client.threads

            async def ask() -> list[Row]:
                found = rows_of(await threads.get_history(handle.thread_id, limit=1), "checkpoint")
                if not found:
                    raise UnreadableAnswerError("a thread that has values is said to have no states")
                return found

            await self._send(ask, deadline, once=True)
        return await self._own_state(handle, deadline)

    async def _send(
        self,
        request: Callable[[], Awaitable[T]],
        deadline: Deadline,
        *,
        once: bool,
        doing: str = "ask for a run",
    ) -> T:
        return await self._deployment.send(
            request, doing=doing, deadline=deadline, once=once, quotes=False, within_wait=True
        )


def _threads_in(answer: Any, asked: Collection[str]) -> list[Row] | None:
    """The rows of an answer that can be read; None when it is not about the threads asked for."""
    if not isinstance(answer, list):
        return None
    rows = [row for row in answer if isinstance(row, dict) and _is_text(row, "thread_id", "status")]
    if any(row["thread_id"] not in asked for row in rows) or (answer and not rows):
        return None
    found = {row["thread_id"]: row for row in rows if row["status"] in outcomes.THREAD_STATUSES}
    return list(found.values())


def _whole_row(handle: RunHandle, newest: Iterable[Row]) -> Row | None:
    """A run's row in a list of runs, when it has all that an outcome needs."""
    for row in newest:
        if row["run_id"] == handle.run_id and row["status"] in outcomes.RUN_STATUSES:
            return row if _is_text(row, *_RUN_FIELDS) else None
    return None


def _is_text(row: Row, *names: str) -> bool:
    return all(isinstance(row.get(name), str) for name in names)
