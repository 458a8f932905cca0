"""Many runs at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from langgraph_sdk.schema import All, Config, Durability

from prefect_langgraph.arguments import ONE_PER_RUN, check_choice, check_count
from prefect_langgraph.blocks.credentials import Credentials
from prefect_langgraph.canonical import off_loop
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.headers import HeaderValue
from prefect_langgraph.logs import counted
from prefect_langgraph.many_runs import join
from prefect_langgraph.many_runs.engine import FanOut
from prefect_langgraph.many_runs.join import OnFailure
from prefect_langgraph.models import RunHandle, RunItem
from prefect_langgraph.results import FanOutResult
from prefect_langgraph.runs.call import CancelAction, Context, OnTimeout, undo_if_interrupted
from prefect_langgraph.runs.request import RunRequest
from prefect_langgraph.tasks._task import (
    call_deadline,
    checked_request,
    context_for,
    context_for_handle,
    faces,
)


# Prefect hands over what came of futures; `prefect.runtime` would still show the futures themselves.
def _start_name(parameters: Mapping[str, Any]) -> str:
    assistant = parameters.get("assistant_id")
    return f"start {_runs_in(parameters, 'inputs')}" + (f" of {assistant}" if assistant else "")


def _join_name(parameters: Mapping[str, Any]) -> str:
    return f"join {_runs_in(parameters, 'handles')}"


def _cancel_name(parameters: Mapping[str, Any]) -> str:
    return f"cancel {_runs_in(parameters, 'handles')}"


def _runs_in(parameters: Mapping[str, Any], name: str) -> str:
    many = parameters.get(name)
    # The task itself rejects what is not a list.
    return counted(len(many), "run") if isinstance(many, Sequence) else "runs"


async def _contexts(handles: Sequence[RunHandle], credentials: Credentials) -> join.Contexts:
    many = isinstance(handles, Sequence) and not isinstance(handles, str)
    if not many or not all(isinstance(item, RunHandle) for item in handles):
        raise InvalidRequestError("handles: give a list of RunHandles, as start_runs returns it.")
    contexts: dict[tuple[str, str | None], Context] = {}
    for handle in handles:
        if join.location_of(handle) not in contexts:
            contexts[join.location_of(handle)] = await context_for_handle(handle, credentials)
    return contexts


def requests_of(
    assistant_id: str | UUID | None,
    inputs: Sequence[Any],
    *,
    metadata: Mapping[str, Any] | None,
    headers: Mapping[str, HeaderValue] | None,
    options: Mapping[str, Any],
) -> list[RunRequest]:
    """A checked request for each input."""
    if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Sequence):
        raise InvalidRequestError(ONE_PER_RUN)
    requests: list[RunRequest] = []
    for index, given in enumerate(inputs):
        item = given if isinstance(given, RunItem) else RunItem.model_construct(input=given)
        own = {"config": item.config, "context": item.context}
        chosen = item.assistant_id or assistant_id
        if chosen is None:
            raise InvalidRequestError(f"input {index} has no assistant_id, and neither has the call.")
        try:
            request = checked_request(
                chosen,
                item.input,
                metadata={**(metadata or {}), **(item.metadata or {})},
                headers=headers,
                options={**options, **{key: value for key, value in own.items() if value is not None}},
            )
        except InvalidRequestError as error:
            raise InvalidRequestError(f"input {index}: {error}") from None
        requests.append(replace(request, item_key=item.key))
    return requests


async def _start(
    assistant_id: str | UUID | None,
    inputs: Sequence[Any],
    *,
    credentials: Credentials,
    max_in_flight: int | None,
    max_wait_seconds: float | None,
    idempotency_key: str | None,
    once: bool,
    detached: bool,
    metadata: Mapping[str, Any] | None,
    headers: Mapping[str, HeaderValue] | None,
    **options: Any,
) -> list[RunHandle]:
    check_count("max_in_flight", max_in_flight)
    deadline = call_deadline(max_wait_seconds)
    make = partial(requests_of, assistant_id, inputs, metadata=metadata, headers=headers)
    requests = await off_loop(partial(make, options=options), weigh=(inputs, options))
    context = await context_for(credentials)
    fan_out = FanOut(
        context,
        requests,
        operation="start_runs",
        deadline=deadline,
        max_in_flight=max_in_flight,
        idempotency_key=idempotency_key,
        once=once,
        detached=detached,
    )
    handles = await fan_out.start()
    undo_if_interrupted(partial(fan_out.cancel, handles))
    origins = Counter(handle.origin for handle in handles)
    shown = ", ".join(f"{count} {origin}" for origin, count in sorted(origins.items()))
    context.logger.info("%s: %s", counted(len(handles), "run"), shown or "none to start")
    return handles


async def _start_runs(
    assistant_id: str | UUID | None,
    inputs: Sequence[Any],
    *,
    credentials: Credentials = None,
    config: Config | None = None,
    context: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    interrupt_before: All | Sequence[str] | None = None,
    interrupt_after: All | Sequence[str] | None = None,
    webhook: str | None = None,
    after_seconds: int | None = None,
    durability: Durability | None = None,
    headers: Mapping[str, HeaderValue] | None = None,
    max_in_flight: int | None = None,
    max_wait_seconds: float | None = None,
    idempotency_key: str | None = None,
    once: bool = True,
    detached: bool = False,
) -> list[RunHandle]:
    """Start many runs, a few hundred per request, and return their handles in order.

    Each run has a thread of its own, which goes when the run was joined, or with the flow run. A
    retry, and a second execution of the flow run, adopt the runs of the first, except those that
    failed. When the server refuses one, those that were started are cancelled and the refusal is
    raised. A cancelled caller leaves no run behind. `astart_runs` is the asynchronous twin.

    Args:
        assistant_id: The assistant's id or the graph's name; None when every `RunItem` names its own.
        inputs: One per run: the graph's input as JSON, or a `RunItem` that differs in more.
        credentials: A saved block's name, a block, or None for the block named `default`.
        config: What the graph reads as `config`: {"configurable": {...}, "recursion_limit": 50}.
        context: What the graph reads as `runtime.context`.
        metadata: For each run, beside this package's own tags.
        interrupt_before: Nodes to stop before, or "*".
        interrupt_after: Nodes to stop after, or "*".
        webhook: Called by the server when each run ends. "resume" as in `start_run`; each of the runs
            then wakes a suspended flow run.
        after_seconds: Delay before each run begins.
        durability: "sync", "async" or "exit".
        headers: For these requests, over the block's. Values are never shown or stored by us.
        max_in_flight: At most so many on the server at once: the rest starts as others end, and the
            call returns when the last is started. None is unlimited.
        max_wait_seconds: Wall clock, until all are started. None is unlimited.
        idempotency_key: Replaces the keys that are derived from flow run and arguments.
        once: False starts all of them at every attempt.
        detached: True lets the runs outlive their flow run: nothing of ours ends them.

    Returns:
        One handle per input, in their order.

    Raises:
        DeploymentError: The deployment refused an input, named in a note, or could not be asked.

    Example:
        >>> from prefect_langgraph import join_runs, start_runs
        >>> handles = start_runs("answer", [{"question": "a"}, {"question": "b"}])
        >>> len(join_runs(handles))
        2
    """
    return await _start(
        assistant_id,
        inputs,
        credentials=credentials,
        config=config,
        context=context,
        metadata=metadata,
        interrupt_before=interrupt_before,
        interrupt_after=interrupt_after,
        webhook=webhook,
        after_seconds=after_seconds,
        durability=durability,
        headers=headers,
        max_in_flight=max_in_flight,
        max_wait_seconds=max_wait_seconds,
        idempotency_key=idempotency_key,
        once=once,
        detached=detached,
    )


start_runs, astart_runs = faces(_start_runs, run_name=_start_name)


async def _join_runs(
    handles: Sequence[RunHandle],
    *,
    credentials: Credentials = None,
    on_failure: OnFailure = "raise",
    max_wait_seconds: float | None = None,
    on_timeout: OnTimeout = "leave",
) -> FanOutResult:
    """Wait for many runs, for the price of one, and return every result in input order.

    Threads of their own are deleted together once the results are handed over, except those that
    wait for a person. A cancelled caller leaves the runs alone: it did not start them. A retry just
    joins again. `ajoin_runs` is the asynchronous twin.

    Args:
        handles: The runs; they may be of several deployments.
        credentials: Needed only where the handles' own do not lead to the deployment.
        on_failure: "raise" waits for all and raises one `FanOutError` that holds every result;
            "fail_fast" cancels the rest at the first failure, waits until that is so, and raises the
            same; "collect" returns the results whatever they are; of a run that the deployment
            would not tell about, the status last seen and an `error` that names why.
        max_wait_seconds: Wall clock for all of them together. None is unlimited.
        on_timeout: "leave" what has not ended when the time has passed, or "cancel" it.

    Returns:
        One `RunResult` per handle, in their order.

    Raises:
        FanOutError: Runs did not succeed, unless `on_failure` is "collect".
        JoinTimeoutError: `max_wait_seconds` passed, unless `on_failure` is "collect"; then the
            results say what has not ended.
        DeploymentError: A deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import join_runs, start_run
        >>> handles = [start_run("answer", {"question": text}) for text in ("a", "b")]
        >>> [result.status.value for result in join_runs(handles)]
        ['success', 'success']
    """
    check_choice("on_failure", on_failure, ("raise", "fail_fast", "collect"))
    check_choice("on_timeout", on_timeout, ("cancel", "leave"))
    deadline = call_deadline(max_wait_seconds)
    return await join.join_many(
        await _contexts(handles, credentials),
        list(handles),
        on_failure=on_failure,
        deadline=deadline,
        on_timeout=on_timeout,
    )


join_runs, ajoin_runs = faces(_join_runs, run_name=_join_name)


async def _cancel_runs(
    handles: Sequence[RunHandle],
    *,
    credentials: Credentials = None,
    action: CancelAction = "interrupt",
    max_wait_seconds: float | None = 120.0,
) -> FanOutResult:
    """Stop many runs, wait until it is so, and report how each ended.

    Safe to repeat, and harmless to runs that have ended. `acancel_runs` is the asynchronous twin.

    Args:
        handles: The runs; they may be of several deployments.
        credentials: Needed only where the handles' own do not lead to the deployment.
        action: "interrupt" keeps runs and checkpoints, "rollback" deletes them.
        max_wait_seconds: How long to wait for the server's confirmations. None is unlimited.

    Returns:
        One `RunResult` per handle, in their order: `cancelled`, or what it had become before.

    Raises:
        UnreachableError: Some stops could not be confirmed; the message counts and names them.

    Example:
        >>> from prefect_langgraph import cancel_runs, start_run
        >>> results = cancel_runs([start_run("worker", {"sleep": 60})])
    """
    check_choice("action", action, ("interrupt", "rollback"))
    deadline = call_deadline(max_wait_seconds)
    contexts = await _contexts(handles, credentials)
    results = await join.cancel_many(contexts, list(handles), deadline=deadline, action=action)
    await join.release_many(contexts, results)
    return FanOutResult(results=tuple(results))


cancel_runs, acancel_runs = faces(_cancel_runs, run_name=_cancel_name)
