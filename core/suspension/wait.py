"""The five steps of a call: look, stay, record, suspend, look again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import Pause, PrefectException
from prefect.flow_runs import asuspend_flow_run

from prefect_langgraph.errors import DeploymentError, LangGraphError
from prefect_langgraph.logs import LoggerOrAdapter, counted
from prefect_langgraph.models import RunHandle
from prefect_langgraph.ownership.owner import Owner
from prefect_langgraph.ownership.tags import SUSPENDED, thread_id_of
from prefect_langgraph.runs.poller import interval
from prefect_langgraph.suspension import storage
from prefect_langgraph.suspension.look import unfinished
from prefect_langgraph.suspension.obstacles import obstacle
from prefect_langgraph.suspension.record import (
    Record,
    Target,
    identity_of,
    name_of,
    new_pause_key,
)
from prefect_langgraph.suspension.suspended import resume
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment

FIRST_LOOK_SECONDS = 10.0
"""How long the deployment has for its first answer, also where nobody wants to stay."""

MARK_SECONDS = 10.0
"""How long a deployment has to take the mark of a suspended flow run; the sweep finds it without."""

LOOK_AGAIN_SECONDS = 15.0
"""How long the look after the suspension may take; later on the resumer looks."""

TRY_AGAIN_SECONDS = 10.0
"""After Prefect could not be asked to suspend, so long until it is asked again."""


@dataclass(frozen=True)
class Group:
    """Runs on one deployment.

    Attributes:
        deployment: Where they are.
        handles: The runs.
        credentials: The saved block by which another process reaches the deployment, or None.
        assistant: The saved `LangGraphAssistant` block that leads there instead, or None.
    """

    deployment: Deployment
    handles: Sequence[RunHandle]
    credentials: str | None
    assistant: str | None = None

    @property
    def target(self) -> Target:
        """The runs as a record has them."""
        return Target(
            url=self.deployment.url,
            credentials=self.credentials,
            assistant=self.assistant,
            runs=tuple((item.thread_id, item.run_id, item.owns_thread) for item in self.handles),
        )


class Wait:
    """One wait of a flow run for runs to end. Await `until_ended` in the flow run's own context.

    Args:
        groups: What is waited for.
        owner: The flow run.
        logger: The flow run's.
        stay_seconds: How long the process stays before the flow run suspends.
        deadline: The caller's, in this execution; that of an earlier one, if there was one, counts.
        identity: What is the same at each execution of the call, as JSON; None is its runs.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        owner: Owner,
        logger: LoggerOrAdapter,
        *,
        stay_seconds: float,
        deadline: Deadline,
        identity: Any = None,
    ) -> None:
        now, remaining = datetime.now(UTC), deadline.remaining()
        self._groups = groups
        self._owner = owner
        self._logger = logger
        self._stay_seconds = stay_seconds
        self._obstacle = obstacle(owner, (group.credentials or group.assistant for group in groups))
        targets = tuple(group.target for group in groups)
        self._record = Record(
            name=name_of(
                identity if identity is not None else identity_of(targets),
                max_wait_seconds=deadline.max_wait_seconds,
                attempt=owner.attempt,
            ),
            recorded_at=now,
            deadline=None if remaining is None else now + timedelta(seconds=remaining),
            targets=targets,
        )

    @property
    def obstacle(self) -> str | None:
        """Why this flow run cannot suspend, or None."""
        return self._obstacle

    async def until_ended(self) -> list[RunHandle]:
        """Wait, by suspending where that is possible.

        Returns:
            The runs that had not ended at the deadline: none, unless there is one and it has passed.

        Raises:
            Pause: Prefect's signal that ends the process of a flow run that has suspended.
        """
        began = time.monotonic()
        seconds = self._stay_seconds
        left = await self._look(max(seconds, FIRST_LOOK_SECONDS))
        if left == []:
            return []
        await self._find_deadline()
        while True:
            if self._obstacle is None:
                left = await self._stay(began + seconds)
            else:
                self._say_that_it_stays()
                left = await self._stay(None)
            if left == [] or self._is_late:
                return self._all_handles if left is None else left
            await self._suspend()
            # It goes on: Prefect could not be asked, or says that this one cannot suspend.
            began, seconds = time.monotonic(), max(self._stay_seconds, TRY_AGAIN_SECONDS)

    # -- looking -----------------------------------------------------------------------------------

    async def _look(self, seconds: float | None) -> list[RunHandle] | None:
        """What has not ended; None when no answer came in time."""
        try:
            async with asyncio.timeout(seconds):
                found = await asyncio.gather(
                    *(unfinished(group.deployment, group.handles) for group in self._groups)
                )
        except TimeoutError:
            return None
        return [handle for part in found for handle in part]

    async def _stay(self, end: float | None) -> list[RunHandle] | None:
        """Look until all have ended, the time is over or the deadline has passed; the last answer."""
        began = time.monotonic()
        left: list[RunHandle] | None = None
        while True:
            now = time.monotonic()
            until = [] if end is None else [end - now]
            if self._record.deadline is not None:
                until.append((self._record.deadline - datetime.now(UTC)).total_seconds())
            # Also at the very end one look is made: what it says is what is returned.
            answer = await self._look(max([min(until), FIRST_LOOK_SECONDS]) if until else None)
            left = answer if answer is not None else left
            if left == [] or (until and min(until) <= 0):
                return left
            pause = interval(time.monotonic() - began)
            await asyncio.sleep(min([pause, *(max(0.0, seconds) for seconds in until)]))

    @property
    def _is_late(self) -> bool:
        deadline = self._record.deadline
        return deadline is not None and deadline <= datetime.now(UTC)

    @property
    def _all_handles(self) -> list[RunHandle]:
        return [handle for group in self._groups for handle in group.handles]

    # -- suspending --------------------------------------------------------------------------------

    @property
    def _flow_run_id(self) -> UUID:
        return UUID(self._owner.flow_run_id)

    def _say_that_it_stays(self) -> None:
        self._logger.info(
            "Waiting for %s in the process, without suspending: %s",
            counted(len(self._all_handles), "run"),
            self._obstacle,
        )

    async def _find_deadline(self) -> None:
        """Take the deadline of an earlier execution, where there is one."""
        if self._record.deadline is None or self._obstacle is not None:
            return
        try:
            async with get_client() as client:
                found = await storage.load(client, self._flow_run_id, self._record.name)
        except (httpx.HTTPError, PrefectException) as error:
            # It is looked for again before the flow run suspends.
            self._logger.info("Prefect could not be asked for a record (%s)", type(error).__name__)
        else:
            self._record = found or self._record

    async def _suspend(self) -> None:
        """Record and suspend. Returns only when that could not be done."""
        try:
            async with get_client() as client:
                self._record = await storage.save(client, self._flow_run_id, self._record)
            if self._is_late:
                return
            await mark(self._owner, [group.deployment for group in self._groups], self._logger)
            await asuspend_flow_run(key=new_pause_key(self._record.name))
        except Pause as pause:
            await self._look_again(pause)
            raise
        except (httpx.HTTPError, PrefectException) as error:
            self._logger.warning(
                "Prefect could not be asked to suspend the flow run (%s); waiting in the process and "
                "trying again",
                type(error).__name__,
            )
        except RuntimeError as error:
            # Prefect's word for a flow run that may not suspend, such as one whose deployment is gone.
            self._obstacle = f"Prefect says {error}"

    async def _look_again(self, pause: Pause) -> None:
        """Resume this flow run when its runs ended while it was being suspended."""
        state = pause.state
        if state is None or not self._record.owns(state.state_details.pause_key):
            return  # suspended by a person meanwhile, and theirs to resume
        try:
            if await self._look(LOOK_AGAIN_SECONDS) == []:
                async with get_client() as client:
                    await resume(client, self._flow_run_id)
                self._logger.info("All runs ended while the flow run suspended: it is resumed")
        except (LangGraphError, httpx.HTTPError, PrefectException) as error:
            self._logger.info(
                "Could not look again after suspending (%s): the resumer will", type(error).__name__
            )


async def mark(owner: Owner, deployments: Iterable[Deployment], logger: LoggerOrAdapter) -> None:
    """Leave a thread on each deployment by which the resumer finds the flow run, whatever comes.

    Prefect runs no hook for a flow run that is cancelled, fails or is deleted while suspended.
    """
    thread_id = thread_id_of(f"{SUSPENDED}:{owner.flow_run_id}")
    metadata = {**owner.tags(owns_thread=True), SUSPENDED: True}
    for deployment in dict.fromkeys(deployments):
        threads = deployment.client.threads
        try:
            await deployment.send(
                lambda: threads.create(  # noqa: B023 - awaited in this turn
                    thread_id=thread_id, if_exists="do_nothing", metadata=metadata
                ),
                doing="mark the suspended flow run",
                deadline=Deadline.after(MARK_SECONDS),
            )
        except DeploymentError as error:
            logger.info("The flow run suspends without a mark (%s)", type(error).__name__)
