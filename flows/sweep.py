"""`sweep`: a flow that releases what flow runs own, where their finalizers could not."""

# No annotations from __future__: `.serve()` pickles a flow without the names of its annotations.

from collections.abc import Sequence

from prefect import flow
from prefect.artifacts import acreate_table_artifact
from prefect.events import emit_event
from prefect.runtime import flow_run

from prefect_langgraph.arguments import check_grace
from prefect_langgraph.blocks.credentials import DEFAULT_BLOCK, resolve
from prefect_langgraph.cleanup.models import SweepEntry, SweepReport
from prefect_langgraph.cleanup.report import NAMED, SWEEP_ENDED
from prefect_langgraph.cleanup.sweep import Policy, sweep_deployment
from prefect_langgraph.errors import InvalidRequestError, LangGraphError
from prefect_langgraph.logs import counted, run_logger
from prefect_langgraph.ownership.owner import prefect_api
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import deployment_for
from prefect_langgraph.transport.loop import io_loop

GRACE_SECONDS = 300.0
ARTIFACT_KEY = "langgraph-sweep"

_ROWS = 500  # an artifact with more is slow to open


async def _sweep(
    credentials: str | list[str] | None,
    *,
    grace_seconds: float,
    waiting_grace_seconds: float | None,
    dry_run: bool,
    max_wait_seconds: float | None,
) -> SweepReport:
    check_grace("grace_seconds", grace_seconds)
    check_grace("waiting_grace_seconds", waiting_grace_seconds)
    deadline = Deadline.after(max_wait_seconds)
    names = credentials if isinstance(credentials, list) else [credentials or DEFAULT_BLOCK]
    if not names:
        raise InvalidRequestError("credentials is empty: name at least one block.")
    policy = Policy(prefect_api(), grace_seconds, waiting_grace_seconds, dry_run)
    entries: list[SweepEntry] = []
    failures: list[str] = []
    for name in dict.fromkeys(names):
        try:
            deployment = deployment_for(await resolve(name))
            found, failed = await sweep_deployment(deployment, policy, deadline=deadline)
        except LangGraphError as error:
            # One deployment that does not answer must not prevent the sweep of the others.
            failures.append(f"{name}: {error.message}")
        else:
            entries += found
            failures += [f"{name}: {failure}" for failure in failed]
    report = SweepReport(
        dry_run=dry_run,
        grace_seconds=grace_seconds,
        entries=tuple(entries),
        failures=tuple(failures),
    )
    await _publish(report)
    if failures:
        raise LangGraphError(
            f"{_sentence(report)} {counted(len(failures), 'step')} failed; the next sweep tries again. "
            f"The first: {failures[0]}"
        )
    return report


async def _publish(report: SweepReport) -> None:
    """Report what was done: in the log, as an artifact and as an event."""
    logger = run_logger()
    logger.info(_sentence(report))
    released = [entry for entry in report.released if _count(entry)]
    for entry in released[:NAMED]:
        name = entry.flow_run_name or entry.flow_run_id
        things = _things([entry])
        logger.info("Flow run %r (%s): %s %s", name, entry.reason, _verb(report).lower(), things)
    for failure in report.failures[:NAMED]:
        logger.error(failure)
    # Entries that only have a caller's own threads come last.
    ordered = [
        *released,
        *report.kept,
        *(entry for entry in report.released if not _count(entry)),
    ]
    shown = ordered[:_ROWS]
    more = len(report.entries) - len(shown)
    await acreate_table_artifact(
        key=ARTIFACT_KEY,
        table=[_row(entry) for entry in shown],
        description=_sentence(report)
        + (f" {more} more rows are not shown." if more else "")
        + "".join(f"\n\nFailed: {failure}" for failure in report.failures[:NAMED]),
    )
    emit_event(
        SWEEP_ENDED,
        resource={
            "prefect.resource.id": f"langgraph.sweep.{flow_run.id}",
            "prefect.resource.name": flow_run.name or "sweep",
            "langgraph.sweep.outcome": "incomplete" if report.failures else "released",
            "langgraph.sweep.dry-run": str(report.dry_run).lower(),
        },
        payload={
            "dry_run": report.dry_run,
            "counts": report.counts,
            "kept": len(report.kept),
            "failures": len(report.failures),
            "flow_runs": [entry.flow_run_id for entry in report.released[:NAMED]],
        },
    )


def _verb(report: SweepReport) -> str:
    return "Would release" if report.dry_run else "Released"


