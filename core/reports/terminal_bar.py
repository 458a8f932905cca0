"""A progress bar at a terminal; nothing where the output goes elsewhere.

Invariants:
- There is at most one bar in a process: two would draw over each other.
- What is printed or logged meanwhile appears above the bar, whole.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, TextIO, cast

from prefect.logging.handlers import PrefectConsoleHandler

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_taken = False


class Bar:
    """A bar on a terminal; drawn when told to."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def show(self, *, completed: int, failed: int) -> None:
        """Draw the bar anew."""
        words = f"[red]{failed:,} failed[/red]" if failed else ""
        self._progress.update(self._task, completed=completed, failed=words, refresh=True)


@contextmanager
def bar_on_terminal(label: str, total: int) -> Iterator[Bar | None]:
    """Draw a bar while the block runs. Gives None when there is no terminal, or a bar already."""
    global _taken
    # There is no such stream under pythonw and in some services.
    terminals = [stream for stream in (sys.stderr, sys.stdout) if stream and stream.isatty()]
    if _taken or not terminals:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}"),
        TimeElapsedColumn(),
        console=Console(file=terminals[0]),
        # Its own refresh would be one more OS thread.
        auto_refresh=False,
    )
    task = progress.add_task(label, total=total, failed="")
    _taken = True
    try:
        with progress, _logs_above():
            yield Bar(progress, task)
    finally:
        _taken = False


class _Above:
    """A stream as rich put it in place. Rich sees through its own, and would write across the bar."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return True


@contextmanager
def _logs_above() -> Iterator[None]:
    """Send Prefect's log lines through the streams that the bar has put in place of the terminal.

    Prefect's handlers hold on to the stream of when logging was set up, and write across the bar.
    """
    consoles: dict[int, Console] = {}
    for logger in (logging.getLogger(), *logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            for handler in logger.handlers:
                if isinstance(handler, PrefectConsoleHandler) and handler.console.is_terminal:
                    consoles[id(handler.console)] = handler.console
    files = [(console, console.file) for console in consoles.values()]
    try:
        for console in consoles.values():
            console.file = cast(IO[str], _Above(sys.stderr))
        yield
    finally:
        for console, file in files:
            console.file = file
