"""Whether a suspended flow run is due. Pure: `now` is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from prefect_langgraph.logs import counted
from prefect_langgraph.suspension.models import ResumeAction
from prefect_langgraph.suspension.record import Record


@dataclass(frozen=True)
class Verdict:
    """What to do about a suspended flow run, and why."""

    action: ResumeAction
    reason: str


def judge(record: Record | None, left: int | None, *, now: datetime) -> Verdict:
    """Whether to resume.

    Args:
        record: What is waited for; None when the flow run has no such record.
        left: How many runs have not ended; None when a deployment could not be asked.
        now: The time.
    """
    if record is None:
        # Resuming leads to a look, and waiting would lead nowhere.
        return Verdict("resume", "its record is gone")
    if left is None:
        # The flow run could do no better: its first step is to ask the same deployment.
        return Verdict("wait", "its deployment could not be asked")
    if not left:
        return Verdict("resume", f"{_all(record.runs)} ended")
    if record.deadline is not None and record.deadline <= now:
        return Verdict("resume", f"its deadline passed with {counted(left, 'run')} on the way")
    return Verdict("wait", f"{left:,} of {counted(record.runs, 'run')} {_is(left)} on the way")


def _all(number: int) -> str:
    return "its run has" if number == 1 else f"all {number:,} runs have"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"