def _sentence(report: SweepReport) -> str:
    released = [entry for entry in report.released if _count(entry)]
    of = counted(len(released), "flow run")
    done = f"{_verb(report)} {_things(released)} of {of}." if released else "Nothing to release."
    kept = len(report.kept)
    return f"{done} {counted(kept, 'flow run')} {'was' if kept == 1 else 'were'} left alone."


def _things(entries: Sequence[SweepEntry]) -> str:
    """How many crons, active runs and threads are in these entries."""
    numbers = {
        "cron": sum(len(entry.crons) for entry in entries),
        "active run": sum(len(entry.runs) for entry in entries),
        "thread": sum(len(entry.threads) for entry in entries),
    }
    return ", ".join(counted(number, word) for word, number in numbers.items() if number)


def _count(entry: SweepEntry) -> int:
    return len(entry.crons) + len(entry.runs) + len(entry.threads)


def _row(entry: SweepEntry) -> dict[str, str | int]:
    nothing = entry.action == "release" and not _count(entry)
    # Wide columns come last: Prefect's pages cut off wide tables.
    return {
        "flow run": entry.flow_run_name or "",
        "action": "nothing to release" if nothing else entry.action,
        "crons": len(entry.crons),
        "runs": len(entry.runs),
        "threads": len(entry.threads),
        "waiting": len(entry.waiting),
        "why": entry.reason,
        "id": entry.flow_run_id,
        "deployment": entry.url,
    }


def _name() -> str:
    given = flow_run.parameters.get("credentials") or DEFAULT_BLOCK
    names = given if isinstance(given, str) else ", ".join(map(str, given))
    return f"sweep {names}" + (" (dry run)" if flow_run.parameters.get("dry_run") else "")


@flow(name="langgraph-sweep", flow_run_name=_name)
def sweep(
    credentials: str | list[str] | None = None,
    *,
    grace_seconds: float = GRACE_SECONDS,
    waiting_grace_seconds: float | None = None,
    dry_run: bool = False,
    max_wait_seconds: float | None = None,
) -> SweepReport:
    """Release what flow runs left behind: deploy this flow with a schedule.

    Finds everything on the deployments that carries the tags of this Prefect, asks Prefect about the
    flow runs, and releases what is owned by those that have ended or that Prefect does not know any
    more: crons deleted, active runs cancelled, throw-away threads deleted. It never touches what has no
    tags, such as runs and crons with `detached=True`, or what belongs to another Prefect or workspace.
    PREFECT_API_URL decides which Prefect that is, so the sweep needs the same value as the flows.

    A flow run that Prefect calls Running counts as ended when it is under `with_finalizer` and its
    process stopped sending heartbeats: Prefect shows this state when a worker died with its flow
    process. What a flow run without a finalizer owns stays until Prefect says that it ended.

    Safe to run at any time, twice, and beside finalizers. A step that fails is reported, the others
    go on, and the flow run fails at the end. If a sweep is stopped, the next one finds the rest. The
    report is the artifact `langgraph-sweep`, and an event `langgraph.sweep.ended` has the outcome.
    `asweep` is the asynchronous twin.

    Args:
        credentials: The name of a saved block, or of several. None: the block named `default`.
        grace_seconds: How long after a flow run's end what it owns is left alone. For a flow run that
            Prefect does not know any more: how long after the last change of what it owns.
        waiting_grace_seconds: The same for throw-away threads that wait for a person. None keeps them.
        dry_run: True reports what it would do, and why, and changes nothing.
        max_wait_seconds: Wall clock for the whole sweep. None: no limit.

    Returns:
        One entry per flow run of which something was found.

    Raises:
        LangGraphError: Something could not be released, or a deployment could not be asked.

    Example:
        >>> from prefect_langgraph import sweep
        >>> report = sweep("default", dry_run=True)
        >>> [entry.reason for entry in report.released]
        []
    """
    return io_loop().run(
        _sweep,
        credentials,
        grace_seconds=grace_seconds,
        waiting_grace_seconds=waiting_grace_seconds,
        dry_run=dry_run,
        max_wait_seconds=max_wait_seconds,
    )


@flow(name="langgraph-sweep", flow_run_name=_name)
async def asweep(
    credentials: str | list[str] | None = None,
    *,
    grace_seconds: float = GRACE_SECONDS,
    waiting_grace_seconds: float | None = None,
    dry_run: bool = False,
    max_wait_seconds: float | None = None,
) -> SweepReport:
    """Release what flow runs left behind: the asynchronous twin of `sweep`."""
    return await io_loop().arun(
        _sweep,
        credentials,
        grace_seconds=grace_seconds,
        waiting_grace_seconds=waiting_grace_seconds,
        dry_run=dry_run,
        max_wait_seconds=max_wait_seconds,
    )
