"""`fan_out`: thousands of runs from one flow, with a report of how each ended."""

# No annotations from __future__: `.serve()` pickles a flow without the names of its annotations.

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from prefect.exceptions import Pause
from prefect.runtime import flow_run
from pydantic import ValidationError

from prefect_langgraph.approvals.rounds import Policy, Rounds
from prefect_langgraph.arguments import check_choice, check_count
from prefect_langgraph.blocks.credentials import LangGraphCredentials
from prefect_langgraph.canonical import off_loop
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.flows._per_run import PerRunTasks
from prefect_langgraph.flows._sized import sized_flow
from prefect_langgraph.flows.approvals import Interrupts, check_asks, concluded, nobody_answered
from prefect_langgraph.flows.finalizer import with_finalizer
from prefect_langgraph.flows.suspension import STAY_SECONDS, WaitBy, check_stay
from prefect_langgraph.logs import counted
from prefect_langgraph.many_runs import join
from prefect_langgraph.many_runs.batch import Item
from prefect_langgraph.many_runs.budget import BudgetGuard
from prefect_langgraph.many_runs.engine import FanOut
from prefect_langgraph.many_runs.join import OnFailure
from prefect_langgraph.many_runs.result_file import ResultFile, read_inputs
from prefect_langgraph.models import Budget, RunHandle, RunItem, RunStatus
from prefect_langgraph.reports.events import FanOutEvents
from prefect_langgraph.reports.fan_out_page import artifact_key, fan_out_report, publish_report
from prefect_langgraph.reports.progress import FanOutProgress
from prefect_langgraph.results import FanOutResult, RunResult
from prefect_langgraph.runs.call import Context, OnTimeout
from prefect_langgraph.runs.request import RunRequest
from prefect_langgraph.suspension.wait import Group, Wait
from prefect_langgraph.tasks._task import context_for
from prefect_langgraph.tasks.many_runs import requests_of
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.loop import io_loop

OnBudget = Literal["stop", "cancel"]
"""What becomes of runs in flight when the budget is used up."""

_FLUSH_SECONDS = 1.0
MAX_IN_FLIGHT = 1000
"""The default limit: a server slows down as runs pile up in its queue."""
RELEASE_SECONDS = 600.0
"""Deleting 10,000 threads takes the development server some minutes; a deployment is faster."""


@dataclass
class _Plan:
    """The checked arguments of a fan-out, before anything is sent."""

    assistant: str
    requests: list[RunRequest]
    tolerated: int
    on_failure: OnFailure
    on_timeout: OnTimeout
    deadline: Deadline
    max_in_flight: int | None
    file: ResultFile | None
    rerun: bool
    wait: WaitBy
    stay_seconds: float
    asks: bool
    guard: BudgetGuard | None
    budget_cancels: bool
    unanswered: list[int] = field(default_factory=list)
    known: dict[int, RunResult] = field(default_factory=dict)


def _tolerated(max_failures: float | None, total: int) -> int:
    """How many failures are tolerated: a number as it is, a fraction of the whole."""
    if max_failures is None:
        return 0
    if isinstance(max_failures, bool) or max_failures < 0:
        raise InvalidRequestError(
            f"max_failures={max_failures!r}: give a number of runs, or a fraction below 1."
        )
    if isinstance(max_failures, float):
        if max_failures >= 1:
            raise InvalidRequestError(
                f"max_failures={max_failures!r}: a fraction is below 1, and a number of runs is an int."
            )
        # Rounding must not lose a failure: as a float, 0.29 * 100 is a little less than 29.
        return math.floor(max_failures * total + 1e-9)
    return max_failures


def _items(inputs: Sequence[Any], as_items: bool) -> list[Any]:
    if not as_items:
        return list(inputs)
    found: list[Any] = []
    for index, given in enumerate(inputs):
        try:
            found.append(given if isinstance(given, RunItem) else RunItem.model_validate(given))
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, part["loc"])) or "it" for part in error.errors())
            raise InvalidRequestError(
                f"input {index} is not a RunItem ({fields}). The fields of a RunItem are "
                f"{', '.join(RunItem.model_fields)}."
            ) from None
    return found


