"""Renewals: the end of a cron with a lease is moved for as long as somebody is there to delete it.

Invariants:
- Only a living process renews, and only for a flow run that has not ended. Without a renewal the cron
  stops by itself at its `end_time`.
- A renewal moves the end and nothing else. Whatever anybody changed meanwhile stays: an end that
  somebody removed stays removed, and one that no renewal gave it stays as somebody set it.
- While Prefect or the deployment cannot be asked, renewing goes on.
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectException

from prefect_langgraph.crons.models import CronHandle
from prefect_langgraph.crons.request import CronRequest, moment
from prefect_langgraph.crons.search import cron_row
from prefect_langgraph.errors import DeploymentError, NotFoundError
from prefect_langgraph.logs import LoggerOrAdapter
from prefect_langgraph.transport.deadline import Deadline

if TYPE_CHECKING:
    from prefect_langgraph.transport.deployment import Deployment

RENEWALS_PER_LEASE = 3

_ROUNDING = timedelta(seconds=0.1)  # servers keep dates with fewer digits


class _Renewals:
    """The tasks that renew the crons of a deployment, by cron."""

    def __init__(self, _deployment: Deployment) -> None:
        self.tasks: dict[str, asyncio.Task[None]] = {}


def begin(
    deployment: Deployment,
    handle: CronHandle,
    request: CronRequest,
    flow_run_id: str | None,
    logger: LoggerOrAdapter,
) -> None:
    """Renew a cron from now on, while this process and the flow run live."""
    stop(deployment, handle.cron_id)
    tasks = deployment.part(_Renewals).tasks
    task = asyncio.create_task(_renew(deployment, handle, request, flow_run_id, logger))
    tasks[handle.cron_id] = task
    deployment.used_by(task)

    def forget(ended: asyncio.Task[None]) -> None:
        if tasks.get(handle.cron_id) is ended:
            del tasks[handle.cron_id]

    task.add_done_callback(forget)


def stop(deployment: Deployment, cron_id: str) -> None:
    """Stop renewing a cron."""
    task = deployment.part(_Renewals).tasks.pop(cron_id, None)
    if task is not None:
        task.cancel()


async def _renew(
    deployment: Deployment,
    handle: CronHandle,
    request: CronRequest,
    flow_run_id: str | None,
    logger: LoggerOrAdapter,
) -> None:
    if request.lease is None:
        return
    seconds = request.lease.total_seconds()
    crons, ends = deployment.client.crons, handle.end_time
    given = {ends}  # also those whose confirmation was lost
    while True:
        await asyncio.sleep(seconds / RENEWALS_PER_LEASE)
        if flow_run_id is not None and await _has_ended(flow_run_id):
            return
        now = datetime.now(UTC)
        deadline = Deadline.after(seconds / RENEWALS_PER_LEASE)
        try:
            # Somebody may have changed the cron since it was created.
            row = await cron_row(deployment, handle.cron_id, deadline=deadline)
            end = moment(row.get("end_time")) if row is not None else None
            if row is None or end is None:
                return  # deleted, or somebody has removed its end
            if not any(ours is not None and abs(end - ours) < _ROUNDING for ours in given):
                return  # somebody has set another end
            change: dict[str, Any] = {"end_time": request.ends(now)}
            given.add(change["end_time"])
            if end <= now:
                # The renewal is late. Without its schedule, the cron would fire for a date in the past.
                change["schedule"] = row["schedule"]
            await deployment.send(
                lambda: crons.update(handle.cron_id, **change),  # noqa: B023
                doing=f"renew cron {handle.cron_id}",
                deadline=deadline,
                once="schedule" in change,  # or it would be sent again when it is no longer so
            )
        except NotFoundError:
            return
        except DeploymentError as error:
            logger.warning("Renewing %s failed, it ends at %s: %s", handle, ends, error)
        else:
            ends = change["end_time"]
            given = {ends}


async def _has_ended(flow_run_id: str) -> bool:
    """True when Prefect says that the flow run has ended or is gone."""
    try:
        async with get_client() as client:
            state = (await client.read_flow_run(uuid.UUID(flow_run_id))).state
    except ObjectNotFound:
        return True
    except (PrefectException, httpx.HTTPError):
        return False  # unknown does not mean ended
    return state is not None and state.is_final()
