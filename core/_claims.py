"""Claims: threads whose id follows from what is claimed, of which the server lets one be created."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from prefect_langgraph._client import Deployment, InDoubtError
from prefect_langgraph._deadline import Deadline
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.ownership import CLAIM

_LOOK_EVERY_SECONDS = 0.2


async def claim(
    deployment: Deployment,
    thread_id: str,
    *,
    holder: str,
    tags: Mapping[str, Any],
    doing: str,
    deadline: Deadline,
) -> bool:
    """True when the claim is the holder's, now or from before; see `holder_of`."""
    found = await holder_of(
        deployment, thread_id, claimant=holder, tags=tags, doing=doing, deadline=deadline
    )
    return found == holder


async def holder_of(
    deployment: Deployment,
    thread_id: str,
    *,
    claimant: str,
    tags: Mapping[str, Any],
    doing: str,
    deadline: Deadline,
) -> str:
    """Who holds a claim: the claimant, unless another had it before.

    Args:
        deployment: Where.
        thread_id: What is claimed.
        claimant: Tells this claimant from others, also when an answer is lost.
        tags: By which the claim is released with its flow run.
        doing: For messages.
        deadline: The caller's.

    Raises:
        UnreachableError: Whose the claim is could not be learned.
    """
    threads = deployment.client.threads
    patience = Deadline.after(deployment.connection.patience_seconds)
    metadata = {**tags, CLAIM: claimant}
    while True:
        try:
            await deployment.send(
                lambda: threads.create(thread_id=thread_id, if_exists="raise", metadata=metadata),
                doing=doing,
                deadline=deadline,
                repeatable=False,
            )
        except InDoubtError as doubt:
            if deadline.passed or patience.passed:
                raise doubt.cause from None
        except InvalidRequestError as error:
            if error.status_code != 409:
                raise
        else:
            return claimant
        thread = await deployment.lookup.thread(thread_id, deadline, patient=True)
        if thread is not None:
            return str((thread.get("metadata") or {}).get(CLAIM))
        # Released meanwhile, or the request with the lost answer never arrived.
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
