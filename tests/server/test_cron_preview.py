"""The preview of `next_fires` is what the real server computes for the same cron."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from langgraph_sdk.client import SyncLangGraphClient
from langgraph_sdk.errors import APIError

from prefect_langgraph.errors import ScheduleError
from prefect_langgraph.schedules import next_fires, to_deploy_cron
from prefect_langgraph.schedules.clock import clock_changes
from prefect_langgraph.testing import LangGraphServer
from support.plain_sdk import sync_sdk

CRONS = (
    "* * * * *",
    "*/5 * * * *",
    "*/7 * * * *",
    "7-59/15 * * * *",
    "10/20 * * * *",
    "0 * * * *",
    "15,45 * * * *",
    "30 1 * * *",
    "30 2 * * *",
    "0 9 * * *",
    "0 0 * * *",
    "59 23 * * *",
    "0 */6 * * *",
    "0 9-17 * * *",
    "0 9-17/2 * * 1-5",
    "0 22-3 * * *",
    "0,30 8,20 * * *",
    "0 9 * * MON",
    "0 9 * * mon-fri",
    "0 9 * * sat,sun",
    "0 9 * * 7",
    "0 9 * * 0",
    "0 9 * * fri-mon",
    "0 9 * * 5#2",
    "0 9 * * mon#1,wed#3",
    "0 9 * * L5",
    "0 9 * * L0",
    "0 9 L * *",
    "0 9 15,L * *",
    "0 9 15W * *",
    "0 9 ? * 1",
    "0 9 13 * ?",
    "0 9 1 * 1",
    "0 9 */10 * *",
    "0 9 31 * *",
    "0 0 29 2 *",
    "0 9 1 JAN *",
    "0 9 1 jan-mar *",
    "0 9 1 */3 *",
    "0 9 1 1,7 *",
    "@hourly",
    "@daily",
    "@midnight",
    "@weekly",
    "@monthly",
    "@yearly",
    "@annually",
    "0 9 * * * 30",
    "30 9 1 * * 15,45",
    "0 9 1 1 * 0 2027-2099",
    "30 6 * * 1 0 */2",
)
ZONES = (
    None,
    "America/New_York",
    "Europe/Berlin",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/Santiago",
)
# What the server itself calls, run in a process of its own because it reads its settings at import.
NEXT_CRON_DATE = """
import json, sys
from datetime import datetime
from langgraph_api.utils import next_cron_date
cases = json.load(sys.stdin)
json.dump([next_cron_date(cron, datetime.fromisoformat(base), timezone).isoformat()
           for cron, base, timezone in cases], sys.stdout)
"""


@pytest.fixture(scope="module")
def client(langgraph_server: LangGraphServer) -> Iterator[SyncLangGraphClient]:
    with sync_sdk(langgraph_server.url) as client:
        yield client


@pytest.fixture
def tag(client: SyncLangGraphClient) -> Iterator[dict[str, str]]:
    """Metadata for the crons of one test, which are deleted after it."""
    tag = {"test_cron_preview": uuid.uuid4().hex}
    yield tag
    for cron in client.crons.search(metadata=tag, limit=1000):
        client.crons.delete(cron["cron_id"])


@pytest.mark.parametrize("timezone", ZONES)
def test_cron_created_on_the_server_gets_the_date_of_the_preview(
    client: SyncLangGraphClient, tag: dict[str, str], timezone: str | None
) -> None:
    for cron in CRONS:
        client.crons.create("worker", schedule=cron, timezone=timezone, metadata=tag, enabled=False)
    created = client.crons.search(metadata=tag, limit=1000)
    assert sorted(made["schedule"] for made in created) == sorted(CRONS)
    for made in created:
        [preview] = next_fires(made["schedule"], timezone, 1, now=_moment(made["created_at"]))
        assert (made["schedule"], _moment(made["next_run_date"])) == (made["schedule"], preview)


def test_cron_of_every_kind_passes_the_check_before_the_request() -> None:
    for cron in CRONS:
        assert to_deploy_cron(cron, allow_seconds=True).schedule == cron


@pytest.mark.parametrize(
    "cron",
    ["@reboot", "H * * * *", "60 * * * *", "0 0 31 2 *", "0 9 * * 5L", "0 0 1 1 * 0 2020", "* *"],
)
def test_cron_that_the_server_refuses_is_refused_before_the_request(
    client: SyncLangGraphClient, tag: dict[str, str], cron: str
) -> None:
    with pytest.raises(APIError) as refused:
        client.crons.create("worker", schedule=cron, metadata=tag, enabled=False)
    assert refused.value.status_code in (400, 422)  # type: ignore[attr-defined]
    with pytest.raises(ScheduleError):
        to_deploy_cron(cron, allow_seconds=True)


def test_preview_across_clock_changes_equals_the_code_of_the_server() -> None:
    cases = []
    now = datetime.now(UTC)
    for timezone in ZONES[1:]:
        for change in [*clock_changes(ZoneInfo(timezone), now, now + timedelta(days=366))]:
            for cron in ("30 1 * * *", "30 2 * * *", "*/30 0-4 * * *", "15 * * * *", "0 9 * * 1"):
                # Half an hour apart, before and after, so that bases lie in the hours that matter.
                cases += [
                    (cron, (change + timedelta(minutes=30 * step, seconds=1)).isoformat(), timezone)
                    for step in range(-50, 6, 3)
                ]
    assert len(cases) > 300

    answers = _ask_the_server_code(cases)

    for (cron, base, timezone), answer in zip(cases, answers, strict=True):
        [preview] = next_fires(cron, timezone, 1, now=datetime.fromisoformat(base))
        assert (cron, base, timezone, preview) == (cron, base, timezone, answer)


def _moment(value: object) -> datetime:
    # The SDK says datetime and gives the JSON's text.
    return datetime.fromisoformat(str(value))


def _ask_the_server_code(cases: list[tuple[str, str, str]]) -> list[datetime]:
    found = subprocess.run(
        [sys.executable, "-c", NEXT_CRON_DATE],
        input=json.dumps(cases),
        env={**os.environ, "DATABASE_URI": ":memory:", "REDIS_URI": "fake"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [datetime.fromisoformat(answer) for answer in json.loads(found.stdout)]
