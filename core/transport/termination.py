"""Calls on other OS threads, and the signal that ends their process.

Prefect raises a SIGTERM or Ctrl-C in the main OS thread only. There the flow run leaves its task
runner, which waits for all that was submitted or mapped: each of our calls would go on waiting for its
run until somebody kills the process, and the run would go on after that. So a runner's `cancel_all`,
with which Prefect begins that wait, first cancels our calls.

Invariants:
- A flow that ends well, fails or is suspended waits for its tasks, as Prefect has it: only a signal, or
  the cancellation of an asynchronous flow, cancels calls.
- What releases a flow run at its end is not cancelled by that end.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import TerminationSignal


class Terminable(Protocol):
    """A call under way."""

    def terminate(self) -> None:
        """Cancel it, and let its caller go on in time."""


_calls: dict[Terminable, frozenset[str]] = {}
"""The calls on other OS threads than the main one, with the flow runs that they are for."""

_lock = threading.Lock()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _calls.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)

_is_release: ContextVar[bool] = ContextVar("is_release", default=False)


@contextmanager
def releasing() -> Iterator[None]:
    """Calls in this block are for the end of a flow run, and go on through it."""
    token = _is_release.set(True)
    try:
        yield
    finally:
        _is_release.reset(token)


def register(call: Terminable) -> bool:
    """Cancel a call when its flow run is terminated. True: call `unregister` at its end."""
    context = FlowRunContext.get()
    if context is None or _is_release.get() or threading.current_thread() is threading.main_thread():
        return False
    task = TaskRunContext.get()
    flow_runs = {context.flow_run and context.flow_run.id, task and task.task_run.flow_run_id}
    with _lock:
        _calls[call] = frozenset(str(one) for one in flow_runs if one is not None)
    runner = context.task_runner
    cancel_all = getattr(runner, "cancel_all", None)
    if context.flow_run is not None and cancel_all is not None:
        if not isinstance(cancel_all, _CancelAll):
            cancel_all = _CancelAll(cancel_all, str(context.flow_run.id))
            setattr(runner, "cancel_all", cancel_all)  # noqa: B010 - a method of this runner alone
        if cancel_all.is_terminated:
            call.terminate()
    return True


def unregister(call: Terminable) -> None:
    """The call has ended."""
    with _lock:
        _calls.pop(call, None)


class _CancelAll:
    """A task runner's `cancel_all`, which first cancels our calls."""

    def __init__(self, original: Callable[[], None], flow_run_id: str) -> None:
        self._original = original
        self._flow_run_id = flow_run_id
        self.is_terminated = False

    def __call__(self) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, TerminationSignal | KeyboardInterrupt | asyncio.CancelledError):
            self.is_terminated = True
            # A signal is for the whole process: also for calls of flows that were called by its tasks,
            # of which nothing here tells whose they are.
            everybody = isinstance(error, TerminationSignal | KeyboardInterrupt)
            with _lock:
                mine = [c for c, ids in _calls.items() if everybody or self._flow_run_id in ids]
            for call in mine:
                call.terminate()
        self._original()
