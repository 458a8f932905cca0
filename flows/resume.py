"""`resume_waiting`: resumes flow runs that suspended themselves, once their runs have ended."""

# No annotations from __future__: `.serve()` pickles a flow without the names of its annotations.

from collections.abc import Sequence
from functools import partial

from prefect import flow
from prefect.artifacts import acreate_table_artifact
from prefect.runtime import flow_run

from prefect_langgraph.approvals.asking import Attendant
from prefect_langgraph.blocks.assistant import LangGraphAssistant
from prefect_langgraph.blocks.credentials import DEFAULT_BLOCK, resolve, resolve_for
from prefect_langgraph.errors import InvalidRequestError, LangGraphError
from prefect_langgraph.logs import counted, run_logger
from prefect_langgraph.suspension.models import ResumeEntry, ResumeReport
from prefect_langgraph.suspension.record import Target
from prefect_langgraph.suspension.resumer import Resumer, show_sign_of_life
from prefect_langgraph.transport.deployment import Deployment, deployment_for
from prefect_langgraph.transport.loop import io_loop

ARTIFACT_KEY = "langgraph-resume"

_NAMED = 20
_ROWS = 500  # an artifact with more is slow to open


def names_of(credentials: str | list[str] | None) -> list[str] | None:
    """The blocks that a resumer looks after; None is all of them."""
    if credentials is None:
        return None
    names = [credentials] if isinstance(credentials, str) else list(credentials)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InvalidRequestError("credentials: name at least one saved block, or give None for all.")
    return names


async def connect(target: Target) -> Deployment:
    """The deployment that a record leads to, by the saved block that it names."""
    if target.assistant is None:
        return deployment_for(await resolve_for(target.url, target.credentials, None))
    try:
        block: LangGraphAssistant = await LangGraphAssistant.aload(target.assistant)
    except ValueError as error:
        raise LangGraphError(
            f"There is no saved LangGraphAssistant block named {target.assistant!r}."
        ) from error
    return deployment_for(await resolve_for(target.url, None, block.credentials))


async def _known(names: Sequence[str] | None) -> list[Deployment]:
    """The deployments to look through; of one that has no block, or is not there, nothing is said."""
    found: list[Deployment] = []
    for name in names or [DEFAULT_BLOCK]:
        try:
            found.append(deployment_for(await resolve(name)))
        except LangGraphError as error:
            if names is not None:
                raise
            run_logger().debug("%s", error.message)  # nobody has to have a block of that name
    return found


class Passes:
    """Looks after suspended flow runs: those that wait for runs, and those that ask people.

    Args:
        names: Only those whose runs are on the deployments of these blocks; None is all.
        dry_run: True touches nothing.
    """

    def __init__(self, names: Sequence[str] | None, *, dry_run: bool) -> None:
        self._resumer = Resumer(connect, names, dry_run, partial(_known, names))
        self._attendant = Attendant(connect, names, dry_run=dry_run)

    async def one_pass(self) -> ResumeReport:
        """Look at every suspended flow run once.

        Raises:
            httpx.HTTPError: Prefect could not be asked.
            PrefectException: The same.
        """
        report = await self._resumer.one_pass()
        entries, failures = await self._attendant.one_pass()
        return ResumeReport(
            dry_run=report.dry_run,
            entries=(*report.entries, *entries),
            failures=tuple(dict.fromkeys([*report.failures, *failures])),
        )


def resumer_of(credentials: str | list[str] | None, *, dry_run: bool = False) -> Passes:
    """Passes that find deployments by saved blocks."""
    return Passes(names_of(credentials), dry_run=dry_run)


async def _resume(credentials: str | list[str] | None, *, dry_run: bool) -> ResumeReport:
    report = await resumer_of(credentials, dry_run=dry_run).one_pass()
    show_sign_of_life()
    await _publish(report)
    if report.failures:
        raise LangGraphError(
            f"{sentence(report)} {counted(len(report.failures), 'step')} failed; the next pass tries "
            f"again. The first: {report.failures[0]}"
        )
    return report


