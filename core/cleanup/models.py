"""What a sweep found and did, as JSON."""

from __future__ import annotations

from typing import Literal

from prefect_langgraph.models import Model

SweepAction = Literal["release", "keep"]


class SweepEntry(Model):
    """What a sweep did, or with `dry_run` would do, about what one flow run left.

    Attributes:
        flow_run_id: The flow run.
        flow_run_name: Its name, or None when it is gone from Prefect.
        state: Prefect's name for its state, or None when it is gone.
        url: The deployment.
        action: "release" or "keep".
        reason: Why.
        crons: Crons deleted, or with `dry_run` to delete; none when kept, as below.
        runs: Active runs cancelled.
        threads: Throw-away threads deleted.
        waiting: Throw-away threads that stay because they wait for a person.
    """

    flow_run_id: str
    flow_run_name: str | None = None
    state: str | None = None
    url: str
    action: SweepAction
    reason: str
    crons: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


class SweepReport(Model):
    """What a sweep found and did.

    Attributes:
        dry_run: True when nothing was touched.
        grace_seconds: How long after its end a flow run's things were left alone.
        entries: One per flow run and deployment.
        failures: What could not be done, and why.

    Example:
        >>> SweepReport(dry_run=True, grace_seconds=300).released
        []
    """

    dry_run: bool
    grace_seconds: float
    entries: tuple[SweepEntry, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def released(self) -> list[SweepEntry]:
        """What was released, or would be."""
        return [entry for entry in self.entries if entry.action == "release"]

    @property
    def kept(self) -> list[SweepEntry]:
        """What was left alone."""
        return [entry for entry in self.entries if entry.action == "keep"]

    @property
    def counts(self) -> dict[str, int]:
        """How many crons, runs and threads were released, or would be, of how many flow runs."""
        found = self.released
        return {
            "flow_runs": len(found),
            "crons": sum(len(entry.crons) for entry in found),
            "runs": sum(len(entry.runs) for entry in found),
            "threads": sum(len(entry.threads) for entry in found),
        }
