"""What Deploy crons make of schedules, held against croniter and Prefect themselves."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.client.schemas.schedules import (
    CronSchedule,
    IntervalSchedule,
    NoSchedule,
    RRuleSchedule,
)
from prefect.schedules import Cron, Interval, RRule, Schedule

from prefect_langgraph.errors import InvalidRequestError, ScheduleError
from prefect_langgraph.schedules import DeployCron, clock, fields, next_fires, to_deploy_cron

NOW = datetime(2026, 6, 1, tzinfo=UTC)
YEAR = timedelta(days=366)
NEW_YORK = ZoneInfo("America/New_York")
ZONES = (
    "UTC",
    "America/New_York",
    "Europe/Dublin",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Asia/Kolkata",
    "America/St_Johns",
)
ODD_INTERVALS = sorted({n * 60 for n in range(2, 1440) if 1440 % n == 0} - {*fields.CRON_INTERVALS})

minutes = st.sampled_from(["0", "30", "59", "15,45", "*/20", "7-59/15", "*"])
hours = st.sampled_from(["0", "1", "2", "3", "9", "1,2", "0-4", "*/2", "1-23/3", "*"])
days = st.sampled_from(["* *", "* 1-5", "* sun", "1 *", "L *", "1-7 6", "* 0#2", "* L0", "? 0"])
crons = st.builds(
    lambda minute, hour, day: f"{minute} {hour} {day.split()[0]} * {day.split()[1]}",
    minutes,
    hours,
    days,
)
moments = st.datetimes(
    min_value=datetime(2026, 1, 1),
    max_value=datetime(2029, 1, 1),
    timezones=st.just(UTC),
)
zones = st.sampled_from(ZONES)


@pytest.mark.parametrize(
    ("schedule", "timezone", "cron", "expected_zone"),
    [
        ("*/5 * * * *", None, "*/5 * * * *", None),
        ("  0\t9 * * MON ", "Asia/Tokyo", "0 9 * * MON", "Asia/Tokyo"),
        ("@daily", "UTC", "@daily", "UTC"),
        (Cron("0 9 * * 1"), None, "0 9 * * 1", None),
        (Cron("0 9 * * 1", timezone="Asia/Tokyo"), None, "0 9 * * 1", "Asia/Tokyo"),
        (Cron("0 9 * * 1"), "Asia/Tokyo", "0 9 * * 1", "Asia/Tokyo"),
        (Cron("0 9 * * 1", timezone="Asia/Tokyo"), "Asia/Tokyo", "0 9 * * 1", "Asia/Tokyo"),
        (CronSchedule(cron="0 9 * * 1", timezone="Asia/Tokyo"), None, "0 9 * * 1", "Asia/Tokyo"),
        (Cron("0 9 13 * *", day_or=False), None, "0 9 13 * *", None),
        (Cron("0 9 ? * 5", day_or=False), None, "0 9 ? * 5", None),
    ],
)
def test_cron_of_any_kind_keeps_its_text_and_timezone(
    schedule: Any, timezone: str | None, cron: str, expected_zone: str | None
) -> None:
    deployed = to_deploy_cron(schedule, timezone=timezone, now=NOW)
    assert deployed == DeployCron(schedule=cron, timezone=expected_zone)


@pytest.mark.parametrize(
    ("interval", "anchor", "cron"),
    [
        (timedelta(seconds=10), None, "* * * * * */10"),
        (timedelta(seconds=30), datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC), "* * * * * 7,37"),
        (timedelta(minutes=1), None, "* * * * *"),
        (timedelta(minutes=15), None, "*/15 * * * *"),
        (timedelta(minutes=15), datetime(2026, 1, 1, 5, 22, tzinfo=UTC), "7-59/15 * * * *"),
        (timedelta(minutes=15), datetime(2026, 1, 1, 0, 7, 30, tzinfo=UTC), "7-59/15 * * * * 30"),
        (timedelta(hours=1), datetime(2026, 1, 1, 0, 30, tzinfo=UTC), "30 * * * *"),
        (timedelta(hours=6), datetime(2026, 1, 1, tzinfo=NEW_YORK), "0 5-23/6 * * *"),
        (timedelta(hours=12), datetime(2040, 1, 1, 13, 5, tzinfo=UTC), "5 1,13 * * *"),
    ],
)
def test_interval_below_a_day_is_a_cron_in_utc(
    interval: timedelta, anchor: datetime | None, cron: str
) -> None:
    given_anchor = {} if anchor is None else {"anchor_date": anchor}
    for schedule in (
        Interval(interval, **given_anchor),  # type: ignore[arg-type]
        IntervalSchedule(interval=interval, **given_anchor),  # type: ignore[arg-type]
        IntervalSchedule(interval=interval, timezone="Europe/Berlin", **given_anchor),
    ):
        deployed = to_deploy_cron(schedule, now=NOW)
        assert (deployed.schedule, deployed.timezone) == (cron, "UTC")


@pytest.mark.parametrize(
    ("interval", "anchor", "timezone", "cron", "zone"),
    [
        (1, datetime(2026, 1, 1, 9, 5, tzinfo=NEW_YORK), None, "5 9 * * *", "America/New_York"),
        (1, datetime(2026, 1, 1, 9, 5, tzinfo=UTC), None, "5 9 * * *", None),
        (1, datetime(2026, 1, 1, 9, 5, tzinfo=UTC), "Asia/Tokyo", "5 18 * * *", "Asia/Tokyo"),
        (7, datetime(2026, 1, 4, 9, tzinfo=UTC), None, "0 9 * * 0", None),
        (7, datetime(2026, 1, 3, 20, tzinfo=UTC), "Asia/Tokyo", "0 5 * * 0", "Asia/Tokyo"),
    ],
)
def test_interval_of_days_keeps_the_local_hour_of_its_anchor(
    interval: int, anchor: datetime, timezone: str | None, cron: str, zone: str | None
) -> None:
    schedule = Interval(timedelta(days=interval), anchor_date=anchor, timezone=timezone)
    deployed = to_deploy_cron(schedule, now=NOW)
    assert (deployed.schedule, deployed.timezone) == (cron, zone)


def test_interval_without_an_anchor_gives_the_same_cron_whenever_it_is_written() -> None:
    crons_of = {to_deploy_cron(Interval(3600), now=NOW).schedule for _ in range(3)}
    assert crons_of == {"0 * * * *"}


def test_daily_interval_without_an_anchor_fires_at_midnight_and_says_so() -> None:
    deployed = to_deploy_cron(Interval(timedelta(days=1), timezone="Asia/Tokyo"), now=NOW)
    assert (deployed.schedule, deployed.timezone) == ("0 0 * * *", "Asia/Tokyo")
    assert "no anchor date" in deployed.warnings[0]


@pytest.mark.parametrize(
    ("schedule", "reason", "instead"),
    [
        (Cron("0 9 1-7 * 1", day_or=False), "joins them with OR", "'1#1'"),
        (Cron("0 9 22-28 * tue,fri", day_or=False), "joins them with OR", "'tue#4,fri#4'"),
        (CronSchedule(cron="0 9 13 * 5", day_or=False), "joins them with OR", "run_stateless"),
        (RRule("FREQ=DAILY"), "no recurrence rules", "0 9 * * 5#2"),
        (RRuleSchedule(rrule="FREQ=DAILY"), "no recurrence rules", "0 9 L * *"),
        (NoSchedule(), "NoSchedule", "Cron(...)"),
        (Schedule(), "neither a cron nor an interval", "Cron(...)"),
        (timedelta(hours=1), "timedelta", "Interval(...)"),
        (Cron("0 9 * * *", active=False), "active=False", "enabled=False"),
        (Cron("0 9 * * *", parameters={"a": 1}), "parameters", "input"),
        (Interval(timedelta(minutes=7)), "7 minutes", "6 minutes or 10 minutes"),
        (Interval(timedelta(seconds=45)), "45 seconds", "30 seconds or 1 minute"),
        (Interval(timedelta(days=2)), "2 days", "1 day or 1 week"),
        (Interval(timedelta(days=30)), "30 days", "1 week,"),
        (Interval(timedelta(minutes=90)), "2 crons", "'0 */3 * * *' and '30 1-23/3 * * *'"),
        (Interval(0.5), "0.5 seconds", "timedelta(seconds=1)"),
        (Interval(-60), "-60 seconds", "timedelta(seconds=1)"),
        ("@reboot", "machine starts", "start_run"),
        ("@every 5m", "interval", "'*/5 * * * *'"),
        ("@never", "Exactly 5", ""),
        ("H 3 * * *", "'H'", "'17 3 * * *'"),
        ("R(0-5) 3 * * *", "'R(0-5)'", "'17 3 * * *'"),
        ("h/15 3 * * *", "'h/15'", "'17 3 * * *'"),
        ("", "0 fields", "'0 9 * * 1-5'"),
        ("* * *", "3 fields", "'0 9 * * 1-5'"),
        ("60 * * * *", "out of range", ""),
        ("0 9 * * 5L", "not acceptable", "'L5'"),
        ("0 9 L-3 * *", "not acceptable", "'L' alone"),
        ("0 0 31 2 *", "no month '2' has a day '31'", "'L'"),
        ("0 0 31 4,6 *", "never fires", "'L'"),
        ("0 0 1 * 5#2", "AND", "two crons"),
    ],
)
def test_schedule_no_cron_can_say_is_refused_with_what_to_write(
    schedule: Any, reason: str, instead: str
) -> None:
    with pytest.raises(ScheduleError) as refused:
        to_deploy_cron(schedule, now=NOW)
    assert reason in refused.value.message
    assert instead in refused.value.message


@pytest.mark.parametrize(
    ("cron", "instead"),
    [
        ("0 30 9 * * 1", "'30 9 * * 1'"),
        ("0 0 12 ? * MON-FRI", "'0 12 ? * MON-FRI'"),
        ("15 10 9 * * 1", "'10 9 * * 1 15'"),
        ("* * * * * */5", "allow_seconds=True"),
        ("0 9 * * * 30", "leave the sixth field out"),
        ("0 15 10 * * ? 2030", "'15 10 * * ? 0 2030'"),
    ],
)
def test_six_fields_without_a_word_are_refused_with_both_readings(cron: str, instead: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        to_deploy_cron(cron, now=NOW)
    assert instead in refused.value.message


def test_six_fields_that_are_meant_have_their_seconds_last() -> None:
    deployed = to_deploy_cron("15 9 * * 1 30", allow_seconds=True, now=NOW)
    assert deployed == DeployCron(schedule="15 9 * * 1 30")
    assert next_fires(deployed.schedule, n=1, now=NOW) == [datetime(2026, 6, 1, 9, 15, 30, tzinfo=UTC)]


def test_seconds_closer_than_the_server_looks_are_warned_of() -> None:
    close = to_deploy_cron("* * * * * */5", allow_seconds=True, now=NOW)
    assert "CRON_SCHEDULER_SLEEP_TIME" in close.warnings[0]
    assert to_deploy_cron("* * * * * */10", allow_seconds=True, now=NOW).warnings == ()


def test_limited_year_gives_the_last_firing_and_a_warning() -> None:
    deployed = to_deploy_cron("0 9 * 1 1 0 2027-2028", allow_seconds=True, now=NOW)
    assert deployed.last_fire == datetime(2028, 1, 31, 9, tzinfo=UTC)
    assert "2028-01-31T09:00:00+00:00" in deployed.warnings[0]
    assert to_deploy_cron("0 9 * 1 1 0 *", allow_seconds=True, now=NOW).last_fire is None


def test_limited_year_that_is_over_is_refused() -> None:
    with pytest.raises(ScheduleError, match="no firing left"):
        to_deploy_cron("0 9 1 1 * 0 2025", allow_seconds=True, now=NOW)


def test_preview_ends_with_the_year_field() -> None:
    assert next_fires("0 9 1 6,7 * 0 2026", n=5, now=NOW) == [
        datetime(2026, 6, 1, 9, tzinfo=UTC),
        datetime(2026, 7, 1, 9, tzinfo=UTC),
    ]


@pytest.mark.parametrize(
    ("schedule", "timezone"),
    [
        (Cron("0 9 * * *", timezone="UTC"), "Asia/Tokyo"),
        (CronSchedule(cron="0 9 * * *", timezone="Europe/Berlin"), "UTC"),
        (Interval(3600, timezone="UTC"), "Asia/Tokyo"),
        (IntervalSchedule(interval=timedelta(days=1), timezone="Europe/Berlin"), "Asia/Tokyo"),
    ],
)
def test_two_timezones_that_differ_are_refused(schedule: Any, timezone: str) -> None:
    with pytest.raises(ScheduleError, match="Leave one of them out"):
        to_deploy_cron(schedule, timezone=timezone, now=NOW)


@pytest.mark.parametrize("timezone", ["", "Mars/Olympus", "America", "../etc/passwd", "UTC+1", "\0"])
def test_unknown_timezone_is_refused_before_the_server_sees_it(timezone: str) -> None:
    with pytest.raises(ScheduleError, match="no IANA timezone name"):
        to_deploy_cron("0 9 * * *", timezone=timezone, now=NOW)


def test_unknown_timezone_inside_a_schedule_is_refused() -> None:
    with pytest.raises(ScheduleError, match="Write 'Europe/Berlin'"):
        to_deploy_cron(Cron("0 9 * * *", timezone="europe/berlin"), now=NOW)


@pytest.mark.parametrize(
    ("cron", "timezone", "dates"),
    [
        ("30 1 * * *", "America/New_York", ["2026-11-01"]),
        ("30 2 * * *", "America/New_York", ["2027-03-14"]),
        ("30 1,2 * * *", "America/New_York", ["2026-11-01", "2027-03-14"]),
        ("0 * * * *", "Europe/Berlin", ["2026-10-25"]),
        ("0 9 * * *", "Europe/Berlin", []),
        ("30 2 * * 1-5", "Europe/Berlin", []),
        ("30 2 * * *", "Asia/Tokyo", []),
        ("30 2 * * *", "UTC", []),
        ("30 2 * * *", None, []),
    ],
)
def test_clock_change_that_matters_is_warned_of_with_its_date(
    cron: str, timezone: str | None, dates: list[str]
) -> None:
    warnings = to_deploy_cron(cron, timezone=timezone, now=NOW).warnings
    assert [warning[:10] for warning in warnings] == dates


def test_hour_that_comes_twice_is_told_with_both_times() -> None:
    [warning] = to_deploy_cron("30 1 * * *", timezone="America/New_York", now=NOW).warnings
    assert "server fires at 01:30-0400 and 01:30-0500, Prefect at 01:30-0400" in warning


def test_anchor_in_another_season_is_warned_of_with_the_dates_where_prefect_shifts_it() -> None:
    from prefect.server.schemas.schedules import IntervalSchedule as ServerIntervalSchedule

    day, anchor = timedelta(days=1), datetime(2026, 1, 1, 9, tzinfo=NEW_YORK)
    planned = ServerIntervalSchedule(interval=day, anchor_date=anchor, timezone=NEW_YORK.key)
    [fire] = asyncio.run(planned.get_dates(n=1, start=datetime(2027, 6, 1, tzinfo=UTC)))
    is_shifted = fire.astimezone(NEW_YORK).hour != anchor.hour
    schedule = Interval(day, anchor_date=anchor)
    warnings = to_deploy_cron(schedule, now=datetime(2026, 12, 1, tzinfo=UTC)).warnings
    assert ["2027-03-14 to 2027-11-07" in warning for warning in warnings] == [True] * is_shifted


def test_prefects_own_present_is_a_moment_like_any_other() -> None:
    from prefect.types import DateTime

    present = DateTime.fromisoformat(NOW.isoformat())
    assert next_fires("0 9 * * *", ZONES[1], now=present) == next_fires("0 9 * * *", ZONES[1], now=NOW)
    assert to_deploy_cron("0 9 * * *", timezone=ZONES[1], now=present).warnings == (
        to_deploy_cron("0 9 * * *", timezone=ZONES[1], now=NOW).warnings
    )


@pytest.mark.parametrize("part", ["59/15 * * * *", "0 23/2 * * *", "0 0 31/5 * *", "0 0 * DEC/3 *"])
def test_step_from_the_largest_value_is_warned_of(part: str) -> None:
    [warning] = to_deploy_cron(part, now=NOW).warnings
    assert "alone on the server" in warning


@pytest.mark.parametrize("n", [0, -1])
def test_preview_of_nothing_is_refused(n: int) -> None:
    with pytest.raises(InvalidRequestError):
        next_fires("@daily", n=n, now=NOW)


def test_now_without_a_timezone_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="no timezone"):
        next_fires("@daily", now=datetime(2026, 1, 1))


def test_preview_without_now_starts_at_present() -> None:
    [fire] = next_fires("* * * * *", n=1)
    assert timedelta(0) < fire - datetime.now(UTC) <= timedelta(minutes=1)


def test_preview_takes_what_a_cron_takes() -> None:
    expected = next_fires("0 0 * * *", "Asia/Tokyo", 3, now=NOW)
    assert next_fires(Cron("0 0 * * *", timezone="Asia/Tokyo"), n=3, now=NOW) == expected
    assert next_fires(Interval(86_400, timezone="Asia/Tokyo"), n=3, now=NOW) == expected


def test_deploy_cron_survives_json_and_pickle() -> None:
    deployed = to_deploy_cron("30 1 * * * 0 2026-2027", timezone=ZONES[1], allow_seconds=True)
    assert DeployCron.model_validate_json(deployed.model_dump_json()) == deployed
    assert pickle.loads(pickle.dumps(deployed)) == deployed  # noqa: S301


def test_import_loads_neither_croniter_nor_prefect() -> None:
    code = (
        "import sys, prefect_langgraph.schedules\n"
        "assert not {'croniter', 'prefect.schedules', 'prefect.server'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@given(
    seconds=st.sampled_from(fields.CRON_INTERVALS),
    anchor=moments.map(lambda moment: moment.replace(microsecond=0)),
    after=moments,
)
@settings(max_examples=150, deadline=None)
def test_interval_fires_in_step_with_its_anchor(
    seconds: int, anchor: datetime, after: datetime
) -> None:
    interval = timedelta(seconds=seconds)
    schedule = Interval(interval, anchor_date=anchor)
    fires = next_fires(schedule, n=4, now=after)
    assert {later - earlier for earlier, later in pairwise(fires)} == {interval}
    assert (fires[0] - anchor) % interval == timedelta(0)
    assert timedelta(0) < fires[0] - after <= interval


@given(
    seconds=st.sampled_from(ODD_INTERVALS),
    anchor=moments.map(lambda moment: moment.replace(second=0, microsecond=0)),
)
@settings(max_examples=40, deadline=None)
def test_advised_crons_together_fire_at_the_refused_interval(seconds: int, anchor: datetime) -> None:
    try:
        fields.interval_cron(timedelta(seconds=seconds), anchor)
    except ScheduleError as refused:
        advised = [part for part in refused.message.split("'") if part.endswith("* * *")]
        day = datetime(2026, 6, 1, tzinfo=UTC)
        until = day + timedelta(days=2)
        fires = sorted(
            fire
            for cron in advised
            for fire in next_fires(cron, n=2 * fields.DAY // seconds, now=day)
            if fire < until
        )
        gaps = {later - earlier for earlier, later in pairwise(fires)}
        assert gaps <= {timedelta(seconds=seconds)}
        assert not fires or (fires[0] - anchor) % timedelta(seconds=seconds) == timedelta(0)


@given(seconds=st.integers(min_value=1, max_value=8 * 86_400))
def test_interval_is_a_cron_only_if_it_fits_evenly(seconds: int) -> None:
    fits = any(
        unit % seconds == 0 and seconds % part == 0
        for part, unit in ((1, 60), (60, 3600), (3600, 86_400), (86_400, 86_400), (604_800, 604_800))
    )
    try:
        fields.interval_cron(timedelta(seconds=seconds), None)
    except ScheduleError:
        assert not fits
    else:
        assert fits


@given(cron=crons, zone=zones, after=moments, delay=st.floats(min_value=0.001, max_value=59))
@settings(max_examples=100, deadline=None)
def test_preview_is_the_same_firing_by_firing_and_when_the_server_is_late(
    cron: str, zone: str, after: datetime, delay: float
) -> None:
    fires = next_fires(cron, zone, 4, now=after)
    assert all(later > earlier for earlier, later in pairwise([after, *fires]))
    for earlier, later in pairwise(fires):
        late = earlier + timedelta(seconds=delay)
        if late >= later:
            continue
        for base in (earlier, late):
            aware = croniter(cron, base.astimezone(ZoneInfo(zone))).get_next(datetime)
            assert aware.astimezone(UTC) == later


def _prefect_fires(cron: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    from prefect.server.schemas.schedules import CronSchedule as ServerCronSchedule

    schedule = ServerCronSchedule(cron=cron, timezone=zone)
    fires = asyncio.run(schedule.get_dates(n=1000, start=start, end=end))
    return sorted({fire.astimezone(UTC) for fire in fires})


@given(cron=crons, zone=zones, now=moments)
@settings(max_examples=40, deadline=None)
def test_dates_and_times_warned_of_are_those_of_prefect_itself(
    cron: str, zone: str, now: datetime
) -> None:
    differing = []
    place = ZoneInfo(zone)
    for change in clock.clock_changes(place, now, now + YEAR):
        start, end = max(now, change - timedelta(hours=5)), change + timedelta(hours=5)
        # Six hours before the change, because Prefect plans a thousand firings at most.
        planned = _prefect_fires(cron, zone, change - timedelta(hours=6), end)
        server = [fire for fire in next_fires(cron, zone, 700, now=start) if fire < end]
        planned = [fire for fire in planned if start < fire < end]
        told_server, told_prefect = clock.fires_around(cron, place, change, now)
        assert set(told_server) <= set(server)
        assert set(told_prefect) <= set(planned)
        if server != planned:
            differing.append(f"{change.astimezone(place):%Y-%m-%d}")
    warnings = to_deploy_cron(cron, timezone=zone, now=now).warnings
    assert [warning[:10] for warning in warnings] == differing
