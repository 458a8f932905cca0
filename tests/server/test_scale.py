"""Hundreds and thousands of runs in one process: nothing lost, one pool."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
from prefect import flow, unmapped

from prefect_langgraph import (
    LangGraphCredentials,
    RunStatus,
    ajoin_runs,
    astart_run,
    join_run,
    run_stateless,
    start_run,
)
from prefect_langgraph.runs.poller import HELD_SECONDS
from prefect_langgraph.testing import run_langgraph_server
from server.conftest import AGENT

pytestmark = pytest.mark.usefixtures("prefect_server")

# Most of the time is Prefect's own; beyond 100 the pool of the SDK would lose some.
MAPPED = int(os.environ.get("MAPPED_RUNS", "120"))


@pytest.fixture(scope="module")
def crowd() -> Iterator[LangGraphCredentials]:
    """A fresh server: the dev server slows as threads pile up in it."""
    with run_langgraph_server(AGENT, jobs=50) as server:
        yield LangGraphCredentials(url=server.url)


def test_a_thousand_background_runs_are_joined_and_none_is_lost(crowd: LangGraphCredentials) -> None:
    async def all_of_them() -> Any:
        # Without the engine around each start: what is held here is ours, and not Prefect's pace.
        handles = await asyncio.gather(
            *(
                astart_run.fn("answer", {"question": str(number)}, credentials=crowd)
                for number in range(1000)
            )
        )
        return await ajoin_runs.fn(handles)

    result = asyncio.run(all_of_them())
    assert result.counts == {RunStatus.SUCCESS: 1000}
    assert [values["answer"] for values in result.values] == [f"You asked: {n}" for n in range(1000)]


def test_mapped_runs_beyond_the_pool_are_joined_and_none_is_lost(crowd: LangGraphCredentials) -> None:
    @flow
    def mapped() -> Any:
        inputs = [{"question": str(number)} for number in range(MAPPED)]
        handles = start_run.map("answer", inputs, credentials=unmapped(crowd))
        return join_run.map(handles, credentials=unmapped(crowd)).result()

    assert [values["answer"] for values in mapped()] == [f"You asked: {n}" for n in range(MAPPED)]


def test_a_run_logs_its_start_its_changes_and_its_end(
    crowd: LangGraphCredentials, caplog: pytest.LogCaptureFixture
) -> None:
    @flow
    def logging_flow() -> None:
        # Its join is held, and meanwhile it is asked for once in a while.
        run_stateless("worker", {"sleep": 2 * HELD_SECONDS}, credentials=crowd)

    with caplog.at_level(logging.INFO, logger="prefect"):
        logging_flow()
    lines = [record.getMessage() for record in caplog.records if record.name == "prefect.task_runs"]
    lines = [line for line in lines if "worker on thread" in line]
    assert lines[0].startswith("Started run ")
    assert lines[1].endswith(": running")
    assert ": ended, success after" in lines[2]
    assert len(lines) == 3
