"""A deployment that speaks LangGraph's API as a real server does not: older, poorer, or wrong.

A real server cannot be made to ignore `ids`, to refuse `select` or to cap its answers, so this one, an
in-memory ASGI application, does. It counts what it is asked, and fails a test that sends empty ids.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from langgraph_sdk.client import LangGraphClient
from pydantic import PrivateAttr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from prefect_langgraph import LangGraphCredentials
from prefect_langgraph.models import RunHandle
from prefect_langgraph.transport.connection import Connection
from prefect_langgraph.transport.deployment import Deployment

Row = dict[str, Any]
URL = "http://odd.example.com"


@dataclass
class OddServer:
    """What it holds, and in what way it is odd.

    Attributes:
        ignores_ids: Answers a search with every thread.
        refuses_select: Answers 422 to a search or list with `select`.
        cap: At most so many threads in an answer.
        lacks: Paths it does not have: `search`, `runs`, `history`, `prune`.
        ignores_filter: A history is answered whatever metadata was asked for.
        ignores_before: A history always begins at its newest state.
        denies_history: So many times it says that a thread has no history.
        poison: Threads of which a search that asks for one of them answers 500. A search for all the
            others is counted as `healthy`.
        forgets: So many times it does not know a run that it has.
        joins: How it answers a join: when the run has ended, at once, never, or with a 404 (None).
        status: What it answers instead, by path, once for each item.
        refuses: The status that it answers to a whole path instead, or None.
    """

    ignores_ids: bool = False
    refuses_select: bool = False
    cap: int | None = None
    lacks: frozenset[str] = frozenset()
    ignores_filter: bool = False
    ignores_before: bool = False
    denies_history: int = 0
    poison: frozenset[str] = frozenset()
    forgets: int = 0
    joins: Literal["late", "early", "never"] | None = None
    status: dict[str, list[int]] = field(default_factory=dict)
    refuses: Callable[[str], int | None] = lambda path: None

    threads: dict[str, Row] = field(default_factory=dict)
    runs: dict[str, list[Row]] = field(default_factory=dict)
    history: dict[str, list[Row]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    largest: int = 0
    created: list[Row] = field(default_factory=list)
    _heard: asyncio.Event = field(default_factory=asyncio.Event)

    # -- what is on it ---------------------------------------------------------------------------

    def add(
        self, values: Any = None, *, status: str = "success", thread_id: str | None = None
    ) -> RunHandle:
        """Put a run on a thread of its own, or on one that there is."""
        own = thread_id is None
        thread_id = thread_id or str(uuid.uuid4())
        run_id = str(uuid.uuid4())
        self.threads.setdefault(thread_id, {"thread_id": thread_id, "metadata": {}})
        self.runs.setdefault(thread_id, []).insert(0, {"run_id": run_id, "thread_id": thread_id})
        handle = RunHandle(
            run_id=run_id, thread_id=thread_id, assistant_id="agent", url=URL, owns_thread=own
        )
        self.set(handle, status, values)
        return handle

    def set(self, handle: RunHandle, status: str, values: Any = None) -> None:
        """Give a run a status and, when it ended, a checkpoint; its thread follows."""
        row = next(run for run in self.runs[handle.thread_id] if run["run_id"] == handle.run_id)
        row["status"] = status
        ended = status not in ("pending", "running")
        error = {"error": "ValueError", "message": "boo"} if status == "error" else None
        thread = {"success": "idle", "error": "error", "interrupted": "interrupted"}
        if ended:
            state = {
                "values": values,
                "next": [],
                "tasks": [],
                "metadata": {"run_id": handle.run_id},
                "checkpoint": {"checkpoint_id": str(uuid.uuid4())},
            }
            self.history.setdefault(handle.thread_id, []).insert(0, state)
        self.threads[handle.thread_id] |= {
            "status": thread.get(status, "idle") if ended else "busy",
            "values": values,
            "error": {"error": "UserInterrupt", "message": ""} if status == "interrupted" else error,
            "interrupts": {},
        }

    def drop(self, handle: RunHandle, *, thread: bool) -> None:
        """Lose a run, and its thread too or not."""
        self.runs[handle.thread_id] = [
            run for run in self.runs[handle.thread_id] if run["run_id"] != handle.run_id
        ]
        if thread:
            del self.threads[handle.thread_id]

    async def asked_again(self, times: int) -> None:
        """Wait until it was asked so many times from now on."""
        for _ in range(times):
            self._heard.clear()
            await self._heard.wait()

    # -- what it answers -------------------------------------------------------------------------

    def _odd(self, path: str, request: Request) -> Response | None:
        self.asked[path] += 1
        self._heard.set()
        if (status := self.refuses(request.url.path)) is not None:
            return JSONResponse({"detail": "odd"}, status)
        if path in self.lacks:
            return JSONResponse({"detail": "Not Found"}, 404)
        if self.status.get(path):
            status = self.status[path].pop(0)
            return JSONResponse({"detail": "odd"}, status, {"retry-after": "0"})
        return None

    async def _search(self, request: Request) -> Response:
        if (odd := self._odd("search", request)) is not None:
            return odd
        body = await request.json()
        assert body["ids"] != [], "empty ids match every thread of a server"
        assert 0 < body["limit"] <= 1000
        self.largest = max(self.largest, len(body["ids"]))
        if self.poison & set(body["ids"]):
            return JSONResponse({"detail": "odd"}, 500)
        if self.poison and len(body["ids"]) > len(self.threads) - len(self.poison) - 1:
            self.asked["healthy"] += 1
        select = body.get("select")
        if select and self.refuses_select:
            return JSONResponse({"detail": "select is not permitted"}, 422)
        wanted = [*self.threads] if self.ignores_ids else body["ids"]
        rows = [self.threads[thread_id] for thread_id in wanted if thread_id in self.threads]
        rows = rows[: min(self.cap or 1000, body["limit"])]
        return JSONResponse([{name: row[name] for name in select or row} for row in rows])

    async def _create_thread(self, request: Request) -> Response:
        if (odd := self._odd("create", request)) is not None:
            return odd
        body = await request.json()
        if body["thread_id"] in self.threads and body.get("if_exists") == "raise":
            return JSONResponse({"detail": "Thread exists"}, 409)
        row = {"thread_id": body["thread_id"], "metadata": body.get("metadata") or {}, "status": "idle"}
        self.runs.setdefault(body["thread_id"], [])
        return JSONResponse(self.threads.setdefault(body["thread_id"], row))

    async def _create_run(self, request: Request) -> Response:
        """Create a run that ends well at once."""
        if (odd := self._odd("start", request)) is not None:
            return odd
        body = await request.json()
        thread_id = request.path_params["thread"]
        handle = self.add({}, thread_id=thread_id)
        row = self.runs[thread_id][0]
        row["metadata"] = body.get("metadata") or {}
        self.created.append({**body, "run_id": handle.run_id})
        return JSONResponse(row)

    async def _prune(self, request: Request) -> Response:
        if (odd := self._odd("prune", request)) is not None:
            return odd
        for thread_id in (await request.json())["thread_ids"]:
            self.threads.pop(thread_id, None)
        return JSONResponse({"pruned_count": 1})

    async def _list(self, request: Request) -> Response:
        if (odd := self._odd("runs", request)) is not None:
            return odd
        select = request.query_params.getlist("select")
        if select and self.refuses_select:
            return JSONResponse({"detail": "select is not permitted"}, 422)
        if request.path_params["thread"] not in self.threads:
            return JSONResponse({"detail": "Thread not found"}, 404)
        if self.forgets:
            return JSONResponse([])
        return JSONResponse(self.runs[request.path_params["thread"]])

    async def _run(self, request: Request) -> Response:
        if (odd := self._odd("run", request)) is not None:
            return odd
        runs = self.runs.get(request.path_params["thread"], [])
        found = [run for run in runs if run["run_id"] == request.path_params["run"]]
        if self.forgets:
            self.forgets -= 1
            found = []
        return JSONResponse(found[0]) if found else JSONResponse({"detail": "Run not found"}, 404)

    async def _join(self, request: Request) -> Response:
        if (odd := self._odd("join", request)) is not None:
            return odd
        if self.joins is None:
            return JSONResponse({"detail": "Not Found"}, 404)
        run_id = request.path_params["run"]
        while self.joins != "early":
            row = next(r for r in self.runs[request.path_params["thread"]] if r["run_id"] == run_id)
            if self.joins == "late" and row["status"] not in ("pending", "running"):
                break
            await asyncio.sleep(0.01)
        return JSONResponse({"n": "not to be believed"})

    async def _thread(self, request: Request) -> Response:
        if (odd := self._odd("thread", request)) is not None:
            return odd
        found = self.threads.get(request.path_params["thread"])
        if found is None or self.forgets:
            return JSONResponse({"detail": "Thread not found"}, 404)
        return JSONResponse(found)

    async def _history(self, request: Request) -> Response:
        if (odd := self._odd("history", request)) is not None:
            return odd
        if self.denies_history:
            self.denies_history -= 1
            return JSONResponse([])
        body = await request.json()
        states = self.history.get(request.path_params["thread"], [])
        wanted = (body.get("metadata") or {}).get("run_id")
        if wanted is not None and not self.ignores_filter:
            states = [state for state in states if state["metadata"]["run_id"] == wanted]
        before = body.get("before")
        if before is not None and not self.ignores_before:
            states = states[
                1 + [state["checkpoint"] for state in states].index(before["configurable"]) :
            ]
        return JSONResponse(states[: body.get("limit", 10)])

    @property
    def app(self) -> Starlette:
        """The ASGI application."""
        thread = "/threads/{thread}"
        return Starlette(
            routes=[
                Route("/threads", self._create_thread, methods=["POST"]),
                Route("/threads/search", self._search, methods=["POST"]),
                Route("/threads/prune", self._prune, methods=["POST"]),
                Route(f"{thread}/runs", self._create_run, methods=["POST"]),
                Route(f"{thread}/history", self._history, methods=["POST"]),
                Route(f"{thread}/runs", self._list),
                Route(f"{thread}/runs/{{run}}", self._run),
                Route(f"{thread}/runs/{{run}}/join", self._join),
                Route(thread, self._thread),
            ]
        )


@dataclass(frozen=True)
class _OddConnection(Connection):
    server: OddServer | None = None

    def async_client(self) -> LangGraphClient:
        assert self.server is not None
        transport = httpx.ASGITransport(self.server.app)
        return LangGraphClient(httpx.AsyncClient(base_url=self.url, transport=transport))


class OddCredentials(LangGraphCredentials):
    """Credentials that lead tasks to an odd server."""

    _block_type_name = "Odd Credentials"
    _block_type_slug = "odd-credentials"
    _server: OddServer = PrivateAttr()

    def connection(self) -> Connection:
        """The connection, without a socket."""
        return _OddConnection(self.url, patience_seconds=2.0, server=self._server)


def credentials_of(server: OddServer) -> OddCredentials:
    """Credentials for an odd server, with an address of its own since clients are shared by address."""
    made = OddCredentials(url=f"http://{uuid.uuid4().hex}.example.com")
    made._server = server
    return made


@asynccontextmanager
async def deployment_of(server: OddServer, **options: Any) -> AsyncIterator[Deployment]:
    """The deployment of an odd server, on the running loop, without a socket."""
    deployment = Deployment(_OddConnection(URL, patience_seconds=2.0, server=server, **options))
    try:
        yield deployment
    finally:
        await deployment.client.aclose()
