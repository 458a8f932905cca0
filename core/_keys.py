"""The key of a call, also where the calls of one attempt run in several processes.

In the flow run's own process identical calls are counted in memory. In a process pool or on Dask each
process sees only some of them. There, every call claims its ordinal on the server, by a thread that
only one can create; the claim names the call, so a retry finds it again, also in another process.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from prefect_langgraph._claims import holder_of
from prefect_langgraph._client import Deployment
from prefect_langgraph._deadline import Deadline
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.ownership import (
    Key,
    Owner,
    call_claimant,
    call_ordinal,
    digest,
)


async def key_for(
    deployment: Deployment,
    owner: Owner,
    operation: str,
    arguments: Mapping[str, Any],
    *,
    idempotency_key: str | None,
    once: bool,
) -> Key | None:
    """The key of a call, or None when nothing is to find it again.

    Args:
        deployment: Where claims are made.
        owner: With its root looked up.
        operation: The name of the task.
        arguments: What makes two calls identical.
        idempotency_key: The caller's own key, which replaces the derived one.
        once: False for no key at all.
    """
    if idempotency_key is not None:
        if not once:
            raise InvalidRequestError("idempotency_key and once=False exclude each other.")
        return Key.chosen(idempotency_key)
    if not once or owner.root is None:
        return None
    call, root_id = digest(operation, arguments), owner.root[0]
    if not owner.remote:
        return Key.derived(root_id, call, call_ordinal(owner, call))
    return await _claimed(deployment, owner, owner.root, call)


async def _claimed(
    deployment: Deployment, owner: Owner, root: tuple[str, int], call: str
) -> Key | None:
    """The key with the first ordinal that no other call of this attempt has."""
    claimant, holders = call_claimant(owner, call)
    # Those that are known to be taken are not asked for again: that would be a request for each pair
    # of identical calls.
    first = holders.index(claimant) if claimant in holders else len(holders)
    for ordinal in count(first):
        key = Key.claimed(root[0], call, ordinal, root[1])
        holder = await holder_of(
            deployment,
            str(key.place),
            claimant=claimant,
            tags=owner.tags(owns_thread=True),
            doing="claim a place among identical calls",
            deadline=Deadline(),
        )
        if ordinal == len(holders):
            holders.append(holder)
        if holder == claimant:
            return key
    return None
