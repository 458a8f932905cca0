"""How Prefect learns of releases: events for automations, lines in a flow run's log.

Invariants:
- Everything that an automation may match is a label of the event's resource: triggers see no payload.
- Only ids, counts and outcomes are reported: no input, no value.
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
"""At most this many ids are in a log line, and of each kind in an event."""


def emit_released(flow_run_id: UUID | str, flow_run_name: str | None, report: ReleaseReport) -> None:
    """Emit the event that what a flow run owned was released, or not all of it."""
    emit_event(
        FLOW_RUN_RELEASED,
        resource={
            "prefect.resource.id": f"langgraph.release.{flow_run_id}",
            "prefect.resource.name": flow_run_name or str(flow_run_id),
            "langgraph.release.outcome": report.outcome,
        },
        # Prefect would not add the flow run by itself: after a kill a hook runs outside of it.
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
    logger: LoggerOrAdapter, deployment: str, report: ReleaseReport, *, cancel_runs: bool
) -> None:
    """Log what was released on a deployment, and what was not."""
    logger.info("LangGraph (%s): %s", deployment, report)
    if report.unfinished:
        logger.warning(
            "LangGraph (%s): %s %s: %s. The sweep cancels them after its grace period; "
            "cancel_unfinished=True does so at once, detached=True leaves a run alone for good.",
            deployment,
            counted(len(report.unfinished), "active run"),
            "could not be cancelled" if cancel_runs else "left running",
            some([str(run) for run in report.unfinished]),
        )
    if report.waiting:
        logger.info(
            "LangGraph (%s): %s left for a person to answer: %s",
            deployment,
            counted(len(report.waiting), "thread"),
            some(report.waiting),
        )
    for failure in report.failures[:NAMED]:
        logger.error("LangGraph (%s): %s The sweep tries again.", deployment, failure)
    if len(report.failures) > NAMED:
        more = counted(len(report.failures) - NAMED, "more failure")
        logger.error("LangGraph (%s): and %s", deployment, more)


def some(names: Sequence[str]) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
