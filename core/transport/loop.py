"""One event loop on one OS thread for a whole process; synchronous and asynchronous callers sit on it.

Invariants:
- A call ends for its caller only when its coroutine has ended, or when the bounded wait for the
  coroutine's clean-up is over. It never returns None in place of a cancellation.
- However a caller stops waiting (Ctrl-C, a termination signal, Prefect's timeout, cancellation of an
  asynchronous caller), the coroutine is cancelled and the caller's exception goes on. A signal reaches
  callers on other OS threads by way of `termination`.
- A forked child starts without a loop and builds its own; no lock of the parent is inherited locked.
- The OS thread is a daemon, and what is left at exit is cancelled: it never keeps a process alive.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar

import anyio

from prefect_langgraph.errors import LangGraphError, without_requests
from prefect_langgraph.transport import termination

P = ParamSpec("P")
T = TypeVar("T")

CLEANUP_SECONDS = 30.0
"""How long a caller that gave up waits for its coroutine to clean up."""

TERMINATION_SECONDS = 20.0
"""The same where a signal ends the process, which Prefect's worker kills 30 seconds after it."""

# Prefect interrupts a worker OS thread by an asynchronous exception, which is delivered only between
# bytecodes: a wait without end inside a lock would never see it.
_FIRST_SLICE, _LAST_SLICE = 0.05, 1.0


class Call(Generic[T]):
    """A coroutine on its way on another OS thread's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._task: asyncio.Task[T | None] | None = None
        self._cancelled = False
        self._exit: BaseException | None = None
        self.outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
        # From here on cancel() on the outcome is refused: only the coroutine's end decides it.
        self.outcome.set_running_or_notify_cancel()

    def start(self) -> None:
        # call_soon_threadsafe copies the caller's context, so Prefect's run context comes along.
        try:
            self._loop.call_soon_threadsafe(self._create)
        except RuntimeError as error:
            self._coroutine.close()
            self.outcome.set_exception(error)
            raise
        if termination.register(self):
            self.outcome.add_done_callback(lambda _: termination.unregister(self))

    def _create(self) -> None:
        self._task = self._loop.create_task(self._guarded())
        self._task.add_done_callback(self._ended)
        if self._cancelled:
            self._task.cancel()

    async def _guarded(self) -> T | None:
        try:
            return await self._coroutine
        except (KeyboardInterrupt, SystemExit) as error:
            # These would leave run_forever: the loop of everybody would end for one caller's.
            self._exit = error
            return None

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if self.outcome.done():
            _ = (
                task.cancelled() or task.exception()
            )  # given up; read, so that it is not told as forgotten
        elif task.cancelled():
            self._coroutine.close()  # cancelled before it began
            self.outcome.set_exception(asyncio.CancelledError())
        elif self._exit is not None:
            self.outcome.set_exception(self._exit)
        elif (error := task.exception()) is not None:
            self.outcome.set_exception(without_requests(error))
        else:
            self.outcome.set_result(task.result())

    def cancel(self) -> None:
        def cancel() -> None:
            self._cancelled = True
            if self._task is not None:
                self._task.cancel()

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(cancel)

    def terminate(self) -> None:
        """Cancel for a process that ends: the caller goes on in time, whatever the server does."""

        def give_up() -> None:
            if not self.outcome.done():
                self.outcome.set_exception(asyncio.CancelledError())

        self.cancel()
        self.post(lambda: self._loop.call_later(TERMINATION_SECONDS, give_up))

    def post(self, function: Callable[[], Any]) -> None:
        """Call a function on the coroutine's loop, from any OS thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait in slices until the coroutine ended; False when `seconds` passed first."""
        end = None if seconds is None else time.monotonic() + seconds
        slice_ = _FIRST_SLICE
        while True:
            left = slice_ if end is None else min(slice_, end - time.monotonic())
            if left <= 0:
                return self.outcome.done()
            if concurrent.futures.wait([self.outcome], timeout=left).done:
                return True
            slice_ = min(slice_ * 2, _LAST_SLICE)


class IOLoop:
    """The loop and its OS thread; started by the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_current_thread(self) -> bool:
        """True on the loop's own OS thread."""
        return self._thread is threading.current_thread()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=_run_forever, args=(loop,), name="prefect-langgraph-io", daemon=True
                )
                thread.start()
                self._loop, self._thread = loop, thread
            return self._loop

    def run(
        self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a coroutine function to its end for a synchronous caller.

        Raises:
            LangGraphError: Called on the loop's own OS thread, where it could only wait for itself.
        """
        if self.is_current_thread:
            raise LangGraphError(
                f"{function.__name__}: the synchronous form was called on prefect-langgraph's own "
                "event loop, where it would wait for itself. Await the asynchronous twin instead."
            )
        call = Call(self._running_loop(), function(*args, **kwargs))
        try:
            call.start()
            call.wait()
        except BaseException:
            call.cancel()
            call.wait(CLEANUP_SECONDS)
            raise
        return call.outcome.result()

    def begin(
        self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> Call[T]:
        """Start a coroutine function and return at once; the caller waits for its end."""
        call = Call(self._running_loop(), function(*args, **kwargs))
        call.start()
        return call

    async def arun(
        self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a coroutine function to its end for a caller on any event loop."""
        if self.is_current_thread:
            return await function(*args, **kwargs)
        call = Call(self._running_loop(), function(*args, **kwargs))
        try:
            call.start()
            return await asyncio.wrap_future(call.outcome)
        except BaseException:
            if not call.outcome.done():
                call.cancel()
                ended = asyncio.wrap_future(call.outcome)
                # The caller raises its own exception; the coroutine's is read so that none is
                # reported as forgotten.
                ended.add_done_callback(lambda future: future.cancelled() or future.exception())
                with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
                    await asyncio.wait([ended])
            raise

    def close(self) -> None:
        """Cancel what is running and end the OS thread."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or not thread.is_alive():
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(timeout=5)


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.wait(pending, timeout=2))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


_io = IOLoop()


def io_loop() -> IOLoop:
    """This process's loop."""
    return _io


def _after_fork_in_child() -> None:
    global _io
    _io = IOLoop()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(lambda: _io.close())
