"""Finding the threads of a batch by the metadata that its runs gave them."""

from __future__ import annotations

from typing import Any

from prefect_langgraph._client import Deployment
from prefect_langgraph._deadline import Deadline
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.ownership import BATCH, CLAIM, KEY

_PAGE = 1000

Found = dict[str, list[tuple[str, str | None]]]
"""Thread ids and keys, by what an item is known by: its first key, or its mark."""


class BatchSearch:
    """Looks for the threads of one group of runs.

    Args:
        deployment: Where.
        group: What the runs have in their metadata as `prefect_batch`.
        deadline: The caller's.
    """

    def __init__(self, deployment: Deployment, group: str, deadline: Deadline) -> None:
        self._deployment = deployment
        self._group = group
        self._deadline = deadline
        # Oldest first, so that pages stay put while more threads are made.
        self._options: dict[str, Any] = {
            "select": ["thread_id", "metadata"],
            "sort_by": "created_at",
            "sort_order": "asc",
        }

    async def by_mark(self) -> Found:
        """Every thread of the group that exists now, oldest first for each mark."""
        found: Found = {}
        seen: set[str] = set()
        while True:
            try:
                page = await self._page(len(seen))
            except InvalidRequestError:
                if not self._options:
                    raise
                self._options = {}  # an older server, or one of another kind
                continue
            new = [thread for thread in page if thread["thread_id"] not in seen]
            for thread in new:
                seen.add(thread["thread_id"])
                metadata = thread.get("metadata") or {}
                if metadata.get(BATCH) == self._group:
                    key = metadata.get(KEY)
                    mark = key.partition(".")[0] if key is not None else str(metadata.get(CLAIM))
                    found.setdefault(mark, []).append((thread["thread_id"], key))
            if len(page) < _PAGE or not new:
                return found

    async def _page(self, offset: int) -> list[dict[str, Any]]:
        threads, metadata = self._deployment.client.threads, {BATCH: self._group}
        page = await self._deployment.send(
            lambda: threads.search(metadata=metadata, limit=_PAGE, offset=offset, **self._options),
            doing="look for the runs of a batch",
            deadline=self._deadline,
        )
        return [dict(thread) for thread in page]
