"""Counting a fan-out: samples over time, and the bar of a terminal."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TextIO

import pytest
from prefect.logging.handlers import PrefectConsoleHandler

from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.reports.progress import MOST_SAMPLES, FanOutProgress
from prefect_langgraph.results import RunResult

HANDLE = RunHandle(run_id="run", thread_id="thread", assistant_id="answer", url="http://localhost")


def ended(status: RunStatus = RunStatus.SUCCESS) -> RunResult:
    return RunResult(handle=HANDLE, status=status)


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Terminal:
    """Both ends of a pseudo-terminal; what the program wrote is gathered by an OS thread."""

    stream: TextIO
    patch: pytest.MonkeyPatch
    reader: threading.Thread
    written: bytearray

    def run(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine function with this terminal as standard error."""
        # Not in the fixture: pytest puts its own streams back before the test begins.
        with self.patch.context() as patch:
            patch.setattr(sys, "stderr", self.stream)
            asyncio.run(function())

    def close(self) -> None:
        """Close the program's end, and wait until all that was written there has been gathered."""
        self.stream.close()
        self.reader.join()

    def text(self) -> str:
        """All that was written, once nothing more can come."""
        self.close()
        return self.written.decode()

    def lines(self) -> list[str]:
        """The lines that stay on the screen at the end, without colours."""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text())
        return [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal that nobody else writes to."""
    monkeypatch.setenv("COLUMNS", "100")
    master, slave = os.openpty()
    written = bytearray()

    def gather() -> None:
        while data := _read(master):
            written.extend(data)

    reader = threading.Thread(target=gather)
    stream = os.fdopen(slave, "w", buffering=1, encoding="utf-8")
    terminal = Terminal(stream, monkeypatch, reader, written)
    reader.start()
    yield terminal
    terminal.close()
    os.close(master)


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # Linux: the other end is closed.
        return b""


async def _until(terminal: Terminal, text: str) -> None:
    while text not in terminal.written.decode(errors="replace"):  # noqa: ASYNC110 - read on another OS thread
        await asyncio.sleep(0.01)


def test_samples_tell_waiting_in_flight_and_ended_over_time() -> None:
    clock = Clock()
    progress = FanOutProgress(10, label="x", clock=clock)
    clock.now += 1
    progress.started(6)
    clock.now += 1
    progress.ended(ended())
    clock.now += 1
    progress.ended(ended(RunStatus.ERROR))
    seen = [(s.seconds, s.waiting, s.in_flight, dict(s.ended)) for s in progress.samples]
    assert seen == [
        (0, 10, 0, {}),
        (1, 4, 6, {}),
        (2, 4, 5, {RunStatus.SUCCESS: 1}),
        (3, 4, 4, {RunStatus.SUCCESS: 1, RunStatus.ERROR: 1}),
    ]


def test_run_that_ended_before_its_start_was_told_is_counted_once() -> None:
    progress = FanOutProgress(2, label="x", clock=Clock())
    progress.ended(ended())
    assert (progress.samples[-1].waiting, progress.samples[-1].in_flight) == (1, 0)
    progress.started(2)
    assert (progress.samples[-1].waiting, progress.samples[-1].in_flight) == (0, 1)
    assert {sample.total for sample in progress.samples} == {2}


@pytest.mark.parametrize("pace", [0.0, 0.001, 3600.0])
def test_samples_stay_few_and_true_however_many_runs_end(pace: float) -> None:
    clock = Clock()
    progress = FanOutProgress(10_000, label="x", clock=clock)
    progress.started(10_000)
    for _ in range(10_000):
        clock.now += pace
        progress.ended(ended())
    samples = progress.samples
    assert len(samples) <= MOST_SAMPLES
    assert samples[0].in_flight == 0
    assert samples[-1].ended == {RunStatus.SUCCESS: 10_000}
    if pace:
        # Between two samples nothing is known: no gap may be wide.
        gaps = [b.seconds - a.seconds for a, b in pairwise(samples)]
        assert max(gaps) <= 4 * samples[-1].seconds / MOST_SAMPLES
        assert samples[-1].seconds == pytest.approx(10_000 * pace)


def test_state_that_lasts_is_kept_though_it_came_right_after_another() -> None:
    clock = Clock()
    progress = FanOutProgress(2_000, label="x", clock=clock)
    for _ in range(1_000):
        clock.now += 1
        progress.started(1)
    clock.now += 0.001
    progress.started(1_000)
    clock.now += 500
    progress.ended(ended())
    during = [s for s in progress.samples if 1_000 < s.seconds < 1_500]
    assert [sample.in_flight for sample in during] == [2_000]


def test_bar_shows_how_many_ended_and_failed(terminal: Terminal) -> None:
    async def fan_out() -> None:
        async with FanOutProgress(3, label="fan-out-answer") as progress:
            progress.started(3)
            progress.ended(ended())
            progress.ended(ended())
            progress.ended(ended(RunStatus.ERROR))

    terminal.run(fan_out)
    last = [line for line in terminal.lines() if line.strip()][-1]
    assert re.fullmatch(r"fan-out-answer \S+ 3/3 1 failed \d:\d\d:\d\d", last.strip())


def test_log_lines_and_prints_stay_whole_above_the_bar(terminal: Terminal) -> None:
    handler = PrefectConsoleHandler(stream=terminal.stream)
    logger = logging.getLogger("prefect.langgraph.test")
    logger.addHandler(handler)

    async def fan_out() -> None:
        async with FanOutProgress(2, label="fan-out-answer") as progress:
            await _until(terminal, "0/2")
            logger.warning("a line of the log")
            print("a printed line", file=sys.stderr)  # noqa: T201 what a flow does
            progress.ended(ended())
            await _until(terminal, "1/2")

    try:
        terminal.run(fan_out)
        logger.warning("after the end")
        asyncio.run(_until(terminal, "after the end"))
    finally:
        logger.removeHandler(handler)
    lines = [line.strip() for line in terminal.lines() if line.strip()]
    assert lines[:2] == ["a line of the log", "a printed line"]
    assert lines[2].startswith("fan-out-answer ")
    assert lines[3:] == ["after the end"]


def test_second_fan_out_at_once_has_no_bar_that_draws_over_the_first(terminal: Terminal) -> None:
    async def fan_outs() -> None:
        async with FanOutProgress(1, label="the-first"):
            await _until(terminal, "the-first")
            async with FanOutProgress(1, label="the-second"):
                pass
        async with FanOutProgress(1, label="the-third"):
            await _until(terminal, "the-third")

    terminal.run(fan_outs)
    assert "the-second" not in terminal.text()


def test_without_a_terminal_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    async def fan_out() -> None:
        async with FanOutProgress(1, label="x") as progress:
            progress.started(1)
            progress.ended(ended())

    asyncio.run(fan_out())
    assert capsys.readouterr() == ("", "")


def test_terminal_that_fails_does_not_stop_the_fan_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Hung:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

        def flush(self) -> None:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Hung())

    async def fan_out() -> int:
        async with FanOutProgress(1, label="x") as progress:
            progress.ended(ended())
            return len(progress.samples)

    assert asyncio.run(fan_out()) > 1
    assert "progress bar of the fan-out is given up: OSError" in caplog.text
