"""Prefect's suspended flow runs: found, resumed, failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter
from prefect.states import Failed, Suspended

from prefect_langgraph.suspension.record import new_pause_key, record_name
from prefect_langgraph.transport.paging import each

SUSPENDED = "Suspended"

FORM_PREFIX = "langgraph-form-"
"""Begins the keys of pauses that ask a person: their forms are the business of `approvals`."""

RESUMER_PASSED = "langgraph.resumer.passed"
"""An event: by it the doctor knows that there is a resumer, of whichever kind."""

RESUMER_MINUTES = 10
"""After so long without a pass there is no resumer; a deployed one makes a pass every minute."""

_PAGE = 200  # what Prefect answers for at once, unless it was set otherwise


async def suspended_flow_runs(
    client: PrefectClient,
    ours: Callable[[State[Any] | None], bool] | None = None,
    *,
    paused_too: bool = False,
) -> list[FlowRun]:
    """The flow runs that are suspended with a pause key of ours, and not for a form.

    Args:
        client: For Prefect.
        ours: Which to give instead, by their states.
        paused_too: True gives also those whose process waits.
    """
    wanted = FlowRunFilter(
        state=FlowRunFilterState(
            type=FlowRunFilterStateType(any_=[StateType.PAUSED]),
            name=None if paused_too else FlowRunFilterStateName(any_=[SUSPENDED]),
        )
    )
    found: dict[UUID, FlowRun] = {}
    offset = 0
    while True:
        # The size of a page is the server's own. One that others resume meanwhile moves the pages, and
        # the next pass finds what this one has missed.
        page = await client.read_flow_runs(flow_run_filter=wanted, offset=offset)
        offset += len(page)
        found |= {row.id: row for row in page}
        if not page:
            return [row for row in found.values() if (ours or waits_for_runs)(row.state)]


def waits_for_runs(state: State[Any] | None) -> bool:
    """True of the state of a flow run that `suspend_until_ended` has suspended."""
    return (
        state is not None
        and state.type is StateType.PAUSED
        and record_name(state.state_details.pause_key) is not None
        and state.state_details.run_input_keyset is None
    )


def asks_a_person(state: State[Any] | None) -> bool:
    """True of the state of a flow run that `ask_interrupts` has suspended or paused for a form."""
    return (
        state is not None
        and state.type is StateType.PAUSED
        and (state.state_details.pause_key or "").startswith(FORM_PREFIX)
    )


def suspended_by_us(state: State[Any] | None) -> bool:
    """True of the state of a flow run that this package has suspended, for runs or for a form."""
    return waits_for_runs(state) or asks_a_person(state)


async def without_deployment(client: PrefectClient, rows: Sequence[FlowRun]) -> set[UUID]:
    """Those of these flow runs whose Prefect deployment is gone: no worker would start them again."""
    ids = {row.deployment_id for row in rows if row.deployment_id is not None}
    known = await _deployments(client, ids)
    # A page may be shorter than asked for. Alone, each is answered for.
    missing = sorted(ids - known)
    alone = await each(missing, lambda one: _deployments(client, [one]))
    known |= {one for part in alone for one in part}
    return {row.id for row in rows if row.deployment_id not in known}


async def _deployments(client: PrefectClient, ids: Iterable[UUID]) -> set[UUID]:
    found: set[UUID] = set()
    wanted = list(ids)
    for start in range(0, len(wanted), _PAGE):
        part = DeploymentFilter(id=DeploymentFilterId(any_=wanted[start : start + _PAGE]))
        found |= {row.id for row in await client.read_deployments(deployment_filter=part)}
    return found


async def resumer_seen(client: PrefectClient) -> datetime | None:
    """When a resumer last made a pass, of whichever kind; None when that is long ago."""
    since = datetime.now(UTC) - timedelta(minutes=RESUMER_MINUTES)
    wanted = EventFilter(
        event=EventNameFilter(name=[RESUMER_PASSED]),
        occurred=EventOccurredFilter.model_validate({"since": since}),
    )
    page = await client.read_events(wanted, limit=1)
    return max((event.occurred for event in page.events), default=None)


async def resume(client: PrefectClient, flow_run_id: UUID) -> str | None:
    """Resume a suspended flow run; None when it was, else why it was not.

    One that is not suspended any more was resumed by somebody else, which is as good.
    """
    return refusal(await client.resume_flow_run(flow_run_id))


def refusal(answer: OrchestrationResult[Any]) -> str | None:
    """Why Prefect does not take a state that was asked for; None when it does."""
    if answer.status is SetStateStatus.ACCEPT:
        return None
    return str(getattr(answer.details, "reason", None) or answer.status)


async def suspend_again(client: PrefectClient, flow_run_id: UUID) -> bool:
    """Suspend a flow run that crashed after it had suspended itself; False when that is not so.

    Its process had nothing left to do, so that it was killed says nothing about the flow run. A worker
    that sees its process die calls the flow run crashed all the same.
    """
    states = await client.read_flow_run_states(flow_run_id)
    newest_first = sorted(states, key=lambda state: state.timestamp, reverse=True)
    if not newest_first or newest_first[0].type is not StateType.CRASHED:
        return False
    # Resumed before the worker told of the old process: no new one has begun.
    before = [state for state in newest_first[1:] if state.type is not StateType.SCHEDULED]
    if not before or before[0].name != SUSPENDED:
        return False
    details = before[0].state_details
    name = record_name(details.pause_key)
    if name is not None and waits_for_runs(before[0]):
        again: State[Any] = Suspended(pause_key=new_pause_key(name))
    elif asks_a_person(before[0]):
        # The very same: what was answered under it is found again.
        form = {"run_input_keyset": details.run_input_keyset}
        again = Suspended(pause_key=details.pause_key, state_details=form)
    else:
        return False
    await client.set_flow_run_state(flow_run_id, again, force=True)
    return True


async def fail(client: PrefectClient, flow_run_id: UUID, message: str) -> None:
    """End a suspended flow run that nobody can go on with."""
    await client.set_flow_run_state(flow_run_id, Failed(message=message))
