"""Waiting for runs: what is said meanwhile, and which threads go with the runs."""

from __future__ import annotations

import asyncio
import logging

import pytest

from prefect_langgraph.models import RunHandle
from prefect_langgraph.ownership.owner import Owner
from prefect_langgraph.ownership.tags import thread_id_of
from prefect_langgraph.results import RunResult
from prefect_langgraph.runs import operations
from prefect_langgraph.runs.call import Context
from prefect_langgraph.transport.deadline import Deadline
from support.odd_server import OddServer, deployment_of

FIRST, SECOND = "flow-run-1", "flow-run-2"


@pytest.mark.parametrize(
    ("count", "asked", "times"),
    [(4, "runs", 4), (12, "search", 2)],
    ids=["one by one", "together"],
)
def test_trouble_is_told_once_in_the_log_of_each_flow_run(
    count: int, asked: str, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = OddServer()
    handles = [server.add(status="running") for _ in range(count)]
    server.status = {asked: [503] * times}

    async def waits() -> list[RunResult | None]:
        async with deployment_of(server) as deployment:
            contexts = [
                Context(deployment, Owner(flow_run_id=name), logging.getLogger(name))
                for name in (FIRST, SECOND)
            ]
            waiting = [
                asyncio.ensure_future(
                    operations.wait_until_ended(contexts[number % 2], handle, deadline=Deadline())
                )
                for number, handle in enumerate(handles)
            ]
            while server.status[asked]:
                await server.asked_again(1)
            for handle in handles:
                server.set(handle, "success", {"tag": "done"})
            return await asyncio.gather(*waiting)

    results = asyncio.run(waits())
    assert all(result is not None and result.status.ended for result in results)
    told = [record.name for record in caplog.records if record.levelno == logging.WARNING]
    assert (told.count(FIRST), told.count(SECOND)) == (1, 1)


def handle_of(key: str, thread_id: str, *, owns_thread: bool = True) -> RunHandle:
    return RunHandle(
        run_id="r",
        thread_id=thread_id,
        assistant_id="a",
        url="http://x",
        key=key,
        owns_thread=owns_thread,
    )


def test_only_claims_that_were_made_go_with_a_run() -> None:
    first, second = thread_id_of("key"), thread_id_of("key.1")
    assert operations.claims_of(handle_of("key", first), Owner()) == [first]
    assert operations.claims_of(handle_of("key.1", second), Owner()) == [first, second]
    assert operations.claims_of(handle_of("key", "of-a-user", owns_thread=False), Owner()) == [first]
    # Of a batch, whose threads the server names, each run has a key and none a claim.
    assert operations.claims_of(handle_of("key", "named-by-the-server"), Owner()) == []
