"""`max_wait_seconds` is the wall clock of the whole call, whatever kind of silence it meets."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from faults.silent_servers import HOSTILE
from prefect_langgraph import (
    DeploymentError,
    JoinTimeoutError,
    LangGraphCredentials,
    LangGraphError,
    RunHandle,
    acancel_run,
    acancel_runs,
    acreate_thread,
    adelete_thread,
    afan_out,
    aget_run,
    aget_thread_state,
    ajoin_run,
    ajoin_runs,
    ajoin_stream,
    arun_on_thread,
    arun_stateless,
    asearch_crons,
    astart_run,
    astart_runs,
    astream_run,
    asweep,
    temporary_cron,
)
from prefect_langgraph.doctor import examine

pytestmark = pytest.mark.usefixtures("prefect_server")

LIMIT = 2.0
# For Prefect's own requests, and for the moment in which a run is cancelled, on a busy machine. What
# takes no notice of the limit goes on for a minute.
ROOM = 20.0


@pytest.fixture(scope="module", params=HOSTILE)
def hostile(request: pytest.FixtureRequest) -> Iterator[str]:
    with HOSTILE[request.param]() as url:
        yield url


def handle_at(url: str) -> RunHandle:
    return RunHandle(
        run_id=str(uuid.uuid4()),
        thread_id=str(uuid.uuid4()),
        assistant_id="agent",
        url=url,
        owns_thread=True,
    )


def shared(handle: RunHandle) -> RunHandle:
    return handle.model_copy(update={"owns_thread": False})


async def _streamed(parts: Any) -> list[Any]:
    return [part async for part in parts]


async def _cron(block: str) -> None:
    async with temporary_cron("agent", timedelta(hours=1), credentials=block, max_wait_seconds=LIMIT):
        raise AssertionError("no cron can have been made")


Call = Callable[[str, str], Awaitable[Any]]
LIMITED: dict[str, Call] = {
    "run_stateless": lambda block, _: arun_stateless("a", credentials=block, max_wait_seconds=LIMIT),
    "run_on_thread": lambda block, _: arun_on_thread(
        uuid.uuid4(), "a", credentials=block, max_wait_seconds=LIMIT
    ),
    "start_run": lambda block, _: astart_run("a", credentials=block, max_wait_seconds=LIMIT),
    "start_runs": lambda block, _: astart_runs("a", [{}], credentials=block, max_wait_seconds=LIMIT),
    "join_run": lambda block, url: ajoin_run(handle_at(url), credentials=block, max_wait_seconds=LIMIT),
    "join_run and cancel": lambda block, url: ajoin_run(
        shared(handle_at(url)), credentials=block, max_wait_seconds=LIMIT, on_timeout="cancel"
    ),
    "join_runs": lambda block, url: ajoin_runs(
        [handle_at(url) for _ in range(20)], credentials=block, max_wait_seconds=LIMIT
    ),
    "join_runs and cancel": lambda block, url: ajoin_runs(
        [handle_at(url) for _ in range(3)],
        credentials=block,
        max_wait_seconds=LIMIT,
        on_timeout="cancel",
    ),
    "cancel_run": lambda block, url: acancel_run(
        handle_at(url), credentials=block, max_wait_seconds=LIMIT
    ),
    "cancel_runs": lambda block, url: acancel_runs(
        [handle_at(url) for _ in range(20)], credentials=block, max_wait_seconds=LIMIT
    ),
    "stream_run": lambda block, _: _streamed(
        astream_run("a", credentials=block, max_wait_seconds=LIMIT)
    ),
    "join_stream": lambda block, url: _streamed(
        ajoin_stream(handle_at(url), credentials=block, max_wait_seconds=LIMIT)
    ),
    "fan_out": lambda block, _: afan_out("a", [{}, {}], credentials=block, max_wait_seconds=LIMIT),
    "sweep": lambda block, _: asweep(block, max_wait_seconds=LIMIT),
}
PATIENT: dict[str, Call] = {
    "get_run": lambda block, url: aget_run(handle_at(url), credentials=block),
    "start_run": lambda block, _: astart_run.with_options(retries=0)("a", credentials=block),
    "create_thread": lambda block, _: acreate_thread.with_options(retries=0)(credentials=block),
    "delete_thread": lambda block, _: adelete_thread.with_options(retries=0)(
        uuid.uuid4(), credentials=block
    ),
    "get_thread_state": lambda block, _: aget_thread_state.with_options(retries=0)(
        uuid.uuid4(), credentials=block
    ),
    "search_crons": lambda block, _: asearch_crons.with_options(retries=0)(credentials=block),
}


async def _ends_with_an_error(name: str, call: Awaitable[Any]) -> tuple[str, float, Exception]:
    began = time.monotonic()
    with pytest.raises(LangGraphError) as caught:
        await asyncio.wait_for(call, 60)
    return name, time.monotonic() - began, caught.value


def all_at_once(calls: dict[str, Call], block: str, url: str) -> list[tuple[str, float, Exception]]:
    """Each call's name, the seconds that it took, and its error."""

    async def call() -> list[tuple[str, float, Exception]]:
        ending = [_ends_with_an_error(name, calls[name](block, url)) for name in calls]
        return await asyncio.gather(*ending)

    return asyncio.run(call())


@pytest.fixture(scope="module")
def block(hostile: str) -> str:
    """A block with the patience that everybody has, so that nothing but the caller's limit is short."""
    name = f"hostile-{uuid.uuid4().hex[:12]}"
    LangGraphCredentials(url=hostile).save(name)
    return name


@pytest.fixture(scope="module")
def impatient_block(hostile: str) -> str:
    name = f"hostile-{uuid.uuid4().hex[:12]}"
    LangGraphCredentials(url=hostile, patience_seconds=LIMIT).save(name)
    return name


def test_calls_with_a_limit_end_when_it_has_passed(hostile: str, block: str) -> None:
    for name, took, error in all_at_once(LIMITED, block, hostile):
        assert isinstance(error, JoinTimeoutError | DeploymentError) or name == "sweep", name
        assert took < LIMIT + ROOM, f"{name}: {error!r}"


def test_calls_without_a_limit_end_with_the_connections_patience(
    hostile: str, impatient_block: str
) -> None:
    for name, took, error in all_at_once(PATIENT, impatient_block, hostile):
        assert isinstance(error, DeploymentError), name
        assert took < 3 * LIMIT + ROOM, f"{name}: {error!r}"


def test_doctor_says_within_seconds_that_nobody_answers(hostile: str) -> None:
    began = time.monotonic()
    checks = asyncio.run(examine(LangGraphCredentials(url=hostile).connection()))
    assert [check.status for check in checks if check.name == "reachable"] == ["fail"]
    assert time.monotonic() - began < 20
