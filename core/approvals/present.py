"""How a thread stands now, and the run that goes on with an answer.

Only the present counts: the newest run of a thread is busy, has ended, or asks. An answer makes at most
one run, which names the run that asked in its metadata: whoever comes later finds it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect_langgraph.approvals.replies import resume_of
from prefect_langgraph.errors import NotFoundError, ThreadBusyError
from prefect_langgraph.models import Question, RunHandle
from prefect_langgraph.ownership.keys import decide
from prefect_langgraph.ownership.tags import ANSWERS, CONTINUES, TAG_PREFIX
from prefect_langgraph.runs import operations
from prefect_langgraph.runs.call import Context
from prefect_langgraph.runs.lookup import Lookup
from prefect_langgraph.runs.outcomes import RUN_STATUSES
from prefect_langgraph.runs.request import RunRequest
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


@dataclass(frozen=True)
class Sent:
    """What became of answers.

    Attributes:
        handle: The run that is the thread's newest now.
        has_answers: True when it goes on with these answers. False when somebody else answered first:
            then nothing was sent.
        goes_on: True when it is not the first run with them: that one failed, or refused one of them.
    """

    handle: RunHandle
    has_answers: bool
    goes_on: bool = False


async def send(
    context: Context,
    handle: RunHandle,
    replies: Sequence[tuple[Question, Any]],
    deadline: Deadline,
) -> Sent:
    """Start the run that goes on with the answers to what a run asks, or adopt it.

    Args:
        context: The call's.
        handle: The run that asks.
        replies: The answers to all its questions.
        deadline: The caller's.
    """
    deployment = context.deployment
    while True:
        rows = await runs_since(deployment, handle.thread_id, handle.run_id, deadline)
        if not rows:
            return Sent(handle, has_answers=False)  # gone: the join says so
        payload, before, tag = resume_of(replies), handle.run_id, ANSWERS
        if (sent := _tagged(rows, ANSWERS, before)) is not None:
            goes_on = False
            while (later := _tagged(rows, CONTINUES, sent["run_id"])) is not None:
                sent, goes_on = later, True
            answered = _tagged(rows, ANSWERS, sent["run_id"]) is not None
            if answered or not _begins_again(context, sent):
                return Sent(of_row(deployment, sent, handle), has_answers=True, goes_on=goes_on)
            # Failed in an earlier attempt: it goes on from where it failed, with the same answers.
            payload, before, tag = {}, str(sent["run_id"]), CONTINUES
        if rows[0]["run_id"] != before:
            return Sent(of_row(deployment, rows[0], handle), has_answers=False)
        try:
            started = await _start(context, handle, rows[0], payload, tag, deadline)
        except ThreadBusyError:
            continue  # somebody was faster: look again who
        return Sent(started, has_answers=True, goes_on=tag == CONTINUES)


async def ask_again(context: Context, handle: RunHandle, deadline: Deadline) -> RunHandle:
    """Have a run that refused an answer ask again: it goes on without one, and stops where it asks.

    A new answer is not sent to a run that failed. Where LangGraph has kept the first one after all, the
    second would answer the next question, which nobody has seen.

    Args:
        context: The call's.
        handle: The run that refused it.
        deadline: The caller's.

    Returns:
        The thread's newest run.
    """
    while True:
        rows = await runs_since(context.deployment, handle.thread_id, handle.run_id, deadline)
        if not rows:
            return handle
        if rows[0]["run_id"] != handle.run_id:
            return of_row(context.deployment, rows[0], handle)
        try:
            return await _start(context, handle, rows[0], {}, CONTINUES, deadline)
        except ThreadBusyError:
            continue


async def _start(
    context: Context,
    handle: RunHandle,
    before: Row,
    payload: Mapping[str, Any],
    tag: str,
    deadline: Deadline,
) -> RunHandle:
    """Start the run that comes after one on its thread, with what that one was started with."""
    run_id = str(before["run_id"])
    request = RunRequest(
        assistant_id=handle.assistant_id or str(before["assistant_id"]),
        payload={**payload, **_options_of(before), "multitask_strategy": "reject"},
        metadata={**_metadata_of(before), tag: run_id},
    )
    started = await operations.start(
        context,
        request,
        operation="answer",
        thread_id=handle.thread_id,
        deadline=deadline,
        idempotency_key=f"{tag}:{run_id}",
    )
    return started.model_copy(update={"item_key": handle.item_key})


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


async def still_asks(deployment: Deployment, thread_ids: Sequence[str]) -> set[str] | None:
    """Those of these threads that wait for an answer; None when the server cannot be asked so."""
    rows = await deployment.part(Lookup).threads([*thread_ids], select=["thread_id", "status"])
    if rows is None:
        return None
    return {row["thread_id"] for row in rows if row["status"] in ("interrupted", "error")}
