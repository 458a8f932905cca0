"""One pass over all suspended flow runs: what is due is resumed, what ended meanwhile is released.

Nothing is remembered between passes but records, which never change. So any number of resumers may run
at once, on a schedule or without end, and any pass may fail: the next one finds the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event

from prefect_langgraph.cleanup.find import find_owned, find_threads
from prefect_langgraph.cleanup.release import release_flow_run
from prefect_langgraph.cleanup.report import emit_released
from prefect_langgraph.cleanup.sweep import flow_runs
from prefect_langgraph.cleanup.verdict import FlowRunFacts
from prefect_langgraph.errors import LangGraphError
from prefect_langgraph.models import RunHandle
from prefect_langgraph.ownership.heartbeat import HEARTBEAT_SECONDS, is_heartbeat
from prefect_langgraph.ownership.owner import prefect_api
from prefect_langgraph.ownership.tags import API, FLOW_RUN_ID, SUSPENDED
from prefect_langgraph.suspension import storage
from prefect_langgraph.suspension.look import unfinished
from prefect_langgraph.suspension.models import ResumeEntry, ResumeReport
from prefect_langgraph.suspension.record import Record, Target, UnknownRecordError, record_name
from prefect_langgraph.suspension.suspended import (
    RESUMER_PASSED,
    fail,
    resume,
    suspend_again,
    suspended_flow_runs,
    without_deployment,
)
from prefect_langgraph.suspension.verdict import Verdict, judge
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment
from prefect_langgraph.transport.paging import each

ASK_SECONDS = 30.0
"""How long a deployment may take to say how the runs stand; the others do not wait for it."""

RELEASE_SECONDS = 60.0

COMPLETED = "Completed"
CRASHED = "Crashed"


NO_DEPLOYMENT = "its Prefect deployment is gone, so no worker can go on with it"

Connect = Callable[[Target], Awaitable[Deployment]]
"""Finds the deployment of a target; raises a LangGraphError where there is no way to it."""


@dataclass
class _Waiting:
    """A suspended flow run, as a pass sees it."""

    row: FlowRun
    record: Record | None
    left: int | None = 0

    @property
    def key(self) -> tuple[UUID, str]:
        return self.row.id, self.record.name if self.record is not None else ""


@dataclass
class Resumer:
    """Passes over the suspended flow runs of one Prefect.

    Args:
        connect: Finds deployments.
        names: Only flow runs that wait on these blocks' deployments; None is all of them.
        dry_run: True touches nothing.
        known: Gives deployments that are looked through for what ended while suspended, beside those
            that somebody waits on. One that cannot be reached is left out.
    """

    connect: Connect
    names: Sequence[str] | None = None
    dry_run: bool = False
    known: Callable[[], Awaitable[Iterable[Deployment]]] | None = None
    _records: dict[tuple[UUID, str], Record] = field(default_factory=dict)
    _failures: list[str] = field(default_factory=list)
    _deployments: dict[str, Deployment] = field(default_factory=dict)

    async def one_pass(self) -> ResumeReport:
        """Look at every suspended flow run once.

        Raises:
            httpx.HTTPError: Prefect could not be asked.
            PrefectException: The same.
        """
        self._failures = []
        async with get_client() as client:
            rows = await suspended_flow_runs(client)
            waiting = [one for one in await each(rows, lambda row: self._read(client, row)) if one]
            mine = [one for one in waiting if self._is_mine(one.record)]
            await self._look(mine)
            entries = await self._act(client, mine)
        entries += await self._release()
        self._records = {one.key: one.record for one in waiting if one.record is not None}
        return ResumeReport(
            dry_run=self.dry_run, entries=tuple(entries), failures=tuple(self._failures)
        )

    def _is_mine(self, record: Record | None) -> bool:
        if self.names is None or record is None:
            return True
        return all(target.credentials in self.names for target in record.targets)

    # -- what is waited for ------------------------------------------------------------------------

    async def _read(self, client: PrefectClient, row: FlowRun) -> _Waiting | None:
        """A suspended flow run with its record; None when that cannot be read here."""
        state = row.state
        name = record_name(state.state_details.pause_key) if state is not None else None
        if name is None:
            return None
        try:
            record = self._records.get((row.id, name)) or await storage.load(client, row.id, name)
        except UnknownRecordError as error:
            self._failures.append(f"{row.name}: {error.message}")
            return None
        except httpx.HTTPError as error:
            self._failures.append(f"{row.name}: its record could not be read ({_kind(error)})")
            return None
        return _Waiting(row, record)

    async def _look(self, waiting: Iterable[_Waiting]) -> None:
        """Count for each flow run how many of its runs have not ended."""
        by_target: dict[tuple[str, str | None, str | None], list[tuple[_Waiting, Target]]] = {}
        for one in waiting:
            for target in one.record.targets if one.record is not None else ():
                place = (target.url, target.credentials, target.assistant)
                by_target.setdefault(place, []).append((one, target))
        await asyncio.gather(*(self._look_at(part) for part in by_target.values()))

    async def _look_at(self, part: Sequence[tuple[_Waiting, Target]]) -> None:
        """Ask one deployment about all runs that flow runs wait for there."""
        first = part[0][1]
        handles = [[*target.handles] for _, target in part]
        try:
            async with asyncio.timeout(ASK_SECONDS):
                deployment = await self.connect(first)
                self._deployments[deployment.connection.fingerprint()] = deployment
                left = await unfinished(deployment, [h for own in handles for h in own])
        except (LangGraphError, TimeoutError) as error:
            for one, _ in part:
                one.left = None
            said = error.message if isinstance(error, LangGraphError) else "no answer in time"
            whose = first.credentials or first.assistant
            self._failures.append(f"{whose} ({first.url}) could not be asked: {said}")
            return
        busy = {_ids(handle) for handle in left}
        for (one, _), own in zip(part, handles, strict=True):
            if one.left is not None:
                one.left += sum(_ids(handle) in busy for handle in own)

    # -- what is done ------------------------------------------------------------------------------

    async def _act(self, client: PrefectClient, waiting: Sequence[_Waiting]) -> list[ResumeEntry]:
        now = datetime.now(UTC)
        orphans = await without_deployment(client, [one.row for one in waiting])

        async def act(one: _Waiting) -> ResumeEntry:
            verdict = judge(one.record, one.left, now=now)
            if one.row.id in orphans:
                verdict = Verdict("fail", NO_DEPLOYMENT)
            if not self.dry_run:
                verdict = await self._carry_out(client, one, verdict)
            return _entry(one, verdict)

        return await each(waiting, act)

    async def _carry_out(self, client: PrefectClient, one: _Waiting, verdict: Verdict) -> Verdict:
        """Do what is to be done, and say what it came to."""
        try:
            if verdict.action == "resume":
                refused = await resume(client, one.row.id)
                return verdict if refused is None else Verdict("wait", refused)
            if verdict.action == "fail":
                await fail(client, one.row.id, f"Suspended, and {NO_DEPLOYMENT}.")
        except httpx.HTTPError as error:
            self._failures.append(f"{one.row.name}: Prefect could not be asked ({_kind(error)})")
            return Verdict("wait", "Prefect could not be asked")
        return verdict

    # -- what ended while it was suspended ---------------------------------------------------------

    async def _release(self) -> list[ResumeEntry]:
        """Release what flow runs own that ended while they were suspended."""
        for deployment in await self.known() if self.known is not None else ():
            self._deployments[deployment.connection.fingerprint()] = deployment
        by_address: dict[str, list[Deployment]] = {}
        for deployment in self._deployments.values():
            by_address.setdefault(deployment.url, []).append(deployment)

        async def release(same: list[Deployment]) -> list[ResumeEntry]:
            # One after the other: what several blocks see is released, and told, once.
            return [entry for deployment in same for entry in await self._release_on(deployment)]

        return [entry for part in await each(list(by_address.values()), release) for entry in part]

    async def _release_on(self, deployment: Deployment) -> list[ResumeEntry]:
        deadline = Deadline.after(RELEASE_SECONDS)
        try:
            async with asyncio.timeout(ASK_SECONDS):
                wanted = {API: prefect_api(), SUSPENDED: True}
                marks = await find_threads(deployment, wanted, deadline)
            # The deployment was asked first: whatever was found has a flow run, unless it was deleted.
            facts = await flow_runs(sorted({str(mark.tags[FLOW_RUN_ID]) for mark in marks}))
            over = [name for name, fact in facts.items() if _ended_without_hook(fact)]
            return [
                entry
                for name in over
                if (entry := await self._release_one(deployment, name, facts[name], deadline))
            ]
        except (LangGraphError, TimeoutError) as error:
            said = error.message if isinstance(error, LangGraphError) else "no answer in time"
            self._failures.append(f"{deployment.url} could not be looked through: {said}")
            return []

    async def _release_one(
        self, deployment: Deployment, flow_run_id: str, facts: FlowRunFacts | None, deadline: Deadline
    ) -> ResumeEntry | None:
        reason = f"it is {facts.state}" if facts is not None else "it is gone from Prefect"
        if facts is None and await _is_alive(deployment, flow_run_id, deadline):
            return None  # deleted while its process is at work
        if facts is not None and facts.state == CRASHED and not self.dry_run:
            async with get_client() as client:
                if await suspend_again(client, UUID(flow_run_id)):
                    return None  # the next pass looks at it
        if not self.dry_run:
            report = await release_flow_run(
                deployment, flow_run_id, cancel_runs=True, deadline=deadline
            )
            emit_released(flow_run_id, facts.name if facts is not None else None, report)
            self._failures += report.failures
            reason = f"{reason}: {report}"
        return ResumeEntry(
            flow_run_id=flow_run_id,
            flow_run_name=facts.name if facts is not None else None,
            action="release",
            reason=reason,
        )


def show_sign_of_life() -> None:
    """Tell Prefect that a pass was made."""
    emit_event(
        RESUMER_PASSED,
        resource={
            "prefect.resource.id": f"langgraph.resumer.{prefect_api()}",
            "prefect.resource.name": "resumer",
        },
    )


def _ended_without_hook(facts: FlowRunFacts | None) -> bool:
    """True of a flow run that is gone, or ended otherwise than well: a suspended one cannot complete.

    One that was resumed and failed since has run its hook; to release it again is harmless.
    """
    return facts is None or (facts.ended and facts.state != COMPLETED)


async def _is_alive(deployment: Deployment, flow_run_id: str, deadline: Deadline) -> bool:
    """True when a process of the flow run gave a sign of life lately."""
    owned = await find_owned(deployment, flow_run_id=flow_run_id, deadline=deadline)
    now = datetime.now(UTC)
    return any(
        thread.updated_at is not None
        and thread.updated_at + timedelta(seconds=float(thread.tags[HEARTBEAT_SECONDS])) > now
        for thread in owned.threads
        if is_heartbeat(thread.tags)
    )


def _ids(handle: RunHandle) -> tuple[str, str, str]:
    return handle.url, handle.thread_id, handle.run_id


def _kind(error: Exception) -> str:
    return type(error).__name__


def _entry(one: _Waiting, verdict: Verdict) -> ResumeEntry:
    record, state = one.record, one.row.state
    return ResumeEntry(
        flow_run_id=str(one.row.id),
        flow_run_name=one.row.name,
        action=verdict.action,
        reason=verdict.reason,
        runs=record.runs if record is not None else 0,
        left=one.left,
        suspended_at=state.timestamp if state is not None else None,
        deadline=record.deadline if record is not None else None,
    )
