"""How a thread stands now, and the run that goes on with an answer.

Only the present counts: the newest run of a thread is busy, has ended, or asks. An answer makes at most
one run, which names the run that asked in its metadata: whoever comes later finds it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect_langgraph.approvals.replies import resume_of
from prefect_langgraph.errors import NotFoundError, ThreadBusyError
from prefect_langgraph.models import Question, RunHandle
from prefect_langgraph.ownership.keys import decide
from prefect_langgraph.ownership.tags import ANSWERS, CONTINUES, TAG_PREFIX
from prefect_langgraph.results import RunResult
from prefect_langgraph.runs import operations
from prefect_langgraph.runs.call import Context
from prefect_langgraph.runs.lookup import Lookup
from prefect_langgraph.runs.outcomes import RUN_STATUSES
from prefect_langgraph.runs.request import RunRequest, open_interrupts
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment

_PAGE = 50

_OPTIONS = ("context", "interrupt_before", "interrupt_after", "webhook", "durability")

_SERVERS_METADATA = ("created_by", "graph_id", "assistant_id", "cron_id")

Row = Mapping[str, Any]


async def runs_since(
    deployment: Deployment, thread_id: str, run_id: str | None, deadline: Deadline
) -> list[Row]:
    """The runs of a thread down to this one, the newest first; none where there is no such thread.

    Args:
        deployment: Where the thread is.
        thread_id: The thread.
        run_id: The oldest that is wanted; None gives the newest only.
        deadline: The caller's.
    """
    runs = deployment.client.runs
    limit = _PAGE if run_id is not None else 1
    found: dict[str, Row] = {}
    offset = 0
    while True:
        try:
            page = await deployment.send(
                lambda: runs.list(thread_id, limit=limit, offset=offset),  # noqa: B023 - awaited here
                doing=f"look for the newest run of thread {thread_id}",
                deadline=deadline,
            )
        except NotFoundError:
            return []
        # A run that begins meanwhile moves the others on, so that some come twice.
        found |= {str(row["run_id"]): row for row in page if str(row["run_id"]) not in found}
        offset += len(page)
        if len(page) < limit or run_id is None or run_id in found:
            return list(found.values())


def of_row(deployment: Deployment, row: Row, before: RunHandle) -> RunHandle:
    """The handle of a later run of a handle's thread, which is not the only one there."""
    return deployment.handle(
        str(row["run_id"]),
        before.thread_id,
        before.assistant_id,
        key=None,
        owns_thread=False,
        origin="adopted",
        item_key=before.item_key,
    )


async def latest(deployment: Deployment, handle: RunHandle, deadline: Deadline) -> RunHandle:
    """The newest run of the handle's thread: the handle itself where nobody has started another."""
    rows = await runs_since(deployment, handle.thread_id, None, deadline)
    if not rows or rows[0]["run_id"] == handle.run_id:
        return handle
    return of_row(deployment, rows[0], handle)


async def send(
    context: Context,
    handle: RunHandle,
    replies: Sequence[tuple[Question, Any]],
    deadline: Deadline,
) -> tuple[RunHandle, bool]:
    """Start the run that goes on with the answers to what a run asks, or adopt it.

    Args:
        context: The call's.
        handle: The run that asks.
        replies: The answers to all its questions.
        deadline: The caller's.

    Returns:
        The run that is the thread's newest now, and whether it has these answers: False when somebody
        else answered first, in which case nothing is sent.
    """
    deployment = context.deployment
    while True:
        rows = await runs_since(deployment, handle.thread_id, handle.run_id, deadline)
        if not rows:
            return handle, False  # gone: the join says so
        payload = resume_of(replies)
        before = handle.run_id
        tag = ANSWERS
        if (sent := _tagged(rows, ANSWERS, before)) is not None:
            while (later := _tagged(rows, CONTINUES, sent["run_id"])) is not None:
                sent = later
            answered = _tagged(rows, ANSWERS, sent["run_id"]) is not None
            if answered or not _begins_again(context, sent):
                return of_row(deployment, sent, handle), True
            # Failed in an earlier attempt: it goes on from where it failed, with the same answers.
            payload, before, tag = {}, str(sent["run_id"]), CONTINUES
        if rows[0]["run_id"] != before:
            return of_row(deployment, rows[0], handle), False
        request = RunRequest(
            assistant_id=handle.assistant_id or str(rows[0]["assistant_id"]),
            payload={**payload, **_options_of(rows[0]), "multitask_strategy": "reject"},
            metadata={**_metadata_of(rows[0]), tag: before},
        )
        try:
            started = await operations.start(
                context,
                request,
                operation="answer",
                thread_id=handle.thread_id,
                deadline=deadline,
                idempotency_key=f"{tag}:{before}",
            )
        except ThreadBusyError:
            continue  # somebody was faster: look again who
        return started.model_copy(update={"item_key": handle.item_key}), True


def _tagged(rows: Sequence[Row], tag: str, run_id: Any) -> Row | None:
    """The run that names this one under a tag, if there is one."""
    return next((row for row in rows if (row.get("metadata") or {}).get(tag) == run_id), None)


def _begins_again(context: Context, row: Row) -> bool:
    """True of a run that failed in an earlier attempt of the flow run, which this one tries again."""
    if decide(RUN_STATUSES[row["status"]]) != "restart":
        return False
    return not context.owner.made_in_this_try(row.get("metadata") or {})


def _options_of(row: Row) -> dict[str, Any]:
    """What the run that asks was started with, beside its input: it holds for the one that goes on.

    A server makes the context of what is configurable, so only the context is given.
    """
    kwargs = row.get("kwargs")
    given = kwargs if isinstance(kwargs, Mapping) else {}
    found = {name: given[name] for name in _OPTIONS if given.get(name)}
    config = given.get("config")
    if isinstance(config, Mapping):
        kept = {name: config[name] for name in ("recursion_limit", "tags") if config.get(name)}
        found |= {"config": kept} if kept else {}
    return found


def _metadata_of(row: Row) -> dict[str, Any]:
    """The caller's metadata of a run: neither this package's nor the server's."""
    metadata = row.get("metadata")
    given = metadata if isinstance(metadata, Mapping) else {}
    return {
        name: value
        for name, value in given.items()
        if not name.startswith(TAG_PREFIX) and name not in _SERVERS_METADATA
    }


async def left_open_after(
    context: Context, result: RunResult, asked: Sequence[Question], deadline: Deadline
) -> list[Question]:
    """What a graph asks again, since it refused the answer: its questions that are still open.

    The thread's row has lost them by then, so they come from what was asked.
    """
    threads = context.deployment.client.threads
    thread_id = result.handle.thread_id
    try:
        state = await context.deployment.send(
            lambda: threads.get_state(thread_id),
            doing=f"read what thread {thread_id} waits for",
            deadline=deadline,
        )
    except NotFoundError:
        return []
    waiting = set(open_interrupts(state))
    return [
        question.model_copy(update={"run_id": result.handle.run_id})
        for question in asked
        if question.interrupt_id in waiting
    ]


async def still_asks(deployment: Deployment, thread_ids: Sequence[str]) -> set[str] | None:
    """Those of these threads that wait for an answer; None when the server cannot be asked so."""
    rows = await deployment.part(Lookup).threads([*thread_ids], select=["thread_id", "status"])
    if rows is None:
        return None
    return {row["thread_id"] for row in rows if row["status"] in ("interrupted", "error")}
