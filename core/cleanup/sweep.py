"""Releasing what flow runs left on a deployment, for those that could not do it themselves.

Invariants:
- The deployment is asked first and Prefect after that: whatever was found has a flow run already.
- A flow run counts as gone only when Prefect says so when asked for it alone. Not being able to ask is
  an error, and nothing is released.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound

from prefect_langgraph.cleanup.find import Owned, OwnedThread, Tags, find_owned, with_runs
from prefect_langgraph.cleanup.models import SweepEntry
from prefect_langgraph.cleanup.release import ReleaseReport, release_owned
from prefect_langgraph.cleanup.verdict import FlowRunFacts, HeartbeatFacts, Left, Verdict, judge
from prefect_langgraph.logs import counted
from prefect_langgraph.ownership.heartbeat import HEARTBEAT_ATTEMPT, HEARTBEAT_SECONDS, is_heartbeat
from prefect_langgraph.ownership.tags import FLOW_RUN_ID, ROOT_FLOW_RUN_ID
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment
from prefect_langgraph.transport.paging import each

_ACTIVE = (StateType.RUNNING, StateType.CANCELLING)
_PAGE = 200  # what Prefect answers for at once, unless it was set otherwise


@dataclass(frozen=True)
class Policy:
    """How a sweep decides.

    Attributes:
        api: The hash of the Prefect API whose flow runs are swept.
        grace_seconds: How long after a flow run's end what it owns is left alone.
        waiting_grace_seconds: The same for threads that wait for a person; None keeps them.
        dry_run: True changes nothing.
    """

    api: str
    grace_seconds: float
    waiting_grace_seconds: float | None
    dry_run: bool


async def sweep_deployment(
    deployment: Deployment, policy: Policy, *, deadline: Deadline
) -> tuple[list[SweepEntry], list[str]]:
    """Release what ended flow runs of one Prefect left on a deployment.

    Returns:
        One entry per flow run, and what could not be done.

    Raises:
        DeploymentError: The deployment could not be asked.
        PrefectException: Prefect could not be asked.
    """
    everything = await find_owned(deployment, api=policy.api, deadline=deadline)
    everything = everything.where(lambda tags: FLOW_RUN_ID in tags)
    lefts, heartbeats = _lefts(everything), _heartbeats(everything.threads)
    asked = {name for left in lefts for name in (left.flow_run_id, left.root_id) if name}
    known = await flow_runs(sorted(asked))
    now = datetime.now(UTC)

    def decide(grace_seconds: float) -> dict[str, Verdict]:
        return {
            left.flow_run_id: judge(left, known, heartbeats, now=now, grace_seconds=grace_seconds)
            for left in lefts
        }

    def releases(verdicts: Mapping[str, Verdict], tags: Tags) -> bool:
        verdict = verdicts.get(tags.get(FLOW_RUN_ID, ""))
        return verdict is not None and verdict.action == "release"

    verdicts = decide(policy.grace_seconds)
    over = partial(releases, verdicts)
    unchanged_since = now - timedelta(seconds=policy.grace_seconds)
    mine = _without_recent(everything.where(over), unchanged_since)
    mine = await with_runs(deployment, mine, over, deadline=deadline)
    if policy.waiting_grace_seconds is not None:
        long_over = partial(releases, decide(policy.waiting_grace_seconds))
        late = {thread.thread_id for thread in mine.threads if long_over(thread.tags)}
        mine = replace(mine, waiting=mine.waiting - late)
    if policy.dry_run:
        report = _planned(mine)
    else:
        report = await release_owned(deployment, mine, cancel_runs=True, deadline=deadline)
    parts = mine.by(lambda tags: str(tags[FLOW_RUN_ID]))
    busy = Counter(thread.tags[FLOW_RUN_ID] for thread in everything.threads if thread.status == "busy")
    entries = [
        _entry(
            left.flow_run_id,
            known[left.flow_run_id],
            _with_busy(verdicts[left.flow_run_id], busy[left.flow_run_id]),
            parts.get(left.flow_run_id, Owned()),
            report,
            deployment.url,
        )
        for left in lefts
    ]
    return entries, list(report.failures)


def _with_busy(verdict: Verdict, number: int) -> Verdict:
    """A verdict that says what a flow run still waits for, if it is kept for that."""
    if verdict.action != "keep" or not number:
        return verdict
    return replace(verdict, reason=f"{verdict.reason}, with {counted(number, 'busy thread')}")


def _without_recent(owned: Owned, since: datetime) -> Owned:
    """Leave out finished threads that changed recently: somebody may be about to read their results."""
    return replace(
        owned,
        threads=tuple(
            thread
            for thread in owned.threads
            if thread.status == "busy" or thread.updated_at is None or thread.updated_at <= since
        ),
    )


def _lefts(owned: Owned) -> list[Left]:
    newest: dict[str, datetime | None] = {}
    roots: dict[str, str | None] = {}
    things = [
        *((thread.tags, thread.updated_at) for thread in owned.threads),
        *((cron.tags, cron.updated_at) for cron in owned.crons),
    ]
    for tags, updated_at in things:
        flow_run_id = tags[FLOW_RUN_ID]
        roots[flow_run_id] = tags.get(ROOT_FLOW_RUN_ID) or roots.get(flow_run_id)
        times = [at for at in (newest.get(flow_run_id), updated_at) if at is not None]
        newest[flow_run_id] = max(times, default=None)
    return [Left(name, roots[name], newest[name]) for name in sorted(newest)]


def _heartbeats(threads: Iterable[OwnedThread]) -> list[HeartbeatFacts]:
    return [
        HeartbeatFacts(
            flow_run_id=thread.tags[FLOW_RUN_ID],
            attempt=int(thread.tags[HEARTBEAT_ATTEMPT]),
            seconds=float(thread.tags[HEARTBEAT_SECONDS]),
            touched_at=thread.updated_at,
        )
        for thread in threads
        if is_heartbeat(thread.tags)
    ]


def _planned(owned: Owned) -> ReleaseReport:
    stay = owned.foreign | owned.waiting
    return ReleaseReport(
        crons=tuple(cron.cron_id for cron in owned.crons),
        runs=tuple(run.run_id for run in owned.runs),
        threads=tuple(
            thread.thread_id
            for thread in owned.threads
            if thread.throw_away and thread.thread_id not in stay
        ),
    )


def _entry(
    flow_run_id: str,
    facts: FlowRunFacts | None,
    verdict: Verdict,
    own: Owned,
    report: ReleaseReport,
    url: str,
) -> SweepEntry:
    crons, runs, threads = set(report.crons), set(report.runs), set(report.threads)
    ids = [thread.thread_id for thread in own.threads]
    return SweepEntry(
        flow_run_id=flow_run_id,
        flow_run_name=facts.name if facts is not None else None,
        state=facts.state if facts is not None else None,
        url=url,
        action=verdict.action,
        reason=verdict.reason,
        crons=tuple(cron.cron_id for cron in own.crons if cron.cron_id in crons),
        runs=tuple(run.run_id for run in own.runs if run.run_id in runs),
        threads=tuple(thread for thread in ids if thread in threads),
        waiting=tuple(thread for thread in ids if thread in own.waiting),
    )


# -- Prefect -------------------------------------------------------------------------------------------


async def flow_runs(ids: Sequence[str]) -> dict[str, FlowRunFacts | None]:
    """What Prefect says about flow runs; None for a flow run that it does not know.

    Raises:
        PrefectException: Prefect could not be asked.
    """
    found: dict[str, FlowRunFacts | None] = {}
    async with get_client() as client:
        for start in range(0, len(ids), _PAGE):
            found |= await _page(client, ids[start : start + _PAGE])
        # A server's own limit may shorten a page. Asked for alone, each flow run gets its answer.
        missing = [name for name in ids if name not in found]
        alone = await each(missing, lambda name: _alone(client, name))
    return found | dict(zip(missing, alone, strict=True))


async def _page(client: PrefectClient, ids: Sequence[str]) -> dict[str, FlowRunFacts | None]:
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(name) for name in ids]))
    rows = await client.read_flow_runs(flow_run_filter=wanted)
    return {
        str(row.id): _facts(row, since)
        for row, since in zip(rows, await each(rows, partial(_running_since, client)), strict=True)
    }


async def _alone(client: PrefectClient, flow_run_id: str) -> FlowRunFacts | None:
    try:
        row = await client.read_flow_run(UUID(flow_run_id))
        return _facts(row, await _running_since(client, row))
    except ObjectNotFound:
        return None


async def _running_since(client: PrefectClient, row: FlowRun) -> datetime | None:
    """When the present execution began; None when there is none."""
    state = row.state
    if state is None or state.type not in _ACTIVE:
        return None
    if state.type is StateType.RUNNING:
        return state.timestamp
    # It was running before somebody cancelled it.
    states = await client.read_flow_run_states(row.id)
    return max((one.timestamp for one in states if one.type is StateType.RUNNING), default=None)


def _facts(row: FlowRun, running_since: datetime | None) -> FlowRunFacts:
    state = row.state
    ended = state is not None and state.is_final()
    return FlowRunFacts(
        name=row.name,
        state=state.name or str(state.type) if state is not None else "without a state",
        ended=ended,
        ended_at=(row.end_time or (state.timestamp if state is not None else None)) if ended else None,
        active=state is not None and state.type in _ACTIVE,
        attempt=row.run_count,
        running_since=running_since,
    )
