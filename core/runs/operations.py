"""What the run tasks and the blocks do, each written once, as a coroutine on the shared loop.

Invariants:
- Every wait ends in a checked outcome, a typed error, or the caller's own cancellation.
- A call that started a run and stops waiting for it cancels it and asks whether that worked, unless it
  is told to leave it.
- A thread of a run is released only after its outcome was read, and never while a person is awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from prefect_langgraph.errors import (
    DeploymentError,
    JoinTimeoutError,
    LangGraphError,
    NotFoundError,
    UnreachableError,
)
from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.ownership.claims import ClaimThreads
from prefect_langgraph.ownership.keys import Key, key_for
from prefect_langgraph.ownership.owner import Owner
from prefect_langgraph.ownership.pruning import Pruner, ReleasedResults
from prefect_langgraph.ownership.tags import NO_ANSWER, thread_id_of
from prefect_langgraph.results import RunResult
from prefect_langgraph.runs.call import CancelAction, Context, OnTimeout
from prefect_langgraph.runs.output import Outputs
from prefect_langgraph.runs.poller import Poller
from prefect_langgraph.runs.request import RunRequest, with_webhook
from prefect_langgraph.runs.start import Starter
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment

CANCEL_SECONDS = 20.0
"""How long a caller that gives up waits for the server to confirm that its run stopped."""

_CANCEL_AGAIN_SECONDS = 5.0

LOOK_SECONDS = 1.0
"""How long the server has to tell how a run stands after a deadline passed."""

RELEASE_SECONDS = 2.0
"""How long a result that is in hand waits for its clean-up where the caller's time is over."""

_REMEMBERED_JOIN = 100  # results of a larger join are not kept for a second join


async def start(
    context: Context,
    request: RunRequest,
    *,
    operation: str,
    thread_id: str | None = None,
    deadline: Deadline,
    idempotency_key: str | None = None,
    once: bool = True,
    detached: bool = False,
) -> RunHandle:
    """Start a run once, or adopt it. A caller that gives up meanwhile leaves no run behind."""
    deployment = context.deployment
    deployment.connection.check_headers(request.headers)
    with_webhook(request.payload, context.owner)  # refused before anything is sent
    key = await key_for(
        deployment,
        context.owner,
        operation,
        {**request.arguments, "thread_id": thread_id},
        idempotency_key=idempotency_key,
        once=once,
        deadline=deadline,
    )
    starter = Starter(
        deployment,
        request,
        owner=context.owner,
        detached=detached,
        key=key,
        thread_id=thread_id,
        deadline=deadline,
    )
    try:
        handle = await starter.start()
    except asyncio.CancelledError:
        if starter.left_behind is not None:
            await try_to_cancel(context, starter.left_behind)
        raise
    except DeploymentError:
        if starter.in_doubt:
            await deployment.clean_up(_cancel_doubtful(context, starter))
        raise
    how = {
        "started": "Started",
        "adopted": "Adopted, from an earlier attempt,",
        "restarted": "Started afresh, after a failed attempt,",
    }[handle.origin]
    context.logger.info("%s %s%s", how, handle, f": {handle.trace_url}" if handle.trace_url else "")
    return handle


async def _cancel_doubtful(context: Context, starter: Starter) -> None:
    """Cancel the run of a start whose answer was lost as the deadline passed, if there is one."""
    try:
        handle = await starter.look_for_doubtful()
    except DeploymentError as error:
        context.logger.warning("A run may have been started, and may be running: %s", error)
        return
    if handle is not None:
        await try_to_cancel(context, handle)


async def run_to_end(
    context: Context,
    request: RunRequest,
    *,
    operation: str,
    thread_id: str | None,
    deadline: Deadline,
    on_timeout: OnTimeout,
    idempotency_key: str | None,
    once: bool,
) -> RunResult:
    """Start a run, wait for its end and release what existed only for it."""
    handle = await start(
        context,
        request,
        operation=operation,
        thread_id=thread_id,
        deadline=deadline,
        idempotency_key=idempotency_key,
        once=once,
    )
    result = await wait(
        context, handle, deadline=deadline, on_timeout=on_timeout, cancel_with_caller=True
    )
    # Nobody can answer an interrupt on a thread that is for one call only.
    await release(context, [result], interrupted_too=thread_id is None, deadline=deadline)
    return result


