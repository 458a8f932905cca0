"""What the cron tasks do, each written once, as a coroutine on the shared loop.

Invariants:
- A key has one cron. Whoever creates under a key looks before and after: of several, which only a race
  or a lost answer can leave, everyone keeps the oldest and deletes the others. No claim is made, so
  none is left behind where nothing would release it, and none is in the way once a cron was deleted.
- A cron that this call made and cannot hand over, because its caller gave up, is deleted again.
- A look-up that fails raises; it never leads to a second cron.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from prefect_langgraph.crons import renewal
from prefect_langgraph.crons.models import CronHandle
from prefect_langgraph.crons.request import (
    CRON_SPEC,
    CronRequest,
    Difference,
    Row,
    cron_key,
    difference,
    handle_of,
    moment,
    oldest,
    outdated,
)
from prefect_langgraph.crons.search import cron_row, crons_under, is_dev_server
from prefect_langgraph.errors import LangGraphError, NotFoundError, ScheduleError
from prefect_langgraph.logs import LoggerOrAdapter
from prefect_langgraph.ownership.keys import key_for
from prefect_langgraph.ownership.owner import Owner
from prefect_langgraph.ownership.tags import KEY
from prefect_langgraph.runs.call import Context
from prefect_langgraph.schedules import ScheduleLike, to_deploy_cron
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment, InDoubtError

UNCHANGED: Literal["unchanged"] = "unchanged"

_DOUBT_PAUSE_SECONDS = 0.3

Tags = Mapping[str, Any]


def patience(deployment: Deployment) -> Deadline:
    """How long a call about crons goes on when the server is not there."""
    return Deadline.after(deployment.connection.patience_seconds)


async def create(
    context: Context,
    request: CronRequest,
    *,
    idempotency_key: str | None = None,
    once: bool = True,
    detached: bool = False,
    owns_threads: bool = False,
) -> CronHandle:
    """Create a cron once, or bring the one under its key up to date.

    Args:
        context: The call's.
        request: What to create.
        idempotency_key: The caller's own key.
        once: False creates one at every call.
        detached: True leaves it untagged, so that it outlives its flow run.
        owns_threads: True tags its runs' threads as ones that go with the flow run.
    """
    deployment = context.deployment
    log_warnings(context.logger, request)
    request = await fit_for_server(context, request)
    key = await key_for(
        deployment,
        context.owner,
        "create_cron",
        request.identity,
        idempotency_key=idempotency_key,
        once=once,
    )
    text = cron_key(key.text) if key is not None else uuid.uuid4().hex
    owner = Owner() if detached else context.owner
    # A thread that the server deletes with its run is a throw-away too, should the run be cut short.
    throw_away = request.thread_id is None and (owns_threads or request.on_run_completed == "delete")
    tags = owner.tags(key=text, owns_thread=throw_away)
    making = asyncio.create_task(_create_or_update(context, request, tags, keyed=key is not None))
    try:
        row, how = await asyncio.shield(making)
    except asyncio.CancelledError:
        await _take_back(context, making)
        raise
    handle = handle_in(context, row, request.assistant_id)
    context.logger.info("%s %s%s", how, handle, _skips(request))
    if request.lease is not None:
        renewal.keep(deployment, handle, request, owner.flow_run_id, context.logger)
    return handle


def handle_in(context: Context, row: Row, assistant_id: str | None = None) -> CronHandle:
    """The handle for a cron of this call's deployment."""
    deployment = context.deployment
    return handle_of(
        row, url=deployment.url, name=deployment.connection.name, assistant_id=assistant_id
    )


def log_warnings(logger: LoggerOrAdapter, request: CronRequest) -> None:
    """Say where the server will not do what the schedule's author may expect."""
    for warning in request.cron.warnings:
        logger.warning("Cron of %s: %s", request.assistant_id, warning)


def _skips(request: CronRequest) -> str:
    if request.thread_id is None or request.multitask_strategy != "reject":
        return ""
    return "; a firing that finds its thread busy is skipped (multitask_strategy='reject')"


