"""A fan-out with a Prefect task run for every run, for those who want to see each in the UI.

The task runs are `fan_out_run`; they get the number of their input and nothing of it. Starting, waiting
and what follows from a failure are those of a run by itself.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect_langgraph import _many, _runs
from prefect_langgraph._deadline import Deadline
from prefect_langgraph._loop import io_loop
from prefect_langgraph._runs import Context, OnTimeout
from prefect_langgraph._start import RunRequest
from prefect_langgraph.errors import DeploymentError, LangGraphError
from prefect_langgraph.models import FanOutResult, RunFailure, RunHandle, RunResult, RunStatus
from prefect_langgraph.tasks._task import langgraph_task

_parts: dict[str, PerRun] = {}


@dataclass
class PerRun:
    """The runs of one fan-out that are to have task runs of their own.

    Attributes:
        context: The fan-out's.
        requests: What to run, in order.
        deadline: The caller's.
        max_in_flight: How many may be on the server at once. None is unlimited.
        stop_after: Stops at so many failures.
        on_started: Told of each handle.
        on_ended: Told of each result, by its place in `requests`.
    """

    context: Context
    requests: Sequence[RunRequest]
    deadline: Deadline
    max_in_flight: int | None
    stop_after: int | None
    on_started: Callable[[Sequence[RunHandle]], None]
    on_ended: Callable[[int, RunResult], None]
    _handles: dict[int, RunHandle] = field(default_factory=dict)
    _found: dict[int, RunResult] = field(default_factory=dict)
    _failures: int = 0
    _over: bool = False

    async def run(self, *, on_timeout: OnTimeout) -> FanOutResult:
        """Make the task runs, wait for them, and return every result."""
        name = uuid.uuid4().hex
        self._slots = asyncio.Semaphore(self.max_in_flight or max(len(self.requests), 1))
        _parts[name] = self
        try:
            # Submitting blocks, and takes the flow's task runner from the context that goes along.
            work = asyncio.create_task(asyncio.to_thread(_submit_and_wait, name, self.requests))
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                self._over = True
                await self._let_go()
                await asyncio.wait([work], timeout=_runs.CANCEL_SECONDS)
                raise
        finally:
            del _parts[name]
        handles = [self._handles.get(index) or self._no_handle(index) for index in self._indexes]
        found = [self._found.get(index) or self._unfinished(index) for index in self._indexes]
        return await _many.conclude(
            {_many.place_of(handle): self.context for handle in handles},
            handles,
            found,
            on_failure="collect",
            deadline=self.deadline,
            on_timeout=on_timeout,
            stopped_early=self._stopped,
        )

    async def one(self, index: int) -> Any:
        """Run one of them to its end and return its values, or raise what became of it."""
        async with self._slots:
            if self._over or self._stopped:
                return self._end(index, self._not_started(index, "NotStarted", "others failed first"))
            try:
                handle = await _runs.start(
                    self.context, self.requests[index], operation="fan_out", deadline=self.deadline
                )
            except DeploymentError as error:
                return self._end(index, self._not_started(index, type(error).__name__, str(error)))
            self._handles[index] = handle
            self.on_started([handle])
            result = await _runs.watch(self.context, handle, deadline=self.deadline, exact=False)
        if result is None:
            raise LangGraphError(f"The fan-out's deadline passed before the end of {handle}.")
        return self._end(index, result)

    def _end(self, index: int, result: RunResult) -> Any:
        self._found[index] = result
        self._failures += result.status is not RunStatus.SUCCESS
        if self._stopped and not self._over:
            self._over = True
            self._stopping = asyncio.create_task(self._let_go())
        self.on_ended(index, result)
        return result.raise_for_failure().values

    @property
    def _indexes(self) -> range:
        return range(len(self.requests))

    @property
    def _stopped(self) -> bool:
        return self.stop_after is not None and self._failures >= self.stop_after

    def _unfinished(self, index: int) -> RunResult | None:
        """None for a run that goes on; what never began is told."""
        if index in self._handles:
            return None
        return self._not_started(index, "NotStarted", "the fan-out stopped before it was its turn")

    async def _let_go(self) -> None:
        handles = [handle for index, handle in self._handles.items() if index not in self._found]
        contexts = {_many.place_of(handle): self.context for handle in handles}
        try:
            await _many.cancel_many(contexts, handles, deadline=Deadline.after(_runs.CANCEL_SECONDS))
        except LangGraphError as error:
            self.context.logger.warning("Runs may still be running: %s", error)

    def _no_handle(self, index: int) -> RunHandle:
        connection = self.context.deployment.connection
        return RunHandle(
            run_id="",
            thread_id="",
            assistant_id=self.requests[index].assistant_id,
            url=connection.url,
            credentials=connection.name,
        )

    def _not_started(self, index: int, error: str, message: str) -> RunResult:
        status = RunStatus.CANCELLED if error == "NotStarted" else RunStatus.ERROR
        failure = RunFailure(error=error, message=message)
        return RunResult(handle=self._no_handle(index), status=status, error=failure)


def _submit_and_wait(name: str, requests: Sequence[RunRequest]) -> None:
    futures = [
        fan_out_run.with_options(task_run_name=f"run {request.assistant_id} {index}").submit(
            name, index
        )
        for index, request in enumerate(requests)
    ]
    for future in futures:
        future.wait()


async def _one(part: str, index: int) -> Any:
    if part not in _parts:
        raise LangGraphError("fan_out_run belongs to fan_out(per_run_tasks=True) and its process.")
    return await _parts[part].one(index)


@langgraph_task("fan_out_run", run_name="run {index}")
def fan_out_run(part: str, index: int) -> Any:
    """Run one input of a fan-out; made by `fan_out(per_run_tasks=True)` and of no use elsewhere."""
    return io_loop().run(_one, part, index)
