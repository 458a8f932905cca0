"""What a sweep found and did, as JSON."""

from __future__ import annotations

from typing import Literal

from prefect_langgraph.models import Model

SweepAction = Literal["release", "keep"]


class SweepEntry(Model):
    """What a sweep did, or with `dry_run` would do, with what one flow run left behind.

    Attributes:
        flow_run_id: The flow run.
        flow_run_name: Its name, or None when Prefect does not know it any more.
        state: Prefect's name for its state, or None when Prefect does not know it any more.
        url: The deployment's address.
        action: "release" or "keep".
        reason: Why.
        crons: Crons deleted, or with `dry_run` to delete. This, `runs` and `threads` are empty with
            "keep".
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
        dry_run: True when nothing was changed.
        grace_seconds: How long after a flow run's end what it owns was left alone.
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
        """The entries that were released, or would be."""
        return [entry for entry in self.entries if entry.action == "release"]

    @property
    def kept(self) -> list[SweepEntry]:
        """The entries that were left alone."""
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
