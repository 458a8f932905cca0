"""Threads: state that lasts."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal
from uuid import UUID

from langgraph_sdk.schema import Checkpoint, ThreadState, ThreadStateSelectField

from prefect_langgraph.arguments import check_choice, check_json, check_thread_id
from prefect_langgraph.blocks.credentials import Credentials
from prefect_langgraph.errors import DeploymentError, NotFoundError
from prefect_langgraph.headers import HeaderValue, validate_headers
from prefect_langgraph.ownership.calls import check_same_call
from prefect_langgraph.ownership.keys import key_for
from prefect_langgraph.ownership.tags import CALL, thread_id_of
from prefect_langgraph.runs.call import Context, undo_if_interrupted
from prefect_langgraph.tasks._task import context_for, faces
from prefect_langgraph.transport.connection import mask_headers
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import InDoubtError, answer_to_abandoned

IfExists = Literal["raise", "do_nothing"]

_UNDO_SECONDS = 10.0


async def _delete_unused(context: Context, thread_id: str, may_be_ours: bool) -> None:
    """Delete a thread whose maker was cancelled, unless it was there before and has been used."""
    if not may_be_ours:
        return
    deployment, deadline = context.deployment, Deadline.after(_UNDO_SECONDS)
    threads, runs = deployment.client.threads, deployment.client.runs
    try:
        row = await deployment.thread(thread_id, deadline)
        if row is None or row.get("updated_at") != row.get("created_at"):
            return
        used = await deployment.send(
            lambda: runs.list(thread_id, limit=1), doing="look at a thread", deadline=deadline
        )
        if not used:
            doing = f"delete thread {thread_id}"
            await deployment.send(lambda: threads.delete(thread_id), doing=doing, deadline=deadline)
    except DeploymentError as error:
        context.logger.warning("Thread %s may stay: %s", thread_id, error)


async def _create_thread(
    *,
    thread_id: str | UUID | None = None,
    metadata: Mapping[str, Any] | None = None,
    if_exists: IfExists = "raise",
    supersteps: Sequence[Mapping[str, Any]] | None = None,
    graph_id: str | None = None,
    ttl: int | Mapping[str, Any] | None = None,
    headers: Mapping[str, HeaderValue] | None = None,
    credentials: Credentials = None,
    idempotency_key: str | None = None,
    once: bool = True,
) -> str:
    """Create a thread and return its id.

    The thread lasts until it is deleted: it belongs to you and no clean-up of ours touches it. A
    retry, or a second execution of the flow run, gets the thread of the first, and so meets the runs
    that were made on it. `acreate_thread` is the asynchronous twin.

    Args:
        thread_id: A UUID of your own; None derives one from flow run and arguments.
        metadata: To find the thread by.
        if_exists: With a `thread_id` that there is: "raise" or "do_nothing".
        supersteps: Updates that make the new thread's state, step by step, as copied from another.
        graph_id: The graph that the thread is for.
        ttl: Minutes the thread lives, or such as {"ttl": 60, "strategy": "delete"}.
        headers: For this request, over the block's.
        credentials: A saved block's name, a block, or None for the block named `default`.
        idempotency_key: Replaces the key that is derived from flow run and arguments.
        once: False makes a new thread at every attempt.

    Returns:
        The thread's id.

    Raises:
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import create_thread
        >>> thread_id = create_thread(metadata={"customer": "42"})
    """
    check_choice("if_exists", if_exists, ("raise", "do_nothing"))
    given = check_thread_id(thread_id) if thread_id is not None else None
    check_json("metadata", metadata)
    check_json("supersteps", supersteps)
    plain = validate_headers(headers) or None
    context = await context_for(credentials)
    threads = context.deployment.client.threads
    key = None
    if given is None:
        arguments = {"metadata": metadata, "supersteps": supersteps, "graph_id": graph_id, "ttl": ttl}
        key = await key_for(
            context.deployment,
            context.owner,
            "create_thread",
            arguments,
            idempotency_key=idempotency_key,
            once=once,
        )
    # An id of our own makes the request safe to repeat.
    chosen = given or (thread_id_of(key.text) if key is not None else str(uuid.uuid4()))
    tags = context.owner.tags(key=key.text if key is not None else None)
    record = key.record if key is not None else None
    if record is not None:
        tags[CALL] = record
    steps: Any = list(supersteps) if supersteps is not None else None
    undo = partial(_delete_unused, context, chosen, given is None or if_exists == "raise")
    abandoned = asyncio.Event()
    sending = asyncio.create_task(
        context.deployment.send(
            lambda: threads.create(
                thread_id=chosen,
                metadata={**(metadata or {}), **tags},
                if_exists=if_exists if given is not None else "do_nothing",
                supersteps=steps,
                graph_id=graph_id,
                ttl=ttl,
                headers=plain,
            ),
            doing=f"create thread {chosen}",
            deadline=context.deployment.patience(),
            hidden=[metadata, supersteps, plain],
            repeatable=given is None or if_exists == "do_nothing",
            abandoned=abandoned,
        )
    )
    try:
        created = await asyncio.shield(sending)
    except asyncio.CancelledError:
        with contextlib.suppress(InDoubtError):
            await answer_to_abandoned(sending, abandoned)
        await undo()
        raise
    except InDoubtError as doubt:
        # With if_exists="raise" a second request could refuse what the first one made.
        raise doubt.public() from None
    check_same_call(record, created.get("metadata"))
    undo_if_interrupted(undo)
    context.logger.info("Created thread %s", chosen)
    return chosen


create_thread, acreate_thread = faces(_create_thread, run_name="create thread")


async def _get_thread_state(
    thread_id: str | UUID,
    *,
    checkpoint: Checkpoint | None = None,
    checkpoint_id: str | None = None,
    subgraphs: bool = False,
    select: Sequence[ThreadStateSelectField] | None = None,
    headers: Mapping[str, HeaderValue] | None = None,
    credentials: Credentials = None,
) -> ThreadState:
    """Read the state of a thread as it is now, or was at a checkpoint.

    Changes nothing; safe to repeat. `aget_thread_state` is the asynchronous twin.

    Args:
        thread_id: The thread, a UUID.
        checkpoint: The checkpoint to read.
        checkpoint_id: The checkpoint to read, by its id.
        subgraphs: True includes the state of subgraphs.
        select: Fields to read; None reads all.
        headers: For this request, over the block's.
        credentials: A saved block's name, a block, or None for the block named `default`.

    Returns:
        The SDK's `ThreadState`: values, next, tasks, checkpoint, metadata, created_at, interrupts.
        In the metadata the server keeps the headers that its graph saw; the values of those that this
        call or its block carries are masked.

    Raises:
        NotFoundError: There is no such thread.
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import create_thread, get_thread_state
        >>> values = get_thread_state(create_thread())["values"]
    """
    thread = check_thread_id(thread_id)
    plain = validate_headers(headers) or None
    context = await context_for(credentials)
    threads = context.deployment.client.threads
    state = await context.deployment.send(
        lambda: threads.get_state(
            thread,
            checkpoint,
            checkpoint_id,
            subgraphs=subgraphs,
            select=list(select) if select is not None else None,
            headers=plain,
        ),
        doing=f"read the state of thread {thread}",
        deadline=context.deployment.patience(),
        hidden=plain,
    )
    mask_headers(state, [*(plain or {}), *dict(context.deployment.connection.headers)])
    return state


get_thread_state, aget_thread_state = faces(_get_thread_state, run_name="read thread {thread_id}")


async def _update_thread_state(
    thread_id: str | UUID,
    values: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
    *,
    as_node: str | None = None,
    checkpoint: Checkpoint | None = None,
    checkpoint_id: str | None = None,
    headers: Mapping[str, HeaderValue] | None = None,
    credentials: Credentials = None,
) -> Checkpoint:
    """Write to the state of a thread, as if a node had returned the values.

    Reducers apply, so a second write can add twice: a request whose answer was lost is not sent
    again, by us or by a retry of the task, but raises `UnreachableError` with `in_doubt` set.
    `aupdate_thread_state` is the asynchronous twin.

    Args:
        thread_id: The thread, a UUID.
        values: The update, as JSON.
        as_node: The node to write as.
        checkpoint: The checkpoint to write onto.
        checkpoint_id: The checkpoint to write onto, by its id.
        headers: For this request, over the block's.
        credentials: A saved block's name, a block, or None for the block named `default`.

    Returns:
        The new checkpoint.

    Raises:
        NotFoundError: There is no such thread.
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import create_thread, update_thread_state
        >>> thread_id = create_thread(graph_id="chat")
        >>> checkpoint = update_thread_state(thread_id, {"turns": 0})
    """
    thread = check_thread_id(thread_id)
    check_json("values", values)
    plain = validate_headers(headers) or None
    context = await context_for(credentials)
    threads, raw = context.deployment.client.threads, values
    try:
        answer = await context.deployment.send(
            lambda: threads.update_state(
                thread,
                raw,  # type: ignore[arg-type]
                as_node=as_node,
                checkpoint=checkpoint,
                checkpoint_id=checkpoint_id,
                headers=plain,
            ),
            doing=f"update the state of thread {thread}",
            deadline=context.deployment.patience(),
            hidden=[values, plain],
            repeatable=False,
        )
    except InDoubtError as doubt:
        raise doubt.public() from None
    return answer["checkpoint"]


update_thread_state, aupdate_thread_state = faces(
    _update_thread_state, run_name="update thread {thread_id}"
)


async def _delete_thread(
    thread_id: str | UUID,
    *,
    headers: Mapping[str, HeaderValue] | None = None,
    credentials: Credentials = None,
) -> None:
    """Delete a thread with its runs, its state and its crons.

    Safe to repeat: a thread that is gone already is fine. `adelete_thread` is the asynchronous twin.

    Args:
        thread_id: The thread, a UUID.
        headers: For this request, over the block's.
        credentials: A saved block's name, a block, or None for the block named `default`.

    Raises:
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import create_thread, delete_thread
        >>> delete_thread(create_thread())
    """
    thread = check_thread_id(thread_id)
    plain = validate_headers(headers) or None
    context = await context_for(credentials)
    threads = context.deployment.client.threads
    # What is gone already is what was asked for.
    with contextlib.suppress(NotFoundError):
        await context.deployment.send(
            lambda: threads.delete(thread, headers=plain),
            doing=f"delete thread {thread}",
            deadline=context.deployment.patience(),
            hidden=plain,
        )
    context.logger.info("Deleted thread %s", thread)


delete_thread, adelete_thread = faces(_delete_thread, run_name="delete thread {thread_id}")
