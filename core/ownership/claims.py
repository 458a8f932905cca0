"""Claims: threads with a deterministic id, which the server lets only one caller create.

A `CallClaim` claims all runs of one call. Of all processes that try, the last one to claim it owns it.
Each claim is a thread whose id follows from the call and a number. A process that finds a number
claimed claims the next one, and the owner of a lower number stops when it sees that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prefect_langgraph.errors import InvalidRequestError, LangGraphError
from prefect_langgraph.models import RunHandle
from prefect_langgraph.ownership.calls import check_same_call
from prefect_langgraph.ownership.tags import CALL, CLAIM, thread_id_of
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment, InDoubtError

_LOOK_EVERY_SECONDS = 0.2
_REMEMBERED_RUNS = 100_000


async def claim(
    deployment: Deployment,
    thread_id: str,
    *,
    holder: str,
    tags: Mapping[str, Any],
    doing: str,
    deadline: Deadline,
    call: str | None = None,
) -> bool:
    """True when the claim is the holder's, now or from before; see `holder_of`."""
    found = await holder_of(
        deployment, thread_id, claimant=holder, tags=tags, doing=doing, deadline=deadline, call=call
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
    call: str | None = None,
) -> str:
    """The owner of a claim: the claimant, unless another claimed it before.

    Args:
        deployment: Where.
        thread_id: What is claimed.
        claimant: Tells this claimant from others, also when an answer is lost.
        tags: By which the claim is released with its flow run.
        doing: For messages.
        deadline: The caller's.
        call: The record of the call when its key was chosen; another call's claim is refused.

    Raises:
        InvalidRequestError: The key of this claim was given for another call.
        UnreachableError: The server did not tell who owns the claim.
    """
    threads = deployment.client.threads
    patience = deployment.patience()
    metadata = {**tags, CLAIM: claimant, **({CALL: call} if call is not None else {})}
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
        thread = await deployment.thread(thread_id, deadline)
        if thread is not None:
            check_same_call(call, thread.get("metadata"))
            return str((thread.get("metadata") or {}).get(CLAIM))
        # Released meanwhile, or the request with the lost answer never arrived.
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


class ClaimThreads:
    """Claims that cannot be found by a run's key, by run; they are released with it."""

    def __init__(self, _deployment: Deployment) -> None:
        self._by_run: dict[str, set[str]] = {}

    def add(self, run_id: str, thread_ids: Iterable[str]) -> None:
        """Remember claims of a run; those of the oldest are left to the finalizer and the sweep."""
        self._by_run.setdefault(run_id, set()).update(thread_ids)
        while len(self._by_run) > _REMEMBERED_RUNS:
            del self._by_run[next(iter(self._by_run))]

    def pop(self, run_id: str) -> set[str]:
        """The claims of a run, which are now the caller's to delete."""
        return self._by_run.pop(run_id, set())


class TakenOverError(LangGraphError):
    """Another process executes the same flow run and goes on with these runs in place of this one.

    Attributes:
        late: Runs that this one started although the other has started them too.
    """

    def __init__(self, message: str, late: Sequence[RunHandle] = ()) -> None:
        super().__init__(message)
        self.late = tuple(late)


class CallClaim:
    """This process's claim to the runs of a call.

    Args:
        deployment: Where.
        call: Names the call.
        holder: Tells this process from others.
        deadline: The caller's.
        chosen: The key that the caller chose, or None. A call for one run claims it first as well, so
            that the two meet.
        record: What the chosen key is given for.
    """

    def __init__(
        self,
        deployment: Deployment,
        call: str,
        *,
        holder: str,
        deadline: Deadline,
        chosen: str | None = None,
        record: str | None = None,
    ) -> None:
        self._deployment = deployment
        self._call = call
        self._holder = holder
        self._deadline = deadline
        self._chosen = chosen
        self._record = record
        self.number = 0
        self.claimed_at = time.monotonic()

    async def acquire(self, *, tags: Mapping[str, Any], doing: str) -> None:
        """Claim the call, also when another process owns it."""
        while not await claim(
            self._deployment,
            self._claim_id(self.number),
            holder=self._holder,
            tags=tags,
            doing=doing,
            deadline=self._deadline,
            call=self._record,
        ):
            self.number += 1
            self.claimed_at = time.monotonic()

    async def is_lost(self) -> bool:
        """Whether another process has claimed the call since."""
        claim_id = self._claim_id(self.number + 1)
        found = await self._deployment.thread(claim_id, self._deadline)
        return found is not None

    @property
    def claim_ids(self) -> list[str]:
        """The threads of all claims so far."""
        return [self._claim_id(number) for number in range(self.number + 1)]

    def _claim_id(self, number: int) -> str:
        if number == 0 and self._chosen is not None:
            return thread_id_of(self._chosen)
        return thread_id_of(f"{self._call}:call:{number}")
