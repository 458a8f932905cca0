"""Faults: what happens to a request instead of being passed on."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from proxy._exchange import Exchange, Response


class Fault(Protocol):
    """What happens to a request instead of being passed on."""

    async def apply(self, exchange: Exchange) -> None: ...


@dataclass(frozen=True)
class LoseRequest:
    """Hang up before the real server has seen anything."""

    async def apply(self, exchange: Exchange) -> None:
        exchange.hang_up()


@dataclass(frozen=True)
class LoseResponse:
    """Let the real server do it, and hang up instead of telling."""

    async def apply(self, exchange: Exchange) -> None:
        await exchange.fetch()
        exchange.hang_up()


@dataclass(frozen=True)
class Delay:
    """Pass it on late. `Hold` is the one that needs no clock."""

    seconds: float

    async def apply(self, exchange: Exchange) -> None:
        await asyncio.sleep(self.seconds)
        await exchange.relay()


@dataclass(frozen=True)
class Hold:
    """Stop a request on its way, or its answer, until `release()`.

    Attributes:
        answer: True lets the real server act at once and holds the answer.
        reached: Set once a request is held.
    """

    answer: bool = False
    reached: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let it go on."""
        self._released.set()

    async def apply(self, exchange: Exchange) -> None:
        response = await exchange.fetch() if self.answer else None
        self.reached.set()
        while not self._released.is_set():  # noqa: ASYNC110 - set on another OS thread
            await asyncio.sleep(0.01)
        if response is not None:
            await exchange.answer(response)
        else:
            await exchange.relay()


@dataclass(frozen=True)
class Answer:
    """Answer without asking the real server: `Answer(503)`, `Answer(429, retry_after=1)`.

    Attributes:
        status: The HTTP status.
        body: JSON, or text for a text/plain answer; the status in words when left out.
        retry_after: The Retry-After header, in seconds or as a date.
        close: True closes the connection afterwards.
        media_type: The content type; None goes by the body.
    """

    status: int
    body: Any = None
    retry_after: float | str | None = None
    close: bool = False
    media_type: str | None = None

    async def apply(self, exchange: Exchange) -> None:
        plain = isinstance(self.body, str)
        body = self.body if self.body is not None else {"detail": f"status {self.status}, by the proxy"}
        kind = self.media_type or ("text/plain" if plain else "application/json")
        headers = [("content-type", kind)]
        if self.retry_after is not None:
            headers.append(("retry-after", str(self.retry_after)))
        payload = body.encode() if plain else json.dumps(body).encode()
        await exchange.answer(Response(self.status, payload, tuple(headers)), close=self.close)


def unhandled_500() -> Answer:
    """What an unhandled exception in the real server looks like: text, and the connection closed."""
    return Answer(500, "Internal Server Error", close=True)


def gateway_page(status: int) -> Answer:
    """The HTML with which a gateway answers while the deployment behind it is replaced."""
    return Answer(status, f"<html><h1>{status}</h1>nobody here</html>", media_type="text/html")


@dataclass(frozen=True)
class Silence:
    """Take a request and never answer, nor tell the real server."""

    async def apply(self, exchange: Exchange) -> None:
        await asyncio.Event().wait()


@dataclass(frozen=True)
class CutBody:
    """Let the real server answer, and hang up after so many bytes of its body."""

    after_bytes: int = 1

    async def apply(self, exchange: Exchange) -> None:
        await exchange.answer(await exchange.fetch(), cut_after=self.after_bytes)


@dataclass(frozen=True)
class CutStream:
    """Let a stream pass for so many bytes of its body, and hang up in the middle of it.

    Attributes:
        after_bytes: How many bytes pass.
        end: True ends the body there as if it were whole, as a proxy with a time limit may do.
    """

    after_bytes: int = 1
    end: bool = False

    async def apply(self, exchange: Exchange) -> None:
        await exchange.relay(cut_after=self.after_bytes, end=self.end)


@dataclass(frozen=True)
class Rewrite:
    """A server that differs: JSON changed on its way there, or on its way back."""

    request: Callable[[Any], Any] | None = None
    response: Callable[[Any], Any] | None = None

    async def apply(self, exchange: Exchange) -> None:
        request = exchange.request
        if self.request is not None:
            request = replace(request, body=json.dumps(self.request(request.json)).encode())
        response = await exchange.fetch(request)
        if self.response is not None and response.status < 400:
            response = replace(response, body=json.dumps(self.response(response.json)).encode())
        await exchange.answer(response)
