"""Whether a sweep may release what a flow run left behind. Pure: `now` is passed in.

Invariants:
- Only a certain answer of Prefect's is a reason to release: the flow run has ended, or was not found
  when Prefect was asked for it alone. A flow run that Prefect calls running counts as dead only if its
  process sent heartbeats in this execution and then stopped. An older heartbeat belongs to another
  execution and proves nothing: since then the flow run was suspended, rescheduled or retried, and has
  another process.
- What a subflow left is kept until its parent flow run has ended, which may execute the subflow again.
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
        ended_at: When it ended, or None when Prefect does not say.
        active: True when a process executes it, as far as Prefect knows.
        attempt: The number of its attempt. A resumed flow run is in the attempt that was suspended.
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
class HeartbeatFacts:
    """The newest heartbeat of a flow run's process.

    Attributes:
        flow_run_id: The flow run.
        attempt: The attempt that the process executes.
        seconds: How long the process counts as alive after a heartbeat.
        touched_at: When the heartbeat came, by the deployment's clock.
    """

    flow_run_id: str
    attempt: int
    seconds: float
    touched_at: datetime | None

    @property
    def ends_at(self) -> datetime | None:
        """Until when the process counts as alive if no other heartbeat comes."""
        return None if self.touched_at is None else self.touched_at + timedelta(seconds=self.seconds)


@dataclass(frozen=True)
class Left:
    """What one flow run left behind.

    Attributes:
        flow_run_id: The flow run of the tags.
        root_id: The parent flow run in the same process, or None.
        touched_at: When any of it changed last, by the deployment's clock.
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
"""Facts by flow run id; None for a flow run that Prefect does not know."""


def judge(
    left: Left,
    known: Known,
    heartbeats: Iterable[HeartbeatFacts],
    *,
    now: datetime,
    grace_seconds: float,
) -> Verdict:
    """Whether to release what a flow run left behind.

    Args:
        left: What it left.
        known: What Prefect says about the flow run and its parent.
        heartbeats: All heartbeats of both.
        now: The time.
        grace_seconds: How long what it left is kept after the end.
    """
    heartbeats = list(heartbeats)
    ends: list[tuple[datetime | None, str]] = []
    for flow_run_id in dict.fromkeys(filter(None, (left.root_id, left.flow_run_id))):
        whose = "" if flow_run_id == left.flow_run_id else f"the flow run around it, {flow_run_id}, "
        facts = known[flow_run_id]
        if facts is None:
            ends.append((left.touched_at, f"{whose}is gone from Prefect"))
        elif facts.ended:
            ends.append((facts.ended_at, f"{whose}is {facts.state}"))
        else:
            died = _died_at(flow_run_id, facts, heartbeats, now)
            if died is not None and whose:
                # A subflow runs in the process of its parent flow run.
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
    flow_run_id: str, facts: FlowRunFacts, heartbeats: Iterable[HeartbeatFacts], now: datetime
) -> datetime | None:
    """When the process of this execution died; None if it lives or never sent a heartbeat."""
    since = facts.running_since
    if not facts.active or since is None:
        return None
    ends = [
        heartbeat.ends_at
        for heartbeat in heartbeats
        if heartbeat.flow_run_id == flow_run_id
        and heartbeat.attempt == facts.attempt
        and (heartbeat.touched_at is None or heartbeat.touched_at >= since)
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
