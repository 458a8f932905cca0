"""Questions about crons."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

from prefect_langgraph.crons.request import Row
from prefect_langgraph.errors import AuthenticationError, InvalidRequestError, NotFoundError
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment

PAGE = 1000  # the most crons that the server gives at once


class _ServerKind:
    """What kind of server a deployment has, once it was asked."""

    def __init__(self, _deployment: Deployment) -> None:
        self.is_dev_server: bool | None = None


def _patience(deployment: Deployment) -> Deadline:
    return Deadline.after(deployment.connection.patience_seconds)


async def pages(
    deployment: Deployment,
    *,
    assistant_id: str | None = None,
    thread_id: str | None = None,
    enabled: bool | None = None,
    metadata: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> AsyncIterator[Row]:
    """Crons from the oldest to the newest, each once."""
    seen: set[str] = set()
    if assistant_id is not None:
        assistant_id = await _assistant(deployment, assistant_id)
    crons, offset = deployment.client.crons, 0
    while True:
        size = PAGE if limit is None else min(PAGE, limit - len(seen))
        if size <= 0:
            return
        start = offset
        page = await deployment.send(
            lambda: crons.search(
                assistant_id=assistant_id,
                thread_id=thread_id,
                enabled=enabled,
                metadata=dict(metadata) if metadata else None,
                limit=size,  # noqa: B023
                offset=start,  # noqa: B023
                # Ids grow with time, so what is created meanwhile comes last and shifts nothing.
                sort_by="cron_id",
                sort_order="asc",
                headers=headers,
            ),
            doing="search for crons",
            deadline=_patience(deployment),
            hidden=[metadata, headers],
        )
        for row in page:
            if row["cron_id"] not in seen:
                seen.add(row["cron_id"])
                yield dict(row)
        if len(page) < size:
            return
        offset += len(page)


async def crons_under(deployment: Deployment, metadata: Mapping[str, Any]) -> list[Row]:
    """Every cron with this metadata; a server that ignores the question is seen through."""
    return [
        row
        async for row in pages(deployment, metadata=metadata)
        if metadata.items() <= (row.get("metadata") or {}).items()
    ]


async def cron_row(deployment: Deployment, cron_id: str) -> Row | None:
    """A cron's row, or None when the server says that there is none."""
    try:
        uuid.UUID(cron_id)
    except ValueError:
        raise InvalidRequestError(f"cron_id={cron_id!r} is no UUID.") from None
    # The SDK has no name for this question; its HTTP client asks it.
    http = deployment.client.http
    try:
        row: Row = await deployment.send(
            lambda: http.get(f"/runs/crons/{cron_id}"),
            doing=f"ask for cron {cron_id}",
            deadline=_patience(deployment),
        )
    except NotFoundError:
        return None
    return row


async def _assistant(deployment: Deployment, assistant_id: str) -> str:
    """An assistant's id, also for the name of a graph, which a search for crons does not take."""
    try:
        return str(uuid.UUID(assistant_id))
    except ValueError:
        pass
    assistants = deployment.client.assistants
    found = await deployment.send(
        lambda: assistants.search(graph_id=assistant_id, metadata={"created_by": "system"}, limit=1),
        doing=f"ask for the assistant of graph {assistant_id}",
        deadline=_patience(deployment),
    )
    if not found:
        raise NotFoundError(
            f"There is no graph {assistant_id!r} at {deployment.url}. Give its name, or an "
            "assistant's id.",
            status_code=404,
            url=deployment.url,
        )
    return str(found[0]["assistant_id"])


async def is_dev_server(deployment: Deployment) -> bool:
    """True for what looks like `langgraph dev`: hosted nowhere, and with no database behind it."""
    kind = deployment.part(_ServerKind)
    if kind.is_dev_server is None:
        info, metrics = await asyncio.gather(
            _ask(deployment, "/info"), _ask(deployment, "/metrics?format=json")
        )
        hosted = (info.get("host") or {}).get("kind") != "self-hosted"
        kind.is_dev_server = not hosted and bool(metrics) and "postgres" not in metrics
    return kind.is_dev_server


async def _ask(deployment: Deployment, path: str) -> dict[str, Any]:
    """What the server tells about itself; nothing when it is configured not to."""
    http = deployment.client.http
    try:
        answer: Any = await deployment.send(
            lambda: http.get(path), doing="ask the server about itself", deadline=_patience(deployment)
        )
    except (NotFoundError, AuthenticationError, InvalidRequestError):
        return {}
    return answer if isinstance(answer, dict) else {}
