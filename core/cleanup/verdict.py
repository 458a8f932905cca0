"""Which flow runs' things a sweep may release. Pure: `now` is passed in.

Invariants:
- Only what Prefect surely says is a reason to release: ended, or not found when asked for by itself. A
  flow run that Prefect calls running is dead only when its process showed signs of life since it is
  running, and then stopped. An older sign of life is of another execution and says nothing: between the
  two the flow run was suspended, rescheduled or retried, and its process is another one.
- What a subflow left waits for the flow run around it, which may execute the subflow again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from prefect_langgraph.cleanup.models import SweepAction


@dataclass(frozen=True)
class FlowRunFacts:
    """What Prefect says about a flow run.

    Attributes:
        name: Its name.
        state: The name of its state.
        ended: True in a final state.
        ended_at: Since when, or None when Prefect does not say.
        active: True when a process is at work on it, as far as Prefect knows.
        attempt: Which attempt it is in. A resumed flow run is in the attempt that was suspended.
        running_since: When its present execution began, or None when Prefect does not say.
    """

    name: str
    state: str
    ended: bool
    ended_at: datetime | None
    active: bool
    attempt: int
    running_since: datetime | None = None


@dataclass(frozen=True)
class LeaseFacts:
    """A lease that a flow run's process keeps, or kept."""

    flow_run_id: str
    attempt: int
    seconds: float
    touched_at: datetime | None

    @property
    def ends_at(self) -> datetime | None:
        """When it ends without another sign of life."""
        return None if self.touched_at is None else self.touched_at + timedelta(seconds=self.seconds)


@dataclass(frozen=True)
class Left:
    """What is left of one flow run.

    Attributes:
        flow_run_id: The flow run of the tags.
        root_id: The flow run around it in the same process, or None.
        touched_at: When the newest of it changed, by the deployment's clock.
    """

    flow_run_id: str
    root_id: str | None
    touched_at: datetime | None


@dataclass(frozen=True)
class Verdict:
    """Whether to release, and why."""

    action: SweepAction
    reason: str


Known = Mapping[str, FlowRunFacts | None]
"""By flow run; None for one that Prefect does not know."""


def judge(
    left: Left, known: Known, leases: Iterable[LeaseFacts], *, now: datetime, grace_seconds: float
) -> Verdict:
    """Whether what is left of a flow run is to be released.

    Args:
        left: What is left.
        known: What Prefect says about the flow run and the one around it.
        leases: All leases of both.
        now: The time.
        grace_seconds: How long since the end is too short.
    """
    leases = list(leases)
    ends: list[tuple[datetime | None, str]] = []
    for flow_run_id in dict.fromkeys(filter(None, (left.root_id, left.flow_run_id))):
        whose = "" if flow_run_id == left.flow_run_id else f"the flow run around it, {flow_run_id}, "
        facts = known[flow_run_id]
        if facts is None:
            ends.append((left.touched_at, f"{whose}is gone from Prefect"))
        elif facts.ended:
            ends.append((facts.ended_at, f"{whose}is {facts.state}"))
        else:
            died = _died_at(flow_run_id, facts, leases, now)
            if died is not None and whose:
                # A subflow runs in the process of the flow run around it.
                return _after_grace(
                    died, f"the process of {whose}gave no sign of life", now, grace_seconds
                )
            if died is None:
                return Verdict("keep", f"{whose}is {facts.state}")
            ends.append((died, f"is {facts.state} in Prefect, but its process gave no sign of life"))
    if any(end is None for end, _ in ends):
        return Verdict("keep", f"{ends[-1][1]}, and nobody knows since when")
    last, reason = max(((end, why) for end, why in ends if end is not None), key=lambda item: item[0])
    return _after_grace(last, reason, now, grace_seconds)


def _died_at(
    flow_run_id: str, facts: FlowRunFacts, leases: Iterable[LeaseFacts], now: datetime
) -> datetime | None:
    """When the last lease of this execution ended; None when one lives or there is none."""
    since = facts.running_since
    if not facts.active or since is None:
        return None
    ends = [
        lease.ends_at
        for lease in leases
        if lease.flow_run_id == flow_run_id
        and lease.attempt == facts.attempt
        and (lease.touched_at is None or lease.touched_at >= since)
    ]
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) and max(known) < now else None


def _after_grace(end: datetime, reason: str, now: datetime, grace_seconds: float) -> Verdict:
    seconds = (now - end).total_seconds()
    since = f"{reason}, {_ago(seconds)}"
    if seconds < grace_seconds:
        return Verdict("keep", f"{since}: within grace_seconds={grace_seconds:g}")
    return Verdict("release", since)


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"