async def _publish(report: ResumeReport) -> None:
    """Say what was done: in the log, and as an artifact when there is something to say."""
    logger = run_logger()
    logger.info(sentence(report))
    for line in lines(report):
        logger.info(line)
    for failure in report.failures[:_NAMED]:
        logger.error(failure)
    if not report.entries and not report.failures:
        return
    shown = [*report.resumed, *report.released, *report.waiting][:_ROWS]
    more = len(report.entries) - len(shown)
    await acreate_table_artifact(
        key=ARTIFACT_KEY,
        table=[_row(entry) for entry in shown],
        description=sentence(report)
        + (f" {more} more rows are not shown." if more else "")
        + "".join(f"\n\nFailed: {failure}" for failure in report.failures[:_NAMED]),
    )


def sentence(report: ResumeReport) -> str:
    """What a pass came to, in words."""
    would = "Would resume" if report.dry_run else "Resumed"
    resumed, released = len(report.resumed), len(report.released)
    said = f"{would} {counted(resumed, 'flow run')}." if resumed else "Nothing to resume."
    if released:
        would = "Would release" if report.dry_run else "Released"
        said += f" {would} {counted(released, 'flow run')} that ended without releasing what they own."
    if report.waiting:
        number = len(report.waiting)
        said += f" {counted(number, 'flow run')} {'waits' if number == 1 else 'wait'}."
    return said


def lines(report: ResumeReport) -> list[str]:
    """What was done about each flow run, for logs: the first of many."""
    done: Sequence[ResumeEntry] = [*report.resumed, *report.released]
    return [
        f"Flow run {entry.flow_run_name or entry.flow_run_id!r}: {entry.action}, {entry.reason}"
        for entry in done[:_NAMED]
    ]


def _row(entry: ResumeEntry) -> dict[str, str | int]:
    # What is wide comes last: Prefect's pages cut it off.
    return {
        "flow run": entry.flow_run_name or "",
        "action": entry.action,
        "runs": entry.runs,
        "on the way": "?" if entry.left is None else entry.left,
        "suspended": entry.suspended_at.isoformat(timespec="seconds") if entry.suspended_at else "",
        "deadline": entry.deadline.isoformat(timespec="seconds") if entry.deadline else "none",
        "why": entry.reason,
        "id": entry.flow_run_id,
    }


def _name() -> str:
    names = names_of(flow_run.parameters.get("credentials"))
    whose = f" of {', '.join(names)}" if names else ""
    return f"resume waiting flow runs{whose}" + (
        " (dry run)" if flow_run.parameters.get("dry_run") else ""
    )


@flow(name="langgraph-resume", flow_run_name=_name)
def resume_waiting(
    credentials: str | list[str] | None = None,
    *,
    dry_run: bool = False,
) -> ResumeReport:
    """Resume flow runs whose runs have ended: deploy this flow with a schedule of a minute.

    Finds the flow runs of this Prefect that `suspend_until_ended` has suspended, asks each LangGraph
    deployment how their runs stand, a thousand per request, and resumes those whose runs have all ended
    or whose deadline has passed. What was cancelled, failed or deleted while it was suspended could run
    no hook, so what it owns is released. Suspensions of others, and forms, are never touched.

    Safe to run at any time and any number of times at once: a flow run that is resumed looks for
    itself, and suspends again when there is something left to wait for. `prefect-langgraph resume` does
    the same in a process that stays, without a flow run for each pass. `aresume_waiting` is the
    asynchronous twin.

    Args:
        credentials: Only flow runs that wait on the deployments of these saved blocks. None is all.
        dry_run: True says what it would do, and why, and touches nothing.

    Returns:
        One entry per flow run.

    Raises:
        LangGraphError: A deployment or Prefect could not be asked; everything else was done.

    Example:
        >>> from prefect_langgraph import resume_waiting
        >>> report = resume_waiting(dry_run=True)
        >>> report.resumed
        []
    """
    return io_loop().run(_resume, credentials, dry_run=dry_run)


@flow(name="langgraph-resume", flow_run_name=_name)
async def aresume_waiting(
    credentials: str | list[str] | None = None,
    *,
    dry_run: bool = False,
) -> ResumeReport:
    """Resume flow runs whose runs have ended: the asynchronous twin of `resume_waiting`."""
    return await io_loop().arun(_resume, credentials, dry_run=dry_run)
