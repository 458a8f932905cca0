"""Crons: create, change, delete and find them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal
from uuid import UUID

from langgraph_sdk.schema import All, Config, Durability, MultitaskStrategy, StreamMode

from prefect_langgraph.arguments import check_choice, check_end, check_json, check_thread_id
from prefect_langgraph.blocks.credentials import Credentials, resolve_for
from prefect_langgraph.crons import operations
from prefect_langgraph.crons.models import CronHandle, OnRunCompleted
from prefect_langgraph.crons.request import CRON_OWNER, build, check_payload, reject_headers
from prefect_langgraph.crons.search import check_cron_ids, search
from prefect_langgraph.errors import DeploymentError, InvalidRequestError
from prefect_langgraph.headers import validate_headers
from prefect_langgraph.runs.call import Context, context_of, undo_if_interrupted
from prefect_langgraph.schedules import ScheduleLike
from prefect_langgraph.tasks._task import context_for, faces


async def _create(
    assistant_id: str | UUID,
    schedule: ScheduleLike,
    *,
    credentials: Credentials,
    idempotency_key: str | None,
    once: bool,
    detached: bool,
    **options: Any,
) -> CronHandle:
    request = build(assistant_id, schedule, **options)
    context = await context_for(credentials)
    cron = await operations.create(
        context,
        request,
        idempotency_key=idempotency_key,
        once=once,
        detached=detached,
    )
    undo_if_interrupted(partial(operations.delete, context, cron))
    return cron


async def _create_cron(
    assistant_id: str | UUID,
    schedule: ScheduleLike,
    input: Any = None,
    *,
    thread_id: str | UUID | None = None,
    timezone: str | None = None,
    allow_seconds: bool = False,
    end_time: datetime | None = None,
    lease: timedelta | None = None,
    enabled: bool = True,
    on_run_completed: OnRunCompleted = "delete",
    multitask_strategy: MultitaskStrategy = "reject",
    credentials: Credentials = None,
    config: Config | None = None,
    context: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    webhook: str | None = None,
    interrupt_before: All | Sequence[str] | None = None,
    interrupt_after: All | Sequence[str] | None = None,
    stream_mode: StreamMode | Sequence[StreamMode] | None = None,
    stream_subgraphs: bool | None = None,
    stream_resumable: bool | None = None,
    durability: Durability | None = None,
    headers: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    once: bool = True,
    detached: bool = False,
) -> CronHandle:
    """Create a cron: the server starts a run at each of its dates, by itself.

    Inside a flow run the cron is made once: a retry, or a second execution of the flow run, finds the
    one of the first attempt and brings it up to date where the specification has changed. Which cron
    that is follows from the flow run, the assistant, the thread and how many such crons were made
    before, not from its schedule or input. With `idempotency_key` the same holds between flow runs, for
    as long as the cron exists. A call that is cancelled before it returned leaves no cron behind.

    A cron goes with its flow run: the finalizer (`with_finalizer`) or the sweep deletes it, unless it
    is `detached`. `acreate_cron` is the asynchronous twin.

    Args:
        assistant_id: The assistant's id or the graph's name.
        schedule: A cron string or a Prefect schedule.
        input: The graph's input, as JSON.
        thread_id: The thread all runs go to. None gives each firing a thread of its own.
        timezone: An IANA name. None takes the schedule's own, and UTC without one.
        allow_seconds: Says that the sixth field means seconds, as the server reads it.
        end_time: When it stops firing, with a timezone.
        lease: How long the cron lives when nobody renews it. While this process and the flow run
            live, its end is moved on three times per lease; after that it stops firing by itself.
        enabled: False creates it paused.
        on_run_completed: Without a thread: "delete" drops a firing's thread and result when its run
            ends, "keep" leaves both to you.
        multitask_strategy: With a thread: what a firing does when the thread is busy. "reject" skips
            it. The server's own default is "enqueue", by which runs pile up when one outlasts the
            interval.
        credentials: A saved block's name, a block, or None for the block named `default`.
        config: What the graph reads as `config`: {"configurable": {...}, "recursion_limit": 50}.
        context: What the graph reads as `runtime.context`.
        metadata: For the cron and its runs, beside this package's own tags.
        webhook: Called by the server when a run ends.
        interrupt_before: Nodes to stop before, or "*".
        interrupt_after: Nodes to stop after, or "*".
        stream_mode: What the server keeps for those who stream its runs.
        stream_subgraphs: True streams subgraphs too.
        stream_resumable: True lets a stream be read again from its beginning.
        durability: "sync", "async" or "exit".
        headers: Refused: no header of ours reaches a cron's runs. Use config or context.
        idempotency_key: Replaces the key that is derived from the flow run.
        once: False creates a cron at every attempt.
        detached: True lets the cron outlive its flow run: nothing of ours deletes it.

    Returns:
        The handle, with `next_run_date`.

    Raises:
        ScheduleError: No Deploy cron says the schedule; says what to write instead.
        HeaderPolicyError: Headers were given.
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect.schedules import Cron
        >>> from prefect_langgraph import create_cron, delete_cron
        >>> weekdays = Cron("0 9 * * 1-5", timezone="Europe/Berlin")
        >>> cron = create_cron("answer", weekdays, {"question": "What is new?"})
        >>> delete_cron(cron)
    """
    return await _create(
        assistant_id,
        schedule,
        input=input,
        thread_id=thread_id,
        timezone=timezone,
        allow_seconds=allow_seconds,
        end_time=end_time,
        lease=lease,
        enabled=enabled,
        on_run_completed=on_run_completed,
        multitask_strategy=multitask_strategy,
        credentials=credentials,
        config=config,
        context=context,
        metadata=metadata,
        webhook=webhook,
        interrupt_before=interrupt_before,
        interrupt_after=interrupt_after,
        stream_mode=stream_mode,
        stream_subgraphs=stream_subgraphs,
        stream_resumable=stream_resumable,
        durability=durability,
        headers=headers,
        idempotency_key=idempotency_key,
        once=once,
        detached=detached,
    )


create_cron, acreate_cron = faces(_create_cron, run_name="create cron of {assistant_id}")


async def _update(
    cron: CronHandle | str,
    *,
    schedule: ScheduleLike | None,
    timezone: str | None,
    allow_seconds: bool,
    enabled: bool | None,
    end_time: datetime | Literal["unchanged"] | None,
    metadata: Mapping[str, Any] | None,
    on_run_completed: OnRunCompleted | None,
    headers: Mapping[str, str] | None,
    credentials: Credentials,
    **payload: Any,
) -> CronHandle:
    reject_headers(headers)
    check_json("metadata", metadata)
    if isinstance(end_time, str):
        check_choice("end_time", end_time, (operations.UNCHANGED,))
    else:
        check_end(end_time)
    given = check_payload(payload)
    if on_run_completed is not None:
        check_choice("on_run_completed", on_run_completed, ("delete", "keep"))
        given["on_run_completed"] = on_run_completed
    return await operations.update(
        await _context_for_cron(cron, credentials),
        cron,
        schedule=schedule,
        timezone=timezone,
        allow_seconds=allow_seconds,
        enabled=enabled,
        end_time=end_time,
        metadata=metadata,
        given=given,
    )


async def delete_crons(cron_ids: Sequence[str], *, credentials: Credentials) -> list[str]:
    """Delete crons; gives the ids of those that were there.

    Raises:
        InvalidRequestError: Some are no ids; nothing was deleted.
        DeploymentError: One could not be deleted; a note says how many were.
    """
    check_cron_ids(cron_ids)
    context = await context_for(credentials)
    deleted: list[str] = []
    for done, cron_id in enumerate(cron_ids):
        try:
            if await operations.delete(context, cron_id):
                deleted.append(cron_id)
        except DeploymentError as error:
            error.add_note(
                f"{done} of {len(cron_ids)} were deleted before; calling again does the rest."
            )
            raise
    return deleted


async def find_crons(
    *,
    assistant_id: str | UUID | None = None,
    thread_id: str | UUID | None = None,
    enabled: bool | None = None,
    metadata: Mapping[str, Any] | None = None,
    owner: str | None = None,
    limit: int | None = None,
    headers: Mapping[str, str] | None = None,
    credentials: Credentials = None,
) -> list[CronHandle]:
    """What `search_crons` does, without a task run."""
    if limit is not None and (isinstance(limit, bool) or limit < 1):
        raise InvalidRequestError(f"limit={limit!r}: give one or more, or None for all.")
    check_json("metadata", metadata)
    plain = validate_headers(headers) or None
    context = await context_for(credentials)
    found = search(
        context.deployment,
        assistant_id=str(assistant_id) if assistant_id is not None else None,
        thread_id=check_thread_id(thread_id) if thread_id is not None else None,
        enabled=enabled,
        metadata={**(metadata or {}), **({CRON_OWNER: owner} if owner is not None else {})},
        limit=limit,
        headers=plain,
    )
    return [operations.handle_in(context, row) async for row in found]


async def _context_for_cron(cron: CronHandle | str, credentials: Credentials) -> Context:
    if isinstance(cron, CronHandle):
        return await context_of(await resolve_for(cron.url, cron.credentials, credentials))
    return await context_for(credentials)


def _update_name(parameters: Mapping[str, Any]) -> str:
    return f"update {_called(parameters.get('cron'))}"


def _delete_name(parameters: Mapping[str, Any]) -> str:
    return f"delete {_called(parameters.get('cron'))}"


def _called(cron: Any) -> str:
    """A cron as a task run is named after it: by its name, its assistant or its id."""
    if isinstance(cron, CronHandle):
        return f"cron {cron.name}" if cron.name else f"cron of {cron.assistant_id}"
    return f"cron {cron}"


async def _update_cron(
    cron: CronHandle | str,
    *,
    schedule: ScheduleLike | None = None,
    timezone: str | None = None,
    allow_seconds: bool = False,
    enabled: bool | None = None,
    end_time: datetime | Literal["unchanged"] | None = "unchanged",
    input: Any = None,
    config: Config | None = None,
    context: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    on_run_completed: OnRunCompleted | None = None,
    webhook: str | None = None,
    interrupt_before: All | Sequence[str] | None = None,
    interrupt_after: All | Sequence[str] | None = None,
    stream_mode: StreamMode | Sequence[StreamMode] | None = None,
    stream_subgraphs: bool | None = None,
    stream_resumable: bool | None = None,
    durability: Durability | None = None,
    headers: Mapping[str, str] | None = None,
    credentials: Credentials = None,
) -> CronHandle:
    """Change a cron; what is not given stays as it is.

    Pausing and resuming is `enabled`. A cron that is enabled again fires next at its next date, not
    for the dates it missed. Safe to repeat. `aupdate_cron` is the asynchronous twin.

    Args:
        cron: The cron's handle, or its id.
        schedule: A cron string or a Prefect schedule.
        timezone: An IANA name.
        allow_seconds: Says that the sixth field means seconds, as the server reads it.
        enabled: False pauses, True resumes.
        end_time: When it stops firing. None takes its end away. Ends the renewal of a lease.
        input: The graph's input.
        config: Replaces the whole config.
        context: Replaces the whole context.
        metadata: Added to the cron's.
        on_run_completed: "delete" or "keep".
        webhook: Called by the server when a run ends.
        interrupt_before: Nodes to stop before, or "*".
        interrupt_after: Nodes to stop after, or "*".
        stream_mode: What the server keeps for those who stream its runs.
        stream_subgraphs: True streams subgraphs too.
        stream_resumable: True lets a stream be read again from its beginning.
        durability: "sync", "async" or "exit".
        headers: Refused: no header of ours reaches a cron's runs. Use config or context.
        credentials: For an id as in other tasks. For a handle, only where the handle's own do not
            lead to the deployment.

    Returns:
        The handle, as it is now.

    Raises:
        NotFoundError: There is no such cron.
        ScheduleError: No Deploy cron says the schedule.
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import create_cron, delete_cron, update_cron
        >>> cron = create_cron("answer", "0 9 * * *", {"question": "What is new?"})
        >>> paused = update_cron(cron, enabled=False)
        >>> paused.next_run_date is None
        True
        >>> delete_cron(cron)
    """
    return await _update(
        cron,
        schedule=schedule,
        timezone=timezone,
        allow_seconds=allow_seconds,
        enabled=enabled,
        end_time=end_time,
        input=input,
        config=config,
        context=context,
        metadata=metadata,
        on_run_completed=on_run_completed,
        webhook=webhook,
        interrupt_before=interrupt_before,
        interrupt_after=interrupt_after,
        stream_mode=stream_mode,
        stream_subgraphs=stream_subgraphs,
        stream_resumable=stream_resumable,
        durability=durability,
        headers=headers,
        credentials=credentials,
    )


update_cron, aupdate_cron = faces(_update_cron, run_name=_update_name)


async def _delete_cron(
    cron: CronHandle | str,
    *,
    headers: Mapping[str, str] | None = None,
    credentials: Credentials = None,
) -> None:
    """Delete a cron. It fires no more; a run that it has started goes on.

    Safe to repeat: a cron that is gone already is fine. `adelete_cron` is the asynchronous twin.

    Args:
        cron: The cron's handle, or its id.
        headers: For this request, over the block's.
        credentials: For an id as in other tasks. For a handle, only where the handle's own do not
            lead to the deployment.

    Raises:
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import create_cron, delete_cron
        >>> cron = create_cron("answer", "@daily", {"question": "What is new?"})
        >>> delete_cron(cron)
        >>> delete_cron(cron)
    """
    plain = validate_headers(headers) or None
    if not isinstance(cron, CronHandle):
        check_cron_ids([cron])
    context = await _context_for_cron(cron, credentials)
    deleted = await operations.delete(context, cron, headers=plain)
    context.logger.info("%s cron %s", "Deleted" if deleted else "Gone already:", operations.id_of(cron))


delete_cron, adelete_cron = faces(_delete_cron, run_name=_delete_name)


async def _search_crons(
    *,
    assistant_id: str | UUID | None = None,
    thread_id: str | UUID | None = None,
    enabled: bool | None = None,
    metadata: Mapping[str, Any] | None = None,
    owner: str | None = None,
    limit: int | None = None,
    headers: Mapping[str, str] | None = None,
    credentials: Credentials = None,
) -> list[CronHandle]:
    """Find crons, however many there are.

    Changes nothing; safe to repeat. `asearch_crons` is the asynchronous twin.

    Args:
        assistant_id: Of this assistant, by its id; of every assistant of a graph, by the graph's name.
        thread_id: On this thread.
        enabled: True for those that fire, False for those that are paused.
        metadata: With these values in their metadata.
        owner: Of this owner, as given to `reconcile_crons`.
        limit: At most so many. None is all.
        headers: For this request, over the block's.
        credentials: A saved block's name, a block, or None for the block named `default`.

    Returns:
        Handles, from the oldest cron to the newest.

    Raises:
        NotFoundError: There is no graph of that name.
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import search_crons
        >>> paused = search_crons(assistant_id="answer", enabled=False)
    """
    return await find_crons(
        assistant_id=assistant_id,
        thread_id=thread_id,
        enabled=enabled,
        metadata=metadata,
        owner=owner,
        limit=limit,
        headers=headers,
        credentials=credentials,
    )


search_crons, asearch_crons = faces(_search_crons, run_name="search crons")