async def _plan(
    assistant_id: str | None,
    inputs: Sequence[Any] | None,
    *,
    input_path: str | None,
    output_path: str | None,
    rerun: bool,
    items: bool,
    config: dict[str, Any] | None,
    context: dict[str, Any] | None,
    metadata: dict[str, Any] | None,
    on_failure: OnFailure,
    max_failures: float | None,
    max_in_flight: int | None,
    max_wait_seconds: float | None,
    on_timeout: OnTimeout,
    wait: WaitBy | None,
    stay_seconds: float,
    interrupts: Interrupts,
    budget: Budget | None,
    on_budget: OnBudget,
    per_run_tasks: bool,
) -> _Plan:
    check_choice("on_failure", on_failure, ("raise", "fail_fast", "collect"))
    check_choice("interrupts", interrupts, ("raise", "ask"))
    check_choice("on_budget", on_budget, ("stop", "cancel"))
    if wait is None:
        wait = "suspend" if interrupts == "ask" else "process"
    _check_wait(wait, stay_seconds, on_failure, per_run_tasks)
    _check_interrupts(interrupts, on_failure, per_run_tasks)
    check_choice("on_timeout", on_timeout, ("cancel", "leave"))
    check_count("max_in_flight", max_in_flight)
    deadline = Deadline.after(max_wait_seconds)
    if inputs is None and input_path is None:
        raise InvalidRequestError("Give inputs, or input_path.")
    if inputs is not None and input_path is not None:
        raise InvalidRequestError("Give one of inputs and input_path, not both.")
    if rerun and output_path is None:
        raise InvalidRequestError("rerun=True is for the results in an output_path: give one.")
    if input_path is not None:
        inputs = await asyncio.to_thread(read_inputs, input_path)
    given = _items(inputs or [], items)
    make = partial(requests_of, assistant_id, given, metadata=metadata, headers=None)
    options = {"config": config, "context": context}
    requests = await off_loop(partial(make, options=options), weigh=(given, options))
    file = None
    if output_path is not None:
        file = await off_loop(partial(ResultFile, output_path, requests), weigh=given)
    names = {request.assistant_id for request in requests}
    return _Plan(
        assistant=assistant_id or (names.pop() if len(names) == 1 else f"{len(names)} assistants"),
        requests=requests,
        tolerated=_tolerated(max_failures, len(requests)),
        on_failure=on_failure,
        on_timeout=on_timeout,
        deadline=deadline,
        max_in_flight=max_in_flight,
        file=file,
        rerun=rerun,
        wait=wait,
        stay_seconds=stay_seconds,
        asks=interrupts == "ask",
        guard=BudgetGuard(budget) if budget is not None else None,
        budget_cancels=on_budget == "cancel",
    )


def _check_wait(wait: WaitBy, stay_seconds: float, on_failure: OnFailure, per_run_tasks: bool) -> None:
    check_choice("wait", wait, ("process", "suspend"))
    check_stay(stay_seconds)
    if wait == "suspend" and per_run_tasks:
        raise InvalidRequestError(
            "wait='suspend' and per_run_tasks=True exclude each other: a task run needs a process, and "
            "a suspended flow run has none."
        )
    if wait == "suspend" and on_failure == "fail_fast":
        raise InvalidRequestError(
            "wait='suspend' and on_failure='fail_fast' exclude each other: nobody sees a run fail "
            "while the flow run is suspended. Use 'raise', or wait='process'."
        )


