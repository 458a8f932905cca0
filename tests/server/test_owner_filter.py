"""A deployment whose custom authentication shows everybody only what they own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import flow

from prefect_langgraph import (
    AuthenticationError,
    LangGraphCredentials,
    NotFoundError,
    RunHandle,
    RunStatus,
    cancel_run,
    create_cron,
    delete_cron,
    get_run,
    get_thread_state,
    join_runs,
    run_stateless,
    search_crons,
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


def test_nothing_of_somebody_else_is_seen_touched_or_swept(guarded: Proxy) -> None:
    other = LangGraphCredentials(url=guarded.url, api_key="somebody else")
    other.save("somebody-else", overwrite=True)  # type: ignore[unused-coroutine]

    @flow
    def leaves() -> list[RunHandle]:
        cron = create_cron("worker", "0 0 1 1 *", {"tag": "x"}, credentials=BLOCK)
        handles = start_runs("worker", [{"sleep": 600}] * 2, credentials=BLOCK)
        assert search_crons(credentials=other) == []
        assert [one.cron_id for one in search_crons(credentials=BLOCK)] == [cron.cron_id]
        theirs = handles[0].model_copy(update={"credentials": None})
        assert cancel_run(theirs, credentials=other).status is RunStatus.LOST
        with pytest.raises(NotFoundError):
            get_thread_state(theirs.thread_id, credentials=other)
        delete_cron(cron.cron_id, credentials=other)  # of which it has none, as if it were gone
        assert [one.cron_id for one in search_crons(credentials=BLOCK)] == [cron.cron_id]
        return handles

    handles = leaves()
    assert sweep("somebody-else", grace_seconds=0).entries == ()
    statuses = [get_run.fn(handle).status for handle in handles]
    assert all(not status.ended for status in statuses)
    assert len(sweep(BLOCK, grace_seconds=0).entries) == 1
    assert everything(guarded) == []


def test_where_crons_are_forbidden_all_else_is_cleaned_up(
    guarded: Proxy, guarded_server: LangGraphServer, caplog: pytest.LogCaptureFixture
) -> None:
    block = LangGraphCredentials(url=guarded_server.url, api_key="somebody without crons")
    block.save("without-crons", overwrite=True)  # type: ignore[unused-coroutine]

    @with_finalizer("without-crons", cancel_unfinished=True)
    @flow
    def owns() -> None:
        start_runs("worker", [{"sleep": 600}] * 2, credentials="without-crons")

    @flow
    def leaves() -> None:
        start_runs("worker", [{"sleep": 600}] * 2, credentials="without-crons")
        with pytest.raises(AuthenticationError, match="does not allow this"):
            create_cron("worker", "0 0 1 1 *", {}, credentials="without-crons")

    owns()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
    with block.get_sync_client() as client:
        assert client.threads.search() == []
        leaves()
        assert client.threads.search() != []
        assert len(sweep("without-crons", grace_seconds=0).entries) == 1
        assert client.threads.search() == []
