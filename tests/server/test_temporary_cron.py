"""Crons that live as long as their block, and what becomes of their runs."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph_sdk.client import SyncLangGraphClient
from prefect import flow
from prefect.artifacts import Artifact

from prefect_langgraph import (
    InvalidRequestError,
    LangGraphCredentials,
    LangGraphError,
    RunStatus,
    create_cron,
    create_thread,
    cron_window,
    temporary_cron,
)
from prefect_langgraph.ownership.tags import FLOW_RUN_ID, KEY, OWNS_THREAD
from prefect_langgraph.tasks.temporary_cron import TemporaryCron
from prefect_langgraph.testing import LangGraphServer
from proxy import run_proxy
from support.plain_sdk import sync_sdk
from support.waiting import until

pytestmark = pytest.mark.usefixtures("prefect_server")

EVERY_SECOND = "* * * * * *"
YEARLY = "0 9 1 1 *"


@pytest.fixture
def fires(firing_server: LangGraphServer) -> LangGraphCredentials:
    """A block for the server on which crons fire."""
    return LangGraphCredentials(url=firing_server.url)


@pytest.fixture
def server(fires: LangGraphCredentials) -> Iterator[SyncLangGraphClient]:
    """The plain SDK, for that server."""
    with sync_sdk(fires.url) as client:
        yield client


def fired(server: SyncLangGraphClient, cron: TemporaryCron) -> int:
    return server.threads.count(metadata={KEY: cron.handle.key})


def is_there(server: SyncLangGraphClient, cron: TemporaryCron) -> bool:
    return server.crons.count(metadata={KEY: cron.handle.key}) > 0


def test_results_are_collected_and_their_threads_given_back(
    fires: LangGraphCredentials, server: SyncLangGraphClient
) -> None:
    with temporary_cron(
        "worker",
        EVERY_SECOND,
        {"tag": "a"},
        allow_seconds=True,
        on_run_completed="keep",
        credentials=fires,
    ) as cron:
        found = cron.collect(at_least=2, max_wait_seconds=30)
        assert len(found) >= 2
        assert is_there(server, cron)
    assert [result.values["result"] for result in cron.results] == ["a"] * len(cron.results)
    assert list(cron.results)[: len(found)] == list(found)
    times = [result.created_at for result in cron.results]
    assert times == sorted(times, key=lambda moment: moment or datetime.now(UTC))
    assert not is_there(server, cron)
    assert fired(server, cron) == 0


def test_end_of_the_block_waits_for_runs_on_their_way(
    fires: LangGraphCredentials, server: SyncLangGraphClient
) -> None:
    with temporary_cron(
        "worker",
        EVERY_SECOND,
        {"sleep": 1.5, "tag": "slow"},
        allow_seconds=True,
        on_run_completed="keep",
        credentials=fires,
    ) as cron:
        until(lambda: fired(server, cron))
    assert {result.values["result"] for result in cron.results} == {"slow"}
    assert fired(server, cron) == 0


def test_runs_are_cancelled_when_asked_for(
    fires: LangGraphCredentials, server: SyncLangGraphClient
) -> None:
    with temporary_cron(
        "worker",
        EVERY_SECOND,
        {"sleep": 60},
        allow_seconds=True,
        on_run_completed="keep",
        cancel_runs=True,
        credentials=fires,
    ) as cron:
        until(lambda: fired(server, cron) >= 2)
    assert {*cron.results.counts} == {RunStatus.CANCELLED}
    assert fired(server, cron) == 0


def test_runs_that_take_too_long_are_cancelled_at_the_end(
    fires: LangGraphCredentials, server: SyncLangGraphClient
) -> None:
    with temporary_cron(
        "worker",
        EVERY_SECOND,
        {"sleep": 60},
        allow_seconds=True,
        on_run_completed="keep",
        max_wait_seconds=0.5,
        credentials=fires,
    ) as cron:
        until(lambda: fired(server, cron))
    assert {*cron.results.counts} == {RunStatus.CANCELLED}


def test_cancelled_runs_whose_threads_the_server_deletes_leave_nothing(
    fires: LangGraphCredentials, server: SyncLangGraphClient
) -> None:
    with temporary_cron(
        "worker", EVERY_SECOND, {"sleep": 60}, allow_seconds=True, cancel_runs=True, credentials=fires
    ) as cron:
        until(lambda: fired(server, cron))
        with pytest.raises(InvalidRequestError, match="keep"):
            cron.collect()
    assert until(lambda: fired(server, cron) == 0)


def test_failed_runs_are_results_too(fires: LangGraphCredentials) -> None:
    with temporary_cron(
        "worker",
        EVERY_SECOND,
        {"fail": "no luck"},
        allow_seconds=True,
        on_run_completed="keep",
        credentials=fires,
    ) as cron:
        cron.collect(max_wait_seconds=30)
    assert {str(result.error) for result in cron.results} == {"RuntimeError: no luck"}


def test_runs_on_a_thread_are_collected_and_the_thread_stays(
    fires: LangGraphCredentials, server: SyncLangGraphClient
) -> None:
    thread = create_thread(credentials=fires)
    server.runs.wait(thread, "worker", input={"tag": "before"})
    with temporary_cron(
        "worker", EVERY_SECOND, {"tag": "a"}, thread_id=thread, allow_seconds=True, credentials=fires
    ) as cron:
        cron.collect(at_least=2, max_wait_seconds=30)
        server.runs.create(thread, "worker", input={"tag": "mine"}, multitask_strategy="enqueue")
    runs = server.runs.list(thread, limit=100)
    assert {result.handle.run_id for result in cron.results} == {
        run["run_id"] for run in runs if run["metadata"].get(KEY) == cron.handle.key
    }
    assert {result.values["result"] for result in cron.results} == {"a"}
    assert len(runs) == len(cron.results) + 2


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_cron_goes_with_a_block_that_raises(
    credentials: LangGraphCredentials, client: SyncLangGraphClient, error: type[BaseException]
) -> None:
    cron = temporary_cron("worker", YEARLY, credentials=credentials)
    with pytest.raises(error), cron:  # noqa: PT012
        assert is_there(client, cron)
        raise error
    assert not is_there(client, cron)


def test_block_that_raises_leaves_its_runs_and_says_so(
    fires: LangGraphCredentials, server: SyncLangGraphClient, caplog: pytest.LogCaptureFixture
) -> None:
    cron = temporary_cron(
        "worker",
        EVERY_SECOND,
        {"sleep": 60},
        allow_seconds=True,
        on_run_completed="keep",
        credentials=fires,
    )
    with pytest.raises(RuntimeError), cron:  # noqa: PT012
        until(lambda: fired(server, cron))
        raise RuntimeError
    assert "of its runs go on" in caplog.text
    threads = server.threads.search(metadata={KEY: cron.handle.key})
    assert {thread["status"] for thread in threads} == {"busy"}
    # What gives them back at last, within a flow run.
    assert all((thread["metadata"] or {})[OWNS_THREAD] for thread in threads)
    for thread in threads:
        server.threads.delete(thread["thread_id"])


def test_cron_goes_with_a_task_that_is_cancelled(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    async def block(inside: asyncio.Event, cron: TemporaryCron) -> None:
        async with cron:
            inside.set()
            await asyncio.sleep(60)

    async def cancel() -> TemporaryCron:
        inside, cron = asyncio.Event(), temporary_cron("worker", YEARLY, credentials=credentials)
        task = asyncio.create_task(block(inside, cron))
        await inside.wait()
        task.cancel()
        # Again, while it cleans up.
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        return cron

    assert not is_there(client, asyncio.run(cancel()))


def test_caller_who_will_not_wait_for_runs_any_longer_leaves_no_cron(
    fires: LangGraphCredentials, server: SyncLangGraphClient
) -> None:
    async def block(cron: TemporaryCron, ending: asyncio.Event) -> None:
        async with cron:
            while not fired(server, cron):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            ending.set()

    async def cancel() -> TemporaryCron:
        cron, ending = (
            temporary_cron(
                "worker",
                EVERY_SECOND,
                {"sleep": 60},
                allow_seconds=True,
                on_run_completed="keep",
                credentials=fires,
            ),
            asyncio.Event(),
        )
        task = asyncio.create_task(block(cron, ending))
        await ending.wait()
        while is_there(server, cron):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)
        return cron

    cron = asyncio.run(cancel())
    for thread in server.threads.search(metadata={KEY: cron.handle.key}):
        server.threads.delete(thread["thread_id"])


def test_cron_goes_with_a_flow_that_runs_out_of_time(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    crons: list[TemporaryCron] = []

    @flow(timeout_seconds=2)
    async def slow() -> None:
        async with temporary_cron("worker", YEARLY, credentials=credentials) as cron:
            crons.append(cron)
            await asyncio.sleep(60)

    state = asyncio.run(slow(return_state=True))  # type: ignore[arg-type]
    assert state.name == "TimedOut"
    assert not is_there(client, crons[0])


def test_error_of_the_block_is_not_replaced_by_one_of_the_clean_up(
    langgraph_server: LangGraphServer,
    client: SyncLangGraphClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with run_proxy(langgraph_server.url) as proxy:
        away = LangGraphCredentials(url=proxy.url, patience_seconds=0.5)
        cron = temporary_cron("worker", YEARLY, credentials=away)
        with pytest.raises(ZeroDivisionError), cron:  # noqa: PT012
            proxy.refuse()
            raise ZeroDivisionError
        assert "may still fire" in caplog.text
        with pytest.raises(LangGraphError), temporary_cron("worker", YEARLY, credentials=away):
            pass
    for row in client.crons.search(metadata={KEY: cron.handle.key}):
        client.crons.delete(row["cron_id"])


def test_second_attempt_takes_over_the_cron_that_the_first_left_behind(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    key = uuid.uuid4().hex
    left = create_cron("worker", YEARLY, idempotency_key=key, credentials=credentials)
    with temporary_cron("worker", YEARLY, idempotency_key=key, credentials=credentials) as cron:
        assert cron.handle.cron_id == left.cron_id
    assert not is_there(client, cron)


def test_cron_of_a_flow_run_has_its_tags(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    @flow
    def owns() -> dict[str, Any]:
        with temporary_cron("worker", YEARLY, on_run_completed="keep", credentials=credentials) as cron:
            [row] = client.crons.search(metadata={KEY: cron.handle.key})
        return dict(row["metadata"])

    tags = owns()
    assert tags[OWNS_THREAD] is True
    assert FLOW_RUN_ID in tags


def test_cron_whose_year_ends_goes_after_its_last_date(
    fires: LangGraphCredentials, server: SyncLangGraphClient
) -> None:
    # The dev server would fire it again and again.
    last = datetime.now(UTC) + timedelta(seconds=2)
    schedule = last.strftime("%M %H %d %m * %S %Y")
    with temporary_cron(
        "worker",
        schedule,
        {"tag": "last"},
        allow_seconds=True,
        on_run_completed="keep",
        credentials=fires,
    ) as cron:
        cron.collect(max_wait_seconds=20)
        until(lambda: not is_there(server, cron))
    assert cron.results.counts[RunStatus.SUCCESS] >= 1


def test_block_is_for_one_use(credentials: LangGraphCredentials) -> None:
    cron = temporary_cron("worker", YEARLY, credentials=credentials)
    with pytest.raises(LangGraphError, match="only inside its block"):
        _ = cron.handle
    with cron:
        pass
    with pytest.raises(LangGraphError, match="one block"), cron:
        pass


# The flow -----------------------------------------------------------------------------------------


def test_window_ends_with_enough_results_and_reports_them(
    fires: LangGraphCredentials, server: SyncLangGraphClient
) -> None:
    marker = {"test": uuid.uuid4().hex}
    state = cron_window(
        "worker",
        EVERY_SECOND,
        timedelta(minutes=5),
        {"tag": "w"},
        allow_seconds=True,
        max_results=2,
        metadata=marker,
        credentials=fires,
        return_state=True,
    )
    result = state.result()  # type: ignore[attr-defined]
    assert 2 <= result.counts[RunStatus.SUCCESS] <= 3
    assert server.crons.count(metadata=marker) == 0
    assert server.threads.count(metadata=marker) == 0
    report = Artifact.get("langgraph-cron-window")
    assert report is not None
    assert str(report.flow_run_id) == str(state.state_details.flow_run_id)  # type: ignore[attr-defined]
    assert '"status": "success"' in str(report.data)
    assert "payload" not in str(report.data)


def test_window_ends_when_its_time_is_over(
    fires: LangGraphCredentials, server: SyncLangGraphClient
) -> None:
    began = time.monotonic()
    # As a deployment's parameters say it.
    result = cron_window(
        "worker",
        EVERY_SECOND,
        "PT3S",
        {"tag": "w"},
        allow_seconds=True,
        credentials=fires,  # type: ignore[arg-type]
    )
    assert time.monotonic() - began >= 3
    assert len(result) >= 1
    assert {*result.counts} == {RunStatus.SUCCESS}
