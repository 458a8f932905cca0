"""The poller: all waits of a process on a deployment, for the price of one.

A run waits as a `_Wait`. Waits on threads that exist for one run are asked for together, up to
1,000 per request; the others, and the few that somebody waits for one by one, by their thread's list
of runs. The interval grows with the age of the wait. For the few, the server's join is held: its answer
is a hint to ask at once, and until it comes they are asked for seldom.

Invariants:
- A wait ends with a checked outcome of its own run, or stays. An answer that is missing something is
  "unknown" and is asked again; a run is lost only when its row and its thread are both confirmed gone,
  one that was there only after the connection's patience.
- A join is only a hint: that it is not answered, or answered at once, makes no difference but to when a
  question is asked.
- Every question is asked once, within a bound, beside the others. What goes wrong with it is noted for
  the waits that it was about, which are asked for again later and ever less often; it holds up no
  other wait and ends none but these.
- A page that fails is taken apart until only the wait that spoils it is asked for alone.
- Nothing transient ends a wait: each caller's own deadline does. What is not transient, or meets one
  wait while others get answers, ends it after the connection's patience.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import math
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from prefect_langgraph.errors import DeploymentError, RateLimitedError, UnreachableError
from prefect_langgraph.logs import run_logger
from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.results import RunResult
from prefect_langgraph.runs import outcomes
from prefect_langgraph.runs.lookup import PAGE, Lookup, Row
from prefect_langgraph.transport.deadline import Deadline

if TYPE_CHECKING:
    from prefect_langgraph.transport.deployment import Deployment

EXACT_WAITS = 8  # up to this many are asked for one by one, which also tells pending from running
EXACT_HASTE = 0.3  # how much slower their interval grows
HELD_PART = 4  # one of so many connections may hold a join
HELD_SECONDS, LONGEST_HELD_SECONDS = 3.0, 15.0  # between questions about a run whose join is held
HELD_WELL_SECONDS = 10.0  # a join that ends before has said nothing, and the next one is held later
_FIRST_HOLD_PAUSE, _LAST_HOLD_PAUSE = 0.25, 300.0
CONCURRENCY = 16
TROUBLED_CONCURRENCY = 4  # questions that went wrong before get no more than these
ENOUGH_TO_FETCH = 250
MISSING_CONFIRMATIONS = 3
MISSING_GAP_SECONDS = 1.0
VERIFY_EVERY_SECONDS = 1.0  # one busy thread per this long, in turn: a rolled back run stays "busy"
SPOILS_SECONDS, LONGEST_SPOILS_SECONDS = 10.0, 300.0
PARTS = 8  # into which a page that fails is taken apart
ALONE = 16  # a page of so few that fails is asked for one by one
KEEN_FAILURES = 3
PROBES = 6  # so many are asked for alone where every part of a page fails
HISTORY_FAILURES = 2  # so often it is asked for again; then what else can be read decides
QUESTION_SECONDS = 1.5
LANES = 4  # pages under way at once, where one of them hangs
LANE_SECONDS = 1.0  # after so long, a page under way holds up no other
LAST_PAUSE = 5.0
EPISODE_SECONDS = 60.0  # what goes wrong within so long is told as one
_GATHER_SECONDS = 0.005
LONGEST_RETRY_AFTER = 60.0
REMEMBERED_STARTS = 200_000

StatusCallback = Callable[[RunStatus], None]
TroubleCallback = Callable[[DeploymentError], None]
_Ask = Callable[[Sequence["_Wait"]], Awaitable[None]]
_Question = Callable[[], Awaitable[None]]


def interval(age: float) -> float:
    """Seconds until the next question about a wait that is `age` seconds old."""
    return min(max(0.1 * age, 0.03), 2.0)


def held_interval(age: float) -> float:
    """The same while the join of its run is held, should that say nothing."""
    return min(max(0.05 * age, HELD_SECONDS), LONGEST_HELD_SECONDS)


class _Wait:
    """One run that somebody waits for."""

    def __init__(self, handle: RunHandle, *, exact: bool, verify: bool, now: float) -> None:
        self.handle = handle
        self.exact = exact
        self.is_one_of_few = False
        self.is_last = False
        self.verify = verify
        self.since = now
        self.due = now
        self.verified = now
        self.status = RunStatus.PENDING
        self.seen = False
        self.missing = 0
        self.missing_since = now
        self.asking = False
        self.spoils_until = 0.0  # pages that hold it fail
        self.spoiled = 0
        self.failures = 0  # questions about it that went wrong in a row
        self.trouble_since: float | None = None
        self.last_error: DeploymentError | None = None
        self.alive: RunResult | None = None
        self.join: asyncio.Task[None] | None = None  # held, as long as it is not done
        self.join_again = now
        self.vain_joins = 0
        self.callbacks: list[StatusCallback] = []
        self.troubles: list[TroubleCallback] = []
        self.callers = 0
        self.future: asyncio.Future[RunResult] = asyncio.get_running_loop().create_future()

    @property
    def thread_id(self) -> str:
        return self.handle.thread_id

    def note(self, status: RunStatus) -> None:
        self.seen = True
        self.missing = 0
        self.answered()
        if status is not self.status:
            self.status = status
            for callback in self.callbacks:
                callback(status)

    @property
    def is_held(self) -> bool:
        return self.join is not None and not self.join.done()

    def joined(self, began: float, now: float) -> None:
        """Note that its join is held no more: ask, and hold the next one after a pause."""
        self.vain_joins = min(self.vain_joins + 1 if now - began < HELD_WELL_SECONDS else 1, 20)
        pause = min(_FIRST_HOLD_PAUSE * 2**self.vain_joins, _LAST_HOLD_PAUSE)
        self.join_again = now + pause
        if not self.failures:
            self.due = min(self.due, now)

    def asked(self, began: float, now: float) -> None:
        """Note that a question is over: when the next one is due at the earliest."""
        self.asking = False
        # A server that takes long to answer is asked less often.
        self.due = max(self.due, now + min(2 * (now - began), 2.0))
        if self.is_held and not self.failures and not self.missing:
            self.due = max(self.due, now + held_interval(now - self.since))

    def spoil(self, now: float) -> None:
        """Note that a page which holds it fails; whether it still does is tried again later."""
        self.spoils_until = now + min(SPOILS_SECONDS * 2**self.spoiled, LONGEST_SPOILS_SECONDS)
        self.spoiled = min(self.spoiled + 1, 10)

    def answered(self) -> None:
        self.failures = 0
        self.trouble_since = None

    def trouble(self, error: DeploymentError, now: float) -> None:
        """Note that a question went wrong; the next one comes later."""
        self.failures += 1
        self.last_error = error
        pause = min(0.1 * 2 ** min(self.failures, 8), LAST_PAUSE)
        asked_for = getattr(error, "retry_after", None)
        if asked_for is not None:
            pause = max(pause, min(asked_for, LONGEST_RETRY_AFTER))
        self.due = max(self.due, now + pause)
        if self.trouble_since is None:
            self.trouble_since = now
            for callback in self.troubles:
                callback(error)

    def end(self, result: RunResult) -> None:
        self.release_join()
        if not self.future.done():
            self.future.set_result(result)

    def release_join(self) -> None:
        if self.join is not None:
            self.join.cancel()

    def fail(self, error: Exception) -> None:
        self.release_join()
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # read: a waiter past its deadline no longer does


class Episode:
    """A time in which questions go wrong; each log tells of it once, however many runs it is about."""

    def __init__(self) -> None:
        self._told: set[str | None] = set()

    def is_news(self, log: str | None) -> bool:
        """True for the first that asks for a log: a flow run's, or that of no flow run."""
        new = log not in self._told
        self._told.add(log)
        return new


