"""The proxy itself."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import h11

from prefect_langgraph.testing.process import reserve_port
from proxy._exchange import Exchange, Request, kept, next_event, unless_gone
from proxy._faults import Fault


class Rule:
    """A fault, and the requests that it is for. Made by `Proxy.on`."""

    def __init__(self, method: str, path: str, fault: Fault, times: int | None, after: int) -> None:
        self._method = method
        self._path = re.compile(path)
        self._left = times
        self._skip = after
        self.fault = fault
        self.hits = 0

    def end(self) -> None:
        """Let all further requests pass."""
        self._left = 0

    def takes(self, request: Request) -> bool:
        if self._left == 0 or not matches(request, self._method, self._path):
            return False
        if self._skip:
            self._skip -= 1
            return False
        if self._left is not None:
            self._left -= 1
        self.hits += 1
        return True


def matches(request: Request, method: str, path: str | re.Pattern[str]) -> bool:
    """True for a request with this method, "*" being any, and a path in which `path` is found."""
    return method in ("*", request.method) and re.search(path, request.path) is not None


class Proxy:
    """A running proxy. Made by `run_proxy`.

    Attributes:
        target: The real server's address.
        url: Its address, to be used in place of the real server's.
        requests: What reached it, oldest first, whatever became of it.
        served: What the real server answered, with its status, whether or not the client was told.
        connections: How many connections clients have opened.
        peak_connections: The most that were open at once.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        parts = urlsplit(target)
        assert parts.hostname, target
        assert parts.port, target
        self._target = parts.hostname, parts.port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._reserved, self._port = reserve_port()
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._rules: list[Rule] = []
        self.url = f"http://127.0.0.1:{self._port}"
        self.requests: list[Request] = []
        self.served: list[tuple[Request, int]] = []
        self.connections = 0
        self.peak_connections = 0

    def on(
        self, method: str, path: str, fault: Fault, *, times: int | None = 1, after: int = 0
    ) -> Rule:
        """Show a fault for some requests; of several rules that match, the first one takes a request.

        Args:
            method: "POST", or "*" for any.
            path: A regular expression that is searched for in the path, without the query.
            fault: What happens.
            times: How often, None for always.
            after: How many matching requests pass before.
        """
        rule = Rule(method, path, fault, times, after)
        self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Forget all rules and everything counted."""
        self._rules.clear()
        self.requests.clear()
        self.served.clear()

    def seen(self, method: str = "*", path: str = "") -> list[Request]:
        """The requests that reached the proxy, of a method and with a path in which `path` is found."""
        return [request for request in self.requests if matches(request, method, path)]

    def count(self, method: str = "*", path: str = "") -> int:
        """How many requests `seen` finds."""
        return len(self.seen(method, path))

    def done(self, method: str = "*", path: str = "") -> list[Request]:
        """What the real server has carried out, also where the client never heard of it."""
        return [
            request
            for request, status in self.served
            if status < 400 and matches(request, method, path)
        ]

    def refuse(self) -> None:
        """Refuse connections from now on, and cut those that are open."""
        self._call(self._refuse())

    def accept(self) -> None:
        """Take connections again."""
        self._call(self._accept())

    def cut(self) -> None:
        """Cut every open connection; new ones are fine."""
        self._call(self._cut())

    # -- on the proxy's own loop -------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=10)

    def start(self) -> None:
        self._thread.start()
        self.accept()

    def stop(self) -> None:
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._reserved.close()

    async def _accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, "127.0.0.1", self._port, family=socket.AF_INET, backlog=1024
            )

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _cut(self) -> None:
        # Connections that were just taken begin first: a task that never ran would not close its own.
        for _ in range(3):
            await asyncio.sleep(0)
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        self.connections += 1
        self.peak_connections = max(self.peak_connections, len(self._open))
        number = self.connections
        try:
            # The client may be gone at any time; that is no news.
            with contextlib.suppress(OSError, h11.RemoteProtocolError, asyncio.CancelledError):
                await self._exchanges(reader, writer, number)
        finally:
            del self._open[task]
            writer.close()

    async def _exchanges(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        client = h11.Connection(h11.SERVER)
        while not writer.is_closing():
            head = await next_event(client, reader)
            if not isinstance(head, h11.Request):
                return
            body = bytearray()
            while isinstance(event := await next_event(client, reader), h11.Data):
                body += event.data
            path, _, query = head.target.decode().partition("?")
            headers = {name.decode(): value.decode() for name, value in kept(head.headers)}
            request = Request(
                head.method.decode(), path, query, headers, bytes(body), number, time.monotonic()
            )
            self.requests.append(request)
            rule = next((rule for rule in self._rules if rule.takes(request)), None)
            exchange = Exchange(
                request, self._target, client, writer, lambda *done: self.served.append(done)
            )
            answering = exchange.relay() if rule is None else rule.fault.apply(exchange)
            if not await unless_gone(answering, reader, client):
                return
            if client.our_state is not h11.DONE or client.their_state is not h11.DONE:
                return
            client.start_next_cycle()


@contextmanager
def run_proxy(target: str) -> Iterator[Proxy]:
    """Run a proxy in front of the server at `target`, on an OS thread of its own."""
    proxy = Proxy(target)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
