"""Crons that fire, on the real server, counted by the runs they make."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from langgraph_sdk.client import SyncLangGraphClient

from prefect_langgraph import (
    CronHandle,
    LangGraphCredentials,
    create_cron,
    create_thread,
    delete_cron,
    search_crons,
    update_cron,
)
from prefect_langgraph.ownership.tags import KEY
from prefect_langgraph.testing import LangGraphServer
from support.plain_sdk import sync_sdk
from support.waiting import until

pytestmark = pytest.mark.usefixtures("prefect_server")

EVERY_SECOND = "* * * * * *"
YEARLY = "0 9 1 1 *"


class Firings:
    """The crons of one test, and how often each has fired."""

    def __init__(self, credentials: LangGraphCredentials, client: SyncLangGraphClient) -> None:
        self.credentials = credentials
        self.client = client
        self.made: list[CronHandle] = []

    def create(self, schedule: str = EVERY_SECOND, **options: Any) -> CronHandle:
        options = {"on_run_completed": "keep", "input": {"tag": "fired"}, **options}
        cron = create_cron(
            "worker", schedule, allow_seconds=True, credentials=self.credentials, **options
        )
        self.made.append(cron)
        return cron

    def count(self, cron: CronHandle) -> int:
        if cron.thread_id is None:
            return self.client.threads.count(metadata={KEY: cron.key})
        runs = self.client.runs.list(cron.thread_id, limit=100)
        return sum((run["metadata"] or {}).get(KEY) == cron.key for run in runs)

    def wait(self, cron: CronHandle, more: int = 1) -> int:
        """Until it has fired so often from now on."""
        least = self.count(cron) + more
        return until(lambda: count if (count := self.count(cron)) >= least else 0)

    def looks(self, times: int = 3) -> None:
        """Until the scheduler has looked so often for due crons: another cron fires each time."""
        witness = self.create()
        self.wait(witness, times)
        delete_cron(witness)


@pytest.fixture
def firings(firing_server: LangGraphServer) -> Iterator[Firings]:
    credentials = LangGraphCredentials(url=firing_server.url)
    with sync_sdk(credentials.url) as client:
        firings = Firings(credentials, client)
        yield firings
        for cron in search_crons(credentials=credentials):
            client.crons.delete(cron.cron_id)


def test_stateless_cron_fires_on_a_thread_of_its_own_each_time(firings: Firings) -> None:
    cron = firings.create()
    firings.wait(cron, 2)
    threads = firings.client.threads.search(metadata={KEY: cron.key})
    for thread in threads:
        [run] = firings.client.runs.list(thread["thread_id"])
        assert run["metadata"][KEY] == cron.key
    assert (
        until(lambda: firings.client.threads.search(metadata={KEY: cron.key}, status="idle"))[0][
            "values"
        ]["result"]
        == "fired"
    )


def test_cron_fires_at_the_dates_it_was_said_to(firings: Firings) -> None:
    cron = firings.create("* * * * * */3")
    firings.wait(cron, 2)
    for thread in firings.client.threads.search(metadata={KEY: cron.key}):
        made = datetime.fromisoformat(str(thread["created_at"]))
        # The scheduler looks once a second.
        assert made.second % 3 in (0, 1) or (made.second % 3 == 2 and made.microsecond < 500_000)


def test_thread_cron_skips_firings_while_its_thread_is_busy(firings: Firings) -> None:
    thread = create_thread(credentials=firings.credentials)
    cron = firings.create(thread_id=thread, input={"sleep": 60})
    firings.wait(cron)
    firings.looks()
    assert firings.count(cron) == 1
    [run] = firings.client.runs.list(thread)
    firings.client.runs.cancel(thread, run["run_id"], wait=True)
    assert firings.wait(cron) == 2


def test_timezone_of_a_cron_is_the_one_it_fires_in(firings: Firings) -> None:
    now = datetime.now(ZoneInfo("Asia/Kolkata"))
    hours = ",".join(str((now + timedelta(hours=n)).hour) for n in (0, 1))
    schedule = f"* {hours} * * * *"
    there = firings.create(schedule, timezone="Asia/Kolkata")
    utc = firings.create(schedule)
    assert there.next_run_date is not None
    assert there.next_run_date - datetime.now(UTC) < timedelta(seconds=5)
    firings.wait(there, 2)
    assert firings.count(utc) == 0


def test_paused_cron_fires_no_more_and_resumed_it_fires_again(firings: Firings) -> None:
    cron = firings.create()
    firings.wait(cron)
    update_cron(cron, enabled=False)
    fired = firings.count(cron)
    firings.looks()
    assert firings.count(cron) == fired
    update_cron(cron, enabled=True)
    assert firings.wait(cron) > fired


def test_resumed_cron_does_not_fire_for_the_time_it_was_paused(firings: Firings) -> None:
    second = (datetime.now(UTC).second + 2) % 60
    cron = firings.create(f"* * * * * {second}", enabled=False)
    [row] = firings.client.crons.search(metadata={KEY: cron.key})
    stale = datetime.fromisoformat(str(row["next_run_date"]))
    assert until(lambda: datetime.now(UTC) > stale)
    resumed = update_cron(cron, enabled=True)
    firings.looks()
    assert firings.count(cron) == 0
    assert resumed.next_run_date == stale + timedelta(minutes=1)


def test_updated_schedule_is_the_one_that_fires(firings: Firings) -> None:
    cron = firings.create(YEARLY)
    update_cron(cron, schedule=EVERY_SECOND, allow_seconds=True)
    firings.wait(cron)
    update_cron(cron, schedule=YEARLY)
    fired = firings.count(cron)
    firings.looks()
    assert firings.count(cron) == fired


def test_deleted_cron_fires_no_more(firings: Firings) -> None:
    cron = firings.create()
    firings.wait(cron)
    delete_cron(cron)
    fired = firings.count(cron)
    firings.looks()
    assert firings.count(cron) == fired


def test_cron_made_twice_under_a_key_fires_once_each_time(firings: Firings) -> None:
    key = uuid.uuid4().hex
    thread = create_thread(credentials=firings.credentials)
    options = {"thread_id": thread, "idempotency_key": key, "multitask_strategy": "enqueue"}
    first, second = (firings.create("* * * * * */2", **options) for _ in range(2))
    assert first.cron_id == second.cron_id
    firings.wait(first, 2)
    runs = firings.client.runs.list(thread, limit=100)
    seconds = [str(run["created_at"])[:19] for run in runs]
    assert len({*seconds}) == len(seconds)
