"""Crons as desired state: an owner's crons are made to match their specifications.

Invariants:
- Only crons that carry the owner's tag are changed or deleted. One search lists all crons of the
  deployment; a cron without owner and flow run is reported and left alone.
- Pure functions make the plan from specifications and existing crons. A dry run is only the plan.
- Reconciling a second time changes nothing. If a race leaves several crons with one name, all but the
  oldest are deleted, at once or the next time.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from prefect_langgraph.crons import operations
from prefect_langgraph.crons.models import CronAction, CronChange, CronPlan
from prefect_langgraph.crons.request import (
    CRON_NAME,
    CRON_OWNER,
    CronRequest,
    Difference,
    Row,
    cron_key,
    difference,
    oldest,
)
from prefect_langgraph.crons.search import crons_under, search
from prefect_langgraph.crons.spec_file import Specs, read_specs
from prefect_langgraph.errors import LangGraphError, RateLimitedError, UnreachableError
from prefect_langgraph.ownership.owner import Owner
from prefect_langgraph.ownership.tags import FLOW_RUN_ID
from prefect_langgraph.runs.call import Context
from prefect_langgraph.transport.paging import each

_CONCURRENCY = 8


@dataclass(frozen=True)
class Step:
    """What to do with one of the owner's crons."""

    action: CronAction
    name: str
    request: CronRequest | None = None
    row: Row | None = field(default=None, repr=False)
    change: Difference | None = None

    @property
    def shown(self) -> CronChange:
        """The step as the plan shows it, without what it would send."""
        row, request = self.row or {}, self.request
        cron = request.cron if request is not None else None
        return CronChange(
            action=self.action,
            name=self.name,
            assistant_id=request.assistant_id if request is not None else str(row["assistant_id"]),
            schedule=cron.schedule if cron is not None else row["schedule"],
            timezone=cron.timezone if cron is not None else row.get("timezone"),
            fields=self.change.fields if self.change is not None else (),
            cron_id=row.get("cron_id"),
            warnings=cron.warnings if cron is not None else (),
        )


def tags_of(owner: str, name: str) -> dict[str, Any]:
    """The tags of an owner's cron. They name no flow run, because the cron outlives it."""
    key = cron_key(f"reconcile\0{owner}\0{name}")
    return {**Owner().tags(key=key), CRON_OWNER: owner, CRON_NAME: name}


def steps_for(
    wanted: Mapping[str, CronRequest],
    rows: Iterable[Row],
    owner: str,
    *,
    prune: bool,
    now: datetime,
) -> list[Step]:
    """What to do with each of the owner's crons, in order of name."""
    existing = _by_name(row for row in rows if _tag(row, CRON_OWNER) == owner)
    steps: list[Step] = []
    for name in sorted({*wanted, *existing}):
        request = wanted.get(name)
        if not existing[name]:
            steps.append(Step("create", name, request))
            continue
        if request is None:
            steps += [Step("delete" if prune else "leave", name, row=row) for row in existing[name]]
            continue
        first = oldest(existing[name])
        change = difference(first, request, tags_of(owner, name), now)
        action: CronAction = "leave"
        if change is not None:
            action = "replace" if change.replace else "update"
        steps.append(Step(action, name, request, first, change))
        steps += [Step("delete", name, row=row) for row in existing[name] if row is not first]
    return steps


def _by_name(rows: Iterable[Row]) -> defaultdict[str, list[Row]]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[str(_tag(row, CRON_NAME))].append(row)
    return found


def _tag(row: Row, name: str) -> Any:
    return (row.get("metadata") or {}).get(name)


async def reconcile(
    context: Context, specs: Specs, *, owner: str | None, prune: bool, dry_run: bool
) -> CronPlan:
    """Make an owner's crons match their specifications, or plan the changes for that."""
    # Each of hundreds of crons is checked for a year of clock changes: too slow for the shared loop.
    name, wanted = await asyncio.to_thread(read_specs, specs, owner)
    now = datetime.now(UTC)
    for cron, request in wanted.items():
        for warning in request.cron.warnings:
            context.logger.warning("Cron %r: %s", cron, warning)
        wanted[cron] = await operations.fit_for_server(context, request)
    rows = [row async for row in search(context.deployment)]
    steps = steps_for(wanted, rows, name, prune=prune, now=now)
    if not dry_run:
        steps = await _apply(context, steps, name)
    plan = CronPlan(
        owner=name,
        url=context.deployment.url,
        applied=not dry_run,
        changes=tuple(step.shown for step in steps),
        unowned=tuple(
            operations.handle_in(context, row)
            for row in rows
            if _tag(row, CRON_OWNER) is None and _tag(row, FLOW_RUN_ID) is None
        ),
    )
    context.logger.info("%s", str(plan)[0].upper() + str(plan)[1:])
    return plan


async def _apply(context: Context, steps: Sequence[Step], owner: str) -> list[Step]:
    """Apply every step, also when one fails; then raise the error of one that failed."""

    async def apply(step: Step) -> Step | Exception:
        try:
            return await _apply_step(context, step, owner)
        except Exception as error:  # noqa: BLE001 - raised below, with the others'
            return error

    done = await each(steps, apply, at_once=_CONCURRENCY)
    failed = [
        (step, outcome)
        for step, outcome in zip(steps, done, strict=True)
        if isinstance(outcome, Exception)
    ]
    if failed:
        raise _error_for(context, steps, failed, owner)
    if any(step.action == "create" for step in steps):
        # Another process may have created a cron with the same name at the same time.
        rows = await crons_under(context.deployment, {CRON_OWNER: owner})
        for same_name in _by_name(rows).values():
            await operations.delete_duplicates(context, same_name)
    return [outcome for outcome in done if isinstance(outcome, Step)]


async def _apply_step(context: Context, step: Step, owner: str) -> Step:
    if step.action == "leave":
        return step
    if step.request is None and step.row is not None:
        await operations.delete(context, step.row["cron_id"])
        return step
    if step.request is None:
        return step
    tags = tags_of(owner, step.name)
    if step.row is None or step.change is None:
        row = await operations.post(context, step.request, tags)
    else:
        row = await operations.bring_up_to_date(context, step.row, step.request, tags, step.change)
    return replace(step, row=row)


def _error_for(
    context: Context,
    steps: Sequence[Step],
    failed: Sequence[tuple[Step, Exception]],
    owner: str,
) -> Exception:
    """The error to raise: one that a retry would not mend, if there is one."""
    for step, error in failed:
        if not isinstance(error, LangGraphError):
            return error
        context.logger.error("Could not %s cron %r: %s", step.action, step.name, error)
    transient = UnreachableError | RateLimitedError
    lasting = [error for _, error in failed if not isinstance(error, transient)]
    error = (lasting or [error for _, error in failed])[0]
    changes = sum(step.action != "leave" for step in steps)
    error.add_note(
        f"{len(failed)} of {changes} changes to the crons of {owner!r} failed, the others were made. "
        "Reconciling again makes those that failed."
    )
    return error
