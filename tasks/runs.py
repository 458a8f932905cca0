"""Runs that the caller waits for: stateless, and on a thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
)

from prefect_langgraph.arguments import check_choice, check_thread_id
from prefect_langgraph.blocks.credentials import Credentials
from prefect_langgraph.errors import RunInterruptedError
from prefect_langgraph.headers import HeaderValue
from prefect_langgraph.models import RunStatus
from prefect_langgraph.results import OnInterrupt, values_of
from prefect_langgraph.runs.call import OnTimeout
from prefect_langgraph.runs.operations import run_to_end
from prefect_langgraph.tasks._task import call_deadline, context_for, faces, request_of


async def _run(
    assistant_id: str | UUID,
    input: Any,
    *,
    thread_id: str | UUID | None = None,
    operation: str,
    credentials: Credentials,
    max_wait_seconds: float | None,
    on_timeout: OnTimeout,
    idempotency_key: str | None,
    once: bool,
    on_interrupt: OnInterrupt,
    metadata: Mapping[str, Any] | None,
    headers: Mapping[str, HeaderValue] | None,
    **options: Any,
) -> dict[str, Any]:
    check_choice("on_timeout", on_timeout, ("cancel", "leave"))
    check_choice("on_interrupt", on_interrupt, ("raise", "return"))
    deadline = call_deadline(max_wait_seconds)
    thread = check_thread_id(thread_id) if thread_id is not None else None
    request = await request_of(assistant_id, input, metadata=metadata, headers=headers, options=options)
    result = await run_to_end(
        await context_for(credentials),
        request,
        operation=operation,
        thread_id=thread,
        deadline=deadline,
        on_timeout=on_timeout,
        idempotency_key=idempotency_key,
        once=once,
    )
    stopped = result.status is RunStatus.INTERRUPTED and on_interrupt == "raise"
    if stopped and thread is None:
        raise RunInterruptedError(
            f"Run {result.handle.run_id} of {result.handle.assistant_id} stopped for a person, and a "
            "stateless run keeps no thread to answer on. Use run_on_thread, or start_run and "
            "ask_interrupts.",
            handle=result.handle,
            status=result.status,
            values=result.values,
            interrupts=result.interrupts,
        )
    values: dict[str, Any] = values_of(result, on_interrupt)
    return values


async def _run_stateless(
    assistant_id: str | UUID,
    input: Any = None,
    *,
    credentials: Credentials = None,
    config: Config | None = None,
    context: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    command: Command | None = None,
    interrupt_before: All | Sequence[str] | None = None,
    interrupt_after: All | Sequence[str] | None = None,
    webhook: str | None = None,
    after_seconds: int | None = None,
    langsmith_tracing: LangSmithTracing | None = None,
    durability: Durability | None = None,
    headers: Mapping[str, HeaderValue] | None = None,
    max_wait_seconds: float | None = None,
    on_timeout: OnTimeout = "cancel",
    idempotency_key: str | None = None,
    once: bool = True,
    on_interrupt: OnInterrupt = "raise",
) -> dict[str, Any]:
    """Run an assistant once, without memory, and return its final values.

    The run has a thread that nobody else sees; it is deleted when the result is handed over, however
    the run ended. A retry adopts the run of the attempt before, unless that failed. When the caller
    is cancelled, killed by a signal or past its deadline, the run is cancelled. `arun_stateless` is
    the asynchronous twin.

    Args:
        assistant_id: The assistant's id or the graph's name.
        input: The graph's input, as JSON.
        credentials: A saved block's name, a block, or None for the block named `default`.
        config: What the graph reads as `config`: {"configurable": {...}, "recursion_limit": 50}.
        context: What the graph reads as `runtime.context`.
        metadata: For the run, beside this package's own tags.
        command: What a stopped graph goes on with, such as {"resume": "yes"}.
        interrupt_before: Nodes to stop before, or "*".
        interrupt_after: Nodes to stop after, or "*".
        webhook: Called by the server when the run ends.
        after_seconds: Delay before the run begins.
        langsmith_tracing: The LangSmith project and example that the run's trace belongs to.
        durability: "sync", "async" or "exit".
        headers: For this request, over the block's. Values are never shown or stored by us.
        max_wait_seconds: Wall clock, from the call to the result. None is unlimited.
        on_timeout: "cancel" the run when the time has passed, or "leave" it for a retry to adopt.
        idempotency_key: Replaces the key that is derived from flow run and arguments.
        once: False starts a run at every attempt.
        on_interrupt: "raise" when the run stops for a person, or "return" its output so far with the
            questions as `__interrupt__`. Nobody can answer them: its thread goes.

    Returns:
        The graph's output, as the SDK's `runs.wait` returns it: usually a dictionary.

    Raises:
        RunError: The run failed, timed out, was cancelled, stopped at an interrupt or was lost.
        JoinTimeoutError: `max_wait_seconds` passed.
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import run_stateless
        >>> values = run_stateless("answer", {"question": "What is 6 x 7?"})
    """
    return await _run(
        assistant_id,
        input,
        credentials=credentials,
        config=config,
        context=context,
        metadata=metadata,
        command=command,
        interrupt_before=interrupt_before,
        interrupt_after=interrupt_after,
        webhook=webhook,
        after_seconds=after_seconds,
        langsmith_tracing=langsmith_tracing,
        durability=durability,
        headers=headers,
        max_wait_seconds=max_wait_seconds,
        on_timeout=on_timeout,
        idempotency_key=idempotency_key,
        once=once,
        on_interrupt=on_interrupt,
        operation="run_stateless",
    )


run_stateless, arun_stateless = faces(_run_stateless, run_name="run {assistant_id}")


async def _run_on_thread(
    thread_id: str | UUID,
    assistant_id: str | UUID,
    input: Any = None,
    *,
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
    webhook: str | None = None,
    if_not_exists: IfNotExists | None = None,
    after_seconds: int | None = None,
    langsmith_tracing: LangSmithTracing | None = None,
    durability: Durability | None = None,
    strict_resume: bool | None = None,
    headers: Mapping[str, HeaderValue] | None = None,
    max_wait_seconds: float | None = None,
    on_timeout: OnTimeout = "cancel",
    idempotency_key: str | None = None,
    once: bool = True,
    on_interrupt: OnInterrupt = "raise",
) -> dict[str, Any]:
    """Run an assistant on a thread, with the state it has, and return the values of this run.

    The thread stays. Several assistants may take turns on one thread. The values are those that this
    run left, also when other runs have been on the thread since. A retry adopts the run of the
    attempt before, unless that failed. When the caller is cancelled, killed by a signal or past its
    deadline, the run is cancelled. `arun_on_thread` is the asynchronous twin.

    Args:
        thread_id: The thread, a UUID.
        assistant_id: The assistant's id or the graph's name.
        input: The graph's input, as JSON.
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
        webhook: Called by the server when the run ends.
        if_not_exists: "create" makes a missing thread; "reject" (the server's default) refuses.
        after_seconds: Delay before the run begins.
        langsmith_tracing: The LangSmith project and example that the run's trace belongs to.
        durability: "sync", "async" or "exit".
        strict_resume: Refuse an answer to an interrupt that is not waiting (`InvalidRequestError`)
            before anything is started; a busy thread then refuses unless you choose a strategy.
        headers: For this request, over the block's. Values are never shown or stored by us.
        max_wait_seconds: Wall clock, from the call to the result. None is unlimited.
        on_timeout: "cancel" the run when the time has passed, or "leave" it for a retry to adopt.
        idempotency_key: Replaces the key that is derived from flow run and arguments.
        once: False starts a run at every attempt.
        on_interrupt: "raise" when the run stops for a person, or "return" its output so far with the
            questions as `__interrupt__`, as the SDK's `runs.wait` does.

    Returns:
        The graph's output as this run left it, as the SDK's `runs.wait` returns it: usually a
        dictionary.

    Raises:
        RunError: The run failed, timed out, was cancelled, stopped at an interrupt or was lost.
        ThreadBusyError: The thread has a run and the strategy is "reject".
        JoinTimeoutError: `max_wait_seconds` passed.
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import create_thread, run_on_thread
        >>> thread_id = create_thread()
        >>> turn = {"messages": [{"role": "user", "content": "Hello"}]}
        >>> values = run_on_thread(thread_id, "chat", turn)
    """
    return await _run(
        assistant_id,
        input,
        thread_id=thread_id,
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
        webhook=webhook,
        if_not_exists=if_not_exists,
        after_seconds=after_seconds,
        langsmith_tracing=langsmith_tracing,
        durability=durability,
        strict_resume=strict_resume,
        headers=headers,
        max_wait_seconds=max_wait_seconds,
        on_timeout=on_timeout,
        idempotency_key=idempotency_key,
        once=once,
        on_interrupt=on_interrupt,
        operation="run_on_thread",
    )


run_on_thread, arun_on_thread = faces(_run_on_thread, run_name="run {assistant_id}")
