"""Crons and their runs as tables in Prefect's UI. They hold no input, no values and no secret."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC
from typing import Any

from prefect.artifacts import TableArtifact

from prefect_langgraph.logs import run_logger
from prefect_langgraph.reports.fan_out_page import PUBLISH_SECONDS, describe
from prefect_langgraph.results import FanOutResult

ROWS_SHOWN = 1000


def table_key(*parts: str) -> str:
    """An artifact key: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")[:100]


async def publish_table(key: str, rows: Sequence[dict[str, Any]], description: str) -> None:
    """Make the rows a table artifact of the current run.

    What they tell of does not depend on it: when Prefect's API refuses, that is logged.
    """
    more = f" The first {ROWS_SHOWN:,} of {len(rows):,} rows." if len(rows) > ROWS_SHOWN else ""
    table = TableArtifact(key=key, description=description + more, table=list(rows[:ROWS_SHOWN]))
    try:
        async with asyncio.timeout(PUBLISH_SECONDS):
            await table.acreate()
    except Exception as error:  # noqa: BLE001 - a report must not lose what it tells of
        run_logger().warning("The table %r was not saved: %s", key, describe(error))


def rows_of(result: FanOutResult) -> list[dict[str, Any]]:
    """The firings of a cron, one a row."""
    return [
        {
            "fired": f"{run.created_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
            if run.created_at
            else "",
            "status": str(run.status),
            "seconds": round(run.seconds, 2) if run.seconds is not None else "",
            "error": run.error.error if run.error is not None else "",
            "run": run.handle.run_id,
            "thread": run.handle.thread_id,
        }
        for run in result
    ]
