"""More than one answer holds: the pages of a search, and a bounded number of requests at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from prefect_langgraph.errors import InvalidRequestError, UnreachableError
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment

S = TypeVar("S")
T = TypeVar("T")
Row = dict[str, Any]

PAGE = 1000
"""The most rows that the server gives at once."""

AT_ONCE = 16


async def pages(
    deployment: Deployment,
    search: Callable[..., Awaitable[Any]],
    *names: str,
    doing: str,
    deadline: Deadline | None = None,
    size: int = PAGE,
    options: Mapping[str, Any] | None = None,
    hidden: Any = None,
) -> AsyncIterator[list[Row]]:
    """The pages of a search, each with the rows that were on none before.

    It ends with a page that is not full or has nothing new, so also on a server that ignores `offset`.

    Args:
        deployment: Where to search.
        search: Takes `limit`, `offset` and `options` by name.
        *names: What each row has: first its id, by which it is known again.
        doing: For messages.
        deadline: The caller's. None gives each page the connection's patience.
        size: How many rows to ask for at once.
        options: Left out from then on when the server refuses them: an older one, or of another kind.
        hidden: See `Deployment.send`.

    Raises:
        UnreachableError: The answer has something else than such rows.
    """
    seen: set[Any] = set()
    offset, more = 0, dict(options or {})
    while True:
        start, asked = offset, dict(more)
        try:
            answer = await deployment.send(
                lambda: search(limit=size, offset=start, **asked),  # noqa: B023 - awaited in this turn
                doing=doing,
                deadline=deadline or deployment.patience(),
                hidden=hidden,
            )
        except InvalidRequestError:
            if not more:
                raise
            more = {}
            continue
        rows = check_rows(deployment, answer, *names)
        fresh = {row[names[0]]: row for row in rows if row[names[0]] not in seen}
        seen |= fresh.keys()
        yield list(fresh.values())
        if len(rows) < size or not fresh:
            return
        offset += len(rows)


def check_rows(deployment: Deployment, answer: object, *names: str) -> list[Row]:
    """The rows of an answer, each with these names, the first of which is an id.

    Raises:
        UnreachableError: It is something else. Of a gateway's page or a wrong address nothing is
            concluded, and least of all that there are no rows.
    """
    if isinstance(answer, list) and all(
        isinstance(row, Mapping) and row.keys() >= set(names) for row in answer
    ):
        return [dict(row) for row in answer]
    raise UnreachableError(
        f"{deployment.url} was asked for {names[0].removesuffix('_id')}s, and its answer is something "
        "else. Check that the url is the deployment's and what is between.",
        url=deployment.url,
    )


async def each(
    items: Iterable[S], ask: Callable[[S], Awaitable[T]], *, at_once: int = AT_ONCE
) -> list[T]:
    """The answers for many items, in their order; a bounded number is asked for at once."""
    slots = asyncio.Semaphore(at_once)

    async def one(item: S) -> T:
        async with slots:
            return await ask(item)

    return await asyncio.gather(*(one(item) for item in items))
