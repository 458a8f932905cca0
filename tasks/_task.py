"""What the tasks of this package have in common."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from uuid import UUID

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext

from prefect_langgraph.arguments import check_depth
from prefect_langgraph.blocks.credentials import Credentials, resolve, resolve_for
from prefect_langgraph.canonical import off_loop
from prefect_langgraph.errors import InvalidRequestError, RateLimitedError, UnreachableError
from prefect_langgraph.headers import HeaderValue, validate_headers
from prefect_langgraph.models import RunHandle
from prefect_langgraph.ownership.owner import caller_task_run
from prefect_langgraph.runs.call import Context, aundoing, context_of, undoing
from prefect_langgraph.runs.request import RunRequest, check_request
from prefect_langgraph.tasks._generators import AsyncSteps, SyncSteps
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.generators import AsyncFeed, SyncFeed
from prefect_langgraph.transport.loop import io_loop

P = ParamSpec("P")
R = TypeVar("R")

RunName = str | Callable[..., str]
"""As Prefect's `task_run_name`: a function with `parameters` gets what came of futures."""

RETRIES = 3
RETRY_DELAYS = [1.0, 5.0, 15.0]


def is_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """True when another attempt may help: the deployment could not be asked.

    What the graph did is never retried, nor what was wrong with the call. Prefect wants a plain
    function here: it turns retries off for anything else.
    """
    error = state.data
    if not isinstance(error, UnreachableError | RateLimitedError) or getattr(error, "in_doubt", False):
        return False
    delay = RETRY_DELAYS[min(max(task_run.run_count, 1), RETRIES) - 1]
    return error.retry_until is None or time.time() + delay < error.retry_until


def call_deadline(max_wait_seconds: float | None) -> Deadline:
    """The limit that a task's caller set: attempts after the first have what is left of it."""
    deadline = Deadline.after(max_wait_seconds)
    if deadline.end is None:
        return deadline
    context = TaskRunContext.get()
    ours = context is not None and isinstance(context.task, LangGraphTask)
    began = context.task_run.start_time if context is not None and ours else None
    gone = (datetime.now(UTC) - began).total_seconds() if began is not None else 0.0
    return replace(deadline, end=deadline.end - max(gone, 0.0), of_call=True)


class LangGraphTask(Task[P, R]):
    """A Prefect task that remembers which task run it was called from.

    A retry of a task that calls ours must meet the runs of its first attempt, and Prefect tells our
    task run the id of its caller but not the attempt.
    """

    if not TYPE_CHECKING:  # the signatures are Task's own

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            check_depth((args, kwargs))
            caller = _caller()
            with _called_from(caller), undoing():
                result = super().__call__(*args, **kwargs)
            if inspect.isgenerator(result):
                return SyncSteps(result, _caller)
            if inspect.isasyncgen(result):
                return AsyncSteps(result, _caller)
            return _await(result, caller) if inspect.iscoroutine(result) else result

        def submit(self, *args: Any, **kwargs: Any) -> Any:
            check_depth((args, kwargs))
            with _called_from(_caller()):
                return super().submit(*args, **kwargs)

        def map(self, *args: Any, **kwargs: Any) -> Any:
            check_depth((args, kwargs))
            with _called_from(_caller()):
                return super().map(*args, **kwargs)

        def with_options(self, *args: Any, **kwargs: Any) -> Any:
            # Prefect builds a plain Task here.
            other = object.__new__(type(self))
            other.__dict__.update(super().with_options(*args, **kwargs).__dict__)
            return other


def _caller() -> tuple[str, int] | None:
    task, flow = TaskRunContext.get(), FlowRunContext.get()
    flow_run_id = flow.flow_run.id if flow is not None and flow.flow_run is not None else None
    if task is None or task.task_run.flow_run_id != flow_run_id:
        return None
    return str(task.task_run.id), task.task_run.run_count


@contextmanager
def _called_from(caller: tuple[str, int] | None) -> Iterator[None]:
    token = caller_task_run.set(caller)
    try:
        yield
    finally:
        caller_task_run.reset(token)


async def _await(result: Awaitable[R], caller: tuple[str, int] | None) -> R:
    async with aundoing():
        with _called_from(caller):
            return await result


def langgraph_task(
    name: str, *, run_name: RunName, retries: int = RETRIES
) -> Callable[[Callable[P, R]], LangGraphTask[P, R]]:
    """Make a function one of this package's tasks.

    Nothing is cached: two identical calls are two runs. Retries are for what is transient.
    """

    def decorate(function: Callable[P, R]) -> LangGraphTask[P, R]:
        return LangGraphTask(
            fn=function,
            name=name,
            task_run_name=run_name,
            cache_policy=NO_CACHE,
            retries=retries,
            retry_delay_seconds=RETRY_DELAYS,
            retry_condition_fn=is_transient,
        )

    return decorate


