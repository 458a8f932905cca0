"""Finding crons and assistants, and what kind of server answers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from typing import Any

from prefect_langgraph.crons.request import Row
from prefect_langgraph.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
)
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment
from prefect_langgraph.transport.paging import PAGE, check_rows, pages


class _ServerKind:
    """What kind of server a deployment is, once it was asked."""

    def __init__(self, _deployment: Deployment) -> None:
        self.is_dev_server: bool | None = None


async def search(
    deployment: Deployment,
    *,
    assistant_id: str | None = None,
    thread_id: str | None = None,
    enabled: bool | None = None,
    metadata: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> AsyncIterator[Row]:
    """Crons from the oldest to the newest, each once.

    Args:
        deployment: Where to search.
        assistant_id: Only crons of this assistant, or of all assistants of the graph with this name.
        thread_id: Only crons on this thread.
        enabled: Only enabled crons, or with False only paused ones.
        metadata: Only crons whose metadata contains all of this.
        headers: For these requests.
        limit: At most this many crons.

    Raises:
        NotFoundError: There is no such graph.
        UnreachableError: The answer is not a list of crons.
    """
    ids = None if assistant_id is None else await _assistants(deployment, assistant_id)
    # The server can filter by one assistant only.
    asked_for = next(iter(ids)) if ids is not None and len(ids) == 1 else None
    all_wanted = ids is None or asked_for is not None
    found = pages(
        deployment,
        partial(
            deployment.client.crons.search,
            assistant_id=asked_for,
            thread_id=thread_id,
            enabled=enabled,
            metadata=dict(metadata) if metadata else None,
            # Ids grow with time, so what is created meanwhile comes last and shifts nothing.
            sort_by="cron_id",
            sort_order="asc",
            headers=headers,
        ),
        "cron_id",
        "assistant_id",
        doing="search for crons",
        # For several assistants whole pages are filtered here.
        size=min(PAGE, limit) if limit is not None and all_wanted else PAGE,
        hidden=[metadata, headers],
    )
    number = 0
    async for page in found:
        for row in page:
            if ids is None or asked_for is not None or row["assistant_id"] in ids:
                yield row
                number += 1
                if number == limit:
                    return


async def crons_under(deployment: Deployment, metadata: Mapping[str, Any]) -> list[Row]:
    """Every cron with this metadata, also on a server that ignores the filter."""
    return [
        row
        async for row in search(deployment, metadata=metadata)
        if metadata.items() <= (row.get("metadata") or {}).items()
    ]


async def cron_row(
    deployment: Deployment, cron_id: str, *, deadline: Deadline | None = None
) -> Row | None:
    """A cron's row, or None when the server says that there is no such cron."""
    check_cron_ids([cron_id])
    # The SDK has no method for this request.
    http = deployment.client.http
    try:
        row: Any = await deployment.send(
            lambda: http.get(f"/runs/crons/{cron_id}"),
            doing=f"ask for cron {cron_id}",
            deadline=deadline or deployment.patience(),
        )
    except NotFoundError:
        return None
    return check_rows(deployment, [row], "cron_id", "assistant_id")[0]


def check_cron_ids(cron_ids: Iterable[str]) -> None:
    """Reject ids that are not UUIDs, before anything is done with the others.

    Raises:
        InvalidRequestError: Names all that are not.
    """
    wrong = [cron_id for cron_id in cron_ids if not _is_uuid(cron_id)]
    if wrong:
        verb = "is not a UUID" if len(wrong) == 1 else "are not UUIDs"
        raise InvalidRequestError(f"cron_id={', '.join(map(repr, wrong))} {verb}.")


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


async def _assistants(deployment: Deployment, assistant_id: str) -> set[str]:
    """The ids of all assistants of a graph; an assistant's own id stays as it is."""
    if _is_uuid(assistant_id):
        return {assistant_id}
    assistants = pages(
        deployment,
        partial(deployment.client.assistants.search, graph_id=assistant_id),
        "assistant_id",
        doing=f"ask for the assistants of graph {assistant_id}",
    )
    found = {
        str(row["assistant_id"])
        async for page in assistants
        for row in page
        if row.get("graph_id") == assistant_id
    }
    if not found:
        raise NotFoundError(
            f"There is no graph {assistant_id!r} at {deployment.url}. Give the name of a graph or the "
            "id of an assistant.",
            status_code=404,
            url=deployment.url,
        )
    return found


async def is_dev_server(deployment: Deployment) -> bool:
    """True for a server that looks like `langgraph dev`: self-hosted, and without a database."""
    kind = deployment.part(_ServerKind)
    if kind.is_dev_server is None:
        info, metrics = await asyncio.gather(
            _ask(deployment, "/info"), _ask(deployment, "/metrics?format=json")
        )
        host = info.get("host")
        hosted = not isinstance(host, Mapping) or host.get("kind") != "self-hosted"
        kind.is_dev_server = not hosted and bool(metrics) and "postgres" not in metrics
    return kind.is_dev_server


async def _ask(deployment: Deployment, path: str) -> dict[str, Any]:
    """What the server says about itself; empty when its configuration forbids that."""
    http = deployment.client.http
    try:
        answer: Any = await deployment.send(
            lambda: http.get(path), doing="ask the server about itself", deadline=deployment.patience()
        )
    except (NotFoundError, AuthenticationError, InvalidRequestError):
        return {}
    return answer if isinstance(answer, dict) else {}