async def fit_for_server(
    context: Context, request: CronRequest, *, deleted_in_time: bool = False
) -> CronRequest:
    """The request as this server can take it, with a warning where it cannot take all of it.

    Raises:
        ScheduleError: The schedule ends, and this server cannot be told to end the cron.
    """
    ends = request.ends(datetime.now(UTC))
    if ends is None or not await is_dev_server(context.deployment):
        return request
    if request.cron.last_fire is not None:
        if not deleted_in_time:
            raise ScheduleError(
                f"{request.cron.schedule!r} ends with its year field, and the dev server would then "
                "fire it again every few seconds. Leave the year out, or use temporary_cron, which "
                "deletes it."
            )
        request = replace(request, cron=request.cron.model_copy(update={"last_fire": None}))
        if request.ends(datetime.now(UTC)) is None:
            return request
    context.logger.warning(
        "%s looks like a dev server (langgraph dev), which cannot read end_time: the cron of %s "
        "will not fire there, nor will any cron created after it, until its end_time is cleared or "
        "it is deleted. Deployed servers are not affected.",
        context.deployment.url,
        request.assistant_id,
    )
    return request


async def _create_or_update(
    context: Context, request: CronRequest, tags: Tags, *, keyed: bool
) -> tuple[Row, str]:
    row = await settle(context, tags) if keyed else None
    if row is None:
        row = made = await post(context, request, tags)
        if keyed:
            # Another may have looked and created at the same time.
            row = await settle(context, tags) or made
        if row["cron_id"] == made["cron_id"]:
            return row, "Created"
    change = difference(row, request, tags, datetime.now(UTC))
    if change is None:
        return row, "Kept, from an earlier attempt,"
    row = await bring_up_to_date(context, row, request, tags, change)
    return row, f"Brought up to date ({', '.join(change.fields)})"


async def _take_back(context: Context, making: asyncio.Task[tuple[Row, str]]) -> None:
    """Delete what was made for a caller that gave up meanwhile."""
    await asyncio.wait([making])
    if making.cancelled() or making.exception() is not None:
        return
    row, how = making.result()
    if how == "Created":
        try:
            await delete(context, row["cron_id"])
        except LangGraphError as error:
            context.logger.warning("Cron %s may still fire: %s", row["cron_id"], error)


async def settle(context: Context, tags: Tags) -> Row | None:
    """The one cron under a key; any others are deleted."""
    rows = await crons_under(context.deployment, {KEY: tags[KEY]})
    if not rows:
        return None
    kept = oldest(rows)
    for row in rows:
        if row["cron_id"] != kept["cron_id"]:
            context.logger.info("Deleting cron %s: %s has its key", row["cron_id"], kept["cron_id"])
            await delete(context, row["cron_id"])
    return kept


async def post(context: Context, request: CronRequest, tags: Tags) -> Row:
    """Send the request that creates a cron, and find what it made when the answer is lost."""
    deployment, ends = context.deployment, patience(context.deployment)
    crons = deployment.client.crons
    arguments = request.create_arguments(tags, datetime.now(UTC))

    async def send() -> Any:
        if request.thread_id is None:
            return await crons.create(request.assistant_id, **arguments)
        return await crons.create_for_thread(request.thread_id, request.assistant_id, **arguments)

    where = f" on thread {request.thread_id}" if request.thread_id is not None else ""
    while True:
        try:
            row: Row = await deployment.send(
                send,
                doing=f"create a cron of {request.assistant_id}{where}",
                deadline=ends,
                hidden=request.hidden,
                repeatable=False,
            )
        except InDoubtError as doubt:
            # The request may still be on its way through the server.
            await asyncio.sleep(_DOUBT_PAUSE_SECONDS)
            found = await settle(context, tags)
            if found is not None:
                return found
            if ends.passed:
                raise doubt.public() from None
        else:
            return row


async def bring_up_to_date(
    context: Context, row: Row, request: CronRequest, tags: Tags, change: Difference
) -> Row:
    """Change a cron into what it should be, or put a new one in its place."""
    if change.replace:
        # The new one comes first: were it refused, the old one would be gone for nothing.
        made = await post(context, request, {**tags, KEY: uuid.uuid4().hex})
        await delete(context, row["cron_id"])
        return await patch(context, made["cron_id"], {"metadata": request.with_tags(tags)})
    return await patch(context, row["cron_id"], change.patch, hidden=request.hidden)


