"""`ask_interrupts`: a join with a person in the middle, who answers in Prefect."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from prefect.context import FlowRunContext, TaskRunContext

from prefect_langgraph.approvals.rounds import Outcome, Policy, Rounds
from prefect_langgraph.arguments import check_choice, check_json
from prefect_langgraph.blocks.credentials import Credentials
from prefect_langgraph.errors import InvalidRequestError, JoinTimeoutError, LangGraphError
from prefect_langgraph.flows.suspension import STAY_SECONDS, WaitBy, check_stay, contexts_of
from prefect_langgraph.logs import counted
from prefect_langgraph.many_runs import join
from prefect_langgraph.models import Question, RunHandle, RunStatus
from prefect_langgraph.reports.approvals import ARTIFACT_KEY, rows_of_questions
from prefect_langgraph.reports.artifacts import publish_table
from prefect_langgraph.results import FanOutResult, RunResult
from prefect_langgraph.runs import operations
from prefect_langgraph.runs.call import OnTimeout
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.loop import io_loop

Interrupts = Literal["raise", "ask"]
"""What a flow does with a run that stops at an interrupt: count it as a failure, or ask a person."""

Collecting = Literal["raise", "collect"]


def check_asks(where: str) -> None:
    """Refuse to ask a person where Prefect can show no form.

    Raises:
        InvalidRequestError: This is a task, or no flow run.
    """
    context, task = FlowRunContext.get(), TaskRunContext.get()
    if context is None or context.flow_run is None:
        raise InvalidRequestError(f"{where} is for a flow: without a flow run there is no form.")
    if context.detached or (task is not None and task.task_run.flow_run_id == context.flow_run.id):
        raise InvalidRequestError(f"{where} is for a flow: Prefect shows no form for a task run.")


def checked_default(default_reply: Any, max_wait_seconds: float | None) -> Any:
    """The default reply as JSON.

    Raises:
        InvalidRequestError: It is not JSON, or would never be sent.
    """
    if default_reply is not None and max_wait_seconds is None:
        raise InvalidRequestError(
            "default_reply is for the time when max_wait_seconds has passed: give both."
        )
    return check_json("default_reply", default_reply)


async def _ask_interrupts(
    handles: Sequence[RunHandle],
    *,
    credentials: Credentials,
    on_failure: Collecting,
    max_wait_seconds: float | None,
    on_timeout: OnTimeout,
    default_reply: Any,
    wait: WaitBy,
    stay_seconds: float,
    questions: Callable[[RunResult], Sequence[Question]] | None,
    show_arguments: bool,
) -> FanOutResult:
    check_asks("ask_interrupts")
    check_choice("on_failure", on_failure, ("raise", "collect"))
    check_choice("on_timeout", on_timeout, ("cancel", "leave"))
    check_choice("wait", wait, ("process", "suspend"))
    check_stay(stay_seconds)
    deadline = Deadline.after(max_wait_seconds)
    default_reply = checked_default(default_reply, max_wait_seconds)
    contexts = await contexts_of(handles, credentials)
    if not handles:
        return FanOutResult()
    policy = Policy(
        suspends=wait == "suspend",
        stay_seconds=stay_seconds,
        deadline=deadline,
        has_default=default_reply is not None,
        default=default_reply,
        reader=questions,
        show_arguments=show_arguments,
    )
    try:
        outcome = await Rounds(contexts, handles, policy).run()
    except LangGraphError as error:
        raise await join.ended_by(error, contexts, handles, on_timeout) from error.__cause__
    return await concluded(
        contexts, handles, outcome, deadline, on_failure=on_failure, on_timeout=on_timeout
    )


async def concluded(
    contexts: join.Contexts,
    handles: Sequence[RunHandle],
    outcome: Outcome,
    deadline: Deadline,
    *,
    on_failure: Collecting,
    on_timeout: OnTimeout,
) -> FanOutResult:
    """What rounds on these runs came to, as the caller wants it."""
    await publish_answers(outcome)
    if outcome.late:
        deadline = replace(deadline, end=time.monotonic())
    result = await join.conclude(
        contexts,
        outcome.handles,
        outcome.found if not outcome.unanswered else await _with_unanswered(contexts, outcome),
        on_failure="collect",
        deadline=deadline,
        on_timeout=on_timeout,
        stopped_early=False,
        errors=outcome.errors,
    )
    await release_followed(contexts, handles, result, outcome.sent)
    result = result.model_copy(update={"answers": tuple(outcome.answers)})
    if outcome.unanswered and on_timeout == "cancel":
        await give_up(contexts, [(handles[place], result[place]) for place in outcome.unanswered])
    if on_failure == "collect":
        return result
    if outcome.errors:
        left = [handles[place] for place in outcome.errors]
        error = next(iter(outcome.errors.values()))
        raise await join.ended_by(error, contexts, left, on_timeout) from error.__cause__
    if outcome.unanswered:
        raise nobody_answered(result, outcome.unanswered, deadline, on_timeout)
    if outcome.late:
        raise join.deadline_passed(result, deadline, on_timeout)
    return result.raise_for_failures()


async def _with_unanswered(contexts: join.Contexts, outcome: Outcome) -> list[RunResult | None]:
    """The results, with those of runs that still ask."""
    found = list(outcome.found)
    for place in outcome.unanswered:
        handle = outcome.handles[place]
        context = contexts[join.location_of(handle)]
        found[place] = await operations.get(
            context, handle, deadline=Deadline.after(operations.CANCEL_SECONDS)
        )
    return found


def _of_first(handle: RunHandle, result: RunResult) -> RunResult:
    """What a thread came to, under its first run, whose handle leads to all that was made for it."""
    return result.model_copy(update={"handle": handle})


async def release_followed(
    contexts: join.Contexts,
    handles: Sequence[RunHandle],
    results: Sequence[RunResult],
    sent: Sequence[RunHandle],
) -> None:
    """Release what existed only for runs which later ones took the place of.

    Args:
        contexts: Of the handles.
        handles: The runs of the call.
        results: What became of each, under the handle of its thread's newest run.
        sent: The runs that were started with answers, each of which was claimed by a thread.
    """
    followed = [
        _of_first(handle, result)
        for handle, result in zip(handles, results, strict=True)
        if handle.run_id != result.handle.run_id
    ]
    claims = [RunResult(handle=handle, status=RunStatus.SUCCESS) for handle in sent]
    await join.release_many(contexts, [*followed, *claims])


async def give_up(contexts: join.Contexts, unanswered: Sequence[tuple[RunHandle, RunResult]]) -> None:
    """Let go of threads that nobody will answer."""
    for location, context in contexts.items():
        here = [
            _of_first(handle, result)
            for handle, result in unanswered
            if join.location_of(handle) == location
        ]
        await operations.release(context, here, interrupted_too=True)


def nobody_answered(
    result: FanOutResult, places: Sequence[int], deadline: Deadline, on_timeout: OnTimeout
) -> JoinTimeoutError:
    """The error for questions that were open at the deadline; it has every result."""
    first = result[places[0]]
    done = "They are given up." if on_timeout == "cancel" else "They go on waiting."
    return JoinTimeoutError(
        f"Nobody answered {counted(len(places), 'run')} of {len(result)} within "
        f"max_wait_seconds={deadline.max_wait_seconds or 0:g}, the first {first.handle}. {done} "
        "See .result for every run; raise the limit, or give a default_reply.",
        handle=first.handle,
        max_wait_seconds=deadline.max_wait_seconds,
        status=first.status,
        result=result,
    )


async def publish_answers(outcome: Outcome) -> None:
    """Make what was asked and answered a table artifact."""
    if not outcome.answers and not outcome.open:
        return
    said = f"{counted(len(outcome.answers), 'question')} answered"
    if outcome.open:
        said += f", {len(outcome.open):,} left open"
    await publish_table(ARTIFACT_KEY, rows_of_questions(outcome.answers, outcome.open), said)


def ask_interrupts(
    handles: Sequence[RunHandle],
    *,
    credentials: Credentials = None,
    on_failure: Collecting = "raise",
    max_wait_seconds: float | None = None,
    on_timeout: OnTimeout = "leave",
    default_reply: Mapping[str, Any] | Any = None,
    wait: WaitBy = "suspend",
    stay_seconds: float = STAY_SECONDS,
    questions: Callable[[RunResult], Sequence[Question]] | None = None,
    show_arguments: bool = True,
) -> FanOutResult:
    """Join runs, and have a person answer what they ask. For a flow, not for a task.

    Waits until the runs have ended, as `suspend_until_ended` does. What stopped at an interrupt is
    shown in Prefect's UI as a form of the flow run, five questions at a time: Resume opens it. What was
    answered is sent, the runs that go on are waited for, and so on until nothing asks any more.

    An answer is sent once: a flow run whose process is killed at any time, or that is retried, finds
    what was answered and the run that went on with it. What was answered elsewhere meanwhile, in Studio
    say, is not sent again. An answer that cannot be right is asked for again, with the reason.

    Where the flow run cannot suspend it is paused, and its process waits: in a subflow, without a
    Prefect deployment or `with_finalizer`, and with a block that is not saved. A cancelled flow run
    leaves the threads that wait for an answer. `aask_interrupts` is the asynchronous twin.

    Args:
        handles: The runs, as `start_run` and `start_runs` return them.
        credentials: For handles whose block was not saved: a saved block's name, or a block. None takes
            the one that each handle names.
        on_failure: "raise" one `FanOutError` at the end when a run did not succeed, or "collect".
        max_wait_seconds: Wall clock since the first execution, for runs and people together. None is
            unlimited.
        on_timeout: When the time has passed: "leave" runs and questions as they are, or "cancel" the
            runs and give up the threads that ask.
        default_reply: What is answered when nobody has answered in time, such as `{"type": "reject"}`.
            Runs that go on with an answer by then are waited for as long again; one that has not ended
            or asked by then is late. A graph that fails on it is not answered again, and one that asks
            again in the same words is three times at most. None: see `on_timeout`.
        wait: "suspend" frees the process while it waits for runs and people; "process" stays.
        stay_seconds: How long the process stays before it suspends, while runs go on.
        questions: Reads what an interrupted run asks, for graphs of which this package does not know
            how.
        show_arguments: False keeps arguments of tools, and the texts and choices of agents, out of
            Prefect: a form then says which tool is to be called, and leads to the thread.

    Returns:
        The result of each run in the order of the handles, and `answers`.

    Raises:
        FanOutError: A run did not succeed, and `on_failure` is "raise".
        JoinTimeoutError: `max_wait_seconds` passed; `result` holds every run.
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect import flow
        >>> from prefect_langgraph import ask_interrupts, start_runs, with_finalizer
        >>> @with_finalizer("default")
        ... @flow
        ... def refunds(cases: list[dict]) -> list[dict]:
        ...     handles = start_runs("answer", cases)
        ...     return ask_interrupts(handles, max_wait_seconds=600).values
        >>> len(refunds([{"question": "a"}]))
        1
    """
    return io_loop().run(
        _ask_interrupts,
        handles,
        credentials=credentials,
        on_failure=on_failure,
        max_wait_seconds=max_wait_seconds,
        on_timeout=on_timeout,
        default_reply=default_reply,
        wait=wait,
        stay_seconds=stay_seconds,
        questions=questions,
        show_arguments=show_arguments,
    )


async def aask_interrupts(
    handles: Sequence[RunHandle],
    *,
    credentials: Credentials = None,
    on_failure: Collecting = "raise",
    max_wait_seconds: float | None = None,
    on_timeout: OnTimeout = "leave",
    default_reply: Mapping[str, Any] | Any = None,
    wait: WaitBy = "suspend",
    stay_seconds: float = STAY_SECONDS,
    questions: Callable[[RunResult], Sequence[Question]] | None = None,
    show_arguments: bool = True,
) -> FanOutResult:
    """Have a person answer what runs ask: the asynchronous twin of `ask_interrupts`."""
    return await io_loop().arun(
        _ask_interrupts,
        handles,
        credentials=credentials,
        on_failure=on_failure,
        max_wait_seconds=max_wait_seconds,
        on_timeout=on_timeout,
        default_reply=default_reply,
        wait=wait,
        stay_seconds=stay_seconds,
        questions=questions,
        show_arguments=show_arguments,
    )
