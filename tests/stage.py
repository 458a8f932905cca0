"""Plays scenarios on a real server: each run ends in its way, and each task is asked about it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import NotFoundError

from prefect_langgraph import (
    LangGraphCredentials,
    RunError,
    RunHandle,
    RunInterruptedError,
    RunResult,
    RunStatus,
    aget_run,
    ajoin_run,
    ajoin_runs,
    arun_on_thread,
    arun_stateless,
    astart_run,
)
from prefect_langgraph.ownership.keys import Key
from prefect_langgraph.ownership.tags import thread_id_of
from scenarios import Scenario

T = TypeVar("T")

PLAY_SECONDS = 600  # a play that hangs: no play takes so long on the slowest machine
PLAYS_AT_ONCE = 12
POLL_SECONDS = 0.1
EXACT = 8  # a waiter with more watches than this asks about them together


@dataclass
class Seen:
    """What a task said."""

    run_id: str | None
    status: RunStatus
    values: Any
    interrupts: list[dict[str, Any]]
    error: RunError | None
    result: RunResult | None = None


class Stage:
    """A server to play on."""

    def __init__(self, url: str, client: LangGraphClient) -> None:
        self.url = url
        self.client = client
        self._plays = 0
        self._slots = asyncio.Semaphore(PLAYS_AT_ONCE)
        self._many = LangGraphCredentials(url=url, max_connections=16)

    async def play(self, chosen: list[Scenario]) -> dict[Scenario, Seen | BaseException]:
        """Play all at once; those of `join_runs` are joined together, twice."""
        singles = [scenario for scenario in chosen if scenario.way != "join_runs"]
        crowd = [scenario for scenario in chosen if scenario.way == "join_runs"]
        early = [scenario for scenario in crowd if scenario.moment in ("before", "during")]
        late = [scenario for scenario in crowd if scenario not in early]
        groups = [group for group in (early, late, *([single] for single in singles)) if group]
        played = await asyncio.gather(*(self._play_group(group) for group in groups))
        return {scenario: outcome for part in played for scenario, outcome in part.items()}

    async def _play_group(self, group: list[Scenario]) -> dict[Scenario, Seen | BaseException]:
        """Play scenarios together; what goes wrong is told of these, and ends no other."""
        play = self._play_crowd(group) if len(group) > 1 else self._play_single(group[0])
        try:
            async with self._slots:
                return await asyncio.wait_for(play, PLAY_SECONDS)
        except Exception as error:  # noqa: BLE001 - shown by the scenario's own test
            return dict.fromkeys(group, error)

    def _few(self) -> LangGraphCredentials:
        """A block whose waiter has few watches, so that each is asked for by itself."""
        self._plays += 1
        return LangGraphCredentials(url=self.url, timeout_seconds=60 + self._plays // EXACT)

    async def _play_crowd(self, crowd: list[Scenario]) -> dict[Scenario, Seen | BaseException]:
        """Play all together; one that cannot be brought about is told of itself, and ends no other."""
        credentials = self._many
        faults: dict[Scenario, BaseException] = {}

        async def isolated(item: Scenario, step: Coroutine[Any, Any, T]) -> T | None:
            try:
                return await step
            except Exception as error:  # noqa: BLE001 - shown by the scenario's own test
                faults[item] = error
                return None

        started = await asyncio.gather(
            *(isolated(item, self._start(item, credentials)) for item in crowd)
        )
        pairs = [(item, handle) for item, handle in zip(crowd, started, strict=True) if handle]
        if crowd[0].moment in ("before", "during"):
            during = [pair for pair in pairs if pair[0].moment == "during"]
            await asyncio.gather(*(isolated(pair[0], self._until_begun(*pair)) for pair in during))
            handles = [handle for _, handle in pairs]
            join = ajoin_runs(handles, credentials=credentials, on_failure="collect")
            joining = asyncio.ensure_future(join)
            await asyncio.gather(*(isolated(pair[0], self._end_or_delete(*pair)) for pair in pairs))
            results = await joining
        else:
            await asyncio.gather(*(isolated(pair[0], self._end_and_go_on(*pair)) for pair in pairs))
            pairs = [pair for pair in pairs if pair[0] not in faults]
            handles = [handle for _, handle in pairs]
            results = await ajoin_runs(handles, credentials=credentials, on_failure="collect")
        seen = {item: _seen(result) for (item, _), result in zip(pairs, results, strict=True)}
        return {**seen, **faults}

    async def _play_single(self, scenario: Scenario) -> dict[Scenario, Seen | BaseException]:
        credentials = self._few()
        if scenario.way == "run":
            return {scenario: await self._play_run(scenario, credentials)}
        handle = await self._start(scenario, credentials)
        if scenario.moment in ("before", "during"):
            if scenario.moment == "during":
                await self._until_begun(scenario, handle)
            joining = asyncio.ensure_future(_asked(scenario, handle, credentials))
            await self._end(scenario, handle)
            return {scenario: await joining}
        await self._end_and_go_on(scenario, handle)
        return {scenario: await _asked(scenario, handle, credentials)}

    async def _play_run(self, scenario: Scenario, credentials: LangGraphCredentials) -> Seen:
        key = str(uuid.uuid4())
        options: dict[str, Any] = {**scenario.case.options, "idempotency_key": key}
        thread_id = None if scenario.is_own else await self._thread(scenario)
        running = asyncio.ensure_future(
            arun_stateless("worker", scenario.case.input, credentials=credentials, **options)
            if thread_id is None
            else arun_on_thread(
                thread_id, "worker", scenario.case.input, credentials=credentials, **options
            )
        )
        if scenario.case.ending != "itself":
            place = thread_id or thread_id_of(Key.chosen(key).text)
            run_id = await self._newest_run(place, earlier=int(scenario.is_used))
            await self._end(scenario, self._handle(place, run_id, owns_thread=scenario.is_own))
        return await _caught(None, running)

    async def _newest_run(self, thread_id: str, *, earlier: int) -> str:
        """The run that a task is starting at this moment."""
        while True:
            try:
                runs = await self.client.runs.list(thread_id, limit=1 + earlier)
            except NotFoundError:
                runs = []
            if len(runs) > earlier:
                return runs[0]["run_id"]
            await asyncio.sleep(POLL_SECONDS)

    def _handle(self, thread_id: str, run_id: str, *, owns_thread: bool) -> RunHandle:
        return RunHandle(
            run_id=run_id,
            thread_id=thread_id,
            assistant_id="worker",
            url=self.url,
            owns_thread=owns_thread,
        )

    async def _thread(self, scenario: Scenario) -> str:
        """A thread, with an earlier run on it where the scenario says so."""
        thread_id = (await self.client.threads.create())["thread_id"]
        if scenario.is_used:
            await self._run(thread_id, {"tag": "earlier"})
        return thread_id

    async def _run(self, thread_id: str, input: dict[str, Any]) -> None:
        run = await self.client.runs.create(thread_id, "worker", input=input)
        await self.client.runs.join(thread_id, run["run_id"])

    async def _start(self, scenario: Scenario, credentials: LangGraphCredentials) -> RunHandle:
        case = scenario.case
        if scenario.is_ours and scenario.is_own:
            return await astart_run("worker", case.input, credentials=credentials, **case.options)
        thread_id = await self._thread(scenario)
        if scenario.is_ours:
            return await astart_run(
                "worker", case.input, thread_id=thread_id, credentials=credentials, **case.options
            )
        if not case.known:
            place = thread_id if scenario.is_used else str(uuid.uuid4())
            return self._handle(place, str(uuid.uuid4()), owns_thread=scenario.is_own)
        run = await self.client.runs.create(thread_id, "worker", input=dict(case.input), **case.options)
        return self._handle(thread_id, run["run_id"], owns_thread=scenario.is_own)

    async def _until_begun(self, scenario: Scenario, handle: RunHandle) -> None:
        """Wait until a run has written its first state."""
        while scenario.case.begins:
            for state in await self.client.threads.get_history(
                handle.thread_id, limit=1, metadata={"run_id": handle.run_id}
            ):
                if state["values"].get("request") == scenario.case.input:
                    return
            await asyncio.sleep(POLL_SECONDS)

    async def _end(self, scenario: Scenario, handle: RunHandle) -> None:
        """Bring about what ends a run."""
        ending = scenario.case.ending
        if ending == "itself":
            return
        await self._until_begun(scenario, handle)
        if ending == "delete":
            await self.client.threads.delete(handle.thread_id)
        else:
            action: Any = "rollback" if ending == "rollback" else "interrupt"
            await self.client.runs.cancel(handle.thread_id, handle.run_id, action=action)

    async def _end_or_delete(self, scenario: Scenario, handle: RunHandle) -> None:
        """Bring about what ends a run; where that fails, no join is to wait for it."""
        try:
            await self._end(scenario, handle)
        except BaseException:
            await self.client.threads.delete(handle.thread_id)
            raise

    async def _end_and_go_on(self, scenario: Scenario, handle: RunHandle) -> None:
        """See a run end, and let the thread see what the scenario says."""
        await self._end(scenario, handle)
        if scenario.case.ending == "itself" and scenario.case.known:
            await self.client.runs.join(handle.thread_id, handle.run_id)
        if scenario.moment == "later":
            await self._run(handle.thread_id, {"tag": "later"})
        elif scenario.moment == "busy again":
            await self.client.runs.create(
                handle.thread_id, "worker", input={"tag": "later"}, after_seconds=600
            )


async def _asked(scenario: Scenario, handle: RunHandle, credentials: LangGraphCredentials) -> Seen:
    if scenario.way == "get_run":
        return _seen(await aget_run(handle, credentials=credentials))
    return await _caught(handle.run_id, ajoin_run(handle, credentials=credentials))


async def _caught(run_id: str | None, running: Any) -> Seen:
    try:
        values = await running
    except RunError as error:
        interrupts = error.interrupts if isinstance(error, RunInterruptedError) else []
        return Seen(error.handle.run_id, error.status, error.values, interrupts, error)
    return Seen(run_id, RunStatus.SUCCESS, values, [], None)


def _seen(result: RunResult) -> Seen:
    return Seen(
        result.handle.run_id,
        result.status,
        result.values,
        list(result.interrupts),
        result.as_error(),
        result,
    )
