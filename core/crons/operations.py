"""What the cron tasks do, each written once, as a coroutine on the shared loop.

Invariants:
- A key has one cron. A call that creates one searches for the key before and after. Only a race or a
  lost answer can leave several; then every call chooses the oldest and deletes the others. There is no
  claim, so none is left where nothing would release it, or in the way once the cron was deleted.
- If the caller is cancelled before it has the handle, the cron that this call created is deleted.
- A failed look-up raises; it never leads to a second cron.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Mapping, Sequence
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
from prefect_langgraph.ownership.calls import check_same_call
from prefect_langgraph.ownership.keys import key_for
from prefect_langgraph.ownership.owner import Owner
from prefect_langgraph.ownership.tags import CALL, KEY
from prefect_langgraph.runs.call import Context
from prefect_langgraph.schedules import ScheduleLike, to_deploy_cron
from prefect_langgraph.transport.deployment import InDoubtError

UNCHANGED: Literal["unchanged"] = "unchanged"

_DOUBT_PAUSE_SECONDS = 0.3

Tags = Mapping[str, Any]


async def create(
    context: Context,
    request: CronRequest,
    *,
    idempotency_key: str | None = None,
    once: bool = True,
    detached: bool = False,
    owns_threads: bool = False,
) -> CronHandle:
    """Create a cron once, or update the one that its key already has.

    Args:
        context: Deployment, owner and logger of the call.
        request: The cron to create.
        idempotency_key: The caller's own key.
        once: False creates a new cron at every call.
        detached: True leaves the cron untagged, so that it outlives its flow run.
        owns_threads: True tags the threads of its runs as released with the flow run.
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
    # If a run is cut short, the thread that the server would have deleted with it must be pruned.
    throw_away = request.thread_id is None and (owns_threads or request.on_run_completed == "delete")
    tags = owner.tags(key=text, owns_thread=throw_away)
    if key is not None and key.record is not None:
        tags[CALL] = key.record
    creation = asyncio.create_task(_create_or_update(context, request, tags, keyed=key is not None))
    try:
        row, how = await asyncio.shield(creation)
    except asyncio.CancelledError:
        await _delete_created(context, creation)
        raise
    handle = handle_in(context, row, request.assistant_id)
    context.logger.info("%s %s%s", how, handle, _skips(request))
    if request.lease is not None:
        renewal.begin(deployment, handle, request, owner.flow_run_id, context.logger)
    return handle


def handle_in(context: Context, row: Row, assistant_id: str | None = None) -> CronHandle:
    """The handle for a cron of this call's deployment."""
    deployment = context.deployment
    return handle_of(
        row, url=deployment.url, name=deployment.connection.name, assistant_id=assistant_id
    )


def log_warnings(logger: LoggerOrAdapter, request: CronRequest) -> None:
    """Log where the server's firings differ from what the schedule's author may expect."""
    for warning in request.cron.warnings:
        logger.warning("Cron of %s: %s", request.assistant_id, warning)


def _skips(request: CronRequest) -> str:
    if request.thread_id is None or request.multitask_strategy != "reject":
        return ""
    return "; a firing that finds its thread busy is skipped (multitask_strategy='reject')"