class Poller:
    """Waits for runs of one deployment, on the shared loop."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._lookup = deployment.part(Lookup)
        self._waits: dict[tuple[str, str], _Wait] = {}
        self._ended: dict[_Wait, float] = {}
        self._poller: asyncio.Task[None] | None = None
        self._questions: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._troubled_slots = asyncio.Semaphore(TROUBLED_CONCURRENCY)
        self._searching, self._fetching = _Lanes(), _Lanes()
        self._usual_seconds = 0.0
        self._answered = time.monotonic()  # when the server last answered a question
        self._last_verification = 0.0
        self.episode = Episode()
        self._episode_began = -math.inf
        self._started_here: dict[str, None] = {}
        self._shared: dict[str, None] = {}

    def note_started(self, run_id: str) -> None:
        """Remember that this process saw a run begin: if it vanishes it was rolled back."""
        self._started_here[run_id] = None
        if len(self._started_here) > REMEMBERED_STARTS:
            del self._started_here[next(iter(self._started_here))]

    def note_shared(self, thread_id: str) -> None:
        """Remember a thread that gets a further run: from now on its row may be about that one."""
        self._shared[thread_id] = None
        if len(self._shared) > REMEMBERED_STARTS:
            del self._shared[next(iter(self._shared))]

    def was_started_here(self, run_id: str) -> bool:
        """True of a run that this process has noted."""
        return run_id in self._started_here

    async def wait(
        self,
        handle: RunHandle,
        *,
        deadline: Deadline,
        exact: bool = True,
        on_status: StatusCallback | None = None,
        on_trouble: TroubleCallback | None = None,
    ) -> RunResult | None:
        """Wait until a run has ended and return its outcome; None when the deadline passed first.

        Args:
            handle: The run.
            deadline: The caller's.
            exact: Tell pending from running. Costs a request per interval, so only the first few
                waits of a process get it.
            on_status: Called at each change of status, on the shared loop.
            on_trouble: Called when a question goes wrong after the one before went well.

        Raises:
            DeploymentError: For longer than the connection's patience the server has refused to tell,
                or what it says cannot be read.
        """
        wait = self._wait_for(handle, exact)
        wait.callers += 1
        try:
            if on_status is not None:
                wait.callbacks.append(on_status)
            if on_trouble is not None:
                wait.troubles.append(on_trouble)
            await asyncio.wait([wait.future], timeout=deadline.remaining())
            result = wait.future.result() if wait.future.done() else None
            if result is not None and result.ended_at is not None:
                self._started_here.pop(handle.run_id, None)
            return result
        finally:
            wait.callers -= 1
            if on_status is not None:
                wait.callbacks.remove(on_status)
            if on_trouble is not None:
                wait.troubles.remove(on_trouble)
            if wait.callers == 0:
                self._forget(wait)

    def status_of(self, handle: RunHandle) -> RunStatus | None:
        """The last status seen of a run that is waited for."""
        wait = self._waits.get((handle.thread_id, handle.run_id))
        return wait.status if wait is not None else None

    async def look(
        self, handle: RunHandle, *, deadline: Deadline, patient: bool = True, last: bool = False
    ) -> RunResult:
        """How a run stands now, without waiting for its end.

        Args:
            handle: The run.
            deadline: The caller's.
            patient: True gives up after the connection's patience, False only at the deadline.
            last: True concludes from what else can be read when its history fails even once.

        Raises:
            DeploymentError: The server did not tell.
        """
        limit = deadline.sooner(self._deployment.patience()) if patient else deadline
        wait = _Wait(handle, exact=True, verify=True, now=time.monotonic())
        wait.is_last = last
        while True:
            await self._ask_alone([wait], look=True, limit=limit)
            if wait.future.done():
                return wait.future.result()
            if wait.alive is not None:
                return wait.alive
            if wait.last_error is not None and limit.passed:
                raise wait.last_error
            pause = max(wait.due - time.monotonic(), MISSING_GAP_SECONDS / 4)
            left = limit.remaining()
            await asyncio.sleep(pause if left is None else min(pause, left))

    def _wait_for(self, handle: RunHandle, exact: bool) -> _Wait:
        key = (handle.thread_id, handle.run_id)
        wait = self._waits.get(key)
        if wait is None:
            wait = self._waits[key] = _Wait(
                handle,
                exact=exact,
                verify=handle.run_id not in self._started_here,
                now=time.monotonic(),
            )
            wait.seen = handle.run_id in self._started_here
            if self._poller is None or self._poller.done():
                # In a context of its own: it belongs to no task run, whichever call waited first.
                self._poller = asyncio.get_running_loop().create_task(
                    self._poll_forever(), context=contextvars.Context()
                )
            self._wake.set()
        return wait

    def _forget(self, wait: _Wait) -> None:
        self._waits.pop((wait.thread_id, wait.handle.run_id), None)
        self._ended.pop(wait, None)
        wait.release_join()
        self._wake.set()
        if not self._waits and self._poller is not None:
            # They may wait for a server that is not there, and nobody waits for them any more.
            for task in (self._poller, *self._questions):
                task.cancel()
            self._poller = None

    # -- the poller ------------------------------------------------------------------------------

    def _waiting(self) -> list[_Wait]:
        return [
            wait
            for wait in self._waits.values()
            if not wait.future.done() and not wait.asking and wait not in self._ended
        ]

    async def _poll_forever(self) -> None:
        try:
            while self._waits:
                began = time.monotonic()
                self._ask_due(began)
                # Whatever happens meanwhile is seen to together.
                await asyncio.sleep(max(_GATHER_SECONDS, 2 * (time.monotonic() - began)))
                await self._sleep_until_due()
        except Exception as error:  # noqa: BLE001 - goes to all callers
            for wait in list(self._waits.values()):
                wait.fail(self._typed(error))

    def _tells_alone(self, wait: _Wait) -> bool:
        """True when the thread's row is about this run and no other, as far as this process knows."""
        return wait.handle.owns_thread and wait.thread_id not in self._shared

    def _ways(self, now: float) -> tuple[list[_Wait], list[_Wait]]:
        """Those to ask for together, and those to ask for by their threads."""
        exact = sum(wait.exact and not wait.future.done() for wait in self._waits.values())
        each = exact <= EXACT_WAITS
        together: list[_Wait] = []
        alone: list[_Wait] = []
        for wait in self._waiting():
            by_ids = (
                self._tells_alone(wait) and wait.spoils_until <= now and self._lookup.searches_by_ids
            )
            (together if by_ids and not (each and wait.exact) else alone).append(wait)
            # A run that a caller waits for alone is asked for more often, to notice its end at once.
            wait.is_one_of_few = each and wait.exact
        return together, alone

    async def _sleep_until_due(self) -> None:
        now = time.monotonic()
        together, alone = self._ways(now)
        times = [wait.due for wait in alone]
        if together:
            times.append(max(min(wait.due for wait in together), self._searching.free_at()))
        if self._ended:
            times.append(max(min(self._ended.values()), self._fetching.free_at()))
        pause = min(max(0.0, min(times) - now), LAST_PAUSE) if times else LAST_PAUSE
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout=pause)
        self._wake.clear()

    def _ask_due(self, now: float) -> None:
        """Ask about whatever is due. Nothing here waits for an answer."""
        together, alone = self._ways(now)
        self._hold_joins(alone, now)
        by_thread: defaultdict[str, list[_Wait]] = defaultdict(list)
        for wait in alone:
            if wait.due <= now:
                by_thread[wait.thread_id].append(wait)
        for group in by_thread.values():
            self._begin(group, partial(self._ask_alone, group), now)
        if self._searching.free_at() <= now and (page := self._page(together, now)):
            self._begin(page, partial(self._searching.run, partial(self._ask_pages, page)), now)
        self._verify_one(together, now)
        if self._ended and self._fetching.free_at() <= now:
            self._fetch_ended(now)

    def _hold_joins(self, alone: Sequence[_Wait], now: float) -> None:
        """Hold the joins of the few, as many as leave connections for the questions."""
        held = sum(wait.is_held for wait in self._waits.values())
        room = min(self._deployment.connection.max_connections // HELD_PART, EXACT_WAITS) - held
        for wait in [
            wait for wait in alone if wait.is_one_of_few and wait.join_again <= now and not wait.is_held
        ]:
            if room <= 0:
                return
            room -= 1
            if wait.due == wait.since and not wait.verify:
                # Nobody has asked yet, and a run that was just started has not ended.
                wait.due = now + HELD_SECONDS
            wait.join = asyncio.get_running_loop().create_task(self._hold_join(wait, now))

    async def _hold_join(self, wait: _Wait, began: float) -> None:
        await self._lookup.hint_of_end(wait.handle)
        wait.joined(began, time.monotonic())
        self._wake.set()

    def _page(self, together: Sequence[_Wait], now: float) -> list[_Wait]:
        """Those that are due, and as many others as their pages hold: these cost nothing more."""
        due = sorted((wait for wait in together if wait.due <= now), key=lambda wait: wait.due)
        chosen = set(due)
        room = -len(due) % PAGE
        calm = (wait for wait in together if wait not in chosen and not wait.failures)
        return due + list(itertools.islice(calm, room))

    def _begin(self, waits: Sequence[_Wait], question: _Question, now: float) -> None:
        """Ask a question beside all others; its waits are asked about again when it is over."""
        for wait in waits:
            wait.asking = True
            haste = EXACT_HASTE if wait.is_one_of_few else 1.0
            wait.due = now + interval((now - wait.since) * haste)

        async def ask() -> None:
            try:
                await question()
            finally:
                over = time.monotonic()
                for wait in waits:
                    wait.asked(now, over)
                self._wake.set()

        task = asyncio.get_running_loop().create_task(ask())
        self._questions.add(task)
        task.add_done_callback(self._questions.discard)

    async def _guarded(self, waits: Sequence[_Wait], ask: _Ask) -> DeploymentError | None:
        """Ask; what goes wrong is returned as an error of this package."""
        began = time.monotonic()
        try:
            await ask(waits)
        except Exception as error:  # noqa: BLE001 - whatever it is, it reaches its callers
            return error if isinstance(error, DeploymentError) else self._typed(error)
        self._answered = time.monotonic()
        self._usual_seconds = max(self._answered - began, 0.9 * self._usual_seconds)
        return None

    def _typed(self, error: Exception) -> DeploymentError:
        # No text: it may hold whatever the server said.
        url = self._deployment.url
        return DeploymentError(
            f"The answer of {url} about a run cannot be read ({type(error).__name__}).", url=url
        )

    def _note_trouble(self, waits: Sequence[_Wait], error: DeploymentError) -> None:
        """Ask about these again later, and end those of which it is to be expected no more."""
        now = time.monotonic()
        patience = self._deployment.connection.patience_seconds
        calm = all(wait.trouble_since is None for wait in self._waits.values())
        if calm and now - self._episode_began > EPISODE_SECONDS:
            self.episode, self._episode_began = Episode(), now
            run_logger().warning("%s; trying again", error)
        for wait in waits:
            wait.trouble(error, now)
            since = wait.trouble_since if wait.trouble_since is not None else now
            # The server answers others, so it is about this run.
            own = is_about_it(error) and self._answered > since + patience / 2
            if now - since >= patience and (own or not is_outage(error)):
                wait.fail(error)

    # -- many threads of one run each --------------------------------------------------------------

    async def _ask_pages(self, waits: Sequence[_Wait]) -> None:
        for page in _pages(waits, PAGE):
            await self._ask_page(page, self._ask_together)

    async def _ask_page(self, page: Sequence[_Wait], ask: _Ask) -> None:
        error = await self._guarded(page, ask)
        if error is not None:
            await self._take_apart(page, ask, error)

    async def _take_apart(self, page: Sequence[_Wait], ask: _Ask, error: DeploymentError) -> None:
        """After a page failed: ask for its parts, until what spoils it is alone."""
        if not may_be_one(error):
            self._note_trouble(page, error)
            return
        if len(page) == 1:
            page[0].spoil(time.monotonic())
            await self._ask_alone(page)
            return
        parts = list(_pages(page, 1 if len(page) <= ALONE else -(-len(page) // PARTS)))
        errors = await asyncio.gather(*(self._guarded(part, ask) for part in parts))
        failed = [(part, wrong) for part, wrong in zip(parts, errors, strict=True) if wrong is not None]
        if len(failed) == len(parts) > 1:
            # That looks like the server, unless it answers for some of them alone.
            if len(page) > ALONE:
                probes = random.sample(list(page), PROBES)
                alone = await asyncio.gather(*(self._guarded([wait], ask) for wait in probes))
                well = any(wrong is None for wrong in alone)
            else:
                well = min(wait.failures for wait in page) >= KEEN_FAILURES
            if not well:
                # Should it be nearly all of the waits, they are found bit by bit.
                keen = min(wait.failures for wait in page) >= KEEN_FAILURES
                failed = random.sample(failed, 1) if keen else []
                self._note_trouble(page, error)
        await asyncio.gather(*(self._take_apart(part, ask, wrong) for part, wrong in failed))

    async def _ask_together(self, page: Sequence[_Wait]) -> None:
        by_id = {wait.thread_id: wait for wait in page}
        found = await self._lookup.threads(
            list(by_id), select=["thread_id", "status"], limit=self._bound(page)
        )
        if found is None:
            return
        now = time.monotonic()
        for thread in found:
            wait = by_id.pop(thread["thread_id"])
            if thread["status"] == "busy":
                wait.note(RunStatus.RUNNING)
            else:
                wait.answered()
                self._ended[wait] = now + min(0.2 * (now - wait.since), 1.0)
        if by_id:
            await self._look_for_missing(list(by_id.values()))

    async def _look_for_missing(self, waits: Sequence[_Wait]) -> None:
        await asyncio.gather(*(self._ask_alone([wait]) for wait in waits))
        if len(waits) > 1 and all(not wait.missing and not wait.failures for wait in waits):
            # It answers for fewer threads than it was asked about.
            self._lookup.pause_search("answers for fewer threads than it is asked about")

    def _fetch_ended(self, now: float) -> None:
        """Fetch the outcomes of ended runs, many at a time and a bounded number of bytes."""
        for wait in [wait for wait in self._ended if wait.future.done()]:
            del self._ended[wait]
        more_to_come = any(
            self._tells_alone(wait) and wait not in self._ended and not wait.future.done()
            for wait in self._waits.values()
        )
        held = more_to_come and len(self._ended) < ENOUGH_TO_FETCH
        if not self._ended or (held and min(self._ended.values()) > now):
            return
        batch = list(self._ended)[: self._lookup.fetch_size]
        for wait in batch:
            del self._ended[wait]
        ask = partial(self._ask_page, batch, self._fetch)
        self._begin(batch, partial(self._fetching.run, ask), now)

    async def _fetch(self, batch: Sequence[_Wait]) -> None:
        doubtful = [wait for wait in batch if wait.verify]
        by_id = {wait.thread_id: wait for wait in batch if not wait.verify}
        found = await self._lookup.threads(list(by_id), limit=self._bound(batch)) if by_id else []
        for thread in found or ():
            wait = by_id.pop(thread["thread_id"])
            outcome = _outcome_of(wait.handle, thread) if self._tells_alone(wait) else None
            if outcome is None:
                doubtful.append(wait)
            else:
                wait.end(outcome)
        await asyncio.gather(*(self._ask_alone([wait]) for wait in (*doubtful, *by_id.values())))

    def _verify_one(self, together: Sequence[_Wait], now: float) -> None:
        """Check the run behind one busy thread: after a roll back the thread may stay busy."""
        if now - self._last_verification < VERIFY_EVERY_SECONDS:
            return
        candidates = [
            wait
            for wait in together
            if not wait.asking and now - wait.verified > max(5.0, (now - wait.since) / 2)
        ]
        if candidates:
            self._last_verification = now
            wait = min(candidates, key=lambda candidate: candidate.verified)
            wait.verified = now
            self._begin([wait], partial(self._ask_alone, [wait]), now)

    # -- one thread at a time ----------------------------------------------------------------------

    async def _ask_alone(
        self, waits: Sequence[_Wait], *, look: bool = False, limit: Deadline | None = None
    ) -> None:
        """Ask for runs on one thread by the thread's list of runs, then for what those left that ended.

        Args:
            waits: All on one thread.
            look: True concludes in any case, also of a run that goes on.
            limit: The caller's, when there is one.
        """
        newest: list[Row] = []

        async def ask_for_list(_: Sequence[_Wait]) -> None:
            found = await self._lookup.newest_runs_told(
                waits[0].thread_id, self._bound(waits, limit), once=True
            )
            newest.extend(found)

        async def ask_for_run(one: Sequence[_Wait]) -> None:
            await self._ask_for_outcome(one[0], newest, self._bound(one, limit))

        async with self._slots_for(waits):
            error = await self._guarded(waits, ask_for_list)
        if error is not None:
            self._note_trouble(waits, error)
            return
        statuses = {run["run_id"]: outcomes.RUN_STATUSES.get(run["status"]) for run in newest}

        async def conclude(wait: _Wait) -> None:
            status = statuses.get(wait.handle.run_id)
            if status is not None and not status.ended and not look:
                wait.note(status)
                return
            async with self._slots_for([wait]):
                error = await self._guarded([wait], ask_for_run)
            if error is not None:
                self._note_trouble([wait], error)

        await asyncio.gather(*(conclude(wait) for wait in waits))

    def _slots_for(self, waits: Sequence[_Wait]) -> asyncio.Semaphore:
        troubled = any(wait.failures for wait in waits)
        return self._troubled_slots if troubled else self._slots

    def _bound(self, waits: Sequence[_Wait], limit: Deadline | None = None) -> Deadline:
        """How long a question may take: some times what is usual, more after it went wrong."""
        failures = min(max(wait.failures for wait in waits), 8)
        seconds = max(QUESTION_SECONDS, 8 * self._usual_seconds) * 2**failures
        seconds = min(seconds, self._deployment.connection.timeout_seconds)
        bound = Deadline.after(seconds)
        return bound if limit is None else bound.sooner(limit)

    async def _ask_for_outcome(self, wait: _Wait, newest: Sequence[Row], bound: Deadline) -> None:
        outcome = await self._lookup.outcome(
            wait.handle,
            newest,
            deadline=bound,
            history_fails=wait.is_last or wait.failures >= HISTORY_FAILURES,
        )
        if outcome is None:
            await self._note_missing(wait, bound)
        elif outcome.status.ended:
            wait.end(outcome)
        else:
            wait.alive = outcome
            wait.note(outcome.status)

    async def _note_missing(self, wait: _Wait, bound: Deadline) -> None:
        """The run has no row. Rolled back when it was there and its thread still is; else lost."""
        seen = wait.seen or wait.handle.run_id in self._started_here
        # A server that is restarting may not have its data yet.
        now = time.monotonic()
        wait.missing_since = now if wait.missing == 0 else wait.missing_since
        wait.missing += 1
        wait.answered()
        # A run that was there is given the time that a server gets to come back.
        patience = self._lookup.patience_seconds if seen else 0.0
        confirmed = wait.missing >= MISSING_CONFIRMATIONS and now - wait.missing_since >= patience
        wait.due = now + MISSING_GAP_SECONDS / 2
        if not seen and not confirmed:
            return
        # A thread that exists for one run has seen it.
        was_there = seen or wait.handle.owns_thread
        if was_there and await self._deployment.thread(wait.thread_id, bound, once=True) is not None:
            wait.end(outcomes.rolled_back(wait.handle))
        elif confirmed:
            wait.end(outcomes.lost(wait.handle))


class _Lanes:
    """Pages under way: one, unless it hangs; and the pause after one."""

    def __init__(self) -> None:
        self._begun: dict[object, float] = {}
        self._pause_until = 0.0

    def free_at(self) -> float:
        """When the next page may begin."""
        if len(self._begun) >= LANES:
            return math.inf
        return max((began + LANE_SECONDS for began in self._begun.values()), default=self._pause_until)

    async def run(self, question: _Question) -> None:
        """Ask about a page."""
        lane, began = object(), time.monotonic()
        self._begun[lane] = began
        try:
            await question()
        finally:
            del self._begun[lane]
            over = time.monotonic()
            self._pause_until = over + min(2 * (over - began), 2.0)


def is_outage(error: DeploymentError) -> bool:
    """True for what a server does that is away or overloaded: it may last."""
    return isinstance(error, UnreachableError | RateLimitedError)


def is_about_it(error: DeploymentError) -> bool:
    """True for an outage that may well be of one run only, as long as others get answers."""
    return isinstance(error, UnreachableError) and (error.status_code == 500 or error.unreadable)


def may_be_one(error: DeploymentError) -> bool:
    """True when one of many that were asked about may be why the answer failed."""
    if isinstance(error, UnreachableError):
        return error.status_code == 500 or error.silent or error.unreadable
    return not isinstance(error, RateLimitedError)


def _outcome_of(handle: RunHandle, thread: Row) -> RunResult | None:
    try:
        return outcomes.from_thread(handle, thread)
    except Exception:  # noqa: BLE001 - a row as no server should answer: the run's own row decides
        return None


def _pages(items: Sequence[_Wait], size: int) -> Iterable[Sequence[_Wait]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
