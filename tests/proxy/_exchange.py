"""One request on its way through the proxy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import h11

CHUNK = 65536
# The proxy frames bodies itself.
_HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"content-length"}


@dataclass(frozen=True)
class Request:
    """A request that reached the proxy."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    connection: int
    at: float

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Response:
    """An answer, whole."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class Exchange:
    """One request and what becomes of it."""

    def __init__(
        self,
        request: Request,
        target: tuple[str, int],
        client: h11.Connection,
        writer: asyncio.StreamWriter,
        served: Callable[[Request, int], None],
    ) -> None:
        self.request = request
        self._target = target
        self._client = client
        self._writer = writer
        self._served = served

    async def relay(self, *, cut_after: int | None = None, end: bool = False) -> None:
        """Pass the request on, and the answer back as it comes: all of it, or so many bytes.

        Args:
            cut_after: Bytes of the body that pass.
            end: True ends the body there as if it were whole; else the connection is cut.
        """
        async with aclosing(self._ask(self.request)) as events:
            async for event in events:
                if cut_after is not None and isinstance(event, h11.Data):
                    data = bytes(event.data)[:cut_after]
                    cut_after -= len(data)
                    await self._send(h11.Data(data=data))
                    if not cut_after:
                        if end:
                            await self._send(h11.EndOfMessage())
                        else:
                            self.hang_up()
                        return
                else:
                    await self._send(event)

    async def fetch(self, request: Request | None = None) -> Response:
        """The real server's whole answer, to this request or to another."""
        head, body = None, bytearray()
        async with aclosing(self._ask(request or self.request)) as events:
            async for event in events:
                if isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    body += event.data
        assert head is not None, "the real server hung up"
        headers = tuple((name.decode(), value.decode()) for name, value in kept(head.headers))
        return Response(head.status_code, bytes(body), headers)

    async def answer(
        self, response: Response, *, close: bool = False, cut_after: int | None = None
    ) -> None:
        """Answer the client."""
        headers = [*response.headers, ("content-length", str(len(response.body)))]
        if close:
            headers.append(("connection", "close"))
        await self._send(h11.Response(status_code=response.status, headers=headers, reason=b""))
        await self._send(h11.Data(data=response.body[:cut_after]))
        if cut_after is not None:
            self.hang_up()
        else:
            await self._send(h11.EndOfMessage())

    async def dribble(self, piece: bytes, *, every: float) -> None:
        """Begin an answer of which a piece comes now and then, for ever."""
        headers = [("content-type", "application/json"), ("content-length", "1000000000")]
        await self._send(h11.Response(status_code=200, headers=headers, reason=b""))
        while True:
            await self._send(h11.Data(data=piece))
            await asyncio.sleep(every)

    def hang_up(self) -> None:
        """Close the client's connection without another word."""
        self._writer.close()

    async def _send(self, event: h11.Event) -> None:
        self._writer.write(self._client.send(event) or b"")
        await self._writer.drain()

    async def _ask(self, request: Request) -> AsyncGenerator[Any, None]:
        """The events of the real server's answer. One connection each: none goes stale."""
        reader, writer = await asyncio.open_connection(*self._target)
        try:
            server = h11.Connection(h11.CLIENT)
            headers = {
                **request.headers,
                "host": f"{self._target[0]}:{self._target[1]}",
                "content-length": str(len(request.body)),
                "connection": "close",
            }
            target = f"{request.path}?{request.query}" if request.query else request.path
            for event in (
                h11.Request(method=request.method, target=target, headers=list(headers.items())),
                h11.Data(data=request.body),
                h11.EndOfMessage(),
            ):
                writer.write(server.send(event) or b"")
            await writer.drain()
            while not isinstance(event := await next_event(server, reader), h11.EndOfMessage):
                if isinstance(event, h11.Response):
                    self._served(request, event.status_code)
                    event = h11.Response(
                        status_code=event.status_code,
                        headers=_framed(event.headers, request.method),
                        reason=event.reason,
                    )
                yield event
            yield event
        finally:
            writer.close()


def kept(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name not in _HOP_BY_HOP]


def _framed(headers: Any, method: str) -> list[tuple[bytes, bytes]]:
    """The headers that pass; a known length is kept, so that short answers stay short."""
    length = [(name, value) for name, value in headers if name == b"content-length"]
    return [*kept(headers), *length]


async def next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> Any:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(CHUNK))
    return event


async def unless_gone(answering: Any, reader: asyncio.StreamReader, client: h11.Connection) -> bool:
    """Answer; False when the client hung up first, and then the real server is hung up on too."""
    answer = asyncio.ensure_future(answering)
    watch = asyncio.ensure_future(reader.read(CHUNK))
    try:
        await asyncio.wait([answer, watch], return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            if data := watch.result():
                client.receive_data(data)
            elif not answer.done():
                return False
        await answer
        return True
    finally:
        for task in (answer, watch):
            task.cancel()
        await asyncio.wait([answer, watch])
