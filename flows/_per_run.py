"""A fan-out with a Prefect task run for every run, to show each in Prefect's UI.

The task runs are `fan_out_run`; their parameter is the number of an input and not the input. They only
show runs: the fan-out starts them, waits for them and handles failures, as it does without task runs. A
task run begins when its run was started and ends as its run does. So they are OS threads of the
fan-out's own process, whatever task runner the flow has.
"""

from __future__ import annotations

import asyncio
import queue
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self

from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.runtime import task_run
from prefect.task_runners import ThreadPoolTaskRunner

from prefect_langgraph.errors import LangGraphError
from prefect_langgraph.many_runs.batch import Item
from prefect_langgraph.results import FanOutResult, RunResult
from prefect_langgraph.tasks._task import langgraph_task
from prefect_langgraph.transport.loop import io_loop

_parts: dict[str, PerRunTasks] = {}

CLOSE_SECONDS = 20.0
"""How long a fan-out that was cancelled waits for its task runs to end."""


class PerRunTasks:
    """The task runs of one fan-out. Use it as an asynchronous context manager around it.

    Args:
        assistants: The assistant of each input, for the names of the task runs.
    """

    def __init__(self, assistants: Sequence[str]) -> None:
        self.assistants = assistants
        self._name = uuid.uuid4().hex
        self._ends: dict[int, asyncio.Future[RunResult]] = {}
        self._numbers: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    async def __aenter__(self) -> Self:
        _parts[self._name] = self
        # Submitting blocks, so it has an OS thread, which inherits the flow run's context.
        self._submitting = asyncio.create_task(
            asyncio.to_thread(_submit_and_wait, self._name, self._numbers)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for end in self._ends.values():
            if not end.done():
                end.set_exception(LangGraphError("The fan-out ended before this run did."))
        self._numbers.put(None)
        try:
            timeout = None if error is None else CLOSE_SECONDS
            await asyncio.wait([self._submitting], timeout=timeout)
            if self._submitting.done():
                self._submitting.result()
        finally:
            del _parts[self._name]

    def started(self, items: Sequence[Item]) -> None:
        """Create the task runs of runs that were started or adopted."""
        for item in items:
            self._end_of(item.index)

    def ended(self, index: int, result: RunResult) -> None:
        """End a task run as its run did; a run that was never started gets its task run here."""
        end = self._end_of(index)
        if not end.done():
            end.set_result(result)

    def end_remaining(self, results: FanOutResult) -> None:
        """End the task runs of runs that ended after the fan-out had stopped waiting for them."""
        for index, end in self._ends.items():
            if not end.done() and results[index].status.ended:
                end.set_result(results[index])

    def _end_of(self, index: int) -> asyncio.Future[RunResult]:
        if index not in self._ends:
            end = self._ends[index] = asyncio.get_running_loop().create_future()
            # Retrieve the exception, since the task run may have ended before.
            end.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._numbers.put(index)
        return self._ends[index]

    async def values_of(self, index: int) -> Any:
        """The values of a run once it has ended.

        Raises:
            RunError: It did not succeed.
            LangGraphError: The fan-out stopped waiting for it.
        """
        result = await asyncio.shield(self._ends[index])
        return result.raise_for_failure().values


def _submit_and_wait(name: str, numbers: queue.SimpleQueue[int | None]) -> None:
    with _threads() as runner:
        futures: list[PrefectFuture[Any]] = []
        while (number := numbers.get()) is not None:
            futures.append(runner.submit(fan_out_run, {"part": name, "index": number}))
        for future in futures:
            future.wait()


def _threads() -> AbstractContextManager[ThreadPoolTaskRunner[Any]]:
    """The flow's task runner if it uses OS threads, or one that does: other processes know no runs."""
    flow = FlowRunContext.get()
    runner = flow.task_runner if flow is not None else None
    if isinstance(runner, ThreadPoolTaskRunner):
        return nullcontext(runner)
    return ThreadPoolTaskRunner()


async def _one(part: str, index: int) -> Any:
    if part not in _parts:
        raise LangGraphError("fan_out_run belongs to fan_out(per_run_tasks=True) and its process.")
    return await _parts[part].values_of(index)


def _run_name() -> str:
    parameters: Mapping[str, Any] = task_run.parameters
    index, part = parameters["index"], _parts.get(parameters["part"])
    return f"run {part.assistants[index]} {index}" if part is not None else f"run {index}"


@langgraph_task("fan_out_run", run_name=_run_name)
def fan_out_run(part: str, index: int) -> Any:
    """Show one run of a fan-out; only for `fan_out(per_run_tasks=True)`."""
    return io_loop().run(_one, part, index)