async def patch(
    context: Context, cron_id: str, arguments: Mapping[str, Any], *, hidden: Any = None
) -> Row:
    """Update a cron. Safe to repeat."""
    crons = context.deployment.client.crons
    return await context.deployment.send(
        lambda: crons.update(cron_id, **arguments),
        doing=f"update cron {cron_id}",
        deadline=patience(context.deployment),
        hidden=hidden or [arguments.get("metadata")],
    )


async def update(
    context: Context,
    cron: CronHandle | str,
    *,
    schedule: ScheduleLike | None,
    timezone: str | None,
    allow_seconds: bool,
    enabled: bool | None,
    end_time: datetime | Literal["unchanged"] | None,
    metadata: Mapping[str, Any] | None,
    given: Mapping[str, Any],
) -> CronHandle:
    """Change what was given of a cron, and leave the rest."""
    cron_id = id_of(cron)
    row = await cron_row(context.deployment, cron_id)
    if row is None:
        raise NotFoundError(
            f"There is no cron {cron_id} at {context.deployment.url}: deleted, or never there. "
            "create_cron makes one.",
            status_code=404,
            url=context.deployment.url,
        )
    change = {**given, **_timing(context, row, schedule, timezone, allow_seconds, enabled)}
    if end_time != UNCHANGED:
        change["end_time"] = end_time
        # Whoever sets an end means that one, and not a lease's.
        renewal.stop(context.deployment, cron_id)
        ended = moment(row.get("end_time"))
        if ended is not None and ended <= datetime.now(UTC):
            change.setdefault("schedule", row["schedule"])
    have: Row = row.get("metadata") or {}
    if metadata is not None or CRON_SPEC in have:
        # The digest no longer tells the truth about it, but for what no update can change.
        told = {CRON_SPEC: outdated(have[CRON_SPEC])} if CRON_SPEC in have else {}
        change["metadata"] = {**have, **(metadata or {}), **told}
    if not change:
        return handle_in(context, row)
    row = await patch(context, cron_id, change, hidden=[dict(given), metadata])
    handle = handle_in(context, row, cron.assistant_id if isinstance(cron, CronHandle) else None)
    context.logger.info("Updated %s", handle)
    return handle


def _timing(
    context: Context,
    row: Row,
    schedule: ScheduleLike | None,
    timezone: str | None,
    allow_seconds: bool,
    enabled: bool | None,
) -> dict[str, Any]:
    """The arguments that say when it fires."""
    change: dict[str, Any] = {}
    if schedule is not None or timezone is not None:
        said = to_deploy_cron(
            schedule if schedule is not None else row["schedule"],
            timezone=timezone,
            allow_seconds=allow_seconds or schedule is None,
        )
        if said.timezone is None and row.get("timezone"):
            # It keeps its timezone, so the warnings are for that one.
            said = to_deploy_cron(said.schedule, timezone=row["timezone"], allow_seconds=True)
        for warning in said.warnings:
            context.logger.warning("Cron %s: %s", row["cron_id"], warning)
        change |= {"schedule": said.schedule, "timezone": said.timezone}
    if enabled is not None:
        change["enabled"] = enabled
    if enabled:
        # Alone, it would fire at once for the date at which it was paused.
        change.setdefault("schedule", row["schedule"])
    return {name: value for name, value in change.items() if value is not None}


async def delete(
    context: Context, cron: CronHandle | str, *, headers: Mapping[str, str] | None = None
) -> bool:
    """Delete a cron; False when it was gone already."""
    cron_id = id_of(cron)
    renewal.stop(context.deployment, cron_id)
    crons = context.deployment.client.crons
    with contextlib.suppress(NotFoundError):
        await context.deployment.send(
            lambda: crons.delete(cron_id, headers=headers),
            doing=f"delete cron {cron_id}",
            deadline=patience(context.deployment),
            hidden=headers,
        )
        return True
    return False


def id_of(cron: CronHandle | str) -> str:
    """A cron's id, from its handle or as it is."""
    return cron.cron_id if isinstance(cron, CronHandle) else str(cron)
