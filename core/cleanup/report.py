"""What Prefect hears of releases: events for automations, lines in a flow run's log.

Invariants:
- What an automation may ask for is a label of the event's resource: triggers see no payload.
- Ids, counts and outcomes only: no input, no value.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from prefect.events import emit_event

from prefect_langgraph.cleanup.release import ReleaseReport
from prefect_langgraph.logs import LoggerOrAdapter, counted

FLOW_RUN_RELEASED = "langgraph.flow-run.released"

SWEEP_ENDED = "langgraph.sweep.ended"

NAMED = 20
"""How many ids a log line names, and an event of each kind."""


def released(flow_run_id: UUID | str, flow_run_name: str | None, report: ReleaseReport) -> None:
    """A flow run's things were given back, or not all of them."""
    emit_event(
        FLOW_RUN_RELEASED,
        resource={
            "prefect.resource.id": f"langgraph.release.{flow_run_id}",
            "prefect.resource.name": flow_run_name or str(flow_run_id),
            "langgraph.release.outcome": report.outcome,
        },
        # Said and not left to Prefect: after a kill a hook runs outside of the flow run.
        related=[
            {
                "prefect.resource.id": f"prefect.flow-run.{flow_run_id}",
                "prefect.resource.role": "flow-run",
                "prefect.resource.name": flow_run_name or str(flow_run_id),
            }
        ],
        payload={
            "outcome": report.outcome,
            "counts": {
                "crons_deleted": len(report.crons),
                "runs_cancelled": len(report.runs),
                "threads_deleted": len(report.threads),
                "runs_unfinished": len(report.unfinished),
                "threads_waiting": len(report.waiting),
                "failures": len(report.failures),
            },
            "crons_deleted": list(report.crons[:NAMED]),
            "runs_cancelled": list(report.runs[:NAMED]),
            "runs_unfinished": [run.run_id for run in report.unfinished[:NAMED]],
            "threads_waiting": list(report.waiting[:NAMED]),
        },
    )


def log_release(
    logger: LoggerOrAdapter, place: str, report: ReleaseReport, *, cancel_runs: bool
) -> None:
    """Say in a flow run's log what was given back on a deployment, and what was not."""
    logger.info("LangGraph (%s): %s", place, report)
    if report.unfinished:
        logger.warning(
            "LangGraph (%s): %s %s: %s. The sweep cancels them after its grace period; "
            "cancel_unfinished=True does so at once, detached=True leaves a run alone for good.",
            place,
            counted(len(report.unfinished), "active run"),
            "could not be cancelled" if cancel_runs else "left running",
            some([str(run) for run in report.unfinished]),
        )
    if report.waiting:
        logger.info(
            "LangGraph (%s): %s left for a person to answer: %s",
            place,
            counted(len(report.waiting), "thread"),
            some(report.waiting),
        )
    for failure in report.failures[:NAMED]:
        logger.error("LangGraph (%s): %s The sweep tries again.", place, failure)
    if len(report.failures) > NAMED:
        more = counted(len(report.failures) - NAMED, "more failure")
        logger.error("LangGraph (%s): and %s", place, more)


def some(names: Sequence[str]) -> str:
    """The first of many names."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
