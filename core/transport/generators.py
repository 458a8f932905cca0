"""An asynchronous generator on the shared loop, read from any OS thread or event loop.

Invariants:
- The generator lives in one task of the shared loop from its first step to its clean-up.
- At most `size` items wait for the consumer; then the generator waits.
- After the last item the consumer meets the generator's own end: nothing, or its exception.
- A consumer that stops early cancels the generator and waits, within bounds, for its clean-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import threading
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

import anyio

from prefect_langgraph.errors import LangGraphError
from prefect_langgraph.transport.loop import CLEANUP_SECONDS, Call, io_loop

P = ParamSpec("P")
T = TypeVar("T")

SIZE = 32

_SLICE_SECONDS = 0.5  # Prefect interrupts an OS thread only between bytecodes

_END: Any = object()


class FeedControl:
    """Ends a feed from where its consumer is driven. Outlives the attempts of one task call.

    Attributes:
        memory: What one attempt leaves to the next.
    """

    def __init__(self) -> None:
        self.memory: dict[str, Any] = {}
        self._stopped = False
        self._feed: Feed[Any] | None = None

    def attach(self, feed: Feed[Any]) -> None:
        """The feed that is under way now."""
        self._feed = feed
        if self._stopped:
            feed.stop()

    def stop(self) -> None:
        """Let the feed end without waiting for it. Safe on any OS thread."""
        self._stopped = True
        if self._feed is not None:
            self._feed.stop()


feed_control: ContextVar[FeedControl | None] = ContextVar("feed_control", default=None)
"""Set by the driver of a generator task, for the feed inside."""


class Feed(Generic[T]):
    """Items of an asynchronous generator, for one consumer."""

    def __init__(
        self, source: Callable[P, AsyncGenerator[T, None]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        self._source = functools.partial(source, *args, **kwargs)
        self._name = source.__name__
        self._room: asyncio.Semaphore | None = None
        self._deliver: Callable[[Any], object] | None = None
        self._call: Call[None] | None = None
        self._stopped = threading.Event()
        self._cancelled = False

    def stop(self) -> None:
        """Give no more items, and cancel the generator without waiting for it."""
        self._stopped.set()
        self._cancel()
        if self._deliver is not None:
            self._deliver(_END)

    def _cancel(self) -> None:
        """Cancel the generator, once: a second time would cancel its clean-up."""
        if self._call is not None and not self._cancelled:
            self._cancelled = True
            self._call.cancel()

    def _begin(self, deliver: Callable[[Any], object]) -> Call[None]:
        self._deliver = deliver
        control = feed_control.get()
        call = self._call = io_loop().begin(self._produce, deliver)
        call.outcome.add_done_callback(lambda _: deliver(_END))
        if control is not None:
            control.attach(self)
        return call

    async def _produce(self, deliver: Callable[[Any], object]) -> None:
        room = self._room = asyncio.Semaphore(SIZE)
        async with contextlib.aclosing(self._source()) as items:
            async for item in items:
                await room.acquire()
                deliver(item)

    def _took(self, item: Any) -> Any:
        """An item that was delivered; `_END` at the end, or the generator's exception."""
        call = self._call
        if self._stopped.is_set() or call is None:
            return _END
        if item is not _END:
            assert self._room is not None  # noqa: S101 - it delivered
            call.post(self._room.release)
            return item
        call.outcome.result()
        return _END


class SyncFeed(Feed[T]):
    """A feed for a synchronous consumer."""

    def __enter__(self) -> Self:
        if io_loop().is_current_thread:
            raise LangGraphError(
                f"{self._name}: the synchronous form was called on prefect-langgraph's own "
                "event loop, where it would wait for itself. Use the asynchronous twin instead."
            )
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._begin(self._items.put)
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        while True:
            try:
                item = self._items.get(timeout=_SLICE_SECONDS)
            except queue.Empty:
                continue
            if (item := self._took(item)) is _END:
                raise StopIteration
            return item  # type: ignore[no-any-return]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        call = self._call
        if call is not None and not call.outcome.done():
            self._cancel()
            call.wait(CLEANUP_SECONDS)


class AsyncFeed(Feed[T]):
    """A feed for a consumer on any event loop."""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        items = self._items = asyncio.Queue[Any]()

        def deliver(item: Any) -> None:
            try:
                loop.call_soon_threadsafe(items.put_nowait, item)
            except RuntimeError:
                # The loop was closed, and the consumer is gone with it.
                self._stopped.set()
                self._cancel()

        self._begin(deliver)
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        item = self._took(await self._items.get())
        if item is _END:
            raise StopAsyncIteration
        return item  # type: ignore[no-any-return]

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        call = self._call
        if call is not None and not call.outcome.done():
            self._cancel()
            ended = asyncio.wrap_future(call.outcome)
            ended.add_done_callback(lambda future: future.cancelled() or future.exception())
            with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
                await asyncio.wait([ended])
