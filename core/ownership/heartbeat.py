"""Signs of life of a flow run's process, for those who find its things later.

When a worker dies together with its flow process, nobody tells Prefect: the flow run stays Running for
ever. So a process that runs a flow under `with_finalizer` keeps a lease on each of its deployments: a
throw-away thread that is touched at intervals, from the start of each execution. When the touches stop,
the sweep knows that the process is gone. The lease goes with the flow run's other threads.

Invariants:
- A lease speaks for the executions of one attempt of one flow run that began before its last touch. No
  lease says nothing.
- Keeping it never delays or fails a call: it is a task of its own on the shared loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prefect.logging import get_logger

from prefect_langgraph.errors import DeploymentError, NotFoundError
from prefect_langgraph.ownership.owner import Owner
from prefect_langgraph.transport.deadline import Deadline

if TYPE_CHECKING:
    from prefect_langgraph.transport.deployment import Deployment

LEASE_ATTEMPT = "prefect_lease_attempt"

LEASE_SECONDS = "prefect_lease_seconds"

DEFAULT_LEASE_SECONDS = 120.0

_TOUCHES = 4  # within a lease, so that one lost touch does not end it


def is_lease(tags: Mapping[str, Any]) -> bool:
    """True of the tags of a lease's thread."""
    return LEASE_ATTEMPT in tags


class Leases:
    """The leases that this process keeps on one deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._kept: dict[str, _Lease] = {}

    def keep(self, owner: Owner) -> None:
        """Keep a lease for an owner that has a finalizer; does nothing for others."""
        if owner.flow_run_id is None or owner.lease_seconds is None or owner.in_pool:
            return
        lease = self._kept.get(owner.flow_run_id)
        if lease is None:
            lease = self._kept[owner.flow_run_id] = _Lease(self._deployment, owner)
        lease.attempt(owner.attempt)

    async def end(self, flow_run_id: str, *, deadline: Deadline) -> None:
        """Stop touching the lease; its thread stays until it is given back."""
        lease = self._kept.pop(flow_run_id, None)
        if lease is not None:
            await lease.end(deadline)


class _Lease:
    def __init__(self, deployment: Deployment, owner: Owner) -> None:
        self._deployment = deployment
        self._owner = owner
        self._seconds = owner.lease_seconds or DEFAULT_LEASE_SECONDS
        self._attempt = owner.attempt
        self._thread_id = str(uuid.uuid4())
        self._made = False
        self._ended = False
        self._changed = asyncio.Event()
        # Without the caller's context, which would be held for as long as the lease.
        self._task = asyncio.get_running_loop().create_task(self._keep(), context=contextvars.Context())
        deployment.used_by(self._task)

    def attempt(self, attempt: int) -> None:
        if attempt != self._attempt:
            self._attempt = attempt
            self._changed.set()

    async def end(self, deadline: Deadline) -> None:
        # Not cancelled: a request on its way would leave a thread that nobody has seen.
        self._ended = True
        self._changed.set()
        await asyncio.wait([self._task], timeout=deadline.remaining())

    async def _keep(self) -> None:
        failed = False
        while not self._ended:
            self._changed.clear()
            try:
                await self._touch()
            except NotFoundError:
                return  # given back
            except DeploymentError as error:
                if not failed:
                    get_logger("langgraph").warning(
                        "The lease of flow run %s could not be renewed; trying again: %s",
                        self._owner.flow_run_id,
                        error,
                    )
                failed = True
            else:
                failed = False
            try:
                async with asyncio.timeout(self._seconds / _TOUCHES):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _touch(self) -> None:
        threads = self._deployment.client.threads
        metadata: dict[str, Any] = {
            **self._owner.tags(owns_thread=True),
            LEASE_ATTEMPT: self._attempt,
            LEASE_SECONDS: self._seconds,
        }
        doing = f"keep the lease of flow run {self._owner.flow_run_id}"
        deadline = Deadline.after(self._seconds / _TOUCHES)
        if self._made:
            await self._deployment.send(
                lambda: threads.update(self._thread_id, metadata=metadata),
                doing=doing,
                deadline=deadline,
            )
        else:
            await self._deployment.send(
                lambda: threads.create(
                    thread_id=self._thread_id, if_exists="do_nothing", metadata=metadata
                ),
                doing=doing,
                deadline=deadline,
            )
            self._made = True
