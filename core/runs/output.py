"""From what a run left to what it returned: the graph's output, and the usage of its own.

The server shows a state with all channels; `runs.wait` returns those of the graph's output schema. The
schemas of an assistant are asked for once and kept for a while. A server that cannot express a schema
gives none: then a copy of one thread tells, on which a run without input does nothing but return its
output.

Invariants:
- A run that wrote nothing is a success only where nothing was asked of it.
- The copy is run only when nothing is due on it, and is deleted again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from prefect_langgraph.errors import DeploymentError
from prefect_langgraph.logs import run_logger
from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.ownership.pruning import Pruner
from prefect_langgraph.ownership.tags import BATCH, CLAIM, KEY
from prefect_langgraph.results import RunFailure, RunResult
from prefect_langgraph.runs.lookup import before_of
from prefect_langgraph.runs.usage import usage_of
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment, InDoubtError
from prefect_langgraph.transport.http_errors import UnreadableAnswerError, row_of, rows_of

REMEMBERED_ASSISTANTS = 500
REMEMBERED_SECONDS = 600.0
"""A graph may be deployed anew under the same assistant, so what is known of it gets old."""

_UNKNOWN_AGAIN_SECONDS = 30.0
_LEARN_SECONDS = 10.0
_HISTORY_PAGE = 100

# By it LangGraph derives the id of the assistant that a graph has by itself from the graph's name.
_GRAPH_ASSISTANTS = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


_NOT_TOLD: Mapping[str, Any] = {"state_schema": {"properties": {"": {}}}}


@dataclass
class Channels:
    """Which channels of a state an assistant's output has.

    Attributes:
        shown: Those that it has.
        hidden: Those that it does not have.
        all_shown: True where state and output are the same.
        told: True when the server's schemas told; otherwise each channel is learned when it is met.
    """

    shown: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    all_shown: bool = False
    told: bool = False
    since: float = field(default_factory=time.monotonic)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def knows(self, values: Mapping[str, Any]) -> bool:
        """True when it is known of each of these channels whether it is shown."""
        return self.all_shown or all(name in self.shown or name in self.hidden for name in values)

    def output(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The output in a state."""
        return {name: value for name, value in values.items() if name not in self.hidden}


def channels_of(schemas: Mapping[str, Any]) -> Channels:
    """What the schemas of an assistant tell."""
    state = _properties(schemas.get("state_schema"))
    output = _properties(schemas.get("output_schema"))
    if not state or "__end__" in state:
        # A function, or a state of one value: what is shown is what it returned.
        return Channels(all_shown=True, told=True)
    if output is None:
        return Channels()
    hidden = state - output
    if not hidden:
        return Channels(all_shown=True, told=True)
    if output - state:
        # A field under an alias has another name here than its channel.
        return Channels()
    return Channels(shown=output, hidden=hidden, told=True)


def _properties(schema: Any) -> set[str] | None:
    if not isinstance(schema, Mapping):
        return None
    target = str(schema.get("$ref") or "").rpartition("/")[2]
    if target:
        schema = (schema.get("$defs") or {}).get(target) or {}
    found = schema.get("properties")
    return set(found) if isinstance(found, Mapping) else None


