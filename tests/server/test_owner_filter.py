"""A deployment whose custom authentication shows everybody only what they own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import flow

from prefect_langgraph import (
    LangGraphCredentials,
    join_runs,
    run_stateless,
    start_run,
    start_runs,
    sweep,
    with_finalizer,
)
from prefect_langgraph.testing import LangGraphServer, PrefectServer, run_langgraph_server
from proxy import Proxy, run_proxy
from support.marked_runs import PRUNE, THREAD

CONFIG = Path(__file__).parent / "guarded" / "langgraph.json"
BLOCK = "owner-filter-tests"


@pytest.fixture(scope="module")
def guarded_server() -> Iterator[LangGraphServer]:
    with run_langgraph_server(CONFIG, jobs=10) as server:
        yield server


@pytest.fixture
def guarded(guarded_server: LangGraphServer, prefect_server: PrefectServer) -> Iterator[Proxy]:
    """A proxy in front of it, to which the saved block leads."""
    with run_proxy(guarded_server.url) as proxy:
        block = LangGraphCredentials(url=proxy.url, api_key="somebody")
        block.save(BLOCK, overwrite=True)  # type: ignore[unused-coroutine]
        yield proxy


def everything(proxy: Proxy) -> list[str]:
    with LangGraphCredentials(url=proxy.url, api_key="somebody").get_sync_client() as client:
        return [thread["thread_id"] for thread in client.threads.search(limit=1000)]


def test_threads_of_joined_runs_go_together_and_without_a_warning(
    guarded: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    @flow
    def work() -> list[str]:
        handles = start_runs("worker", [{"tag": str(n)} for n in range(20)], credentials=BLOCK)
        results = [values["result"] for values in join_runs(handles).values]
        again = run_stateless("worker", {"tag": "alone"}, credentials=BLOCK)
        return [*results, again["result"]]

    assert work() == [*map(str, range(20)), "alone"]
    assert everything(guarded) == []
    # One at most is of a copy, by which the graph's output is learned.
    assert guarded.count("DELETE", THREAD) <= 1
    assert len(guarded.seen("POST", PRUNE)) <= 6
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


def test_finalizer_and_sweep_release_what_is_there(guarded: Proxy) -> None:
    @with_finalizer(BLOCK, cancel_unfinished=True)
    @flow
    def owns() -> None:
        start_runs("worker", [{"sleep": 600}] * 3, credentials=BLOCK)
        start_run("worker", {"tag": "x"}, credentials=BLOCK)

    @flow
    def leaves() -> None:
        start_runs("worker", [{"sleep": 600}] * 3, credentials=BLOCK)

    owns()
    assert everything(guarded) == []
    leaves()
    assert len(everything(guarded)) >= 3
    sweep(BLOCK, grace_seconds=0)
    assert everything(guarded) == []
    assert guarded.count("DELETE", THREAD) == 0
