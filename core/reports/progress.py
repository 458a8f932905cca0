"""What is shown while a fan-out runs: a progress artifact in Prefect's UI and a bar in a terminal.

Invariants:
- Counting never waits: pages and terminals are brought up to date by tasks of their own.
- The artifact is updated at most once a second, and once more at the end.
- Whatever Prefect's API does, the fan-out goes on: the first error is logged, then nothing is asked.
- However long a fan-out takes, the samples of its timeline stay few.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from prefect.artifacts import ProgressArtifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from prefect_langgraph.logs import run_logger
from prefect_langgraph.models import RunStatus
from prefect_langgraph.reports.fan_out_page import artifact_key, current_flow_run, describe
from prefect_langgraph.reports.terminal_bar import bar_on_terminal
from prefect_langgraph.reports.timeline import OUTCOME_COLOURS, Sample
from prefect_langgraph.results import RunResult

__all__ = ["FanOutProgress", "Sample"]

UPDATE_SECONDS = 1.0

MOST_SAMPLES = 300

_BAR_SECONDS = 0.25

_CLOSE_SECONDS = 5.0
"""How long the end of a fan-out waits for the last update of the artifact."""


class FanOutProgress:
    """Counts of a fan-out, shown while it runs.

    Use it as an asynchronous context manager around the fan-out. Inside a flow run it keeps a progress
    artifact up to date; at a terminal it draws a bar.

    Args:
        total: How many runs there are.
        label: What they are, in a few words; part of the artifact's key.
        clock: Seconds that never go back.
    """

    def __init__(self, total: int, *, label: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._label = label
        self._clock = clock
        self._shows: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()
        self._reset()

    def _reset(self) -> None:
        self._began = self._clock()
        self._started = 0
        self._ended: Counter[RunStatus] = Counter()
        self._samples = _Samples()
        self._sample()

    async def __aenter__(self) -> Self:
        self._reset()
        self._shows.append(asyncio.create_task(_or_give_up("bar", self._keep_bar())))
        if current_flow_run() is not None:
            self._shows.append(asyncio.create_task(_or_give_up("artifact", self._keep_artifact())))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sample()
        self._over.set()
        try:
            await asyncio.wait(self._shows, timeout=_CLOSE_SECONDS)
        finally:
            late = [show for show in self._shows if not show.done()]
            for show in late:
                show.cancel()
            if late:
                await asyncio.wait(late)
                run_logger().warning("The progress artifact may be out of date: Prefect's API is slow.")

    def started(self, count: int) -> None:
        """That many more runs were accepted by the server."""
        self._started += count
        self._sample()

    def ended(self, result: RunResult) -> None:
        """One run ended."""
        self._ended[result.status] += 1
        self._sample()

    @property
    def samples(self) -> Sequence[Sample]:
        """What was seen from the beginning until now, in order of time."""
        return tuple(self._samples.kept)

    def _sample(self) -> None:
        ended = self._ended.total()
        # A run that an earlier attempt started may end here without having been started here.
        known = max(self._started, ended)
        self._samples.add(
            Sample(
                seconds=max(self._clock() - self._began, 0.0),
                waiting=max(self._total - known, 0),
                in_flight=known - ended,
                ended=dict(self._ended),
            )
        )

    def _percent(self) -> float:
        return min(100.0 * self._ended.total() / self._total, 100.0) if self._total else 100.0

    def _words(self) -> str:
        now = self._samples.kept[-1]
        parts = [
            f"{sum(now.ended.values()):,} of {self._total:,} runs ended",
            *(f"{now.ended[status]:,} {status}" for status in OUTCOME_COLOURS if status in now.ended),
        ]
        if now.in_flight:
            parts.append(f"{now.in_flight:,} in flight")
        return ", ".join(parts)

    async def _keep_artifact(self) -> None:
        key = artifact_key(f"{self._label}-progress")
        shown = self._words()
        async with get_client() as client:
            new = ProgressArtifact(key=key, description=shown, progress=self._percent())
            artifact = await new.acreate(client)
            over = False
            while not over:
                over = await _within(self._over, UPDATE_SECONDS)
                if (words := self._words()) != shown:
                    update = ArtifactUpdate(data=self._percent(), description=words)
                    await client.update_artifact(artifact.id, update)
                    shown = words

    async def _keep_bar(self) -> None:
        with bar_on_terminal(self._label, self._total) as bar:
            while bar is not None:
                over = await _within(self._over, _BAR_SECONDS)
                ended = self._ended.total()
                bar.show(completed=ended, failed=ended - self._ended[RunStatus.SUCCESS])
                if over:
                    return


class _Samples:
    """Few samples of whatever time, evenly spread; the last one is always the newest.

    A sample that comes too early replaces the one before it, so that none is out of date for longer
    than the spacing. When there are too many, every other one goes and the spacing doubles.
    """

    def __init__(self) -> None:
        self.kept: list[Sample] = []
        self._spacing = 0.0

    def add(self, sample: Sample) -> None:
        if len(self.kept) > 1 and sample.seconds - self.kept[-2].seconds < self._spacing:
            self.kept[-1] = sample
            return
        self.kept.append(sample)
        if len(self.kept) > MOST_SAMPLES:
            self._spacing = max(2 * self._spacing, 2 * sample.seconds / MOST_SAMPLES)
            self.kept = [*self.kept[:-1:2], sample]


async def _or_give_up(what: str, show: Coroutine[Any, Any, None]) -> None:
    try:
        await show
    except Exception as error:  # noqa: BLE001 a picture of the work must not stop the work
        run_logger().warning("The progress %s of the fan-out is given up: %s", what, describe(error))


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event for so long; True when it came."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