async def fit_for_server(
    context: Context, request: CronRequest, *, deleted_in_time: bool = False
) -> CronRequest:
    """The request as this server can carry it out; logs a warning where it cannot do all of it.

    Raises:
        ScheduleError: The schedule ends, and this server cannot end the cron.
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
    row = await find_only(context, tags) if keyed else None
    if row is None:
        row = created = await post(context, request, tags)
        if keyed:
            # Another process may have searched and created at the same time.
            row = await find_only(context, tags) or created
        if row["cron_id"] == created["cron_id"]:
            return row, "Created"
    check_same_call(tags.get(CALL), row.get("metadata"))
    change = difference(row, request, tags, datetime.now(UTC))
    if change is None:
        return row, "Adopted from an earlier attempt:"
    row = await bring_up_to_date(context, row, request, tags, change)
    return row, f"Updated ({', '.join(change.fields)})"


async def _delete_created(context: Context, creation: asyncio.Task[tuple[Row, str]]) -> None:
    """Delete what was created for a caller that was cancelled meanwhile."""
    await asyncio.wait([creation])
    if creation.cancelled() or creation.exception() is not None:
        return
    row, how = creation.result()
    if how == "Created":
        try:
            await delete(context, row["cron_id"])
        except LangGraphError as error:
            context.logger.warning("Cron %s may still fire: %s", row["cron_id"], error)


async def find_only(context: Context, tags: Tags) -> Row | None:
    """The one cron that a key has; any others are deleted."""
    rows = await crons_under(context.deployment, {KEY: tags[KEY]})
    return await delete_duplicates(context, rows) if rows else None


async def delete_duplicates(context: Context, rows: Sequence[Row]) -> Row:
    """Delete all but the oldest of crons that have the same key, and return the oldest."""
    first = oldest(rows)
    for row in rows:
        if row["cron_id"] != first["cron_id"]:
            context.logger.info("Deleting cron %s: %s has its key", row["cron_id"], first["cron_id"])
            await delete(context, row["cron_id"])
    return first


async def post(context: Context, request: CronRequest, tags: Tags) -> Row:
    """Send the request that creates a cron; if its answer is lost, find the cron that it created."""
    deployment, ends = context.deployment, context.deployment.patience()
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
            found = await find_only(context, tags)
            if found is not None:
                return found
            if ends.passed:
                raise doubt.public() from None
        else:
            return row


async def bring_up_to_date(
    context: Context, row: Row, request: CronRequest, tags: Tags, change: Difference
) -> Row:
    """Update a cron to match its request, or replace it where no update can do that."""
    if change.replace:
        # Created first: if the server rejects the new cron, the old one still fires.
        created = await post(context, request, {**tags, KEY: uuid.uuid4().hex})
        await delete(context, row["cron_id"])
        return await patch(context, created["cron_id"], {"metadata": request.with_tags(tags)})
    return await patch(context, row["cron_id"], change.patch, hidden=request.hidden)


async def patch(
    context: Context, cron_id: str, arguments: Mapping[str, Any], *, hidden: Any = None
) -> Row:
    """Update a cron. Safe to repeat."""
    crons = context.deployment.client.crons
    return await context.deployment.send(
        lambda: crons.update(cron_id, **arguments),
        doing=f"update cron {cron_id}",
        deadline=context.deployment.patience(),
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
    """Change only the given properties of a cron."""
    cron_id = id_of(cron)
    row = await cron_row(context.deployment, cron_id)
    if row is None:
        raise NotFoundError(
            f"There is no cron {cron_id} at {context.deployment.url}: it was deleted or never existed. "
            "create_cron creates one.",
            status_code=404,
            url=context.deployment.url,
        )
    change = {**given, **_timing(context, row, schedule, timezone, allow_seconds, enabled)}
    if end_time != UNCHANGED:
        change["end_time"] = end_time
        # A renewal would replace the end that the caller has just chosen.
        renewal.stop(context.deployment, cron_id)
        ended = moment(row.get("end_time"))
        if ended is not None and ended <= datetime.now(UTC):
            change.setdefault("schedule", row["schedule"])
    have: Row = row.get("metadata") or {}
    if metadata is not None or CRON_SPEC in have:
        # Of the digest only the part that no update can change is still true.
        digest = {CRON_SPEC: outdated(have[CRON_SPEC])} if CRON_SPEC in have else {}
        change["metadata"] = {**have, **(metadata or {}), **digest}
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
    """The arguments of an update that decide when the cron fires."""
    change: dict[str, Any] = {}
    if schedule is not None or timezone is not None:
        cron = to_deploy_cron(
            schedule if schedule is not None else row["schedule"],
            timezone=timezone,
            allow_seconds=allow_seconds or schedule is None,
        )
        if cron.timezone is None and row.get("timezone"):
            # The cron keeps its timezone, so the warnings must be for that one.
            cron = to_deploy_cron(cron.schedule, timezone=row["timezone"], allow_seconds=True)
        for warning in cron.warnings:
            context.logger.warning("Cron %s: %s", row["cron_id"], warning)
        change |= {"schedule": cron.schedule, "timezone": cron.timezone}
    if enabled is not None:
        change["enabled"] = enabled
    if enabled:
        # Without its schedule, the cron would fire at once for the date at which it was paused.
        change.setdefault("schedule", row["schedule"])
    return {name: value for name, value in change.items() if value is not None}


async def delete(
    context: Context, cron: CronHandle | str, *, headers: Mapping[str, str] | None = None
) -> bool:
    """Delete a cron; False if it did not exist any more."""
    cron_id = id_of(cron)
    renewal.stop(context.deployment, cron_id)
    crons = context.deployment.client.crons
    with contextlib.suppress(NotFoundError):
        await context.deployment.send(
            lambda: crons.delete(cron_id, headers=headers),
            doing=f"delete cron {cron_id}",
            deadline=context.deployment.patience(),
            hidden=headers,
        )
        return True
    return False


def id_of(cron: CronHandle | str) -> str:
    """The id of a cron that is given as a handle or as an id."""
    return cron.cron_id if isinstance(cron, CronHandle) else str(cron)