def faces(
    operation: Callable[P, Coroutine[Any, Any, R]], *, run_name: RunName, retries: int = RETRIES
) -> tuple[LangGraphTask[P, R], LangGraphTask[P, Coroutine[Any, Any, R]]]:
    """The synchronous and the asynchronous task of an operation, which is named `_name`.

    Both run it on the shared loop and have its signature. The synchronous one has its docstring.
    """
    name = operation.__name__.removeprefix("_")

    @wraps(operation)
    def face(*args: P.args, **kwargs: P.kwargs) -> R:
        with undoing():
            return io_loop().run(operation, *args, **kwargs)

    @wraps(operation)
    async def aface(*args: P.args, **kwargs: P.kwargs) -> R:
        async with aundoing():
            return await io_loop().arun(operation, *args, **kwargs)

    _name(face, name, operation.__doc__)
    _name(aface, f"a{name}", _twin_docstring(name, operation.__doc__))
    decorate = langgraph_task(name, run_name=run_name, retries=retries)
    adecorate = langgraph_task(name, run_name=run_name, retries=retries)
    return decorate(face), adecorate(aface)


def stream_faces(
    operation: Callable[P, AsyncGenerator[R, None]], *, run_name: RunName
) -> tuple[
    LangGraphTask[P, Generator[R, None, None]],
    LangGraphTask[P, AsyncGenerator[R, None]],
]:
    """The two generator tasks of an operation that gives one item after another: see `faces`."""
    name = operation.__name__.removeprefix("_")

    @wraps(operation)
    def face(*args: P.args, **kwargs: P.kwargs) -> Generator[R, None, None]:
        with SyncFeed(operation, *args, **kwargs) as items:
            yield from items

    @wraps(operation)
    async def aface(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, None]:
        async with AsyncFeed(operation, *args, **kwargs) as items:
            async for item in items:
                yield item

    _name(face, name, operation.__doc__)
    _name(aface, f"a{name}", _twin_docstring(name, operation.__doc__))
    decorate = langgraph_task(name, run_name=run_name)
    adecorate = langgraph_task(name, run_name=run_name)
    return decorate(face), adecorate(aface)


def _name(face: Callable[..., Any], name: str, docstring: str | None) -> None:
    face.__name__ = face.__qualname__ = name
    face.__doc__ = docstring


def _twin_docstring(name: str, docstring: str | None) -> str:
    summary = (docstring or "").partition("\n")[0].rstrip(".")
    return f"{summary}: the asynchronous twin of `{name}`, with its arguments."


def named_by_handle(verb: str) -> Callable[..., str]:
    """Name task runs by the assistant of their handle. The task itself rejects what is not a handle."""

    def name(parameters: dict[str, Any]) -> str:
        handle = parameters.get("handle")
        return f"{verb} {handle.assistant_id if isinstance(handle, RunHandle) else 'run'}"

    return name


async def context_for(credentials: Credentials) -> Context:
    """The context of a call with these credentials."""
    return await context_of(await resolve(credentials))


async def context_for_handle(handle: RunHandle, credentials: Credentials) -> Context:
    """The context of a call on a handle.

    Raises:
        InvalidRequestError: It is not a handle.
    """
    if not isinstance(handle, RunHandle):
        raise InvalidRequestError("handle: give a RunHandle, as start_run returns it.")
    return await context_of(await resolve_for(handle.url, handle.credentials, credentials))


async def request_of(
    assistant_id: str | UUID,
    input: Any,
    *,
    metadata: Mapping[str, Any] | None,
    headers: Mapping[str, HeaderValue] | None,
    options: Mapping[str, Any],
) -> RunRequest:
    """The request for a run, checked. Options that are None are left to the server."""
    make = partial(checked_request, assistant_id, input, metadata=metadata, headers=headers)
    return await off_loop(partial(make, options=options), weigh=(input, options, metadata))


def checked_request(
    assistant_id: str | UUID,
    input: Any,
    *,
    metadata: Mapping[str, Any] | None,
    headers: Mapping[str, HeaderValue] | None,
    options: Mapping[str, Any],
) -> RunRequest:
    """`request_of` at once, for whoever is not on the shared loop."""
    payload = {name: value for name, value in options.items() if value is not None}
    if input is not None:
        payload["input"] = input
    request = RunRequest(
        assistant_id=str(assistant_id) if isinstance(assistant_id, UUID) else assistant_id,
        payload=payload,
        headers=validate_headers(headers) or None,
        metadata=dict(metadata or {}),
    )
    return check_request(request)