class Outputs:
    """Turns what runs of one deployment left into what they returned, on the shared loop."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._known: OrderedDict[str, Channels] = OrderedDict()

    async def finished(self, result: RunResult, deadline: Deadline) -> RunResult:
        """A result with the graph's output as its values, and with the usage of its own run.

        Args:
            result: As the run's row and state tell it.
            deadline: The caller's.
        """
        if not result.status.ended:
            return result
        limit = self._deployment.patience() if deadline.end is None else deadline
        if result.handle.owns_thread:
            return await self._with_output(result, limit)
        if result.status is RunStatus.SUCCESS and result.values is None:
            result = await self._if_nothing_done(result, limit)
        elif result.usage is not None:
            usage = None
            # What was there before may be gone, or be what JSON cannot express.
            with contextlib.suppress(DeploymentError):
                usage = usage_of(result.values, await self._state_before(result.handle, limit))
            result = result.model_copy(update={"usage": usage})
        return await self._with_output(result, limit)

    # -- the output --------------------------------------------------------------------------------

    async def _with_output(self, result: RunResult, limit: Deadline) -> RunResult:
        values = result.values
        if not isinstance(values, dict) or not values:
            return result
        channels = self._channels(result.handle)
        if not channels.knows(values):
            seconds = min(_LEARN_SECONDS, limit.remaining() or 0.0)
            async with channels.lock:
                channels = await self._learn(channels, result, Deadline.after(max(seconds, 0.1)))
        if channels.all_shown or not channels.hidden & values.keys():
            return result
        return result.model_copy(update={"values": channels.output(values)})

    def _channels(self, handle: RunHandle) -> Channels:
        name, now = handle.assistant_id, time.monotonic()
        found = self._known.get(name)
        if found is None or now - found.since > REMEMBERED_SECONDS:
            found = self._known[name] = Channels()
            while len(self._known) > REMEMBERED_ASSISTANTS:
                self._known.popitem(last=False)
        self._known.move_to_end(name)
        return found

    async def _learn(self, channels: Channels, result: RunResult, limit: Deadline) -> Channels:
        """Ask the server what it is that these values show."""
        handle, values = result.handle, result.values
        asked_before = bool(channels.told or channels.shown or channels.hidden)
        if channels.knows(values):
            return channels  # learned while this one waited
        old = time.monotonic() - channels.since > _UNKNOWN_AGAIN_SECONDS
        if not asked_before or (channels.told and old):
            told = channels_of(await self._schemas(handle, limit))
            channels.shown, channels.hidden = told.shown, told.hidden
            channels.all_shown, channels.told = told.all_shown, told.told
            channels.since = time.monotonic()
        if channels.told or channels.knows(values):
            channels.shown |= values.keys() - channels.hidden
            return channels
        try:
            shown = await self._try_on_copy(result, limit)
        except DeploymentError as error:
            run_logger().warning(
                "Which channels the output of %s has is not known (%s): its runs' values have all",
                handle.assistant_id,
                type(error).__name__,
            )
            channels.all_shown = True
            # Not for long: the next may be told.
            channels.since -= REMEMBERED_SECONDS - _UNKNOWN_AGAIN_SECONDS
        else:
            channels.shown |= shown
            channels.hidden |= values.keys() - channels.shown
        return channels

    async def _schemas(self, handle: RunHandle, limit: Deadline) -> Mapping[str, Any]:
        """The schemas of a run's assistant; none where the server does not tell."""
        assistants = self._deployment.client.assistants
        given = handle.assistant_id
        try:
            assistant_id = str(uuid.UUID(given))
        except ValueError:
            assistant_id = str(uuid.uuid5(_GRAPH_ASSISTANTS, given))
        try:
            found: Any = await self._deployment.send(
                lambda: assistants.get_schemas(assistant_id),
                doing=f"ask for the schemas of {given}",
                deadline=limit,
                within_wait=True,
                quotes=False,
            )
        except DeploymentError:
            # Not found, not allowed, or broken for this graph: the run is over and has an outcome.
            return _NOT_TOLD
        return found if isinstance(found, Mapping) else {}

    async def _try_on_copy(self, result: RunResult, limit: Deadline) -> set[str]:
        """The channels that a run without input returns on a copy of the run's thread."""
        deployment, handle = self._deployment, result.handle
        client = deployment.client

        async def ask(request: Any) -> Any:
            return await deployment.send(
                request, doing=f"learn the output of {handle.assistant_id}", deadline=limit
            )

        copy_id = await self._copy(handle, limit)
        try:
            # It is no run of any call: nobody may adopt it.
            unmarked = dict.fromkeys((KEY, CLAIM, BATCH))
            await ask(lambda: client.threads.update(copy_id, metadata=unmarked))
            # Nothing of what is due there may be executed.
            await ask(lambda: client.threads.update_state(copy_id, None, as_node="__end__"))
            state = await ask(lambda: client.threads.get_state(copy_id))
            if state.get("next"):
                raise DeploymentError("The copy of a thread has work that is due.", url=handle.url)
            returned = await ask(lambda: client.runs.wait(copy_id, handle.assistant_id, input=None))
        finally:
            await deployment.part(Pruner).prune([copy_id])
        if not isinstance(returned, dict) or "__error__" in returned:
            raise DeploymentError("A run without input did not return an output.", url=handle.url)
        return set(returned)

    async def _copy(self, handle: RunHandle, limit: Deadline) -> str:
        """The id of a copy of a run's thread; copies whose answers were lost are deleted."""
        deployment, threads = self._deployment, self._deployment.client.threads
        try:
            copy: Any = await deployment.send(
                lambda: threads.copy(handle.thread_id),
                doing=f"learn the output of {handle.assistant_id}",
                deadline=limit,
                repeatable=False,
            )
        except InDoubtError as doubt:
            original = await deployment.thread(handle.thread_id, limit)
            key = ((original or {}).get("metadata") or {}).get(KEY)
            if key is not None:
                found = await deployment.send(
                    lambda: threads.search(metadata={KEY: key}, limit=100, select=["thread_id"]),
                    doing="look for a copy of a thread",
                    deadline=limit,
                )
                copies = {row["thread_id"] for row in found} - {handle.thread_id}
                await deployment.part(Pruner).prune(copies)
            raise doubt.public() from None
        return str(copy["thread_id"])

    # -- what a run on a shared thread did -----------------------------------------------------------

    async def _history(
        self, handle: RunHandle, deadline: Deadline, **options: Any
    ) -> list[dict[str, Any]]:
        threads = self._deployment.client.threads
        first = options.get("metadata") is None and options.get("before") is None

        async def ask() -> list[dict[str, Any]]:
            found = rows_of(await threads.get_history(handle.thread_id, **options), "checkpoint")
            if first and not found:
                # A gateway's, unless the thread agrees.
                thread = row_of(await threads.get(handle.thread_id), "status")
                if thread.get("values") is not None:
                    raise UnreadableAnswerError("a thread that has values is said to have no states")
            return found

        return await self._deployment.send(
            ask,
            doing="ask for a thread's history",
            deadline=deadline,
            within_wait=True,
            quotes=False,
        )

    async def _state_before(self, handle: RunHandle, limit: Deadline) -> Any:
        """The thread's values before a run: those at its input, or at the state it went on from."""
        wanted = {"run_id": handle.run_id, "source": "input"}
        found = await self._history(handle, limit, limit=10, metadata=wanted)
        inputs = [state for state in found if wanted.items() <= (state.get("metadata") or {}).items()]
        if inputs:
            return inputs[-1].get("values")
        oldest: dict[str, Any] | None = None
        before: Any = None
        while True:
            page = await self._history(handle, limit, limit=_HISTORY_PAGE, before=before)
            for state in page:
                if (state.get("metadata") or {}).get("run_id") == handle.run_id:
                    oldest = state
                elif oldest is not None:
                    return state.get("values")
            if len(page) < _HISTORY_PAGE or before_of(page[-1]) == before:
                return None
            before = before_of(page[-1])

    async def _if_nothing_done(self, result: RunResult, limit: Deadline) -> RunResult:
        """A run that ended well and left no values: what it did, or how it found the thread."""
        handle = result.handle
        wanted = {"run_id": handle.run_id}
        for state in await self._history(handle, limit, limit=1, metadata=wanted):
            if wanted.items() <= (state.get("metadata") or {}).items():
                return result  # it returned nothing, and that is what it did
        runs = self._deployment.client.runs
        run = await self._deployment.send(
            lambda: runs.get(handle.thread_id, handle.run_id),
            doing="ask for a run",
            deadline=limit,
            within_wait=True,
            quotes=False,
        )
        state_then = await self._state_at(handle, result.ended_at, limit)
        return nothing_done(result, dict(run), state_then)

    async def _state_at(
        self, handle: RunHandle, moment: datetime | None, limit: Deadline
    ) -> dict[str, Any] | None:
        """The newest state of a thread that was there at a moment."""
        before: Any = None
        count = 1
        while True:
            page = await self._history(handle, limit, limit=count, before=before)
            for state in page:
                if moment is None or datetime.fromisoformat(state["created_at"]) <= moment:
                    return state
            if not page or before_of(page[-1]) == before:
                return None
            before, count = before_of(page[-1]), _HISTORY_PAGE


def nothing_done(
    result: RunResult, run: Mapping[str, Any], state: Mapping[str, Any] | None
) -> RunResult:
    """The outcome of a run that ended well and wrote nothing.

    Args:
        result: As its row tells it.
        run: Its row.
        state: The thread's newest state when it ended, or None when there was none.
    """
    values = state.get("values") if state is not None else None
    if state is not None and state.get("next"):
        interrupts = [
            dict(item) for task in state.get("tasks") or [] for item in task.get("interrupts") or []
        ]
        failure = RunFailure(error="NothingDone", message="the thread waited for something else")
        return result.model_copy(
            update={
                "status": RunStatus.INTERRUPTED,
                "values": values,
                "interrupts": tuple(interrupts),
                "error": failure,
            }
        )
    if (run.get("kwargs") or {}).get("command"):
        failure = RunFailure(
            error="UnknownInterruptError",
            message="nothing on the thread waited for this answer, so the run did nothing",
        )
        return result.model_copy(update={"status": RunStatus.ERROR, "values": values, "error": failure})
    return result.model_copy(update={"values": values})
