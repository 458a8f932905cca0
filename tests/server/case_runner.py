"""Runs outcome cases on a real server: each run ends in its way, and a task is asked about it."""

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
from server.outcome_cases import OutcomeCase

T = TypeVar("T")

CASE_SECONDS = 600  # a case that hangs: none takes so long on the slowest machine
CASES_AT_ONCE = 12
POLL_SECONDS = 0.1
EXACT = 8  # a poller with more watches than this asks about them together


@dataclass
class Seen:
    """What a task said."""

    run_id: str | None
    status: RunStatus
    values: Any
    interrupts: list[dict[str, Any]]
    error: RunError | None
    result: RunResult | None = None


class CaseRunner:
    """Runs cases on one server."""

    def __init__(self, url: str, client: LangGraphClient) -> None:
        self.url = url
        self.client = client
        self._blocks = 0
        self._slots = asyncio.Semaphore(CASES_AT_ONCE)
        self._many = LangGraphCredentials(url=url, max_connections=16)

    async def run(self, chosen: list[OutcomeCase]) -> dict[OutcomeCase, Seen | BaseException]:
        """Run all at once; those of `join_runs` are joined together, twice."""
        singles = [case for case in chosen if case.way != "join_runs"]
        joined = [case for case in chosen if case.way == "join_runs"]
        early = [case for case in joined if case.moment in ("before", "during")]
        late = [case for case in joined if case not in early]
        groups = [group for group in (early, late, *([single] for single in singles)) if group]
        done = await asyncio.gather(*(self._run_group(group) for group in groups))
        return {case: outcome for part in done for case, outcome in part.items()}

    async def _run_group(self, group: list[OutcomeCase]) -> dict[OutcomeCase, Seen | BaseException]:
        """Run cases together; what goes wrong is told of these, and ends no other."""
        running = self._run_together(group) if len(group) > 1 else self._run_alone(group[0])
        try:
            async with self._slots:
                return await asyncio.wait_for(running, CASE_SECONDS)
        except Exception as error:  # noqa: BLE001 - shown by the case's own test
            return dict.fromkeys(group, error)

    def _few(self) -> LangGraphCredentials:
        """A block whose poller has few watches, so that each is asked for by itself."""
        self._blocks += 1
        return LangGraphCredentials(url=self.url, timeout_seconds=60 + self._blocks // EXACT)

    async def _run_together(self, joined: list[OutcomeCase]) -> dict[OutcomeCase, Seen | BaseException]:
        """Run all together; one that cannot be brought about is told of itself, and ends no other."""
        credentials = self._many
        faults: dict[OutcomeCase, BaseException] = {}

        async def isolated(item: OutcomeCase, step: Coroutine[Any, Any, T]) -> T | None:
            try:
                return await step
            except Exception as error:  # noqa: BLE001 - shown by the case's own test
                faults[item] = error
                return None

        started = await asyncio.gather(
            *(isolated(item, self._start(item, credentials)) for item in joined)
        )
        pairs = [(item, handle) for item, handle in zip(joined, started, strict=True) if handle]
        if joined[0].moment in ("before", "during"):
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

    async def _run_alone(self, case: OutcomeCase) -> dict[OutcomeCase, Seen | BaseException]:
        credentials = self._few()
        if case.way == "run":
            return {case: await self._run_blocking(case, credentials)}
        handle = await self._start(case, credentials)
        if case.moment in ("before", "during"):
            if case.moment == "during":
                await self._until_begun(case, handle)
            joining = asyncio.ensure_future(_asked(case, handle, credentials))
            await self._end(case, handle)
            return {case: await joining}
        await self._end_and_go_on(case, handle)
        return {case: await _asked(case, handle, credentials)}

    async def _run_blocking(self, case: OutcomeCase, credentials: LangGraphCredentials) -> Seen:
        key = str(uuid.uuid4())
        options: dict[str, Any] = {**case.outcome.options, "idempotency_key": key}
        thread_id = None if case.is_own else await self._thread(case)
        running = asyncio.ensure_future(
            arun_stateless("worker", case.outcome.input, credentials=credentials, **options)
            if thread_id is None
            else arun_on_thread(
                thread_id, "worker", case.outcome.input, credentials=credentials, **options
            )
        )
        if case.outcome.ending != "itself":
            of_thread = thread_id or thread_id_of(Key.chosen(key).text)
            run_id = await self._newest_run(of_thread, earlier=int(case.is_used))
            await self._end(case, self._handle(of_thread, run_id, owns_thread=case.is_own))
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

    async def _thread(self, case: OutcomeCase) -> str:
        """A thread, with an earlier run on it where the case says so."""
        thread_id = (await self.client.threads.create())["thread_id"]
        if case.is_used:
            await self._run(thread_id, {"tag": "earlier"})
        return thread_id

    async def _run(self, thread_id: str, input: dict[str, Any]) -> None:
        run = await self.client.runs.create(thread_id, "worker", input=input)
        await self.client.runs.join(thread_id, run["run_id"])

    async def _start(self, case: OutcomeCase, credentials: LangGraphCredentials) -> RunHandle:
        outcome = case.outcome
        if case.is_ours and case.is_own:
            return await astart_run("worker", outcome.input, credentials=credentials, **outcome.options)
        thread_id = await self._thread(case)
        if case.is_ours:
            return await astart_run(
                "worker", outcome.input, thread_id=thread_id, credentials=credentials, **outcome.options
            )
        if not outcome.known:
            of_thread = thread_id if case.is_used else str(uuid.uuid4())
            return self._handle(of_thread, str(uuid.uuid4()), owns_thread=case.is_own)
        run = await self.client.runs.create(
            thread_id, "worker", input=dict(outcome.input), **outcome.options
        )
        return self._handle(thread_id, run["run_id"], owns_thread=case.is_own)

    async def _until_begun(self, case: OutcomeCase, handle: RunHandle) -> None:
        """Wait until a run has written its first state."""
        while case.outcome.begins:
            for state in await self.client.threads.get_history(
                handle.thread_id, limit=1, metadata={"run_id": handle.run_id}
            ):
                if state["values"].get("request") == case.outcome.input:
                    return
            await asyncio.sleep(POLL_SECONDS)

    async def _end(self, case: OutcomeCase, handle: RunHandle) -> None:
        """Bring about what ends a run."""
        ending = case.outcome.ending
        if ending == "itself":
            return
        await self._until_begun(case, handle)
        if ending == "delete":
            await self.client.threads.delete(handle.thread_id)
        else:
            action: Any = "rollback" if ending == "rollback" else "interrupt"
            await self.client.runs.cancel(handle.thread_id, handle.run_id, action=action)

    async def _end_or_delete(self, case: OutcomeCase, handle: RunHandle) -> None:
        """Bring about what ends a run; where that fails, no join is to wait for it."""
        try:
            await self._end(case, handle)
        except BaseException:
            await self.client.threads.delete(handle.thread_id)
            raise

    async def _end_and_go_on(self, case: OutcomeCase, handle: RunHandle) -> None:
        """See a run end, and let the thread see what the case says."""
        await self._end(case, handle)
        if case.outcome.ending == "itself" and case.outcome.known:
            await self.client.runs.join(handle.thread_id, handle.run_id)
        if case.moment == "later":
            await self._run(handle.thread_id, {"tag": "later"})
        elif case.moment == "busy again":
            await self.client.runs.create(
                handle.thread_id, "worker", input={"tag": "later"}, after_seconds=600
            )


async def _asked(case: OutcomeCase, handle: RunHandle, credentials: LangGraphCredentials) -> Seen:
    if case.way == "get_run":
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