async def wait_until_ended(
    context: Context,
    handle: RunHandle,
    *,
    deadline: Deadline,
    exact: bool = True,
    quiet: bool = False,
) -> RunResult | None:
    """Wait for a run's end; None when the deadline passed first.

    Args:
        context: The call's.
        handle: The run.
        deadline: The caller's.
        exact: See `Poller.wait`.
        quiet: True logs nothing.
    """
    logger = context.logger
    if (known := context.deployment.part(ReleasedResults).get(handle)) is not None:
        return known

    def log_status(status: RunStatus) -> None:
        logger.info("%s: %s", _sentence(handle), status)

    poller = context.deployment.part(Poller)

    def log_trouble(error: DeploymentError) -> None:
        if poller.episode.is_news(context.owner.flow_run_id):
            logger.warning("Still waiting for runs: %s", error)

    result = await poller.wait(
        handle,
        deadline=deadline,
        exact=exact,
        on_status=None if quiet else log_status,
        on_trouble=None if quiet else log_trouble,
    )
    if result is not None:
        result = await context.deployment.part(Outputs).finished(result, deadline)
    if result is not None and not quiet:
        took = f" after {result.seconds:.1f} s" if result.seconds is not None else ""
        level = logger.info if result.status is RunStatus.SUCCESS else logger.warning
        level("%s: ended, %s%s", _sentence(handle), result.status, took)
    return result


async def wait(
    context: Context,
    handle: RunHandle,
    *,
    deadline: Deadline,
    on_timeout: OnTimeout,
    cancel_with_caller: bool,
    chosen: bool = True,
) -> RunResult:
    """Wait for a run's end, or say by an error that the deadline passed.

    Args:
        context: The call's.
        handle: The run.
        deadline: The caller's.
        on_timeout: What becomes of the run when the deadline passes first, or an error ends the wait.
        cancel_with_caller: True cancels the run when the caller is cancelled.
        chosen: False where the user cannot choose `on_timeout`, and is not told to.
    """
    try:
        result = await wait_until_ended(context, handle, deadline=deadline)
        last = result or await _last_look(context, handle)
    except asyncio.CancelledError:
        if cancel_with_caller:
            await try_to_cancel(context, handle)
        raise
    except Exception as error:
        fate = await _fate(context, handle, on_timeout)
        if isinstance(error, LangGraphError):
            raise error.with_more(fate) from error.__cause__
        error.add_note(fate)
        raise
    if isinstance(last, RunResult) and last.status.ended:
        return last
    raise await _timed_out(context, handle, deadline, on_timeout, last, chosen=chosen)


async def _fate(context: Context, handle: RunHandle, on_timeout: OnTimeout) -> str:
    """Cancel a run or leave it, now that nobody waits for it, and say which."""
    if on_timeout == "leave":
        return f"{_sentence(handle)} goes on; join it again."
    if await context.deployment.clean_up(try_to_cancel(context, handle)):
        return f"{_sentence(handle)} was cancelled."
    return f"{_sentence(handle)} may still be running: that it was cancelled could not be confirmed."


def _sentence(handle: RunHandle) -> str:
    text = str(handle)
    return text[0].upper() + text[1:]


async def _last_look(context: Context, handle: RunHandle) -> RunResult | DeploymentError:
    """How a run stands when its deadline has passed, or why that is not known.

    One that has ended after all was paid for, and to cancel it would delete what it gave.
    """
    look = Deadline.after(LOOK_SECONDS)
    try:
        last = await context.deployment.part(Poller).look(handle, deadline=look, last=True)
        return await context.deployment.part(Outputs).finished(last, look)
    except DeploymentError as error:
        return error


async def _timed_out(
    context: Context,
    handle: RunHandle,
    deadline: Deadline,
    on_timeout: OnTimeout,
    last: RunResult | DeploymentError,
    *,
    chosen: bool,
) -> JoinTimeoutError:
    """What to raise when the deadline passed, after the run was cancelled or left."""
    if isinstance(last, RunResult):
        status, seen = last.status, f"its status is {last.status}"
    else:
        status, seen = RunStatus.RUNNING, f"its status could not be asked ({type(last).__name__})"
    if on_timeout == "cancel":
        stopped = await context.deployment.clean_up(try_to_cancel(context, handle))
        done = "It was cancelled." if stopped else "It could not be confirmed that it was cancelled."
        advice = "A retry starts a fresh run. Raise the limit" + (
            ", or set on_timeout='leave'." if chosen else "."
        )
    else:
        done = "It goes on."
        advice = (
            "Join it again, raise the limit, or set on_timeout='cancel'."
            if chosen
            else "Wait again, raise the limit, or cancel it."
        )
    return JoinTimeoutError(
        f"{_sentence(handle)} passed max_wait_seconds={deadline.max_wait_seconds:g}; {seen}. "
        f"{done} {advice}",
        handle=handle,
        max_wait_seconds=deadline.max_wait_seconds,
        status=status,
    )


async def try_to_cancel(context: Context, handle: RunHandle) -> bool:
    """Cancel a run that nobody waits for any more. Log what could not be confirmed; raise nothing."""
    try:
        result = await cancel(context.deployment, handle, deadline=Deadline.after(CANCEL_SECONDS))
        await release(context, [result])
    except LangGraphError as error:
        context.logger.warning("%s may still be running: %s", _sentence(handle), error)
        return False
    context.logger.info("%s: stopped waiting, %s", _sentence(handle), result.status)
    return True


