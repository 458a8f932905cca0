"""One form in front of a person: a flow run suspends for it, or its process waits.

Prefect stores what its UI makes a form of only after the flow run has suspended, and a process that
ends in between leaves a form that nobody can see. So the form is stored before, under a name of our
own, and the `Attendant`, which looks after suspended flow runs, shows it again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Abort, CancelledRun, Pause, PrefectException
from prefect.flow_runs import asuspend_flow_run
from prefect.states import Cancelled, Paused, Scheduled

from prefect_langgraph.approvals import storage
from prefect_langgraph.approvals.form import reply_in
from prefect_langgraph.approvals.present import still_asks
from prefect_langgraph.approvals.record import ELSEWHERE, Form
from prefect_langgraph.approvals.replies import LEFT_OPEN, WrongReply
from prefect_langgraph.errors import LangGraphError
from prefect_langgraph.logs import LoggerOrAdapter, counted
from prefect_langgraph.ownership.heartbeat import attempts_counted
from prefect_langgraph.ownership.owner import Owner
from prefect_langgraph.runs.poller import interval
from prefect_langgraph.suspension.models import ResumeEntry
from prefect_langgraph.suspension.record import Target
from prefect_langgraph.suspension.resumer import ASK_SECONDS, NO_DEPLOYMENT, Connect
from prefect_langgraph.suspension.suspended import (
    asks_a_person,
    fail,
    refusal,
    suspended_flow_runs,
    without_deployment,
)
from prefect_langgraph.suspension.verdict import Verdict
from prefect_langgraph.suspension.wait import TRY_AGAIN_SECONDS, mark
from prefect_langgraph.transport.deployment import Deployment
from prefect_langgraph.transport.paging import each

SHOWN_SECONDS = 15.0
"""How long after its suspension a process may need to show its form itself."""

CANCELLING_SECONDS = 30.0
"""How long a worker may take to terminate the process of a flow run that is to be cancelled."""

CANCELLED = "The flow run was cancelled while it asked a person."

LOOK_EVERY_SECONDS = 10.0
"""How often it is looked whether somebody answered elsewhere, while a process waits."""


async def suspend_for(
    form: Form, owner: Owner, deployment: Deployment, logger: LoggerOrAdapter
) -> str | None:
    """Suspend the flow run until the form was submitted. Why it cannot, where it cannot.

    Raises:
        Pause: Prefect's signal that ends the process of a flow run that has suspended.
        httpx.HTTPError: Prefect could not be asked; the flow run goes on.
    """
    flow_run_id = UUID(owner.flow_run_id)
    await mark(owner, [deployment], logger)
    async with get_client() as client:
        await storage.save(client, flow_run_id, form)
    try:
        await asuspend_flow_run(wait_for_input=form.model, key=form.name)
    except RuntimeError as error:
        return f"Prefect says {error}"
    except (httpx.HTTPError, PrefectException):
        # The answer may be lost, or the form may not have been stored, of a suspension that took place.
        async with get_client() as client:
            state = (await client.read_flow_run(flow_run_id)).state
        if state is not None and asks_a_person(state):
            raise Pause(state=state) from None
        raise
    return None


async def pause_for(form: Form, owner: Owner, deployment: Deployment, logger: LoggerOrAdapter) -> None:
    """Pause the flow run, and wait in its process until the form was submitted.

    Raises:
        Abort: The flow run was cancelled: Prefect's signal that its process ends, and its state stays.
        CancelledRun: The same, of a subflow run.
        LangGraphError: Prefect does not let the flow run pause.
    """
    flow_run_id = UUID(owner.flow_run_id)
    async with get_client() as client:
        await storage.save(client, flow_run_id, form)
        await _pause(client, flow_run_id, form)
        attempts = (await client.read_flow_run(flow_run_id)).run_count
        await storage.show(client, flow_run_id, form)
        logger.info("The flow run is paused for a form: Resume it in Prefect's UI")
        began, looked = time.monotonic(), time.monotonic()
        while True:
            await asyncio.sleep(interval(time.monotonic() - began))
            try:
                row = await client.read_flow_run(flow_run_id)
                if not _asks(row, form):
                    await end_if_cancelled(client, row)
                    await _keep_retries(client, row, row.run_count - attempts)
                    return
                if form.deadline is not None and form.deadline <= datetime.now(UTC):
                    await client.resume_flow_run(flow_run_id, form.without_person(form.by_deadline))
                elif time.monotonic() - looked > LOOK_EVERY_SECONDS:
                    looked = time.monotonic()
                    if await is_over(form, deployment):
                        await client.resume_flow_run(flow_run_id, form.without_person(ELSEWHERE))
            except CancelledRun:
                raise  # an error of Prefect's too, but not of its server
            except (httpx.HTTPError, PrefectException, LangGraphError) as error:
                logger.info("Could not look whether the form was answered (%s)", type(error).__name__)


async def _pause(client: PrefectClient, flow_run_id: UUID, form: Form) -> None:
    """Pause the flow run for the form, once no other call of the flow run asks."""
    state: State[Any] = Paused(
        pause_key=form.name, state_details={"run_input_keyset": storage.keyset_of(form)}
    )
    tried_again = False
    while why := refusal(await client.set_flow_run_state(flow_run_id, state)):
        row = await client.read_flow_run(flow_run_id)
        await end_if_cancelled(client, row)
        if row.state is not None and row.state.is_paused():
            tried_again = False
            await asyncio.sleep(TRY_AGAIN_SECONDS)
        elif tried_again:
            raise LangGraphError(f"The flow run cannot ask a person: Prefect says {why}")
        else:
            tried_again = True  # the other form may have been answered since


def _asks(row: FlowRun, form: Form) -> bool:
    """True while a flow run waits for this form, which it does not any more when it asks the next."""
    state = row.state
    return state is not None and asks_a_person(state) and state.state_details.pause_key == form.name


async def _keep_retries(client: PrefectClient, row: FlowRun, counted: int) -> None:
    """Give back what going on after a pause in the process has taken of a flow run's retries.

    Prefect counts it as an attempt more, which it does not do after a suspension.
    """
    if counted <= 0:
        return
    attempts_counted(str(row.id), row.run_count)
    policy = row.empirical_policy
    if policy.retries:
        policy = policy.model_copy(update={"retries": policy.retries + counted})
        await client.update_flow_run(row.id, empirical_policy=policy)


async def end_if_cancelled(client: PrefectClient, row: FlowRun) -> None:
    """End the process of a flow run that was cancelled, as a worker would.

    A worker terminates the process of a flow run that is to be cancelled. Where there is none, nobody
    does: then it is noted here that the flow run was cancelled. A subflow run ends with an error, since
    its parent goes on.

    Raises:
        Abort: It was cancelled.
        CancelledRun: The same, of a subflow run.
    """
    began = time.monotonic()
    while row.state is not None and row.state.is_cancelling():
        if time.monotonic() - began > CANCELLING_SECONDS:
            await client.set_flow_run_state(row.id, Cancelled(message=CANCELLED), force=True)
        await asyncio.sleep(interval(time.monotonic() - began))
        row = await client.read_flow_run(row.id)
    if row.state is None or not row.state.is_cancelled():
        return
    if row.parent_task_run_id is not None:
        raise CancelledRun(CANCELLED)
    raise Abort(CANCELLED)


async def is_over(form: Form, deployment: Deployment) -> bool:
    """True when no thread of the form waits any more: all were answered elsewhere."""
    threads = sorted({question.thread_id for question in form.questions})
    return await still_asks(deployment, threads) == set()


# -- looking after the forms of suspended flow runs ----------------------------------------------------


@dataclass
class _Open:
    """A form that a flow run is suspended for."""

    row: FlowRun
    form: Form
    is_over: bool = False


class Attendant:
    """Looks after the forms of suspended flow runs of one Prefect.

    Args:
        connect: Finds deployments.
        names: Only the forms that lead to these blocks' deployments; None is all of them.
        dry_run: True touches nothing.
    """

    def __init__(self, connect: Connect, names: Sequence[str] | None, *, dry_run: bool) -> None:
        self._connect = connect
        self._names = names
        self._dry_run = dry_run
        self._failures: list[str] = []

    async def one_pass(self) -> tuple[list[ResumeEntry], list[str]]:
        """Look at every form once: what was done about each, and what could not be done.

        Raises:
            httpx.HTTPError: Prefect could not be asked.
            PrefectException: The same.
        """
        self._failures = []
        async with get_client() as client:
            found = await open_forms(client)
            mine = [
                _Open(row, form)
                for row, form in found
                if self._names is None or form.credentials in self._names
            ]
            by_target: dict[Target, list[_Open]] = {}
            for one in mine:
                by_target.setdefault(one.form.target, []).append(one)
            await asyncio.gather(*(self._look(*part) for part in by_target.items()))
            orphans = await without_deployment(client, [one.row for one in mine])
            entries = await each(mine, lambda one: self._attend(client, one, orphans))
        return entries, self._failures

    async def _look(self, target: Target, part: Sequence[_Open]) -> None:
        """Note which forms ask about nothing any more."""
        threads = sorted({question.thread_id for one in part for question in one.form.questions})
        try:
            async with asyncio.timeout(ASK_SECONDS):
                asking = await still_asks(await self._connect(target), threads)
        except (LangGraphError, TimeoutError) as error:
            said = error.message if isinstance(error, LangGraphError) else "no answer in time"
            whose = target.credentials or target.assistant
            self._failures.append(f"{whose} ({target.url}) could not be asked: {said}")
            return
        for one in part:
            ids = {question.thread_id for question in one.form.questions}
            one.is_over = asking is not None and not ids & asking

    async def _attend(self, client: PrefectClient, one: _Open, orphans: set[UUID]) -> ResumeEntry:
        form, now = one.form, datetime.now(UTC)
        verdict = Verdict("wait", f"{counted(len(form.questions), 'question')} for a person")
        if one.row.id in orphans:
            verdict = Verdict("fail", NO_DEPLOYMENT)
        elif one.is_over:
            verdict = Verdict("resume", "what it asks was answered elsewhere")
        elif form.deadline is not None and form.deadline <= now:
            verdict = Verdict("resume", "nobody answered until its deadline")
        if not self._dry_run:
            try:
                verdict = await self._carry_out(client, one, verdict)
            except httpx.HTTPError as error:
                said = f"Prefect could not be asked ({type(error).__name__})"
                self._failures.append(f"{one.row.name}: {said}")
                verdict = Verdict("wait", said)
        return ResumeEntry(
            flow_run_id=str(one.row.id),
            flow_run_name=one.row.name,
            action=verdict.action,
            reason=verdict.reason,
            runs=len(form.totals),
            left=0,
            suspended_at=one.row.state.timestamp if one.row.state is not None else None,
            deadline=form.deadline,
        )

    async def _carry_out(self, client: PrefectClient, one: _Open, verdict: Verdict) -> Verdict:
        form, row = one.form, one.row
        if verdict.action == "fail":
            await fail(client, row.id, f"Suspended, and {NO_DEPLOYMENT}.")
            return verdict
        if await storage.has_response(client, row.id, form):
            # Its process was killed after it had suspended, and Prefect told of that after the answer.
            again: State[Any] = Scheduled(name="Resuming")
            await client.set_flow_run_state(row.id, again, force=True)
            return Verdict("resume", "it was answered")
        since = row.state.timestamp if row.state is not None else datetime.now(UTC)
        if datetime.now(UTC) - since > timedelta(seconds=SHOWN_SECONDS):
            await storage.show(client, row.id, form)
        if verdict.action == "resume":
            name = ELSEWHERE if one.is_over else form.by_deadline
            refused = refusal(await client.resume_flow_run(row.id, form.without_person(name)))
            if refused is not None:
                return Verdict("wait", refused)
        return verdict


async def open_forms(client: PrefectClient, *, paused_too: bool = False) -> list[tuple[FlowRun, Form]]:
    """The flow runs that are suspended for a form, each with it.

    Args:
        client: For Prefect.
        paused_too: True gives also those whose process waits.
    """
    rows = await suspended_flow_runs(client, asks_a_person, paused_too=paused_too)

    async def read(row: FlowRun) -> Form | None:
        key = row.state.state_details.pause_key if row.state is not None else None
        return await storage.load(client, row.id, key or "")

    forms = await each(rows, read)
    return [(row, form) for row, form in zip(rows, forms, strict=True) if form is not None]


async def answer_form(flow_run_id: UUID, form: Form, values: Mapping[str, str]) -> str | None:
    """Submit a form, as a person does in Prefect's UI; why it was not taken, or None.

    Nothing is submitted where an answer cannot be right.
    """
    replies = []
    for number, question in enumerate(form.questions, start=1):
        try:
            replies.append(reply_in(values, number, question))
        except WrongReply as wrong:
            return f"question {number}: {wrong}"
    if all(reply is LEFT_OPEN for reply in replies):
        return "nothing of it answers a question; give a decision, or the fields that `show` names"
    async with get_client() as client:
        return refusal(await client.resume_flow_run(flow_run_id, dict(values)))
