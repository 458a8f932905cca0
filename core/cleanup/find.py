"""Finding what a flow run owns on a deployment.

Everything found carries the tags that were searched for: each row is checked here, so that a server
that ignores a filter never makes somebody else's threads, crons or runs ours. `release` releases it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from langgraph_sdk.schema import CronSelectField, RunSelectField, RunStatus, ThreadSelectField
from prefect.logging import get_logger

from prefect_langgraph.errors import DeploymentError, NotFoundError
from prefect_langgraph.models import RunHandle
from prefect_langgraph.models import RunStatus as Outcome
from prefect_langgraph.ownership.tags import (
    API,
    CLAIM,
    FLOW_RUN_ID,
    KEY,
    NO_ANSWER,
    OWNS_THREAD,
    ROOT_FLOW_RUN_ID,
    TARGET_THREAD,
)
from prefect_langgraph.runs import outcomes
from prefect_langgraph.runs.lookup import Lookup
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment
from prefect_langgraph.transport.paging import PAGE, each, pages

T = TypeVar("T")

S = TypeVar("S")

Tags = Mapping[str, Any]

Row = Mapping[str, Any]

_NO_CRONS = (403, 404, 501)  # forbidden by the server's own rules, older than crons, or left out

# Pending first: a run that begins meanwhile is then seen twice rather than never.
_ACTIVE: tuple[RunStatus, ...] = ("pending", "running")

_THREAD_FIELDS: list[ThreadSelectField] = ["thread_id", "status", "metadata", "updated_at"]

_CRON_FIELDS: list[CronSelectField] = ["cron_id", "thread_id", "metadata", "updated_at"]

_RUN_FIELDS: list[RunSelectField] = ["run_id", "status", "metadata", "created_at"]


@dataclass(frozen=True)
class OwnedThread:
    """A thread with an owner's tags: a throw-away thread, a claim thread, or a caller's own."""

    thread_id: str
    status: str
    tags: Tags = field(repr=False)
    updated_at: datetime | None = None

    @property
    def throw_away(self) -> bool:
        """True when it is released with its owner."""
        return self.tags.get(OWNS_THREAD) is True

    @property
    def target(self) -> str | None:
        """The caller's thread on which a claim's run is; None for a thread that is not a claim."""
        return self.tags.get(TARGET_THREAD)

    @property
    def leads_to(self) -> str:
        """One of the `found_by` of the run for which this thread exists."""
        return self.thread_id if self.target is None else _mark(self.target, self.tags)


@dataclass(frozen=True)
class OwnedCron:
    """A cron with an owner's tags."""

    cron_id: str
    thread_id: str | None
    tags: Tags = field(repr=False)
    updated_at: datetime | None = None


@dataclass(frozen=True)
class OwnedRun:
    """An active run with an owner's tags.

    Attributes:
        run_id: The run.
        thread_id: Its thread.
        tags: Its metadata, which includes what it inherited from its thread.
        first: True when it is known to be the first run of its thread.
    """

    run_id: str
    thread_id: str
    tags: Tags = field(repr=False)
    first: bool = False

    @property
    def found_by(self) -> frozenset[str]:
        """The `leads_to` that a thread which exists for this run may have."""
        return frozenset({self.thread_id, _mark(self.thread_id, self.tags)})

    def __str__(self) -> str:
        return f"run {self.run_id} on thread {self.thread_id}"


def _mark(thread_id: str, tags: Tags) -> str:
    """What distinguishes a run on a caller's thread from the other runs there."""
    return f"{thread_id} {tags.get(KEY) or tags.get(CLAIM)}"


@dataclass(frozen=True)
class Owned:
    """Everything that was found.

    Attributes:
        threads: Threads of every kind.
        crons: Crons.
        runs: Active runs. Empty until `with_runs`.
        foreign: Threads on which somebody else's run is active.
        waiting: Throw-away threads that wait for a person, and stay.
    """

    threads: tuple[OwnedThread, ...] = ()
    crons: tuple[OwnedCron, ...] = ()
    runs: tuple[OwnedRun, ...] = ()
    foreign: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()

    def where(self, owns: Callable[[Tags], bool]) -> Owned:
        """Only the part for whose tags `owns` is true."""
        return self.by(owns).get(True, Owned())

    def by(self, name: Callable[[Tags], S]) -> dict[S, Owned]:
        """All of it, in parts by what `name` returns for the tags."""
        threads: dict[S, list[OwnedThread]] = {}
        crons: dict[S, list[OwnedCron]] = {}
        runs: dict[S, list[OwnedRun]] = {}
        for thread in self.threads:
            threads.setdefault(name(thread.tags), []).append(thread)
        for cron in self.crons:
            crons.setdefault(name(cron.tags), []).append(cron)
        for run in self.runs:
            runs.setdefault(name(run.tags), []).append(run)
        return {
            part: replace(
                self,
                threads=tuple(threads.get(part, ())),
                crons=tuple(crons.get(part, ())),
                runs=tuple(runs.get(part, ())),
            )
            for part in {**threads, **crons, **runs}
        }


