"""Which runs have not ended, without their values: cheap enough to ask again and again.

A thread that exists for one run is busy until that run has ended, so one search tells about 1,000 of
them. A run on a caller's thread is asked for in its thread's list of runs. What is gone, with its
thread or without, will not end any more: it counts as ended, and the join says `lost` or `cancelled`.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import defaultdict
from collections.abc import Sequence

from prefect_langgraph.models import RunHandle
from prefect_langgraph.ownership.pruning import ReleasedResults
from prefect_langgraph.runs import outcomes
from prefect_langgraph.runs.lookup import PAGE, Lookup
from prefect_langgraph.runs.poller import MISSING_CONFIRMATIONS, MISSING_GAP_SECONDS
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment
from prefect_langgraph.transport.paging import each

VERIFIED_SHARE = 60
"""Of so many busy threads the run behind one is checked: after a roll back a thread may stay busy."""


async def unfinished(deployment: Deployment, handles: Sequence[RunHandle]) -> list[RunHandle]:
    """The runs that have not ended, in order. Waits as long as the server is not there.

    Raises:
        DeploymentError: The server refused to tell.
    """
    asked = [handle for handle in handles if deployment.part(ReleasedResults).get(handle) is None]
    own = [handle for handle in asked if handle.owns_thread]
    alone = [handle for handle in asked if not handle.owns_thread]
    left: set[tuple[str, str]] = set()
    for start in range(0, len(own), PAGE):
        page = own[start : start + PAGE]
        rows = None
        if deployment.part(Lookup).searches_by_ids:
            ids = [handle.thread_id for handle in page]
            rows = await deployment.part(Lookup).threads(ids, select=["thread_id", "status"])
        if rows is None:
            alone += page
            continue
        status = {row["thread_id"]: row["status"] for row in rows}
        busy = [handle for handle in page if status.get(handle.thread_id) == "busy"]
        left |= {_key(handle) for handle in busy}
        left -= await _rolled_back(deployment, busy)
        # Few, if any: a server that answers for fewer than it was asked about, or data that is gone.
        alone += [handle for handle in page if handle.thread_id not in status]
    left |= await _unfinished_alone(deployment, alone)
    return [handle for handle in asked if _key(handle) in left]


def _key(handle: RunHandle) -> tuple[str, str]:
    return handle.thread_id, handle.run_id


async def _rolled_back(deployment: Deployment, busy: Sequence[RunHandle]) -> set[tuple[str, str]]:
    """Those of a sample of busy threads whose run has no row any more."""
    sample = random.sample(busy, math.ceil(len(busy) / VERIFIED_SHARE))

    async def gone(handle: RunHandle) -> bool:
        return await deployment.part(Lookup).run(handle, Deadline()) is None

    found = await each(sample, gone)
    return {_key(handle) for handle, is_gone in zip(sample, found, strict=True) if is_gone}


async def _unfinished_alone(
    deployment: Deployment, handles: Sequence[RunHandle]
) -> set[tuple[str, str]]:
    """Those of these runs that have not ended, asked for thread by thread."""
    by_thread: defaultdict[str, list[RunHandle]] = defaultdict(list)
    for handle in handles:
        by_thread[handle.thread_id].append(handle)

    async def on_thread(group: list[RunHandle]) -> list[tuple[str, str]]:
        newest = await deployment.part(Lookup).newest_runs_told(group[0].thread_id, Deadline())
        statuses = {run["run_id"]: run["status"] for run in newest}
        left: list[tuple[str, str]] = []
        for handle in group:
            status = statuses.get(handle.run_id) or await _status_of(deployment, handle)
            if status is not None and not outcomes.RUN_STATUSES[status].ended:
                left.append(_key(handle))
        return left

    found = await each(list(by_thread.values()), on_thread)
    return {key for part in found for key in part}


async def _status_of(deployment: Deployment, handle: RunHandle) -> str | None:
    """The status of a run that is not among its thread's newest; None when it is surely gone."""
    for attempt in range(MISSING_CONFIRMATIONS):
        if attempt:
            # A server that is restarting may not have its data yet.
            await asyncio.sleep(MISSING_GAP_SECONDS / 2)
        run = await deployment.part(Lookup).run(handle, Deadline())
        if run is not None:
            return str(run["status"])
    return None
