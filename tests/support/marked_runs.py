"""What the server itself says of many runs that a test marked."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from langgraph_sdk.client import SyncLangGraphClient

BATCH = r"/runs/batch$"
PRUNE = r"/threads/prune$"
SEARCH = r"/threads/search$"
CREATE_RUN = r"/threads/[^/]+/runs$"
THREAD = r"/threads/[^/]+$"


def new_mark() -> dict[str, str]:
    """Metadata by which a test finds its own threads again."""
    return {"test": uuid.uuid4().hex}


def threads_of(client: SyncLangGraphClient, mark: dict[str, Any]) -> list[dict[str, Any]]:
    """Every thread of the runs that carry a mark: one for each run that was ever started."""
    found: list[dict[str, Any]] = []
    while True:
        page = client.threads.search(metadata=mark, limit=1000, offset=len(found))
        found += [dict(thread) for thread in page]
        if len(page) < 1000:
            return found


def active(client: SyncLangGraphClient, mark: dict[str, Any]) -> int:
    """How many threads with this mark have a run that has not ended."""
    return client.threads.count(metadata=mark, status="busy")


def most_at_once(spans: Sequence[tuple[datetime | str | None, datetime | str | None]]) -> int:
    """How many of these spans, each from a run's creation to its end, overlap at most."""
    steps: list[tuple[datetime, int]] = []
    for began, ended in spans:
        assert began is not None
        assert ended is not None
        steps += [(_moment(began), 1), (_moment(ended), -1)]
    most = now = 0
    # Of an end and a beginning at the same moment the end comes first.
    for _, step in sorted(steps):
        now += step
        most = max(most, now)
    return most


def _moment(given: datetime | str) -> datetime:
    return given if isinstance(given, datetime) else datetime.fromisoformat(given)
