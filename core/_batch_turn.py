"""Whose turn it is with the runs of one call: of all processes that try, the last one to claim it.

Each claim is a thread whose id follows from the call and a number. Who finds a number taken claims the
next one, and whoever holds a lower number stops when it sees that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from prefect_langgraph._claims import claim
from prefect_langgraph._client import Deployment
from prefect_langgraph._deadline import Deadline
from prefect_langgraph.errors import LangGraphError
from prefect_langgraph.models import RunHandle
from prefect_langgraph.ownership import thread_id_of


class TakenOverError(LangGraphError):
    """Another process executes the same flow run and goes on with these runs in place of this one.

    Attributes:
        late: Runs that this one started although the other has started them too.
    """

    def __init__(self, message: str, late: Sequence[RunHandle] = ()) -> None:
        super().__init__(message)
        self.late = tuple(late)


class Turn:
    """This process's claim to the runs of a call.

    Args:
        deployment: Where.
        call: Names the call.
        holder: Tells this process from others.
        deadline: The caller's.
    """

    def __init__(self, deployment: Deployment, call: str, *, holder: str, deadline: Deadline) -> None:
        self._deployment = deployment
        self._call = call
        self._holder = holder
        self._deadline = deadline
        self.number = 0
        self.taken_at = time.monotonic()

    async def take(self, *, tags: Mapping[str, Any], doing: str) -> None:
        """Claim the call, from whoever has it."""
        while not await claim(
            self._deployment,
            self._claim_id(self.number),
            holder=self._holder,
            tags=tags,
            doing=doing,
            deadline=self._deadline,
        ):
            self.number += 1
            self.taken_at = time.monotonic()

    async def is_over(self) -> bool:
        """Whether another has taken the call over."""
        claim_id = self._claim_id(self.number + 1)
        found = await self._deployment.lookup.thread(claim_id, self._deadline, patient=True)
        return found is not None

    @property
    def claim_ids(self) -> list[str]:
        """The threads of all claims so far."""
        return [self._claim_id(number) for number in range(self.number + 1)]

    def _claim_id(self, number: int) -> str:
        return thread_id_of(f"{self._call}:call:{number}")
