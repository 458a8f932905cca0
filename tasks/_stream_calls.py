"""What the stream tasks do, each written once, as a coroutine or a generator on the shared loop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, get_args
from uuid import UUID

from langgraph_sdk.schema import (
    StreamMode,
)

from prefect_langgraph import _runs
from prefect_langgraph._deadline import Deadline
from prefect_langgraph._runs import OnTimeout, check_choice, check_thread_id
from prefect_langgraph._start import RunRequest
from prefect_langgraph._stream_logs import write_lines
from prefect_langgraph._stream_reader import Position
from prefect_langgraph._streams import OnDisconnect, OnInterrupt, parts_of
from prefect_langgraph.blocks.credentials import Credentials
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.headers import HeaderValue
from prefect_langgraph.models import RunHandle, RunResult, StreamPart
from prefect_langgraph.tasks._task import (
    context_for,
    context_for_handle,
    request_of,
)

_MODES: frozenset[str] = frozenset(get_args(StreamMode))


def _modes_of(stream_mode: str | Sequence[str]) -> list[str]:
    modes = [stream_mode] if isinstance(stream_mode, str) else list(stream_mode)
    if not modes:
        raise InvalidRequestError("stream_mode: give one mode, or a list with at least one.")
    for mode in modes:
        check_choice("stream_mode", mode, sorted(_MODES))
    return modes


def _request(
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
        # Its parts are not kept by the server: who does not listen before the run begins has lost some.
        after_seconds = max(after_seconds or 0, 1)
    more = {"after_seconds": after_seconds, "stream_mode": modes, "stream_resumable": True}
    return request_of(
        assistant_id, input, metadata=metadata, headers=headers, options={**options, **more}
    )


async def stream_parts(
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
    deadline = Deadline.after(max_wait_seconds)
    thread = check_thread_id(thread_id) if thread_id is not None else None
    request = _request(
        assistant_id,
        input,
        stream_mode,
        metadata=metadata,
        headers=headers,
        after_seconds=after_seconds,
        **options,
    )
    context = await context_for(credentials)
    handle = await _runs.start(
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


async def join_parts(
    handle: RunHandle,
    *,
    last_event_id: str | None,
    stream_mode: StreamMode | Sequence[StreamMode] | None,
    on_interrupt: OnInterrupt,
    on_disconnect: OnDisconnect,
    credentials: Credentials,
    max_wait_seconds: float | None,
    on_timeout: OnTimeout,
) -> AsyncGenerator[StreamPart, None]:
    check_choice("on_interrupt", on_interrupt, ("raise", "return"))
    check_choice("on_disconnect", on_disconnect, ("cancel", "continue"))
    check_choice("on_timeout", on_timeout, ("cancel", "leave"))
    deadline = Deadline.after(max_wait_seconds)
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


async def parts_to_logs(**arguments: Any) -> Any:
    results: list[RunResult] = []
    async with contextlib.aclosing(stream_parts(**arguments, results=results)) as parts:
        await write_lines(parts)
    return results[0].values
