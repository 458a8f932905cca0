"""Crons on the real server: made once, changed, deleted, found, and gone with their flow run."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph_sdk.client import SyncLangGraphClient
from prefect import flow, task
from prefect.schedules import Cron

from prefect_langgraph import (
    CronHandle,
    HeaderPolicyError,
    LangGraphCredentials,
    NotFoundError,
    ScheduleError,
    acreate_cron,
    create_cron,
    create_thread,
    delete_cron,
    search_crons,
    sweep,
    update_cron,
    with_finalizer,
)
from prefect_langgraph.ownership.tags import API, FLOW_RUN_ID, KEY, OWNS_THREAD
from prefect_langgraph.testing import LangGraphServer, PrefectServer
from proxy import Answer, Hold, LoseRequest, LoseResponse, Proxy
from support.waiting import until

pytestmark = pytest.mark.usefixtures("prefect_server")

YEARLY = "0 9 1 1 *"


@pytest.fixture
def tag(client: SyncLangGraphClient) -> Iterator[dict[str, str]]:
    """Metadata for the crons of one test, which are deleted after it."""
    tag = {"test": uuid.uuid4().hex}
    yield tag
    for cron in client.crons.search(metadata=tag, limit=1000):
        client.crons.delete(cron["cron_id"])


def test_cron_is_made_as_it_was_asked_for(
    credentials: LangGraphCredentials, client: SyncLangGraphClient, tag: dict[str, str]
) -> None:
    handle = create_cron(
        "worker",
        Cron("30 9 * * 1-5", timezone="Europe/Berlin"),
        {"tag": "x"},
        config={"configurable": {"a": 1}},
        context={"b": 2},
        metadata=tag,
        webhook="http://127.0.0.1:9/done",
        interrupt_before=["work"],
        interrupt_after="*",
        stream_mode=["values"],
        stream_subgraphs=True,
        stream_resumable=True,
        durability="exit",
        enabled=True,
        on_run_completed="keep",
        credentials=credentials,
    )
    [row] = client.crons.search(metadata=tag)
    payload = row["payload"]
    assert payload["config"]["configurable"].pop("cron_id") == handle.cron_id
    assert {name: payload[name] for name in payload if name not in ("assistant_id", "metadata")} == {
        "schedule": "30 9 * * 1-5",
        "timezone": "Europe/Berlin",
        "input": {"tag": "x"},
        "config": {"configurable": {"a": 1}},
        "context": {"b": 2},
        "webhook": "http://127.0.0.1:9/done",
        "interrupt_before": ["work"],
        "interrupt_after": "*",
        "stream_mode": ["values"],
        "stream_subgraphs": True,
        "stream_resumable": True,
        "durability": "exit",
        "enabled": True,
        "on_run_completed": "keep",
    }
    assert handle.next_run_date == datetime.fromisoformat(str(row["next_run_date"]))
    assert (handle.timezone, handle.thread_id) == ("Europe/Berlin", None)


def test_cron_on_a_thread_skips_firings_on_a_busy_thread_and_says_so(
    credentials: LangGraphCredentials,
    client: SyncLangGraphClient,
    tag: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    thread = create_thread(credentials=credentials)
    create_cron("worker", YEARLY, thread_id=thread, metadata=tag, credentials=credentials)
    [row] = client.crons.search(metadata=tag)
    assert row["payload"]["multitask_strategy"] == "reject"
    assert row["thread_id"] == thread
    assert "multitask_strategy='reject'" in caplog.text
    client.threads.delete(thread)


def test_identical_calls_of_a_flow_run_make_a_cron_each_and_its_retry_none(
    credentials: LangGraphCredentials, client: SyncLangGraphClient, tag: dict[str, str]
) -> None:
    attempts: list[list[str]] = []

    @flow(retries=1)
    def twice() -> None:
        made = [create_cron("worker", YEARLY, metadata=tag, credentials=credentials) for _ in range(2)]
        attempts.append([cron.cron_id for cron in made])
        if len(attempts) == 1:
            raise RuntimeError("once more")

    twice()
    assert attempts[0] == attempts[1]
    assert len({*attempts[0]}) == len(client.crons.search(metadata=tag)) == 2


def test_retried_task_finds_the_cron_that_it_made(
    credentials: LangGraphCredentials, client: SyncLangGraphClient, tag: dict[str, str]
) -> None:
    tries: list[str] = []

    @task(retries=1)
    def make() -> None:
        tries.append(create_cron("worker", YEARLY, metadata=tag, credentials=credentials).cron_id)
        if len(tries) == 1:
            raise RuntimeError("once more")

    @flow
    def whole() -> None:
        make()

    whole()
    assert len({*tries}) == len(client.crons.search(metadata=tag)) == 1


def test_changed_specification_changes_the_cron_of_its_key(
    credentials: LangGraphCredentials, client: SyncLangGraphClient, tag: dict[str, str]
) -> None:
    key = uuid.uuid4().hex

    def make(schedule: str, **options: Any) -> CronHandle:
        return create_cron(
            "worker", schedule, metadata=tag, idempotency_key=key, credentials=credentials, **options
        )

    first = make(YEARLY, input={"tag": "a"})
    again = make("0 10 1 1 *", input={"tag": "b"}, timezone="Asia/Tokyo", enabled=False)
    assert again.cron_id == first.cron_id
    [row] = client.crons.search(metadata=tag)
    assert (row["schedule"], row["timezone"], row["enabled"]) == ("0 10 1 1 *", "Asia/Tokyo", False)
    assert row["payload"]["input"] == {"tag": "b"}
    # An update cannot take the input away.
    make("0 10 1 1 *")
    [row] = client.crons.search(metadata=tag)
    assert row["cron_id"] != first.cron_id
    assert "input" not in row["payload"]
    assert row["metadata"][KEY] == first.key


@pytest.mark.parametrize("keyed", [True, False])
def test_lost_create_response_leaves_one_cron(
    proxy: Proxy,
    through_proxy: LangGraphCredentials,
    client: SyncLangGraphClient,
    tag: dict[str, str],
    keyed: bool,
) -> None:
    proxy.on("POST", "/runs/crons$", LoseResponse())
    key = uuid.uuid4().hex if keyed else None
    handle = create_cron("worker", YEARLY, metadata=tag, idempotency_key=key, credentials=through_proxy)
    assert [row["cron_id"] for row in client.crons.search(metadata=tag)] == [handle.cron_id]
    assert len(proxy.done("POST", "/runs/crons$")) == 1


def test_create_request_that_never_arrived_is_sent_again(
    proxy: Proxy,
    through_proxy: LangGraphCredentials,
    client: SyncLangGraphClient,
    tag: dict[str, str],
) -> None:
    proxy.on("POST", "/runs/crons$", LoseRequest(), times=2)
    handle = create_cron("worker", YEARLY, metadata=tag, credentials=through_proxy)
    assert [row["cron_id"] for row in client.crons.search(metadata=tag)] == [handle.cron_id]


def test_many_who_create_under_a_key_at_once_make_one_cron(
    proxy: Proxy,
    through_proxy: LangGraphCredentials,
    client: SyncLangGraphClient,
    tag: dict[str, str],
) -> None:
    # All have looked, and found nothing, before the first one creates.
    hold = Hold()
    proxy.on("POST", "/runs/crons$", hold, times=None)
    key = uuid.uuid4().hex

    async def race() -> list[CronHandle]:
        racers = [
            asyncio.create_task(
                acreate_cron(
                    "worker", YEARLY, metadata=tag, idempotency_key=key, credentials=through_proxy
                )
            )
            for _ in range(5)
        ]
        while proxy.count("POST", "/runs/crons$") < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        hold.release()
        return await asyncio.gather(*racers)

    handles = asyncio.run(race())
    [row] = client.crons.search(metadata=tag)
    assert len(proxy.done("POST", "/runs/crons$")) == 5
    assert {handle.cron_id for handle in handles} == {row["cron_id"]}


def test_call_cancelled_while_its_cron_is_made_leaves_none(
    proxy: Proxy,
    through_proxy: LangGraphCredentials,
    client: SyncLangGraphClient,
    tag: dict[str, str],
) -> None:
    hold = Hold(answer=True)
    proxy.on("POST", "/runs/crons$", hold)

    async def give_up() -> None:
        making = asyncio.create_task(
            acreate_cron("worker", YEARLY, metadata=tag, credentials=through_proxy)
        )
        await asyncio.to_thread(hold.reached.wait, 20)
        assert len(client.crons.search(metadata=tag)) == 1
        making.cancel()
        asyncio.get_running_loop().call_later(0.2, hold.release)
        with pytest.raises(asyncio.CancelledError):
            await making

    asyncio.run(give_up())
    assert until(lambda: client.crons.count(metadata=tag) == 0)


def test_cron_key_does_not_make_its_runs_adoptable(
    credentials: LangGraphCredentials, client: SyncLangGraphClient, tag: dict[str, str]
) -> None:
    from prefect_langgraph.ownership.keys import Key

    create_cron("worker", YEARLY, metadata=tag, idempotency_key="x", credentials=credentials)
    [row] = client.crons.search(metadata=tag)
    assert row["metadata"][KEY] != Key.chosen("x").text


def test_cron_of_a_flow_run_has_its_tags_and_a_detached_one_has_not(
    credentials: LangGraphCredentials, client: SyncLangGraphClient, tag: dict[str, str]
) -> None:
    @flow
    def makes() -> dict[str, CronHandle]:
        return {
            "own": create_cron("worker", YEARLY, metadata=tag, credentials=credentials),
            "kept": create_cron(
                "worker", YEARLY, metadata=tag, on_run_completed="keep", credentials=credentials
            ),
            "free": create_cron("worker", YEARLY, metadata=tag, detached=True, credentials=credentials),
        }

    made = makes()
    rows = {row["cron_id"]: row["metadata"] for row in client.crons.search(metadata=tag)}
    own, kept, free = (rows[made[name].cron_id] for name in ("own", "kept", "free"))
    assert {FLOW_RUN_ID, API, KEY} <= own.keys()
    assert {FLOW_RUN_ID, API} & free.keys() == set()
    # The cron's metadata is copied to its runs' threads: those that are the caller's must not go.
    assert (own.get(OWNS_THREAD), kept.get(OWNS_THREAD), free.get(OWNS_THREAD)) == (True, None, True)


def test_missing_cron_is_deleted_in_peace_and_not_updated(
    credentials: LangGraphCredentials, tag: dict[str, str]
) -> None:
    cron = create_cron("worker", YEARLY, metadata=tag, credentials=credentials)
    for _ in range(2):
        delete_cron(cron)
    delete_cron(cron.cron_id, credentials=credentials)
    with pytest.raises(NotFoundError, match=cron.cron_id):
        update_cron(cron, enabled=False)


def test_unknown_assistant_and_thread_are_not_found(credentials: LangGraphCredentials) -> None:
    with pytest.raises(NotFoundError):
        create_cron(str(uuid.uuid4()), YEARLY, credentials=credentials)
    with pytest.raises(NotFoundError):
        create_cron("worker", YEARLY, thread_id=uuid.uuid4(), credentials=credentials)
    with pytest.raises(NotFoundError, match="nothing"):
        search_crons(assistant_id="nothing", credentials=credentials)


def test_update_changes_what_was_given_and_leaves_the_rest(
    credentials: LangGraphCredentials, client: SyncLangGraphClient, tag: dict[str, str]
) -> None:
    cron = create_cron(
        "worker", YEARLY, {"tag": "a"}, timezone="Asia/Tokyo", metadata=tag, credentials=credentials
    )
    changed = update_cron(cron, schedule="0 10 1 1 *", metadata={"more": "b"})
    [row] = client.crons.search(metadata={**tag, "more": "b"})
    assert (row["schedule"], row["timezone"]) == ("0 10 1 1 *", "Asia/Tokyo")
    assert row["payload"]["input"] == {"tag": "a"}
    assert row["metadata"][KEY] == cron.key == changed.key
    [fires] = [changed.next_run_date]
    assert fires is not None
    assert (fires.astimezone(UTC).hour, fires.day) == (1, 1)


def test_resumed_cron_fires_next_in_the_future(
    credentials: LangGraphCredentials, client: SyncLangGraphClient, tag: dict[str, str]
) -> None:
    cron = create_cron(
        "worker",
        "* * * * * *",
        allow_seconds=True,
        enabled=False,
        metadata=tag,
        credentials=credentials,
    )
    stale = datetime.fromisoformat(str(client.crons.search(metadata=tag)[0]["next_run_date"]))
    assert until(lambda: datetime.now(UTC) > stale)
    update_cron(cron, enabled=True)
    [row] = client.crons.search(metadata=tag)
    assert row["enabled"]
    assert datetime.fromisoformat(str(row["next_run_date"])) > stale


def test_search_finds_by_assistant_thread_pause_and_metadata(
    credentials: LangGraphCredentials, client: SyncLangGraphClient, tag: dict[str, str]
) -> None:
    thread = create_thread(credentials=credentials)
    on_thread = create_cron("worker", YEARLY, thread_id=thread, metadata=tag, credentials=credentials)
    paused = create_cron("answer", YEARLY, enabled=False, metadata=tag, credentials=credentials)

    def found(**asked: Any) -> list[str]:
        handles = search_crons(metadata=tag, credentials=credentials, **asked)
        return [cron.cron_id for cron in handles]

    assert found() == [on_thread.cron_id, paused.cron_id]
    assert found(limit=1) == [on_thread.cron_id]
    assert found(assistant_id="answer") == found(enabled=False) == [paused.cron_id]
    assert found(thread_id=thread) == [on_thread.cron_id]
    client.threads.delete(thread)


def test_headers_are_refused_before_any_request(
    proxy: Proxy, through_proxy: LangGraphCredentials
) -> None:
    with pytest.raises(HeaderPolicyError, match="config="):
        create_cron("worker", YEARLY, headers={"x-user": "ada"}, credentials=through_proxy)
    with pytest.raises(HeaderPolicyError, match="config="):
        update_cron(str(uuid.uuid4()), headers={"x-user": "ada"}, credentials=through_proxy)
    assert proxy.count() == 0


def test_end_time_on_a_dev_server_warns(
    credentials: LangGraphCredentials, tag: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    end = datetime.now(UTC) + timedelta(days=1)
    cron = create_cron("worker", YEARLY, end_time=end, metadata=tag, credentials=credentials)
    assert "cannot read end_time" in caplog.text
    assert cron.end_time == end
    # It would never get there.
    assert cron.next_run_date is None
    assert update_cron(cron, end_time=None).end_time is None


def test_schedule_that_ends_is_refused_where_the_server_cannot_end_it(
    credentials: LangGraphCredentials,
) -> None:
    with pytest.raises(ScheduleError, match="temporary_cron"):
        create_cron("worker", "0 9 1 1 * 0 2040", allow_seconds=True, credentials=credentials)


def test_warnings_of_a_schedule_are_logged(
    credentials: LangGraphCredentials, tag: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    create_cron("worker", "30 1 * * *", timezone="Europe/Berlin", metadata=tag, credentials=credentials)
    create_cron("worker", "30 2 * * *", timezone="Europe/Berlin", metadata=tag, credentials=credentials)
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("clocks change in Europe/Berlin" in message for message in warned)


def test_inputs_are_not_in_the_log(
    credentials: LangGraphCredentials, tag: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    key = uuid.uuid4().hex
    for value in ("do-not-show", "nor-this"):
        handle = create_cron(
            "worker",
            YEARLY,
            {"tag": value},
            metadata={**tag, "note": value},
            idempotency_key=key,
            credentials=credentials,
        )
        assert value not in caplog.text + repr(handle)


# Leases -------------------------------------------------------------------------------------------


def test_lease_is_renewed_while_its_flow_run_lives_and_not_after(
    credentials: LangGraphCredentials, client: SyncLangGraphClient, tag: dict[str, str]
) -> None:
    def end() -> datetime:
        [row] = client.crons.search(metadata=tag)
        return datetime.fromisoformat(str(row["end_time"]))

    @flow
    def owns() -> datetime:
        made = create_cron(
            "worker", YEARLY, lease=timedelta(seconds=1.5), metadata=tag, credentials=credentials
        ).end_time
        assert made is not None
        first = until(lambda: end() if end() > made else None)
        return until(lambda: end() if end() > first else None)

    last = owns()
    # At most one renewal was on its way when the flow run ended.
    assert until(lambda: datetime.now(UTC) > last + timedelta(seconds=1.5))
    assert end() <= last + timedelta(seconds=1.5)
    settled = end()
    assert until(lambda: datetime.now(UTC) > settled)
    assert end() == settled


def test_late_renewal_keeps_the_schedule_that_was_set_meanwhile(
    proxy: Proxy,
    through_proxy: LangGraphCredentials,
    credentials: LangGraphCredentials,
    client: SyncLangGraphClient,
    tag: dict[str, str],
) -> None:
    cron = create_cron(
        "worker", YEARLY, lease=timedelta(seconds=1.2), metadata=tag, credentials=through_proxy
    )
    assert cron.end_time is not None
    ended = cron.end_time
    proxy.on("PATCH", "/runs/crons/", Answer(503), times=None)
    update_cron(
        cron.cron_id, schedule="0 7 2 2 *", credentials=credentials
    )  # somebody else, past the proxy
    assert until(lambda: datetime.now(UTC) > ended)
    proxy.clear()
    assert until(lambda: proxy.done("PATCH", "/runs/crons/"))
    [row] = client.crons.search(metadata=tag)
    assert row["schedule"] == "0 7 2 2 *"
    assert datetime.fromisoformat(str(row["end_time"])) > ended
    delete_cron(cron)


def test_end_that_was_cleared_meanwhile_stays_so(
    proxy: Proxy,
    through_proxy: LangGraphCredentials,
    credentials: LangGraphCredentials,
    client: SyncLangGraphClient,
    tag: dict[str, str],
) -> None:
    cron = create_cron(
        "worker", YEARLY, lease=timedelta(seconds=1.2), metadata=tag, credentials=through_proxy
    )
    update_cron(cron.cron_id, end_time=None, credentials=credentials)
    later = datetime.now(UTC) + timedelta(seconds=2.5)
    assert until(lambda: datetime.now(UTC) > later)
    [row] = client.crons.search(metadata=tag)
    assert row["end_time"] is None


def test_end_that_was_set_meanwhile_stays_so(
    proxy: Proxy,
    through_proxy: LangGraphCredentials,
    credentials: LangGraphCredentials,
    client: SyncLangGraphClient,
    tag: dict[str, str],
) -> None:
    cron = create_cron(
        "worker", YEARLY, lease=timedelta(seconds=1.2), metadata=tag, credentials=through_proxy
    )
    # Renewed once, and its confirmation lost: that end is still the lease's.
    lost = proxy.on("PATCH", "/runs/crons/", LoseResponse())
    assert until(lambda: lost.hits and proxy.count("PATCH", "/runs/crons/") >= 2)
    renewed = proxy.count("PATCH", "/runs/crons/")
    assert until(lambda: proxy.count("PATCH", "/runs/crons/") > renewed)
    # Past the proxy, as another process would do it.
    end = datetime.now(UTC) + timedelta(hours=1)
    update_cron(cron.cron_id, end_time=end, credentials=credentials)
    later = datetime.now(UTC) + timedelta(seconds=2.5)
    assert until(lambda: datetime.now(UTC) > later)
    [row] = client.crons.search(metadata=tag)
    assert datetime.fromisoformat(str(row["end_time"])) == end
    delete_cron(cron)


def test_lease_of_a_deleted_cron_is_renewed_no_more(
    proxy: Proxy, through_proxy: LangGraphCredentials, tag: dict[str, str]
) -> None:
    cron = create_cron(
        "worker", YEARLY, lease=timedelta(seconds=0.9), metadata=tag, credentials=through_proxy
    )
    assert until(lambda: proxy.count("PATCH", "/runs/crons/") >= 1)
    delete_cron(cron)
    renewed = proxy.count("PATCH", "/runs/crons/")
    ends = datetime.now(UTC) + timedelta(seconds=0.9)
    assert until(lambda: datetime.now(UTC) > ends)
    assert proxy.count("PATCH", "/runs/crons/") == renewed


# Gone with their flow run -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(langgraph_server: LangGraphServer, prefect_server: PrefectServer) -> str:
    """The name of a saved block."""
    LangGraphCredentials(url=langgraph_server.url).save("cron-tests", overwrite=True)  # type: ignore[unused-coroutine]
    return "cron-tests"


@pytest.mark.parametrize("ending", ["completed", "failed"])
def test_flow_that_owns_three_crons_leaves_none(
    saved: str, client: SyncLangGraphClient, tag: dict[str, str], ending: str
) -> None:
    @with_finalizer(credentials=saved)
    @flow
    def owns_three() -> None:
        for _ in range(3):
            create_cron("worker", YEARLY, metadata=tag, credentials=saved)
        assert client.crons.count(metadata=tag) == 3
        if ending == "failed":
            raise RuntimeError("no luck")

    owns_three(return_state=True)
    assert client.crons.count(metadata=tag) == 0


KILLED = """
import os, signal, sys
from prefect import flow
from prefect_langgraph import create_cron, with_finalizer

@with_finalizer(credentials="cron-tests", lease_seconds=1)
@flow
def owns_three():
    for _ in range(3):
        create_cron("worker", "0 9 1 1 *", metadata={"test": sys.argv[1]}, credentials="cron-tests")
    os.kill(os.getpid(), signal.SIGKILL)

owns_three()
"""


def test_killed_flow_that_owns_three_crons_leaves_none_after_one_sweep(
    saved: str, client: SyncLangGraphClient, tag: dict[str, str]
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, tag["test"]], env={**os.environ}, capture_output=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    rows = client.crons.search(metadata=tag)
    assert len(rows) == 3
    flow_run_id = rows[0]["metadata"][FLOW_RUN_ID]
    # The sweep before its lease has run out leaves it alone.
    assert until(
        lambda: [
            entry
            for entry in sweep([saved], grace_seconds=0, dry_run=True).released
            if entry.flow_run_id == flow_run_id
        ]
    )
    sweep([saved], grace_seconds=0)
    assert client.crons.count(metadata=tag) == 0
