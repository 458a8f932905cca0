"""What the server said, as a `RunResult` or an error. Pure.

The server's words do not mean what they say (see the table in the docs): a cancelled run is
`interrupted`, an interrupted one is `success`, and a thread's state may belong to another run. Each
function here takes raw answers and decides. A decision that the answers do not allow is None, and the
poller asks for more.

- `from_thread`: a thread that has seen one run only.
- `from_run`: a run by its own row and its own newest checkpoint; right on any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.results import RunFailure, RunResult
from prefect_langgraph.runs.usage import usage_of
from prefect_langgraph.transport.http_errors import without_quoted_inputs

Raw = Mapping[str, Any]

# Every status of a run that the server knows; a test holds it against the SDK's Literal.
RUN_STATUSES: dict[str, RunStatus] = {
    "pending": RunStatus.PENDING,
    "running": RunStatus.RUNNING,
    "error": RunStatus.ERROR,
    "success": RunStatus.SUCCESS,  # or an interrupt: the state decides
    "timeout": RunStatus.TIMEOUT,
    "interrupted": RunStatus.CANCELLED,
}

THREAD_STATUSES = frozenset({"idle", "busy", "interrupted", "error"})

_CANCELLED = {"UserInterrupt", "UserRollback"}

_TIMED_OUT = {"TimeoutError", "UserTimeout"}


def from_thread(handle: RunHandle, thread: Raw) -> RunResult | None:
    """The outcome of the only run of a thread, from a search without `select`.

    Returns None when the thread alone does not tell: still busy, a null state (cancelled before it
    began, or a graph without state), or a TimeoutError (the server's, or the graph's own).
    """
    status, values, error = thread["status"], thread.get("values"), _failure(thread.get("error"))
    if status == "busy":
        return None
    if status == "error":
        if error is None or error.error in _TIMED_OUT:
            return None
        outcome = RunStatus.CANCELLED if error.error in _CANCELLED else RunStatus.ERROR
    elif status == "interrupted":
        cancelled = error is not None and error.error in _CANCELLED
        outcome = RunStatus.CANCELLED if cancelled else RunStatus.INTERRUPTED
    elif values is None:
        return None
    else:
        outcome = RunStatus.SUCCESS
    return _result(
        handle,
        outcome,
        values=values,
        error=error if outcome is RunStatus.ERROR else None,
        interrupts=_interrupts(thread.get("interrupts")),
        created_at=thread.get("created_at"),
        ended_at=thread.get("updated_at"),
    )


def from_run(handle: RunHandle, run: Raw, state: Raw | None, *, thread: Raw | None = None) -> RunResult:
    """The outcome of a run on any thread.

    Args:
        handle: The run.
        run: The run's row.
        state: The newest checkpoint that this run wrote, or None when it wrote none.
        thread: The thread's row when this is its newest run: it names the error in full.
    """
    status = RUN_STATUSES[run["status"]]
    if not status.ended:
        return _result(handle, status, created_at=run.get("created_at"))
    tasks: list[Raw] = list((state or {}).get("tasks") or [])
    interrupts: list[dict[str, Any]] = []
    if status is RunStatus.SUCCESS and state is not None and state.get("next"):
        status = RunStatus.INTERRUPTED
        interrupts = [dict(item) for task in tasks for item in task.get("interrupts") or []]
    failure = None
    if status is RunStatus.ERROR:
        failure = _failure(thread.get("error")) if thread and thread["status"] == "error" else None
        failure = failure or _failure_of_tasks(tasks) or RunFailure(error="Error")
    return _result(
        handle,
        status,
        values=state.get("values") if state is not None else None,
        error=failure,
        interrupts=interrupts,
        created_at=run.get("created_at"),
        ended_at=run.get("updated_at"),
    )


def state_of(thread: Raw) -> Raw:
    """What the newest run of a thread left, by the thread's row, where its history cannot be read."""
    waits = thread["status"] == "interrupted"
    return {
        "values": thread.get("values"),
        "next": ["?"] if waits else [],
        "tasks": [{"interrupts": _interrupts(thread.get("interrupts"))}],
    }


def lost(handle: RunHandle) -> RunResult:
    """The outcome of a run whose thread the server does not know."""
    return RunResult(handle=handle, status=RunStatus.LOST)


def rolled_back(handle: RunHandle, created_at: datetime | None = None) -> RunResult:
    """The outcome of a run that was seen alive and is gone while its thread remains."""
    return RunResult(handle=handle, status=RunStatus.CANCELLED, created_at=created_at)


def _result(
    handle: RunHandle,
    status: RunStatus,
    *,
    values: Any = None,
    error: RunFailure | None = None,
    interrupts: Iterable[dict[str, Any]] = (),
    created_at: Any = None,
    ended_at: Any = None,
) -> RunResult:
    return RunResult(
        handle=handle,
        status=status,
        values=values,
        error=error,
        interrupts=tuple(interrupts) if status is RunStatus.INTERRUPTED else (),
        created_at=created_at,
        ended_at=ended_at,
        usage=usage_of(values),
    )


def _interrupts(by_task: Mapping[str, list[dict[str, Any]]] | None) -> list[dict[str, Any]]:
    return [dict(item) for items in (by_task or {}).values() for item in items]


def _failure(error: Any) -> RunFailure | None:
    if isinstance(error, Mapping):
        return RunFailure(
            error=str(error.get("error") or "Error"),
            message=without_quoted_inputs(str(error.get("message") or "")),
        )
    if isinstance(error, str) and error:
        return _failure_from_repr(error)
    return None


def _failure_of_tasks(tasks: Iterable[Raw]) -> RunFailure | None:
    for task in tasks:
        if task.get("error"):
            return _failure_from_repr(str(task["error"]))
    return None


def _failure_from_repr(text: str) -> RunFailure:
    """`ValueError('boo')`, as a checkpoint keeps an error, taken apart."""
    text = without_quoted_inputs(text)
    match = re.fullmatch(r"([A-Za-z_][\w.]*)\((.*)\)", text, flags=re.DOTALL)
    if match is None:
        return RunFailure(error="Error", message=text)
    name, message = match.groups()
    if len(message) > 1 and message[0] == message[-1] and message[0] in "'\"":
        message = message[1:-1]
    return RunFailure(error=name, message=message)