async def cancel(
    deployment: Deployment,
    handle: RunHandle,
    *,
    deadline: Deadline,
    action: CancelAction = "interrupt",
    slots: asyncio.Semaphore | None = None,
) -> RunResult:
    """Cancel a run and wait until the server says how it ended.

    Args:
        deployment: Where it is.
        handle: The run.
        deadline: How long the server has to confirm.
        action: What becomes of the run's row and checkpoints.
        slots: Bounds how many requests are under way at once; the waiting after them is for nothing.

    Raises:
        UnreachableError: The server could not confirm the stop before the deadline.
    """
    if (known := deployment.part(ReleasedResults).get(handle)) is not None:
        return known
    runs = deployment.client.runs
    result = None
    while result is None:
        # Not found: it has ended, or is unknown, and the wait tells which.
        async with slots or contextlib.nullcontext():
            with contextlib.suppress(NotFoundError):
                await deployment.send(
                    lambda: runs.cancel(handle.thread_id, handle.run_id, action=action),
                    doing=f"cancel {handle}",
                    deadline=deadline,
                )
                # The server knew it; should it be gone next, it was rolled back.
                deployment.part(Poller).note_started(handle.run_id)
        # Said again where nothing came of it: somebody else may have answered in the server's place.
        result = await deployment.part(Poller).wait(
            handle, deadline=deadline.no_later_than(_CANCEL_AGAIN_SECONDS)
        )
        if deadline.passed:
            break
    if result is None:
        unsure = UnreachableError(
            f"{_sentence(handle)} was asked to stop, and the server did not confirm it within "
            f"{deadline.max_wait_seconds or 0:g} s. It may still be running; cancelling again is safe.",
            url=handle.url,
        )
        deadline.mark(unsure)
        raise unsure
    return await deployment.part(Outputs).finished(result, deadline)


async def get(context: Context, handle: RunHandle, *, deadline: Deadline) -> RunResult:
    """How a run stands now."""
    if (known := context.deployment.part(ReleasedResults).get(handle)) is not None:
        return known
    result = await context.deployment.part(Poller).look(handle, deadline=deadline)
    return await context.deployment.part(Outputs).finished(result, deadline)


async def release(
    context: Context,
    results: Sequence[RunResult],
    *,
    interrupted_too: bool = False,
    deadline: Deadline | None = None,
) -> None:
    """Delete the threads that existed only for these runs, all of them in one request.

    When the caller's deadline passes first, this goes on in the background.

    Under a finalizer nothing is deleted before the flow run ends: if it is executed again, it adopts
    even what had finished. A thread that waits for a person stays.
    """
    deployment = context.deployment
    if context.owner.finalized:
        if interrupted_too:
            await _mark_unanswered(context, results)
        return
    ids: list[str] = []
    for result in results:
        handle = result.handle
        waits = result.status is RunStatus.INTERRUPTED and not interrupted_too
        if not result.status.ended or waits:
            continue
        ids += claims_of(handle, context.owner)
        ids += deployment.part(ClaimThreads).pop(handle.run_id)
        if handle.owns_thread:
            ids.append(handle.thread_id)
            if len(results) <= _REMEMBERED_JOIN:
                deployment.part(ReleasedResults).add(result)
    if not ids:
        return
    pruning = _prune(context, ids)
    if deadline is None or deadline.end is None:
        await pruning
    else:
        await deployment.clean_up(pruning, seconds=max(deadline.remaining() or 0.0, RELEASE_SECONDS))


async def _prune(context: Context, ids: Sequence[str]) -> None:
    try:
        await context.deployment.part(Pruner).prune(ids)
    except DeploymentError as error:
        # The result is in hand; to lose it over the clean-up would do more harm.
        context.logger.warning("Threads could not be deleted: %s", error)


async def _mark_unanswered(context: Context, results: Sequence[RunResult]) -> None:
    """Tell the finalizer of threads that seem to wait for a person, of whom nobody has the id."""
    threads = context.deployment.client.threads
    for result in results:
        handle = result.handle
        if result.status is not RunStatus.INTERRUPTED or not handle.owns_thread:
            continue
        try:
            await context.deployment.send(
                lambda: threads.update(handle.thread_id, metadata={NO_ANSWER: True}),  # noqa: B023
                doing=f"mark thread {handle.thread_id}",
                deadline=Deadline.after(CANCEL_SECONDS),
            )
        except DeploymentError as error:
            context.logger.warning("Thread %s will stay: %s", handle.thread_id, error)


def claims_of(handle: RunHandle, owner: Owner) -> list[str]:
    """The threads that the tries of a handle's key may have claimed, in any process."""
    if handle.key is None:
        return []
    base, _, number = handle.key.partition(".")
    texts = [base, *(f"{base}.{failures}" for failures in range(1, int(number or 0) + 1))]
    tries = [thread_id_of(text) for text in texts]
    if handle.owns_thread and handle.thread_id not in tries:
        return []  # of a batch, which is claimed as a whole
    attempts = owner.root[1] if owner.root is not None else 1
    return [*tries, *Key.claim_ids(base, attempts)]
