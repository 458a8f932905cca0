"""`cron_window`: run an assistant on a schedule for a while, collect the results, clean up, report."""

# No annotations from __future__: `.serve()` pickles a flow without the names of its annotations.

from datetime import timedelta
from typing import Any

from prefect import flow

from prefect_langgraph.arguments import LONGEST
from prefect_langgraph.blocks.credentials import LangGraphCredentials
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.flows.finalizer import with_finalizer
from prefect_langgraph.logs import counted, run_logger
from prefect_langgraph.reports.artifacts import publish_table, rows_of, table_key
from prefect_langgraph.results import FanOutResult
from prefect_langgraph.tasks.temporary_cron import temporary_cron
from prefect_langgraph.transport.loop import io_loop


@with_finalizer(parameter="credentials")
@flow(name="langgraph-cron-window", flow_run_name="{assistant_id} on {schedule} for {duration}")
def cron_window(
    assistant_id: str,
    schedule: str,
    duration: timedelta,
    input: Any = None,
    *,
    timezone: str | None = None,
    allow_seconds: bool = False,
    thread_id: str | None = None,
    max_results: int | None = None,
    max_wait_seconds: float | None = 300.0,
    lease: timedelta | None = None,
    credentials: LangGraphCredentials | str | None = None,
    config: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
) -> FanOutResult:
    """Run an assistant on a schedule for a while, and return the results of its runs.

    A Deploy cron is created for the window and deleted at its end, however the flow run ends. Runs
    that are still active when the time is over are waited for; once there are `max_results`, active
    runs are cancelled. Threads are released after their results were read, and a table artifact shows
    every firing. A flow run that is executed again goes on with the cron of the first execution, for
    the whole duration.

    Args:
        assistant_id: The assistant's id or the graph's name.
        schedule: A cron string.
        duration: How long, such as "PT2H" (ISO 8601) or "02:00:00"; in code also a number of seconds.
        input: The graph's input, as JSON.
        timezone: An IANA name. None: UTC.
        allow_seconds: True if the sixth field of the cron string means seconds, as the server reads it.
        thread_id: The thread all runs go to; a firing that finds it busy is skipped. None gives each
            firing a thread of its own.
        max_results: This many results end the window early. None: no limit.
        max_wait_seconds: How long runs that are active at the end are waited for before they are
            cancelled. None: no limit.
        lease: As in `create_cron`: the cron stops by itself this long after its process was lost.
        credentials: A saved block's name, or None for the block named `default`. A block works too:
            picked in the UI, or in a flow that is called.
        config: What the graph reads as `config` in each of its runs.
        context: What the graph reads as `runtime.context` in each of its runs.
        metadata: For the cron and its runs, beside this package's own tags.

    Returns:
        The results in order of the firings, however the runs ended; a few more than `max_results` when
        several ended together.

    Raises:
        ScheduleError: The schedule cannot be expressed as a Deploy cron.
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import cron_window
        >>> result = cron_window("answer", "@yearly", 1, {"question": "?"})
        >>> result.counts
        {}
    """
    if not timedelta(0) < duration <= LONGEST:
        raise InvalidRequestError(f"duration={duration}: give a time above zero, of ten years at most.")
    if max_results is not None and max_results < 1:
        raise InvalidRequestError(f"max_results={max_results}: give one or more, or None.")
    window = temporary_cron(
        assistant_id,
        schedule,
        input,
        timezone=timezone,
        allow_seconds=allow_seconds,
        thread_id=thread_id,
        on_run_completed="keep",
        max_wait_seconds=max_wait_seconds,
        lease=lease,
        credentials=credentials,
        config=config,  # type: ignore[arg-type]
        context=context,
        metadata=metadata,
    )
    with window as cron:
        result = cron.collect(at_least=max_results, max_wait_seconds=duration.total_seconds())
        window.cancel_runs = max_results is not None and len(result) >= max_results
    result = window.results
    counts = ", ".join(f"{count} {status}" for status, count in sorted(result.counts.items()))
    fired = f"{counted(len(result), 'firing')} of {assistant_id} on {schedule!r}"
    summary = f"{fired}: {counts}" if counts else fired
    run_logger().info("%s", summary)
    io_loop().run(publish_table, table_key("langgraph-cron-window"), rows_of(result), summary)
    return result
