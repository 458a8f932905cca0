"""Signs of life of a flow run's process, for the sweep that finds what it left.

When a worker dies together with its flow process, nobody tells Prefect: the flow run stays Running for
ever. So a process that runs a flow under `with_finalizer` has a heartbeat on each of its deployments: a
throw-away thread that is updated at intervals, from the start of each execution. When the updates stop,
the sweep knows that the process is gone. The thread is released with the flow run's other threads.

Invariants:
- A heartbeat speaks for the executions of one attempt of one flow run that began before its last
  update. No heartbeat says nothing.
- It never delays or fails a call: it is a task of its own on the shared loop.
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

HEARTBEAT_ATTEMPT = "prefect_lease_attempt"

HEARTBEAT_SECONDS = "prefect_lease_seconds"

DEFAULT_HEARTBEAT_SECONDS = 120.0

_counts: dict[str, int] = {}
"""How many attempts Prefect counts of flow runs that were paused in their process: it takes going on
for another, which their calls are not to do."""

_BEATS = 4  # in this time, so that one lost update does not count as the end


def is_heartbeat(tags: Mapping[str, Any]) -> bool:
    """True of the tags of a heartbeat's thread."""
    return HEARTBEAT_ATTEMPT in tags


def attempts_counted(flow_run_id: str, run_count: int) -> None:
    """Have heartbeats speak for the attempt that Prefect counts after a pause in the process."""
    _counts[flow_run_id] = run_count


class Heartbeats:
    """The heartbeats of this process on one deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._under_way: dict[str, _Heartbeat] = {}

    def begin(self, owner: Owner) -> None:
        """Begin a heartbeat for an owner that has a finalizer; does nothing for others."""
        if owner.flow_run_id is None or owner.lease_seconds is None or owner.in_pool:
            return
        heartbeat = self._under_way.get(owner.flow_run_id)
        if heartbeat is None:
            heartbeat = self._under_way[owner.flow_run_id] = _Heartbeat(self._deployment, owner)
        heartbeat.attempt(owner.attempt)

    async def end(self, flow_run_id: str, *, deadline: Deadline) -> None:
        """Stop the heartbeat; its thread stays until it is released."""
        heartbeat = self._under_way.pop(flow_run_id, None)
        _counts.pop(flow_run_id, None)
        if heartbeat is not None:
            await heartbeat.end(deadline)


class _Heartbeat:
    def __init__(self, deployment: Deployment, owner: Owner) -> None:
        self._deployment = deployment
        self._owner = owner
        self._seconds = owner.lease_seconds or DEFAULT_HEARTBEAT_SECONDS
        self._attempt = owner.attempt
        self._thread_id = str(uuid.uuid4())
        self._made = False
        self._ended = False
        self._changed = asyncio.Event()
        # Without the caller's context, which would be held for as long as the heartbeat.
        self._task = asyncio.get_running_loop().create_task(self._beat(), context=contextvars.Context())
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

    async def _beat(self) -> None:
        failed = False
        while not self._ended:
            self._changed.clear()
            try:
                await self._send()
            except NotFoundError:
                return  # released
            except DeploymentError as error:
                if not failed:
                    get_logger("langgraph").warning(
                        "The heartbeat of flow run %s could not be sent; trying again: %s",
                        self._owner.flow_run_id,
                        error,
                    )
                failed = True
            else:
                failed = False
            try:
                async with asyncio.timeout(self._seconds / _BEATS):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _send(self) -> None:
        threads = self._deployment.client.threads
        metadata: dict[str, Any] = {
            **self._owner.tags(owns_thread=True),
            HEARTBEAT_ATTEMPT: max(self._attempt, _counts.get(self._owner.flow_run_id or "", 0)),
            HEARTBEAT_SECONDS: self._seconds,
        }
        doing = f"send the heartbeat of flow run {self._owner.flow_run_id}"
        deadline = Deadline.after(self._seconds / _BEATS)
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
