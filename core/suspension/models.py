"""What a pass of the resumer reports."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from prefect_langgraph.models import Model

ResumeAction = Literal["resume", "wait", "release", "fail"]


class ResumeEntry(Model):
    """What was done, or with `dry_run` would be, about one flow run.

    Attributes:
        flow_run_id: The flow run.
        flow_run_name: Its name, or None when it is gone from Prefect.
        action: "resume"; "wait" leaves it suspended; "release" gives back what a flow run owned that
            was cancelled, failed or deleted while it was suspended; "fail" ends one that no process can
            go on with, since its Prefect deployment is gone.
        reason: Why.
        runs: How many runs it waits for.
        left: How many of them have not ended; None when they could not be asked for.
        suspended_at: Since when it is suspended.
        deadline: When it is resumed in any case; None is never.
    """

    flow_run_id: str
    flow_run_name: str | None = None
    action: ResumeAction
    reason: str
    runs: int = 0
    left: int | None = None
    suspended_at: datetime | None = None
    deadline: datetime | None = None


class ResumeReport(Model):
    """What a pass over the suspended flow runs found and did.

    Attributes:
        dry_run: True when nothing was touched.
        entries: One per flow run.
        failures: What could not be done, and why.

    Example:
        >>> ResumeReport(dry_run=True).resumed
        []
    """

    dry_run: bool
    entries: tuple[ResumeEntry, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def resumed(self) -> list[ResumeEntry]:
        """What was resumed, or would be."""
        return [entry for entry in self.entries if entry.action == "resume"]

    @property
    def waiting(self) -> list[ResumeEntry]:
        """What stays suspended."""
        return [entry for entry in self.entries if entry.action == "wait"]

    @property
    def released(self) -> list[ResumeEntry]:
        """What ended while it was suspended, and was released, or would be."""
        return [entry for entry in self.entries if entry.action in ("release", "fail")]
