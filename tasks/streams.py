"""Read a run while it works."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, get_args
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
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.headers import HeaderValue
from prefect_langgraph.models import RunHandle, StreamPart
from prefect_langgraph.results import OnInterrupt, RunResult
from prefect_langgraph.runs import operations
from prefect_langgraph.runs.call import OnTimeout
from prefect_langgraph.runs.request import RunRequest
from prefect_langgraph.streams.log_lines import write_lines
from prefect_langgraph.streams.parts import OnDisconnect, parts_of
from prefect_langgraph.streams.reader import Position
from prefect_langgraph.tasks._task import (
    call_deadline,
    context_for,
    context_for_handle,
    faces,
    named_by_handle,
    request_of,
    stream_faces,
)

_MODES: frozenset[str] = frozenset(get_args(StreamMode))


def _modes_of(stream_mode: str | Sequence[str]) -> list[str]:
    modes = [stream_mode] if isinstance(stream_mode, str) else list(stream_mode)
    if not modes:
        raise InvalidRequestError("stream_mode: give one mode, or a list with at least one.")
    for mode in modes:
        check_choice("stream_mode", mode, sorted(_MODES))
    return modes


async def _request(
    assistant_id: str | UUID,
    input: Any,
    stream_mode: StreamMode | Sequence[StreamMode],
    *,
    metadata: Mapping[str, Any] | None,
    headers: Mapping[str, HeaderValue] | None,
    after_seconds: int | None,
    **options: Any,
) -> RunRequest:
    modes = _modes_of(stream_mode)
    if "messages" in modes:
        # The server does not keep its parts: a reader that comes after the run began misses some.
        after_seconds = max(after_seconds or 0, 1)
    more = {"after_seconds": after_seconds, "stream_mode": modes, "stream_resumable": True}
    return await request_of(
        assistant_id, input, metadata=metadata, headers=headers, options={**options, **more}
    )


async def _parts(
    assistant_id: str | UUID,
    input: Any,
    *,
    operation: str,
    thread_id: str | UUID | None,
    stream_mode: StreamMode | Sequence[StreamMode],
    on_interrupt: OnInterrupt = "raise",
    on_disconnect: OnDisconnect = "cancel",
    after_seconds: int | None,
    credentials: Credentials,
    metadata: Mapping[str, Any] | None,
    headers: Mapping[str, HeaderValue] | None,
    max_wait_seconds: float | None,
    on_timeout: OnTimeout,
    idempotency_key: str | None,
    once: bool,
    results: list[RunResult] | None = None,
    **options: Any,
) -> AsyncGenerator[StreamPart, None]:
    check_choice("on_interrupt", on_interrupt, ("raise", "return"))
    check_choice("on_disconnect", on_disconnect, ("cancel", "continue"))
    check_choice("on_timeout", on_timeout, ("cancel", "leave"))
    deadline = call_deadline(max_wait_seconds)
    thread = check_thread_id(thread_id) if thread_id is not None else None
    request = await _request(
        assistant_id,
        input,
        stream_mode,
        metadata=metadata,
        headers=headers,
        after_seconds=after_seconds,
        **options,
    )
    context = await context_for(credentials)
    handle = await operations.start(
        context,
        request,
        operation=operation,
        thread_id=thread,
        deadline=deadline,
        idempotency_key=idempotency_key,
        once=once,
    )
    parts = parts_of(
        context,
        handle,
        deadline=deadline,
        on_timeout=on_timeout,
        on_interrupt=on_interrupt,
        on_disconnect=on_disconnect,
        stateless=thread is None,
        on_result=results.append if results is not None else None,
    )
    async with contextlib.aclosing(parts):
        async for part in parts:
            yield part


LOG_MODES: tuple[StreamMode, ...] = ("messages-tuple", "updates", "custom")
"""What `stream_to_logs` shows unless told otherwise."""


def _stream_run(
    assistant_id: str | UUID,
    input: Any = None,
    *,
    thread_id: str | UUID | None = None,
    stream_mode: StreamMode | Sequence[StreamMode] = "updates",
    stream_subgraphs: bool = False,
    on_interrupt: OnInterrupt = "raise",
    on_disconnect: OnDisconnect = "cancel",
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
) -> AsyncGenerator[StreamPart, None]:
    """Run an assistant and give the parts of its stream as they come.

    A generator: the run starts when the first part is asked for. Parts come in order and each once,
    also when connections are cut or the server restarts; should it have forgotten some, that is an
    error. After the last part comes how the run ended: nothing, or the error that a join would raise.

    A consumer that stops early (`break`, `close()`, an exception, a cancelled or killed process) lets
    go of the run as `on_disconnect` says. A retry of the task adopts the run, unless that failed, and
    goes on behind the part that came last; a flow run that is executed again reads from the beginning.
    `astream_run` is the asynchronous twin.

    Args:
        assistant_id: The assistant's id or the graph's name.
        input: The graph's input, as JSON.
        thread_id: The thread, a UUID, or None for one that exists for this run and goes with it.
        stream_mode: One mode or several, such as "values" or "messages-tuple". Of "messages" the server
            keeps nothing, so a cut there is an error; "messages-tuple" has the same tokens and is kept.
        stream_subgraphs: True streams subgraphs too; `namespace` tells them apart.
        on_interrupt: "raise" when the run stops for a person, or "return": the stream just ends.
        on_disconnect: "cancel" the run when the consumer stops before the run's end, or "continue".
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
        headers: For the request that starts the run, over the block's. Never shown or stored by us.
        max_wait_seconds: Wall clock, from the call to the run's end. None is unlimited.
        on_timeout: "cancel" the run when the time has passed, or "leave" it for a retry to adopt.
        idempotency_key: Replaces the key that is derived from flow run and arguments.
        once: False starts a run at every attempt.

    Yields:
        `StreamPart`s. The first is `metadata`, with the run's id.

    Raises:
        RunError: The run failed, timed out, was cancelled, stopped at an interrupt or was lost.
        StreamBrokenError: Parts are lost on the server.
        ThreadBusyError: The thread has a run and the strategy is "reject".
        JoinTimeoutError: `max_wait_seconds` passed.
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import stream_run
        >>> for part in stream_run("answer", {"question": "What is 6 x 7?"}):
        ...     print(part.event)
        metadata
        updates
    """
    return _parts(
        assistant_id,
        input,
        thread_id=thread_id,
        stream_mode=stream_mode,
        stream_subgraphs=stream_subgraphs,
        on_interrupt=on_interrupt,
        on_disconnect=on_disconnect,
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
        operation="stream_run",
    )


stream_run, astream_run = stream_faces(_stream_run, run_name="stream {assistant_id}")


async def _join_stream(
    handle: RunHandle,
    *,
    last_event_id: str | None = None,
    stream_mode: StreamMode | Sequence[StreamMode] | None = None,
    on_interrupt: OnInterrupt = "raise",
    on_disconnect: OnDisconnect = "continue",
    credentials: Credentials = None,
    max_wait_seconds: float | None = None,
    on_timeout: OnTimeout = "leave",
) -> AsyncGenerator[StreamPart, None]:
    """Read a run's stream from its beginning or from a part, also after the run has ended.

    For runs that were started with `stream_resumable=True`. Of others the server keeps nothing: who
    comes late gets `StreamBrokenError` and not a part of the parts. How the stream ends, and what a cut
    does to it, is as with `stream_run`. A thread of the run's own is deleted at the end, unless the run
    waits for a person; then only `join_run` still knows the outcome. `ajoin_stream` is the
    asynchronous twin.

    Args:
        handle: The run.
        last_event_id: The `id` of a `StreamPart`: reads what came after it. None is the beginning.
        stream_mode: One mode or several of those the run was started with; None gives all.
        on_interrupt: "raise" when the run stops for a person, or "return": the stream just ends.
        on_disconnect: "continue" leaves the run alone when the consumer stops before the run's end;
            "cancel" cancels it.
        credentials: Needed only where the handle's own do not lead to the deployment.
        max_wait_seconds: Wall clock. None is unlimited.
        on_timeout: "leave" the run when the time has passed, or "cancel" it.

    Yields:
        `StreamPart`s.

    Raises:
        RunError: The run failed, timed out, was cancelled, stopped at an interrupt or was lost.
        StreamBrokenError: Parts are lost on the server.
        JoinTimeoutError: `max_wait_seconds` passed.
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import join_stream, start_run
        >>> handle = start_run("answer", {"question": "?"}, stream_resumable=True)
        >>> events = [part.event for part in join_stream(handle, stream_mode="values")]
    """
    check_choice("on_interrupt", on_interrupt, ("raise", "return"))
    check_choice("on_disconnect", on_disconnect, ("cancel", "continue"))
    check_choice("on_timeout", on_timeout, ("cancel", "leave"))
    deadline = call_deadline(max_wait_seconds)
    position = Position.parse(last_event_id)
    parts = parts_of(
        await context_for_handle(handle, credentials),
        handle,
        deadline=deadline,
        on_timeout=on_timeout,
        on_interrupt=on_interrupt,
        on_disconnect=on_disconnect,
        stateless=False,
        position=position if position.id is not None else None,
        modes=_modes_of(stream_mode) if stream_mode is not None else None,
    )
    async with contextlib.aclosing(parts):
        async for part in parts:
            yield part


join_stream, ajoin_stream = stream_faces(_join_stream, run_name=named_by_handle("stream"))


async def _stream_to_logs(
    assistant_id: str | UUID,
    input: Any = None,
    *,
    thread_id: str | UUID | None = None,
    stream_mode: StreamMode | Sequence[StreamMode] = LOG_MODES,
    stream_subgraphs: bool = False,
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
) -> dict[str, Any]:
    """Run an assistant, show in the log what it says meanwhile, and return its final values.

    Tokens are joined into text, and there is at most one line every second. Shown are what models and
    tools say, the names of the nodes that are done, and what graphs write to "custom"; neither inputs
    nor states. Everything else is as with `stream_run`, except that a cancelled caller always cancels
    the run. `astream_to_logs` is the asynchronous twin.

    Args:
        assistant_id: The assistant's id or the graph's name.
        input: The graph's input, as JSON.
        thread_id: The thread, a UUID, or None for one that exists for this run and goes with it.
        stream_mode: One mode or several. Of other modes than "messages-tuple", "messages", "updates"
            and "custom" nothing is shown.
        stream_subgraphs: True shows subgraphs too.
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
        headers: For the request that starts the run, over the block's. Never shown or stored by us.
        max_wait_seconds: Wall clock, from the call to the run's end. None is unlimited.
        on_timeout: "cancel" the run when the time has passed, or "leave" it for a retry to adopt.
        idempotency_key: Replaces the key that is derived from flow run and arguments.
        once: False starts a run at every attempt.

    Returns:
        The graph's final state, as JSON: usually a dictionary.

    Raises:
        RunError: The run failed, timed out, was cancelled, stopped at an interrupt or was lost.
        StreamBrokenError: Parts are lost on the server.
        ThreadBusyError: The thread has a run and the strategy is "reject".
        JoinTimeoutError: `max_wait_seconds` passed.
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import stream_to_logs
        >>> values = stream_to_logs("answer", {"question": "What is 6 x 7?"})
    """
    results: list[RunResult] = []
    parts = _parts(
        assistant_id,
        input,
        thread_id=thread_id,
        stream_mode=stream_mode,
        stream_subgraphs=stream_subgraphs,
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
        operation="stream_to_logs",
        results=results,
    )
    async with contextlib.aclosing(parts):
        await write_lines(parts)
    values: dict[str, Any] = results[0].values
    return values


stream_to_logs, astream_to_logs = faces(_stream_to_logs, run_name="stream {assistant_id}")