def is_of(flow_run_id: str) -> Callable[[Tags], bool]:
    """A test that is true for tags of a flow run and of its subflows in the same process."""
    return lambda tags: flow_run_id in (tags.get(FLOW_RUN_ID), tags.get(ROOT_FLOW_RUN_ID))


async def find_owned(
    deployment: Deployment,
    *,
    flow_run_id: str | None = None,
    api: str | None = None,
    deadline: Deadline,
) -> Owned:
    """The threads and crons of a flow run with its subflows, or of everything in one Prefect.

    Args:
        deployment: Where to search.
        flow_run_id: The flow run. Give exactly one of this and `api`.
        api: The hash of a Prefect API, see `ownership.owner.prefect_api`.
        deadline: The caller's.

    Raises:
        DeploymentError: The server could not be asked.
    """
    if (flow_run_id is None) == (api is None):
        raise ValueError("give flow_run_id or api")
    names = (API,) if api is not None else (FLOW_RUN_ID, ROOT_FLOW_RUN_ID)
    wanted = [{name: api or flow_run_id} for name in names]
    threads, crons = await asyncio.gather(
        asyncio.gather(*(find_threads(deployment, tags, deadline) for tags in wanted)),
        asyncio.gather(*(_crons(deployment, tags, deadline) for tags in wanted)),
    )
    return Owned(
        threads=tuple({row.thread_id: row for part in threads for row in part}.values()),
        crons=tuple({row.cron_id: row for part in crons for row in part}.values()),
    )


async def find_threads(deployment: Deployment, tags: Tags, deadline: Deadline) -> list[OwnedThread]:
    """The threads that carry these tags, the oldest first."""
    rows = await _all_rows(
        deployment,
        # In the order of creation, newcomers do not move the pages.
        partial(
            deployment.client.threads.search,
            metadata=dict(tags),
            sort_by="created_at",
            sort_order="asc",
        ),
        "thread_id",
        doing="look for the flow run's threads",
        deadline=deadline,
        select=_THREAD_FIELDS,
    )
    return [
        OwnedThread(row["thread_id"], row["status"], metadata, _time(row.get("updated_at")))
        for row in rows
        if tags.items() <= (metadata := row.get("metadata") or {}).items()
    ]


async def _crons(deployment: Deployment, tags: Tags, deadline: Deadline) -> list[OwnedCron]:
    try:
        rows = await _all_rows(
            deployment,
            partial(deployment.client.crons.search, metadata=dict(tags)),
            "cron_id",
            doing="look for the flow run's crons",
            deadline=deadline,
            select=_CRON_FIELDS,
        )
    except DeploymentError as error:
        if error.status_code not in _NO_CRONS:
            raise
        # Where nobody may search for crons, nobody could create one either.
        get_logger("langgraph").debug("%s has no crons here (%d)", deployment.url, error.status_code)
        return []
    return [
        OwnedCron(row["cron_id"], row.get("thread_id"), metadata, _time(row.get("updated_at")))
        for row in rows
        if tags.items() <= (metadata := row.get("metadata") or {}).items()
    ]


async def _all_rows(
    deployment: Deployment,
    search: Callable[..., Awaitable[Any]],
    name: str,
    *,
    doing: str,
    deadline: Deadline,
    select: Sequence[str],
) -> list[Row]:
    """All pages, read before anything is deleted, since a deletion moves the pages."""
    options = {"select": select}
    found = pages(deployment, search, name, doing=doing, deadline=deadline, options=options)
    return [row async for page in found for row in page]


def _time(value: Any) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else None


