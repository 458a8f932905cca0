"""Servers that answer nothing, or never finish: each is one of the ways in which a call could hang."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from proxy import Exchange

DRIBBLE_SECONDS = 0.1


@dataclass(frozen=True)
class Silence:
    """Take the request and never answer it."""

    async def apply(self, exchange: Exchange) -> None:
        await asyncio.Event().wait()


@dataclass(frozen=True)
class Dribble:
    """Begin an answer and send a byte of it now and then, for ever."""

    async def apply(self, exchange: Exchange) -> None:
        await exchange.dribble(b" ", every=DRIBBLE_SECONDS)


@contextmanager
def silent_server() -> Iterator[str]:
    """A server that accepts connections and says nothing."""
    with _server(lambda connection, stopped: stopped.wait()) as url:
        yield url


@contextmanager
def dribbling_server() -> Iterator[str]:
    """A server that begins every answer and never finishes one."""

    def dribble(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n"
        )
        while not stopped.wait(DRIBBLE_SECONDS):
            connection.sendall(b" ")

    with _server(dribble) as url:
        yield url


@contextmanager
def unaccepting_server() -> Iterator[str]:
    """An address where something listens and nobody accepts: connecting to it never ends."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # What the queue of the listener holds is connected; who comes after waits.
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


Answering = Callable[[socket.socket, threading.Event], object]


@contextmanager
def _server(answering: Answering) -> Iterator[str]:
    stopped = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.settimeout(0.1)
    serving: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                answering(connection, stopped)
            except OSError:
                return  # the client went away

    def accept() -> None:
        while not stopped.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            serving.append(threading.Thread(target=serve, args=(connection,), daemon=True))
            serving[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stopped.set()
        accepting.join()
        for thread in serving:
            thread.join()
        listener.close()


HOSTILE = {
    "accepts and is silent": silent_server,
    "does not accept": unaccepting_server,
    "never finishes an answer": dribbling_server,
}
