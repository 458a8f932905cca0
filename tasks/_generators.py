"""Prefect's generator tasks, driven so that their consumers can stop at any point.

Prefect runs a generator task inside its consumer: between two parts the consumer sees the context of
our task run as its own; a generator that is left by `break` is closed in whatever context there is
then, where Prefect's clean-up fails; and Prefect 3.8 cannot close an asynchronous one at all (it calls
`throw`, which those do not have). Here each such task has a context of its own, and a consumer that
stops ends the stream inside, which for Prefect is a generator that came to its end: `Completed`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, TypeVar

import anyio

from prefect_langgraph.ownership.owner import caller_task_run
from prefect_langgraph.transport.generators import FeedControl, feed_control
from prefect_langgraph.transport.loop import CLEANUP_SECONDS

T = TypeVar("T")

Caller = tuple[str, int] | None


def _own_context(control: FeedControl, caller: Caller) -> Context:
    context = copy_context()
    context.run(feed_control.set, control)
    context.run(caller_task_run.set, caller)
    return context


class SyncSteps(Generator[T, None, None]):
    """A synchronous generator task that was called.

    Args:
        generator: Prefect's, not begun.
        caller: Tells the task run that asks for the first item.
    """

    def __init__(self, generator: Generator[T, None, None], caller: Callable[[], Caller]) -> None:
        self._generator = generator
        self._caller = caller
        self._control = FeedControl()
        self._context: Context | None = None
        self._ended = False

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        if self._context is None:
            self._context = _own_context(self._control, self._caller())
        try:
            return self._context.run(next, self._generator)
        except BaseException:
            self._ended = True
            raise

    def send(self, value: None, /) -> T:
        """The next item; there is nothing to send."""
        return next(self)

    def throw(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
        /,
    ) -> T:
        """Close, and raise the exception."""
        self.close()
        error = kind if isinstance(kind, BaseException) else value
        raise error if isinstance(error, BaseException) else kind

    def close(self) -> None:
        """Stop reading. The run is cancelled or left, as `on_disconnect` says."""
        if self._ended:
            return
        self._ended = True
        if self._context is None:
            self._generator.close()
            return
        self._control.stop()
        for _ in range(2):  # one item may have been on its way
            try:
                self._context.run(next, self._generator)
            except StopIteration:
                return

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self.close()


class _Driver:
    """Drives Prefect's asynchronous generator in one task with a context of its own."""

    def __init__(self, generator: AsyncGenerator[Any, None], caller: Caller) -> None:
        self.control = FeedControl()
        self.loop = asyncio.get_running_loop()
        self._generator = generator
        # A future to answer, or None to come to the end.
        self.asked: asyncio.Queue[asyncio.Future[Any] | None] = asyncio.Queue()
        self.task = self.loop.create_task(
            self._drive(), context=_own_context(self.control, caller), name="prefect-langgraph-stream"
        )

    async def _drive(self) -> None:
        ended = False
        try:
            while not ended and (answer := await self.asked.get()) is not None:
                ended = await self._step(answer)
        finally:
            if not ended:
                self.control.stop()
                async for _ in self._generator:
                    pass  # at most one that was on its way

    async def _step(self, answer: asyncio.Future[Any]) -> bool:
        """Answer with the next item; True when there is none."""
        try:
            item = await anext(self._generator)
        except StopAsyncIteration:
            _set(answer, None, _End())
        except asyncio.CancelledError:
            answer.cancel()
        except Exception as error:  # noqa: BLE001 - the consumer's
            _set(answer, None, error)
        else:
            _set(answer, item, None)
            return False
        return True

    def end_soon(self) -> None:
        """Come to the end without anybody waiting. Safe on any OS thread."""
        self.control.stop()
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.asked.put_nowait, None)


class _End(Exception):
    """The generator came to its end."""


def _set(answer: asyncio.Future[Any], item: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(item)
    else:
        answer.set_exception(error)


class AsyncSteps(AsyncGenerator[T, None]):
    """An asynchronous generator task that was called.

    Args:
        generator: Prefect's, not begun.
        caller: Tells the task run that asks for the first item.
    """

    def __init__(self, generator: AsyncGenerator[T, None], caller: Callable[[], Caller]) -> None:
        self._generator = generator
        self._caller = caller
        self._driver: _Driver | None = None
        self._ended = False

    async def __anext__(self) -> T:
        if self._ended:
            raise StopAsyncIteration
        if self._driver is None:
            self._driver = _Driver(self._generator, self._caller())
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._driver.asked.put_nowait(answer)
        try:
            return await answer
        except _End:
            self._ended = True
            raise StopAsyncIteration from None
        except BaseException:
            self._ended = True
            self._driver.task.cancel()
            with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
                await asyncio.wait([self._driver.task])
            raise

    async def asend(self, value: None, /) -> T:
        """The next item; there is nothing to send."""
        return await anext(self)

    async def athrow(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
        /,
    ) -> T:
        """Close, and raise the exception."""
        await self.aclose()
        error = kind if isinstance(kind, BaseException) else value
        raise error if isinstance(error, BaseException) else kind

    async def aclose(self) -> None:
        """Stop reading. The run is cancelled or left, as `on_disconnect` says."""
        if self._ended:
            return
        self._ended = True
        if self._driver is None:
            await self._generator.aclose()
            return
        self._driver.end_soon()
        await asyncio.shield(self._driver.task)

    def __del__(self) -> None:
        if not self._ended and self._driver is not None:
            self._driver.end_soon()