def _check_interrupts(interrupts: Interrupts, on_failure: OnFailure, per_run_tasks: bool) -> None:
    if interrupts != "ask":
        return
    check_asks("interrupts='ask'")
    if per_run_tasks:
        raise InvalidRequestError(
            "interrupts='ask' and per_run_tasks=True exclude each other: a task run ends with its run, "
            "before anybody has answered."
        )
    if on_failure == "fail_fast":
        raise InvalidRequestError(
            "interrupts='ask' and on_failure='fail_fast' exclude each other: a question is no failure "
            "yet. Use 'raise' or 'collect'."
        )


class _Watch:
    """Shows and writes what happens during a fan-out."""

    def __init__(self, plan: _Plan, context: Context) -> None:
        self._plan = plan
        self._context = context
        self._began = time.monotonic()
        total = len(plan.requests) - len(plan.known)
        label = f"fan-out-{plan.assistant}"
        self.progress = FanOutProgress(total, label=label)
        self.events = FanOutEvents(total, label=label)
        self.tasks: PerRunTasks | None = None
        self._label = label

    def started(self, items: Sequence[Item]) -> None:
        self.progress.started(len(items))
        if self.tasks is not None:
            self.tasks.started(items)

    def ended(self, index: int, result: RunResult) -> None:
        if self._plan.asks and result.status is RunStatus.INTERRUPTED:
            return  # it ends when it was answered
        self.answered(index, result)

    def answered(self, index: int, result: RunResult) -> None:
        """Note an end, also of a run that nobody answered."""
        self.progress.ended(result)
        self.events.run_ended(result)
        if self._plan.file is not None:
            self._plan.file.add(index, result)
        if self.tasks is not None:
            self.tasks.ended(index, result)

    async def write(self) -> None:
        """Keep the file of results up to date until cancelled."""
        while self._plan.file is not None:
            await asyncio.sleep(_FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Add what has ended to the file of results."""
        if self._plan.file is None:
            return
        try:
            await asyncio.to_thread(self._plan.file.flush)
        except OSError as error:
            # Nothing is lost yet: the file is written whole at the end, and only an error there counts.
            self._context.logger.warning(
                "%s could not be written to (%s)", self._plan.file.path, type(error).__name__
            )

    def ended_in_total(self) -> None:
        """Emit the event that the fan-out is over, even if not every run has ended."""
        spent = self._plan.guard.reached if self._plan.guard is not None else None
        self.events.fan_out_ended(seconds=time.monotonic() - self._began, budget=spent)

    async def report(self, result: FanOutResult) -> None:
        """Write the file whole and publish the report."""
        plan, seconds = self._plan, time.monotonic() - self._began
        if plan.file is not None:
            await asyncio.to_thread(plan.file.finish, result)
        counts = ", ".join(f"{count} {status}" for status, count in sorted(result.counts.items()))
        self._context.logger.info("Fan-out of %d runs ended: %s", len(result), counts or "no runs")
        if plan.guard is not None and plan.guard.reached is not None:
            self._context.logger.warning("The budget was reached: %s", plan.guard.reached)
        # Only these runs keep their threads, so only they have a page in Studio.
        waiting = {item.handle.run_id for item in result if item.status is RunStatus.INTERRUPTED}
        markdown = fan_out_report(
            result,
            title=f"{len(result):,} runs of {plan.assistant}",
            samples=self.progress.samples,
            seconds=seconds,
            links=lambda item: item.studio_url if item.handle.run_id in waiting else item.trace_url,
            budget=str(plan.guard) if plan.guard is not None else "",
            rerun_hint=self._rerun_hint(len(result) - len(result.failed)),
        )
        await publish_report(
            markdown, key=artifact_key(self._label), description=f"Fan-out: {counts or 'no runs'}"
        )

    def _rerun_hint(self, succeeded: int) -> str:
        if self._plan.file is not None:
            return (
                f"Run the flow again with the same `output_path`: it skips the {succeeded:,} that "
                "succeeded and runs only the rest."
            )
        return (
            "Retry this flow run: it adopts what succeeded and starts the rest afresh. Or give the "
            "flow an `output_path`; then every later run of it does so."
        )


async def _suspend(
    plan: _Plan, context: Context, fan_out: FanOut, handles: Sequence[RunHandle]
) -> bool:
    """Wait without a process; True when the deadline of the first execution has passed."""
    wait = Wait(
        [Group(context.deployment, handles, context.deployment.connection.name)],
        context.owner,
        context.logger,
        stay_seconds=plan.stay_seconds,
        deadline=plan.deadline,
        identity=[item.key.text for item in fan_out.items if item.key is not None],
    )
    late = bool(await wait.until_ended())
    if late:
        plan.deadline = replace(plan.deadline, end=time.monotonic())
    return late


async def _ask(plan: _Plan, context: Context, watch: _Watch, result: FanOutResult) -> FanOutResult:
    """Have people answer what the runs ask; the results of all runs after that."""
    places = [place for place, item in enumerate(result) if item.handle.run_id]
    if not places:
        return result
    handles = [result[place].handle for place in places]
    policy = Policy(
        suspends=plan.wait == "suspend", stay_seconds=plan.stay_seconds, deadline=plan.deadline
    )
    contexts = {join.location_of(handle): context for handle in handles}
    known = {number: result[place] for number, place in enumerate(places)}
    outcome = await Rounds(contexts, handles, policy, known=known).run()
    found = await concluded(
        contexts, handles, outcome, plan.deadline, on_failure="collect", on_timeout=plan.on_timeout
    )
    plan.unanswered = [places[number] for number in outcome.unanswered]
    results = list(result.results)
    for place, item in zip(places, found, strict=True):
        if result[place].status is RunStatus.INTERRUPTED:
            watch.answered(place, item)
        results[place] = item
    return FanOutResult(results=tuple(results), answers=found.answers)


async def _execute(plan: _Plan, context: Context, *, per_run_tasks: bool) -> FanOutResult:
    """Run the inputs without a success so far; the results are in the order of the inputs."""
    if plan.file is not None:
        connection = context.deployment.connection
        plan.known = await asyncio.to_thread(
            plan.file.open, connection.url, connection.name, rerun=plan.rerun
        )
        if plan.known:
            context.logger.info("%d of %d succeeded before", len(plan.known), len(plan.requests))
    watch = _Watch(plan, context)

    async def suspend(handles: Sequence[RunHandle]) -> bool:
        return await _suspend(plan, context, engine, handles)

    engine = FanOut(
        context,
        plan.requests,
        operation="fan_out",
        deadline=plan.deadline,
        max_in_flight=plan.max_in_flight,
        # The policy is applied to all results at the end; only "fail_fast" stops at failures here.
        stop_after=plan.tolerated + 1 if plan.on_failure == "fail_fast" else None,
        guard=plan.guard,
        budget_cancels=plan.budget_cancels,
        collects=plan.on_failure == "collect",
        known=plan.known,
        on_started=watch.started,
        on_ended=watch.ended,
        before_waiting=suspend if plan.wait == "suspend" else None,
    )
    watch.events.fan_out_started()
    writer = asyncio.create_task(watch.write())
    suspended = False
    try:
        async with watch.progress, AsyncExitStack() as stack:
            if per_run_tasks:
                watch.tasks = await stack.enter_async_context(
                    PerRunTasks([request.assistant_id for request in plan.requests])
                )
            result = await engine.run(on_timeout=plan.on_timeout)
            if watch.tasks is not None:
                watch.tasks.end_remaining(result)
            if plan.asks:
                result = await _ask(plan, context, watch, result)
    except Pause:
        suspended = True  # the fan-out goes on in another process
        raise
    finally:
        writer.cancel()
        await asyncio.wait([writer])
        # Also after a cancellation: successes need not be paid for again, and an automation that waits
        # for the end learns of it.
        if not suspended:
            watch.ended_in_total()
        await watch.flush()
    await watch.report(result)
    return result


async def _fan_out(
    assistant_id: str | None,
    inputs: Sequence[Any] | None,
    *,
    credentials: LangGraphCredentials | str | None,
    per_run_tasks: bool,
    **arguments: Any,
) -> FanOutResult:
    plan = await _plan(assistant_id, inputs, per_run_tasks=per_run_tasks, **arguments)
    context = await context_for(credentials)
    if context.deployment.connection.name is None:
        # The finalizer cannot reach a deployment whose block was not saved.
        context = replace(context, owner=replace(context.owner, finalized=False))
    result = await _execute(plan, context, per_run_tasks=per_run_tasks)
    if plan.on_failure != "collect":
        stopped = [item for item in result if not item.status.ended or item.status == "cancelled"]
        if plan.unanswered:
            raise nobody_answered(result, plan.unanswered, plan.deadline, plan.on_timeout)
        if plan.deadline.passed and stopped:
            raise join.deadline_passed(result, plan.deadline, plan.on_timeout)
        if len(result.failed) > plan.tolerated:
            result.raise_for_failures()
    return result


_ADVICE = (
    "Give the inputs as a file with input_path=, or use start_runs and join_runs in a flow of your own."
)


def _name() -> str:
    parameters = flow_run.parameters
    inputs = parameters.get("inputs")
    many = counted(len(inputs), "run") if isinstance(inputs, list) else "runs"
    return f"fan out {many} of {parameters.get('assistant_id') or 'assistants'}"


@with_finalizer(parameter="credentials", max_wait_seconds=RELEASE_SECONDS)
@sized_flow(advice=_ADVICE, name="langgraph-fan-out", flow_run_name=_name, validate_parameters=True)
def fan_out(
    assistant_id: str | None = None,
    inputs: list[Any] | None = None,
    *,
    credentials: LangGraphCredentials | str | None = None,
    input_path: str | None = None,
    output_path: str | None = None,
    rerun: bool = False,
    items: bool = False,
    config: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    on_failure: OnFailure = "raise",
    max_failures: int | float | None = None,
    max_in_flight: int | None = MAX_IN_FLIGHT,
    max_wait_seconds: float | None = None,
    on_timeout: OnTimeout = "cancel",
    per_run_tasks: bool = False,
    wait: WaitBy | None = None,
    stay_seconds: float = STAY_SECONDS,
    interrupts: Interrupts = "raise",
    budget: Budget | None = None,
    on_budget: OnBudget = "stop",
) -> FanOutResult:
    """Run an assistant on many inputs and report how each run ended.

    Runs are started a few hundred per request and waited for together. Prefect's UI shows progress
    meanwhile, and a report at the end. A flow run that is executed again adopts the runs that the first
    execution started, except those that failed. A cancelled flow run cancels its runs. `afan_out` is
    the asynchronous twin.

    Args:
        assistant_id: The assistant's id or the graph's name; None when every item names its own.
        inputs: One per run, as JSON. Prefect stores parameters of at most 512 KB; for more inputs give
            `input_path`.
        credentials: A saved block's name, or None for the block named `default`. A block works too:
            picked in the UI, or in a flow that is called.
        input_path: A path or URL, read through fsspec, of a JSON Lines file with one input per line.
        output_path: Where results go as JSON Lines: index, status, values, error, ids, seconds. A
            later run with the same path skips what succeeded and runs only the rest. An input is
            recognised by its assistant, its value, config, context and metadata; successes of others
            stay in the file, behind those of this call.
        rerun: True skips nothing: all inputs run again, and their results in the file are replaced.
        items: True reads each input as a `RunItem` with input, assistant_id, config, context, metadata.
        config: What the graph reads as `config`, for each run.
        context: What the graph reads as `runtime.context`, for each run.
        metadata: For each run, beside this package's own tags.
        on_failure: "raise" waits for all, then raises; "fail_fast" cancels the rest as soon as too
            many have failed; "collect" returns the results whatever they are; of a run that the
            deployment would not tell about, the status last seen and an `error` that names why.
        max_failures: How many failures are tolerated before `on_failure` applies: a number of runs, or
            a fraction below 1. None: not one.
        max_in_flight: At most this many runs on the server at once. None: no limit.
        max_wait_seconds: Wall clock for the whole fan-out. None: no limit.
        on_timeout: "cancel" the runs that have not ended when the time has passed, or "leave" them.
        per_run_tasks: True creates a Prefect task run for each run, and costs as much as those do.
        wait: "suspend" frees the process while the last runs go on, once all are started; see
            `suspend_until_ended`. "process" stays. None: "process", and "suspend" where people are
            asked.
        stay_seconds: How long the flow run stays in its process before it suspends.
        interrupts: "ask" has people answer what runs ask, once the others have ended: see
            `ask_interrupts`. "raise" counts a run that stops at an interrupt as a failure.
        budget: When no more runs are started: see `Budget`. What was used by then is exceeded by at
            most the runs in flight, so by `max_in_flight` times the dearest run. A run that was not
            started is in the result, without values, and a later call with the same `output_path` goes
            on there.
        on_budget: "stop" lets the runs in flight end, "cancel" cancels them.

    Returns:
        One `RunResult` per input, in their order.

    Raises:
        FanOutError: More runs than `max_failures` did not succeed; it holds every result.
        JoinTimeoutError: `max_wait_seconds` passed, unless `on_failure` is "collect".
        DeploymentError: The deployment refused the request or could not be asked.

    Example:
        >>> from prefect_langgraph import fan_out
        >>> result = fan_out("answer", [{"question": "a"}, {"question": "b"}])
        >>> len(result)
        2
    """
    return io_loop().run(
        _fan_out,
        assistant_id,
        inputs,
        credentials=credentials,
        input_path=input_path,
        output_path=output_path,
        rerun=rerun,
        items=items,
        config=config,
        context=context,
        metadata=metadata,
        on_failure=on_failure,
        max_failures=max_failures,
        max_in_flight=max_in_flight,
        max_wait_seconds=max_wait_seconds,
        on_timeout=on_timeout,
        per_run_tasks=per_run_tasks,
        wait=wait,
        stay_seconds=stay_seconds,
        interrupts=interrupts,
        budget=budget,
        on_budget=on_budget,
    )


@with_finalizer(parameter="credentials", max_wait_seconds=RELEASE_SECONDS)
@sized_flow(advice=_ADVICE, name="langgraph-fan-out", flow_run_name=_name, validate_parameters=True)
async def afan_out(
    assistant_id: str | None = None,
    inputs: list[Any] | None = None,
    *,
    credentials: LangGraphCredentials | str | None = None,
    input_path: str | None = None,
    output_path: str | None = None,
    rerun: bool = False,
    items: bool = False,
    config: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    on_failure: OnFailure = "raise",
    max_failures: int | float | None = None,
    max_in_flight: int | None = MAX_IN_FLIGHT,
    max_wait_seconds: float | None = None,
    on_timeout: OnTimeout = "cancel",
    per_run_tasks: bool = False,
    wait: WaitBy | None = None,
    stay_seconds: float = STAY_SECONDS,
    interrupts: Interrupts = "raise",
    budget: Budget | None = None,
    on_budget: OnBudget = "stop",
) -> FanOutResult:
    """Run an assistant on many inputs: the asynchronous twin of `fan_out`."""
    return await io_loop().arun(
        _fan_out,
        assistant_id,
        inputs,
        credentials=credentials,
        input_path=input_path,
        output_path=output_path,
        rerun=rerun,
        items=items,
        config=config,
        context=context,
        metadata=metadata,
        on_failure=on_failure,
        max_failures=max_failures,
        max_in_flight=max_in_flight,
        max_wait_seconds=max_wait_seconds,
        on_timeout=on_timeout,
        per_run_tasks=per_run_tasks,
        wait=wait,
        stay_seconds=stay_seconds,
        interrupts=interrupts,
        budget=budget,
        on_budget=on_budget,
    )
