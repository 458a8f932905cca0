"""Runs in the background: start one, look at it, join it, cancel it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from langgraph_sdk.schema import (
    All,
    Checkpoint,
    Command,
    Config,
    Durability,
    IfNotExists,
    LangSmithTracing,
    MultitaskStrategy,
    StreamMode,
)

from prefect_langgraph.arguments import check_choice, check_thread_id
from prefect_langgraph.blocks.credentials import Credentials
from prefect_langgraph.headers import HeaderValue
from prefect_langgraph.models import RunHandle
from prefect_langgraph.results import OnInterrupt, RunResult, values_of
from prefect_langgraph.runs import operations
from prefect_langgraph.runs.call import CancelAction, OnTimeout, undo_if_interrupted
from prefect_langgraph.tasks._task import (
    call_deadline,
    context_for,
    context_for_handle,
    faces,
    named_by_handle,
    request_of,
)


async def _start(
    assistant_id: str | UUID,
    input: Any,
    *,
    thread_id: str | UUID | None,
    credentials: Credentials,
    max_wait_seconds: float | None,
    idempotency_key: str | None,
    once: bool,
    detached: bool,
    metadata: Mapping[str, Any] | None,
    headers: Mapping[str, HeaderValue] | None,
    **options: Any,
) -> RunHandle:
    deadline = call_deadline(max_wait_seconds)
    thread = check_thread_id(thread_id) if thread_id is not None else None
    request = await request_of(assistant_id, input, metadata=metadata, headers=headers, options=options)
    context = await context_for(credentials)
    handle = await operations.start(
        context,
        request,
        operation="start_run",
        thread_id=thread,
        deadline=deadline,
        idempotency_key=idempotency_key,
        once=once,
        detached=detached,
    )
    undo_if_interrupted(partial(operations.try_to_cancel, context, handle))
    return handle


async def _start_run(
    assistant_id: str | UUID,
    input: Any = None,
    *,
    thread_id: str | UUID | None = None,
    webhook: str | None = None,
    command: Command | None = None,
    multitask_strategy: MultitaskStrategy | None = None,
    credentials: Credentials = None,
    config: Config | None = None,
    context: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    checkpoint: Checkpoint | None = None,
    checkpoint_id: str | None = None,
    interrupt_before: All | Sequence[str] | None = None,
    interrupt_after: All | Sequence[str] | None = None,
    if_not_exists: IfNotExists | None = None,
    after_seconds: int | None = None,
    langsmith_tracing: LangSmithTracing | None = None,
    durability: Durability | None = None,
    strict_resume: bool | None = None,
    stream_mode: StreamMode | Sequence[StreamMode] | None = None,
    stream_subgraphs: bool | None = None,
    stream_resumable: bool | None = None,
    headers: Mapping[str, HeaderValue] | None = None,
    max_wait_seconds: float | None = None,
    idempotency_key: str | None = None,
    once: bool = True,
    detached: bool = False,
) -> RunHandle:
    """Start a run in the background and return its handle.

    Without a thread id the run gets a thread of its own, which goes when the run was joined, or with
    the flow run. A retry adopts the run of the attempt before, unless that failed. A call that is
    cancelled before it returned leaves no run behind. `astart_run` is the asynchronous twin.

    Args:
        assistant_id: The assistant's id or the graph's name.
        input: The graph's input, as JSON.
        thread_id: The thread, a UUID, or None for one that exists for this run.
        webhook: Called by the server when the run ends. "resume" calls Prefect, which resumes the flow
            run if it is suspended by then: a hint beside the resumer, see "Wait without a process".
        command: Instead of an input: `{"resume": answer}` answers an interrupt.
        multitask_strategy: On a busy thread: "reject" (`ThreadBusyError`), "enqueue" (the server's
            default), "interrupt" or "rollback" the run that is there.
        credentials: A saved block's name, a block, or None for the block named `default`.
        config: What the graph reads as `config`: {"configurable": {...}, "recursion_limit": 50}.
        context: What the graph reads as `runtime.context`.
        metadata: For the run, beside this package's own tags.
        checkpoint: The checkpoint to begin from.
        checkpoint_id: The checkpoint to begin from, by its id.
        interrupt_before: Nodes to stop before, or "*".
        interrupt_after: Nodes to stop after, or "*".
        if_not_exists: "create" makes a missing thread; "reject" (the server's default) refuses.
        after_seconds: Delay before the run begins.
        langsmith_tracing: The LangSmith project and example that the run's trace belongs to.
        durability: "sync", "async" or "exit".
        strict_resume: Refuse an answer to an interrupt that is not waiting (`InvalidRequestError`)
            before anything is started; a busy thread then refuses unless you choose a strategy.
        stream_mode: What the server keeps for those who stream this run.
        stream_subgraphs: True streams subgraphs too.
        stream_resumable: True lets a stream of this run be read again from its beginning.
        headers: For this request, over the block's. Values are never shown or stored by us.
        max_wait_seconds: Wall clock, until the run is started. None is unlimited.
        idempotency_key: Replaces the key that is derived from flow run and arguments.
        once: False starts a run at every attempt.
        detached: True lets the run outlive its flow run: nothing of ours ends it.

    Returns:
        The handle, which may cross processes.

    Raises:
        ThreadBusyError: The thread has a run and the strategy is "reject".
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import join_run, start_run
        >>> handle = start_run("answer", {"question": "What is 6 x 7?"})
        >>> values = join_run(handle)
    """
    return await _start(
        assistant_id,
        input,
        thread_id=thread_id,
        webhook=webhook,
        command=command,
        multitask_strategy=multitask_strategy,
        credentials=credentials,
        config=config,
        context=context,
        metadata=metadata,
        checkpoint=checkpoint,
        checkpoint_id=checkpoint_id,
        interrupt_before=interrupt_before,
        interrupt_after=interrupt_after,
        if_not_exists=if_not_exists,
        after_seconds=after_seconds,
        langsmith_tracing=langsmith_tracing,
        durability=durability,
        strict_resume=strict_resume,
        stream_mode=stream_mode,
        stream_subgraphs=stream_subgraphs,
        stream_resumable=stream_resumable,
        headers=headers,
        max_wait_seconds=max_wait_seconds,
        idempotency_key=idempotency_key,
        once=once,
        detached=detached,
    )


start_run, astart_run = faces(_start_run, run_name="start {assistant_id}")


async def _get_run(handle: RunHandle, *, credentials: Credentials = None) -> RunResult:
    """Look how a run stands, without waiting for it.

    Changes nothing on the server; safe to repeat. `aget_run` is the asynchronous twin.

    Args:
        handle: The run.
        credentials: Needed only where the handle's own do not lead to the deployment.

    Returns:
        Its status, and when it has ended its values, error or interrupts. Never raises for what
        became of the run: `result.raise_for_failure()` does.

    Raises:
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import get_run, start_run
        >>> status = get_run(start_run("answer", {"question": "?"})).status
    """
    context = await context_for_handle(handle, credentials)
    return await operations.get(context, handle, deadline=context.deployment.patience())


get_run, aget_run = faces(_get_run, run_name=named_by_handle("look at"), retries=0)


async def _join_run(
    handle: RunHandle,
    *,
    credentials: Credentials = None,
    max_wait_seconds: float | None = None,
    on_timeout: OnTimeout = "leave",
    on_interrupt: OnInterrupt = "raise",
) -> dict[str, Any]:
    """Wait for a run's end and return its values.

    The values are the run's own, also long after it ended and when other runs have been on its
    thread since. A thread of its own is deleted once the result is handed over, unless the run waits
    for a person. A cancelled caller leaves the run alone: it did not start it. A retry just joins
    again. `ajoin_run` is the asynchronous twin.

    Args:
        handle: The run.
        credentials: Needed only where the handle's own do not lead to the deployment.
        max_wait_seconds: Wall clock. None is unlimited.
        on_timeout: "leave" the run when the time has passed, or "cancel" it.
        on_interrupt: "raise" when the run stops for a person, or "return" its output so far with the
            questions as `__interrupt__`, as the SDK's `runs.wait` does.

    Returns:
        The graph's output, as the SDK's `runs.wait` returns it: usually a dictionary.

    Raises:
        RunError: The run failed, timed out, was cancelled, stopped at an interrupt or was lost.
        JoinTimeoutError: `max_wait_seconds` passed.
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import join_run, start_run
        >>> values = join_run(start_run("answer", {"question": "?"}), max_wait_seconds=60)
    """
    check_choice("on_interrupt", on_interrupt, ("raise", "return"))
    check_choice("on_timeout", on_timeout, ("cancel", "leave"))
    deadline = call_deadline(max_wait_seconds)
    context = await context_for_handle(handle, credentials)
    result = await operations.wait(
        context, handle, deadline=deadline, on_timeout=on_timeout, cancel_with_caller=False
    )
    await operations.release(context, [result])
    values: dict[str, Any] = values_of(result, on_interrupt)
    return values


join_run, ajoin_run = faces(_join_run, run_name=named_by_handle("join"))


async def _cancel_run(
    handle: RunHandle,
    *,
    credentials: Credentials = None,
    action: CancelAction = "interrupt",
    max_wait_seconds: float | None = 60.0,
) -> RunResult:
    """Stop a run and report how it ended.

    Safe to repeat, and harmless to a run that has ended: its outcome is returned. Node code that
    never awaits may still finish afterwards. `acancel_run` is the asynchronous twin.

    Args:
        handle: The run.
        credentials: Needed only where the handle's own do not lead to the deployment.
        action: "interrupt" keeps the run and its checkpoints, "rollback" deletes them.
        max_wait_seconds: How long to wait for the server's confirmation. None is unlimited.

    Returns:
        How the run ended: `cancelled`, or what it had become before.

    Raises:
        UnreachableError: The server could not confirm the stop.

    Example:
        >>> from prefect_langgraph import cancel_run, start_run
        >>> result = cancel_run(start_run("worker", {"sleep": 60}))
    """
    check_choice("action", action, ("interrupt", "rollback"))
    deadline = call_deadline(max_wait_seconds)
    context = await context_for_handle(handle, credentials)
    result = await operations.cancel(context.deployment, handle, deadline=deadline, action=action)
    context.logger.info("Cancelled %s: %s", handle, result.status)
    await operations.release(context, [result])
    return result


cancel_run, acancel_run = faces(_cancel_run, run_name=named_by_handle("cancel"))
