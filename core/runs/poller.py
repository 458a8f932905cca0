"""The poller: all waits of a process on a deployment, for the price of one.

A run waits as a `_Watch`. Watches on threads that exist for one run are asked for together, up to
1,000 per request; the others, and the few that somebody waits for one by one, by their thread's list
of runs. The interval grows with the age of the wait.

Invariants:
- A watch ends with a checked outcome of its own run, or stays. An answer that is missing something is
  "unknown" and is asked again; a run is lost only when its row and its thread are both confirmed gone,
  one that was there only after the connection's patience.
- Answers are held against what was asked. A server that ignores `ids` or refuses `select` is asked
  one thread at a time from then on.
- Nothing transient ends a watch: each caller's own deadline does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from prefect_langgraph.errors import LangGraphError
from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.results import RunResult
from prefect_langgraph.runs import outcomes
from prefect_langgraph.runs.lookup import PAGE, Lookup
from prefect_langgraph.transport.deadline import Deadline

if TYPE_CHECKING:
    from prefect_langgraph.transport.deployment import Deployment

EXACT_WATCHES = 8  # up to this many are asked for one by one, which also tells pending from running

EXACT_HASTE = 0.3  # how much slower their interval grows

CONCURRENCY = 16

ENOUGH_TO_FETCH = 250

REMEMBERED_STARTS = 200_000

MISSING_CONFIRMATIONS = 3

MISSING_GAP_SECONDS = 1.0

VERIFY_EVERY_SECONDS = 1.0  # one busy thread per this long, in turn: a rolled back run stays "busy"

StatusCallback = Callable[[RunStatus], None]

_Ask = Callable[[Sequence["_Watch"]], Awaitable[None]]


def interval(age: float) -> float:
    """Seconds until the next question about a wait that is `age` seconds old."""
    return min(max(0.1 * age, 0.03), 2.0)


class _Watch:
    """One run that somebody waits for."""

    def __init__(self, handle: RunHandle, *, exact: bool, verify: bool, now: float) -> None:
        self.handle = handle
        self.exact = exact
        self.verify = verify
        self.since = now
        self.due = now
        self.verified = now
        self.status = RunStatus.PENDING
        self.seen = False
        self.missing = 0
        self.missing_since = now
        self.alive: RunResult | None = None
        self.callbacks: list[StatusCallback] = []
        self.waiters = 0
        self.future: asyncio.Future[RunResult] = asyncio.get_running_loop().create_future()

    @property
    def thread_id(self) -> str:
        return self.handle.thread_id

    def note(self, status: RunStatus) -> None:
        self.seen = True
        self.missing = 0
        if status is not self.status:
            self.status = status
            for callback in self.callbacks:
                callback(status)

    def end(self, result: RunResult) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # read: a waiter past its deadline no longer does


class Waiter:
    """Waits for runs of one deployment, on the shared loop."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._lookup = deployment.part(Lookup)
        self._watches: dict[tuple[str, str], _Watch] = {}
        self._ended: dict[_Watch, float] = {}
        self._poller: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._last_verification = 0.0
        # By run, oldest first, until its end was seen.
        self._started_here: dict[str, None] = {}

    def note_started(self, run_id: str) -> None:
        """Remember that this process saw a run begin: if it vanishes it was rolled back."""
        self._started_here[run_id] = None
        if len(self._started_here) > REMEMBERED_STARTS:
            del self._started_here[next(iter(self._started_here))]

    async def wait(
        self,
        handle: RunHandle,
        *,
        deadline: Deadline,
        exact: bool = True,
        on_status: StatusCallback | None = None,
    ) -> RunResult | None:
        """Wait until a run has ended and return its outcome; None when the deadline passed first.

        Args:
            handle: The run.
            deadline: The caller's.
            exact: Tell pending from running. Costs a request per interval, so only the first few
                watches of a process get it.
            on_status: Called at each change of status, on the shared loop.
        """
        watch = self._watch(handle, exact)
        if on_status is not None:
            watch.callbacks.append(on_status)
        watch.waiters += 1
        try:
            await asyncio.wait([watch.future], timeout=deadline.remaining())
            result = watch.future.result() if watch.future.done() else None
            if result is not None and result.ended_at is not None:
                self._started_here.pop(handle.run_id, None)
            return result
        finally:
            watch.waiters -= 1
            if on_status is not None:
                watch.callbacks.remove(on_status)
            if watch.waiters == 0:
                self._forget(watch)

    def status_of(self, handle: RunHandle) -> RunStatus | None:
        """The last status seen of a run that is waited for."""
        watch = self._watches.get((handle.thread_id, handle.run_id))
        return watch.status if watch is not None else None

    async def look(self, handle: RunHandle, *, deadline: Deadline) -> RunResult:
        """How a run stands now, without waiting for its end."""
        watch = _Watch(handle, exact=True, verify=True, now=time.monotonic())
        while True:
            await self._ask_by_thread([watch], deadline, look=True)
            if watch.future.done():
                return watch.future.result()
            if watch.alive is not None:
                return watch.alive
            await asyncio.sleep(MISSING_GAP_SECONDS / 4)

    def _watch(self, handle: RunHandle, exact: bool) -> _Watch:
        key = (handle.thread_id, handle.run_id)
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = _Watch(
                handle,
                exact=exact,
                verify=handle.run_id not in self._started_here,
                now=time.monotonic(),
            )
            watch.seen = handle.run_id in self._started_here
            if self._poller is None or self._poller.done():
                self._poller = asyncio.get_running_loop().create_task(self._poll_forever())
            self._wake.set()
        return watch

    def _forget(self, watch: _Watch) -> None:
        self._watches.pop((watch.thread_id, watch.handle.run_id), None)
        self._ended.pop(watch, None)
        self._wake.set()
        if not self._watches and self._poller is not None:
            # It may be waiting for a server that is not there, and nobody waits for it any more.
            self._poller.cancel()
            self._poller = None

    # -- the poller ------------------------------------------------------------------------------

    def _waiting(self) -> list[_Watch]:
        return [
            watch
            for watch in self._watches.values()
            if not watch.future.done() and watch not in self._ended
        ]

    async def _poll_forever(self) -> None:
        try:
            while self._watches:
                await self._sleep_until_due()
                started = time.monotonic()
                await self._poll(started)
                # A server that takes long to answer is asked less often.
                pause = 2 * (time.monotonic() - started)
                await asyncio.sleep(min(pause, 2.0))
        except Exception as error:  # noqa: BLE001 - goes to whoever waits
            for watch in list(self._watches.values()):
                watch.fail(error)

    async def _sleep_until_due(self) -> None:
        now = time.monotonic()
        times = [watch.due for watch in self._waiting()]
        times += list(self._ended.values())
        pause = max(0.0, min(times) - now) if times else 1.0
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout=pause)

    async def _poll(self, now: float) -> None:
        waiting = self._waiting()
        due = sorted((watch for watch in waiting if watch.due <= now), key=lambda watch: watch.due)
        exact = sum(watch.exact for watch in waiting) <= EXACT_WATCHES
        together: list[_Watch] = []
        alone: list[_Watch] = []
        for watch in due:
            by_ids = watch.handle.owns_thread and self._lookup.searches_by_ids
            (together if by_ids and not (exact and watch.exact) else alone).append(watch)
        if together and len(together) % PAGE:
            # The rest of the page costs nothing more.
            chosen = set(together)
            together += [
                watch
                for watch in waiting
                if watch.handle.owns_thread and watch not in chosen and not (exact and watch.exact)
            ][: PAGE - len(together) % PAGE]
        for watch in (*together, *alone):
            # Whom somebody waits for alone is asked for more often: its end is to be noticed at once.
            haste = EXACT_HASTE if exact and watch.exact else 1.0
            watch.due = now + interval((now - watch.since) * haste)
        for page in _pages(together, PAGE):
            await self._guard(page, self._ask_together)
        by_thread: defaultdict[str, list[_Watch]] = defaultdict(list)
        for watch in alone:
            by_thread[watch.thread_id].append(watch)
        await asyncio.gather(*(self._guard(group, self._ask) for group in by_thread.values()))
        await self._verify_one(together, now)
        await self._fetch_ended(now)

    async def _guard(self, watches: Sequence[_Watch], ask: _Ask) -> None:
        """A refusal ends the watches that were asked about, and only those."""
        try:
            await ask(watches)
        except LangGraphError as error:
            for watch in watches:
                watch.fail(error)

    # -- many threads of one run each --------------------------------------------------------------

    async def _ask_together(self, page: Sequence[_Watch]) -> None:
        by_id = {watch.thread_id: watch for watch in page}
        found = await self._lookup.threads(list(by_id), select=["thread_id", "status"])
        if found is None:
            return
        now = time.monotonic()
        for thread in found:
            watch = by_id.pop(thread["thread_id"])
            if thread["status"] == "busy":
                watch.note(RunStatus.RUNNING)
            else:
                self._ended[watch] = now + min(0.2 * (now - watch.since), 1.0)
        if by_id:
            await self._look_for_missing(list(by_id.values()))

    async def _look_for_missing(self, watches: Sequence[_Watch]) -> None:
        alive = 0
        for watch in watches:
            await self._ask_by_thread([watch], Deadline())
            alive += watch.missing == 0
        if alive == len(watches) > 1:
            # It answers for fewer threads than it was asked about.
            self._lookup.searches_by_ids = False

    async def _fetch_ended(self, now: float) -> None:
        """Fetch the outcomes of ended runs, many at a time and a bounded number of bytes."""
        while self._ended:
            waits = any(watch.handle.owns_thread for watch in self._waiting())
            held = waits and len(self._ended) < ENOUGH_TO_FETCH
            if held and min(self._ended.values()) > now:
                return
            batch = list(self._ended)[: self._lookup.fetch_size]
            await self._guard(batch, self._fetch)
            for watch in batch:
                self._ended.pop(watch, None)

    async def _fetch(self, batch: Sequence[_Watch]) -> None:
        doubtful = [watch for watch in batch if watch.verify]
        by_id = {watch.thread_id: watch for watch in batch if not watch.verify}
        found = await self._lookup.threads(list(by_id)) if by_id else []
        if found is None:
            return
        for thread in found:
            watch = by_id.pop(thread["thread_id"])
            outcome = outcomes.from_thread(watch.handle, thread)
            if outcome is None:
                doubtful.append(watch)
            else:
                watch.end(outcome)
        await asyncio.gather(
            *(self._ask_by_thread([watch], Deadline()) for watch in (*doubtful, *by_id.values()))
        )

    async def _verify_one(self, together: Sequence[_Watch], now: float) -> None:
        """Check the run behind one busy thread: after a roll back the thread may stay busy."""
        if now - self._last_verification < VERIFY_EVERY_SECONDS:
            return
        candidates = [
            watch
            for watch in together
            if not watch.future.done()
            and watch not in self._ended
            and now - watch.verified > max(5.0, (now - watch.since) / 2)
        ]
        if candidates:
            self._last_verification = now
            watch = min(candidates, key=lambda candidate: candidate.verified)
            watch.verified = now
            await self._guard([watch], self._ask)

    # -- one thread at a time ----------------------------------------------------------------------

    async def _ask(self, watches: Sequence[_Watch]) -> None:
        await self._ask_by_thread(watches, Deadline())

    async def _ask_by_thread(
        self, watches: Sequence[_Watch], deadline: Deadline, *, look: bool = False
    ) -> None:
        """Ask for runs on one thread by the thread's list of runs."""
        thread_id = watches[0].thread_id
        async with self._slots:
            newest = await self._lookup.newest_runs(thread_id, deadline)
            statuses = {run["run_id"]: outcomes.RUN_STATUSES[run["status"]] for run in newest}
            for watch in watches:
                status = statuses.get(watch.handle.run_id)
                if status is not None and not status.ended and not look:
                    watch.note(status)
                    continue
                is_newest = bool(newest) and newest[0]["run_id"] == watch.handle.run_id
                outcome = await self._lookup.outcome(
                    watch.handle, is_newest=is_newest, deadline=deadline
                )
                if outcome is None:
                    await self._note_missing(watch, deadline)
                elif outcome.status.ended:
                    watch.end(outcome)
                else:
                    watch.alive = outcome
                    watch.note(outcome.status)

    async def _note_missing(self, watch: _Watch, deadline: Deadline) -> None:
        """The run has no row. Rolled back when it was there and its thread still is; else lost."""
        seen = watch.seen or watch.handle.run_id in self._started_here
        # A server that is restarting may not have its data yet.
        now = time.monotonic()
        watch.missing_since = now if watch.missing == 0 else watch.missing_since
        watch.missing += 1
        # A run that was there is given the time that a server gets to come back.
        patience = self._lookup.patience_seconds if seen else 0.0
        lasts = now - watch.missing_since >= patience
        confirmed = watch.missing >= MISSING_CONFIRMATIONS and lasts
        watch.due = now + MISSING_GAP_SECONDS / 2
        if not seen and not confirmed:
            return
        # A thread that exists for one run has seen it.
        was_there = seen or watch.handle.owns_thread
        thread = (
            await self._deployment.thread(watch.thread_id, deadline, patient=False)
            if was_there
            else None
        )
        if thread is not None:
            watch.end(outcomes.rolled_back(watch.handle))
        elif confirmed:
            watch.end(outcomes.lost(watch.handle))


def _pages(items: Sequence[_Watch], size: int) -> Iterable[Sequence[_Watch]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
