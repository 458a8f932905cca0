"""The resumer in a process that stays, for those who mind a process start each minute."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import httpx
from prefect.exceptions import PrefectException

from prefect_langgraph.errors import LangGraphError
from prefect_langgraph.flows.resume import Passes, lines, resumer_of, sentence
from prefect_langgraph.suspension.models import ResumeReport
from prefect_langgraph.suspension.resumer import show_sign_of_life
from prefect_langgraph.transport.loop import io_loop

PASS_SECONDS = 300.0
"""How long one pass may take before it is given up: the next one finds the same."""

SIGN_SECONDS = 60.0
"""How often Prefect is told that this resumer is there."""

Say = Callable[[str], None]


class ResumeLoop:
    """Passes without end, until `stop`.

    Args:
        names: The blocks whose flow runs are resumed; None is all.
        every_seconds: How long from the end of one pass to the next.
        say: Told what was done and what went wrong, each once.
    """

    def __init__(self, names: Sequence[str] | None, every_seconds: float, say: Say) -> None:
        self._names = list(names) if names is not None else None
        self._every_seconds = every_seconds
        self._say = say
        self._wrong: tuple[str, ...] = ()
        self._sign_due = 0.0
        self._stops = False
        self._wake: Callable[[], object] | None = None

    def run(self) -> None:
        """Make passes until SIGTERM or SIGINT; to be called on the main OS thread."""
        with self._until_signalled():
            io_loop().run(self._run)

    def stop(self) -> None:
        """End after what is being asked at this moment; may be called by a signal handler."""
        self._stops = True
        if self._wake is not None:
            self._wake()

    @contextmanager
    def _until_signalled(self) -> Iterator[None]:
        def handle(number: int, frame: FrameType | None) -> None:
            self.stop()

        before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def _run(self) -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(stopped.set)
        passes = asyncio.create_task(self._passes())
        stopping = asyncio.create_task(stopped.wait())
        if self._stops:
            stopped.set()
        await asyncio.wait([passes, stopping], return_when=asyncio.FIRST_COMPLETED)
        # A pass may be cut short anywhere: whoever makes the next one finds the same.
        for task in (passes, stopping):
            task.cancel()
        await asyncio.wait([passes, stopping])
        if not passes.cancelled():
            passes.result()

    async def _passes(self) -> None:
        resumer = resumer_of(self._names)
        while True:
            await self._pass(resumer)
            await asyncio.sleep(self._every_seconds)

    async def _pass(self, resumer: Passes) -> None:
        try:
            async with asyncio.timeout(PASS_SECONDS):
                report = await resumer.one_pass()
        except (LangGraphError, PrefectException, httpx.HTTPError, TimeoutError, OSError) as error:
            said = error.message if isinstance(error, LangGraphError) else type(error).__name__
            self._tell_wrong((f"Prefect could not be asked ({said})",))
            return
        self._tell(report)
        if time.monotonic() >= self._sign_due:
            self._sign_due = time.monotonic() + SIGN_SECONDS
            show_sign_of_life()

    def _tell(self, report: ResumeReport) -> None:
        if report.resumed or report.released:
            self._say(sentence(report))
            for line in lines(report):
                self._say(line)
        self._tell_wrong(report.failures)

    def _tell_wrong(self, failures: tuple[str, ...]) -> None:
        """Say what goes wrong when it begins, and that it does not any more."""
        if failures == self._wrong:
            return
        for failure in failures:
            self._say(f"{failure}; trying again every {self._every_seconds:g} s")
        if not failures:
            self._say("All servers answer again.")
        self._wrong = failures
