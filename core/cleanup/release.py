"""Releasing what a flow run owns: crons deleted, active runs cancelled, throw-away threads deleted.

Invariants:
- A step that fails is reported, and the others go on. Every step ends by the deadline.
- A thread on which somebody else's run is active stays, and so does one that waits for a person.
- A thread whose run could not be stopped stays too; without it nobody would find that run again.
- A release is safe to repeat, and beside another one: what no longer exists counts as released.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from prefect_langgraph.cleanup.find import (
    Owned,
    OwnedRun,
    busy_among,
    find_owned,
    is_of,
    with_runs,
)
from prefect_langgraph.errors import DeploymentError, NotFoundError
from prefect_langgraph.logs import counted
from prefect_langgraph.ownership.heartbeat import is_heartbeat
from prefect_langgraph.ownership.pruning import Pruner
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment
from prefect_langgraph.transport.paging import PAGE, each

STOP_SECONDS = 5.0
"""How long cancelled runs may take to stop before their threads are deleted anyway."""

ROUNDS = 3
"""How often a release searches for what was created meanwhile."""

_STOP_CHECK_SECONDS = 0.2


@dataclass(frozen=True)
class ReleaseReport:
    """What was released and what was not; ids only.

    Attributes:
        crons: Deleted crons.
        runs: Cancelled runs.
        threads: Deleted throw-away threads.
        unfinished: Active runs that were left alone, or could not be stopped.
        waiting: Throw-away threads that wait for a person, and stay.
        remaining: Other throw-away threads that stay.
        failures: What could not be done, and why.
    """

    crons: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()
    unfinished: tuple[OwnedRun, ...] = ()
    waiting: tuple[str, ...] = ()
    remaining: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def did_something(self) -> bool:
        """True when something was released."""
        return bool(self.crons or self.runs or self.threads)

    @property
    def outcome(self) -> str:
        """`released`, or `incomplete` when a step failed or a run is still active."""
        return "incomplete" if self.failures or self.unfinished else "released"

    def then(self, later: ReleaseReport) -> ReleaseReport:
        """This report and a later one together; what stays is taken from the later one."""
        return replace(
            later,
            crons=(*self.crons, *later.crons),
            runs=tuple(dict.fromkeys((*self.runs, *later.runs))),
            threads=(*self.threads, *later.threads),
        )

    def __str__(self) -> str:
        parts = [
            f"{counted(len(ids), word)} {done}"
            for ids, word, done in (
                (self.crons, "cron", "deleted"),
                (self.runs, "run", "cancelled"),
                (self.threads, "thread", "deleted"),
            )
            if ids
        ]
        return ", ".join(parts) or "nothing to release"


def sum_of(reports: Sequence[ReleaseReport]) -> ReleaseReport:
    """The reports of several deployments as one."""
    return ReleaseReport(
        **{
            column.name: tuple(item for report in reports for item in getattr(report, column.name))
            for column in fields(ReleaseReport)
        }
    )


async def release_flow_run(
    deployment: Deployment,
    flow_run_id: str,
    *,
    cancel_runs: bool,
    keep_finished: bool = False,
    deadline: Deadline,
) -> ReleaseReport:
    """Release everything that a flow run owns on a deployment, repeating until nothing new is found.

    Meanwhile a cron may fire, or a request of a killed process may arrive.

    Args:
        deployment: Where to release.
        flow_run_id: The flow run; its subflows in the same process are part of it.
        cancel_runs: False leaves active runs alone, and the threads by which they are found.
        keep_finished: True leaves finished runs' threads, for a second execution to adopt.
        deadline: The caller's.
    """
    owns = is_of(flow_run_id)
    report = ReleaseReport()
    for _ in range(ROUNDS):
        try:
            async with asyncio.timeout(deadline.remaining()):
                owned = await find_owned(deployment, flow_run_id=flow_run_id, deadline=deadline)
                owned = await with_runs(deployment, owned, owns, deadline=deadline)
        except (DeploymentError, TimeoutError) as error:
            return report.then(ReleaseReport(failures=(why("look for what it owns", error, deadline),)))
        done = await release_owned(
            deployment,
            owned,
            cancel_runs=cancel_runs,
            keep_finished=keep_finished,
            deadline=deadline,
        )
        report = report.then(done)
        if not done.did_something or done.failures:
            break
    return report


async def release_owned(
    deployment: Deployment,
    owned: Owned,
    *,
    cancel_runs: bool,
    keep_finished: bool = False,
    deadline: Deadline,
) -> ReleaseReport:
    """Release what was found, in steps that may fail independently.

    Args:
        deployment: Where to release.
        owned: From `with_runs`.
        cancel_runs: False leaves active runs alone, and the threads by which they are found.
        keep_finished: True leaves finished runs' threads, for a second execution to adopt.
        deadline: The caller's.
    """
    stay = owned.foreign | owned.waiting
    removable = [t for t in owned.threads if t.throw_away and t.thread_id not in stay]
    active = {mark for run in owned.runs for mark in run.found_by}
    ended = [
        thread.thread_id
        for thread in removable
        if thread.leads_to not in active and (not keep_finished or is_heartbeat(thread.tags))
    ]
    work = _Release(deployment, deadline)
    await asyncio.gather(
        work.delete_crons([cron.cron_id for cron in owned.crons]),
        work.cancel_runs(owned.runs if cancel_runs else ()),
        work.delete_threads(ended),
    )
    unfinished = [run for run in owned.runs if run.run_id not in work.stopped]
    left = {mark for run in unfinished for mark in run.found_by}
    stopped = [t.thread_id for t in removable if t.leads_to in active and t.leads_to not in left]
    await work.wait_until_stopped(stopped)
    await work.delete_threads(stopped)
    remaining = [
        thread.thread_id
        for thread in owned.threads
        if thread.throw_away and thread.thread_id not in work.deleted
    ]
    return ReleaseReport(
        crons=tuple(work.crons),
        runs=tuple(run.run_id for run in owned.runs if run.run_id in work.stopped),
        threads=tuple(work.deleted),
        unfinished=tuple(unfinished),
        waiting=tuple(thread for thread in remaining if thread in owned.waiting),
        remaining=tuple(thread for thread in remaining if thread not in owned.waiting),
        failures=tuple(work.failures),
    )


class _Release:
    """The steps of one release, what they did and what failed."""

    def __init__(self, deployment: Deployment, deadline: Deadline) -> None:
        self._deployment = deployment
        self._deadline = deadline
        self.crons: list[str] = []
        self.stopped: set[str] = set()
        self.deleted: dict[str, None] = {}
        self.failures: list[str] = []

    async def _step(self, doing: str, work: Awaitable[object]) -> bool:
        try:
            async with asyncio.timeout(self._deadline.remaining()):
                await work
        except (DeploymentError, TimeoutError) as error:
            self.failures.append(why(doing, error, self._deadline))
            return False
        return True

    async def delete_crons(self, cron_ids: Sequence[str]) -> None:
        crons = self._deployment.client.crons

        async def delete(cron_id: str) -> None:
            doing = f"delete cron {cron_id}"
            if await self._step(doing, self._unless_gone(lambda: crons.delete(cron_id), doing)):
                self.crons.append(cron_id)

        await each(cron_ids, delete)

    async def cancel_runs(self, found: Sequence[OwnedRun]) -> None:
        runs = self._deployment.client.runs

        async def cancel(run: OwnedRun) -> None:
            doing = f"cancel {run}"
            request = self._unless_gone(lambda: runs.cancel(run.thread_id, run.run_id), doing)
            if await self._step(doing, request):
                self.stopped.add(run.run_id)

        await each(found, cancel)

    async def _unless_gone(self, request: Callable[[], Awaitable[Any]], doing: str) -> None:
        # Not found: ended or deleted meanwhile, by itself or by another release.
        with contextlib.suppress(NotFoundError):
            await self._deployment.send(request, doing=doing, deadline=self._deadline)

    async def wait_until_stopped(self, thread_ids: Sequence[str]) -> None:
        """Give cancelled runs a moment to stop, so that their threads are idle when deleted."""
        left = self._deadline.remaining()
        seconds = STOP_SECONDS if left is None else min(STOP_SECONDS, left)
        deadline = Deadline.after(max(seconds, 0.001))
        try:
            async with asyncio.timeout(seconds):
                # Only the server knows when they have stopped.
                while await busy_among(self._deployment, thread_ids, deadline):  # noqa: ASYNC110
                    await asyncio.sleep(_STOP_CHECK_SECONDS)
        except (DeploymentError, TimeoutError):
            return  # their threads are deleted anyway: the server has accepted the cancellation

    async def delete_threads(self, thread_ids: Sequence[str]) -> None:
        for start in range(0, len(thread_ids), PAGE):
            page = thread_ids[start : start + PAGE]
            if await self._step(
                f"delete {counted(len(page), 'thread')}", self._deployment.part(Pruner).prune(page)
            ):
                self.deleted |= dict.fromkeys(page)


def why(doing: str, error: Exception, deadline: Deadline) -> str:
    """A failure as a sentence, without inputs or secrets."""
    if isinstance(error, DeploymentError):
        return error.message
    return f"Could not {doing}: not done within max_wait_seconds={deadline.max_wait_seconds or 0:g}."
