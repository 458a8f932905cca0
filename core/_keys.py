"""The key of a call, also where the calls of one attempt run in several processes.

In the flow run's own process identical calls are counted in memory. In a process pool or on Dask each
process sees only some of them. There, every call claims its ordinal on the server, by a thread that
only one can create; the claim names the process and its own count, so a retry there finds it again.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

from prefect_langgraph._claims import claim
from prefect_langgraph._client import Deployment
from prefect_langgraph._deadline import Deadline
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.ownership import (
    Key,
    Owner,
    call_ordinal,
    digest,
)

_process = uuid.uuid4().hex


def _after_fork_in_child() -> None:
    global _process
    _process = uuid.uuid4().hex


os.register_at_fork(after_in_child=_after_fork_in_child)


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
    call = digest(operation, arguments)
    ordinal, (root_id, attempt) = call_ordinal(owner, call), owner.root
    if not owner.remote:
        return Key.derived(root_id, call, ordinal)
    # The first place that no other process of this attempt has.
    claimant = f"{_process}:{call}:{ordinal}"
    for candidate in count():
        key = Key.derived(root_id, call, candidate)
        place = key.place_in(attempt)
        if await claim(
            deployment,
            place,
            holder=claimant,
            tags=owner.tags(owns_thread=True),
            doing="claim a place among identical calls",
            deadline=Deadline(),
        ):
            return replace(key, place=place)
    return None
