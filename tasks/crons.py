"""Crons: create them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from langgraph_sdk.schema import All, Config, Durability, MultitaskStrategy, StreamMode

from prefect_langgraph import _crons
from prefect_langgraph._cron_build import build
from prefect_langgraph._loop import io_loop
from prefect_langgraph.blocks.credentials import Credentials
from prefect_langgraph.cron_models import CronHandle, OnRunCompleted
from prefect_langgraph.schedules import ScheduleLike
from prefect_langgraph.tasks._task import context_for, langgraph_task


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
    return await _crons.create(
        await context_for(credentials),
        request,
        idempotency_key=idempotency_key,
        once=once,
        detached=detached,
    )


@langgraph_task("create_cron", run_name="create cron of {assistant_id}")
def create_cron(
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
        config: As in the SDK.
        context: As in the SDK.
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
    return io_loop().run(_create, **locals())


@langgraph_task("create_cron", run_name="create cron of {assistant_id}")
async def acreate_cron(
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
    """Create a cron: the asynchronous twin of `create_cron`."""
    return await io_loop().arun(_create, **locals())