async def with_runs(
    deployment: Deployment, owned: Owned, owns: Callable[[Tags], bool], *, deadline: Deadline
) -> Owned:
    """Complete what was found by the active runs and by the threads that wait for a person.

    Args:
        deployment: Where to search.
        owned: From `find_owned`.
        owns: Whether a run with this metadata is the owner's.
        deadline: The caller's.
    """
    tagged = {thread.thread_id: thread for thread in owned.threads}
    targets = {thread.target for thread in owned.threads} | {cron.thread_id for cron in owned.crons}
    shared = sorted(target for target in targets if target is not None and target not in tagged)
    busy = [thread.thread_id for thread in owned.threads if thread.status == "busy"]
    busy += await busy_among(deployment, shared, deadline)

    async def active_on(thread_id: str) -> list[OwnedRun]:
        # A throw-away thread has few runs; a caller's may have a long history.
        few = thread_id in tagged and tagged[thread_id].throw_away
        parts = [None] if few else _ACTIVE
        return [run for status in parts for run in await _runs(deployment, thread_id, status, deadline)]

    found = await each(busy, active_on)
    runs = list({run.run_id: run for part in found for run in part}.values())
    is_ours = _ours(owned, owns)
    ours = {run.run_id for run in runs if is_ours(run)}
    interrupted = [
        thread.thread_id
        for thread in owned.threads
        if thread.throw_away and thread.status == "interrupted" and NO_ANSWER not in thread.tags
    ]
    return replace(
        owned,
        runs=tuple(run for run in runs if run.run_id in ours),
        foreign=frozenset(run.thread_id for run in runs if run.run_id not in ours),
        waiting=await _waiting(deployment, interrupted, deadline),
    )


def _ours(owned: Owned, owns: Callable[[Tags], bool]) -> Callable[[OwnedRun], bool]:
    """A test for the owner's runs. Tags do not suffice: a run inherits those of its thread."""
    tagged = {thread.thread_id: thread for thread in owned.threads}
    led_to = {thread.leads_to for thread in owned.threads if thread.target is not None}
    crons = {cron.tags[KEY] for cron in owned.crons if KEY in cron.tags}

    def is_ours(run: OwnedRun) -> bool:
        thread = tagged.get(run.thread_id)
        if not owns(run.tags):
            return False
        if thread is None or any(run.tags.get(k) != thread.tags.get(k) for k in (KEY, CLAIM)):
            return True  # the tags are its own
        made_for_it = thread.throw_away or thread.tags.get(KEY) in crons
        return (made_for_it and run.first) or bool(led_to & run.found_by)

    return is_ours


async def _runs(
    deployment: Deployment, thread_id: str, status: RunStatus | None, deadline: Deadline
) -> list[OwnedRun]:
    """The active runs of a thread, or those of one active status."""
    try:
        rows = await _all_rows(
            deployment,
            partial(deployment.client.runs.list, thread_id, status=status),
            "run_id",
            doing=f"look for runs on thread {thread_id}",
            deadline=deadline,
            select=_RUN_FIELDS,
        )
    except NotFoundError:
        return []  # deleted meanwhile, with its runs
    first = min((row["created_at"] for row in rows), default=None) if status is None else None
    return [
        OwnedRun(row["run_id"], thread_id, row.get("metadata") or {}, row["created_at"] == first)
        for row in rows
        if row["status"] in _ACTIVE
    ]


async def busy_among(deployment: Deployment, ids: Sequence[str], deadline: Deadline) -> list[str]:
    """Which of these threads have an active run; all of them where the server cannot filter by id."""
    busy: list[str] = []
    for start in range(0, len(ids), PAGE):
        page = ids[start : start + PAGE]
        rows = await _bounded(
            deployment.part(Lookup).threads(page, select=["thread_id", "status"]), deadline
        )
        busy += page if rows is None else [r["thread_id"] for r in rows if r["status"] == "busy"]
    return busy


async def _waiting(deployment: Deployment, ids: Sequence[str], deadline: Deadline) -> frozenset[str]:
    """Which of these interrupted threads wait for a person; the runs of the others were cancelled."""
    waiting: set[str] = set()
    start = 0
    while start < len(ids):
        page = ids[start : start + deployment.part(Lookup).fetch_size]
        start += len(page)
        rows = await _bounded(deployment.part(Lookup).threads(page), deadline)
        if rows is None:
            asked = await each(page, lambda thread: deployment.thread(thread, deadline))
            rows = [row for row in asked if row is not None]
        waiting |= {row["thread_id"] for row in rows if _waits(row)}
    return frozenset(waiting)


def _waits(row: Row) -> bool:
    handle = RunHandle(run_id="", thread_id=row["thread_id"], assistant_id="", url="")
    result = outcomes.from_thread(handle, row)
    return result is not None and result.status is Outcome.INTERRUPTED


async def _bounded(step: Awaitable[T], deadline: Deadline) -> T:
    async with asyncio.timeout(deadline.remaining()):
        return await step
