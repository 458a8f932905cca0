"""Expressing Prefect schedules as Deploy crons, and previewing the server's firings.

Invariants:

- Nothing is sent to a server, and no clock is read when `now` is given: the same arguments give the
  same answer.
- A cron from `to_deploy_cron` fires when its schedule says, or its warnings name the dates on which it
  does not. A schedule that cannot be expressed as a Deploy cron raises `ScheduleError`.
- The preview runs the croniter that the server runs, in the server's way (`next_cron_date` of
  `langgraph_api.utils`). The server of the hosted product computes the same in Go, which could not
  be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict

from prefect_langgraph.errors import InvalidRequestError, ScheduleError
from prefect_langgraph.schedules import fields as text
from prefect_langgraph.schedules.clock import (
    clock_changes,
    fires_around,
    is_prefect_before_3_9,
    last_fire,
    plain,
    server_fires,
)

if TYPE_CHECKING:
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
    from prefect.schedules import Schedule

__all__ = ["DeployCron", "ScheduleLike", "next_fires", "to_deploy_cron"]

ScheduleLike: TypeAlias = "str | Schedule | CronSchedule | IntervalSchedule"

HORIZON = timedelta(days=366)

# CRON_SCHEDULER_SLEEP_TIME, unless the server's environment says otherwise.
SCHEDULER_PERIOD = timedelta(seconds=5)

INSTEAD = "Use a cron string or let a Prefect deployment with this schedule call run_stateless."


class DeployCron(BaseModel):
    """A schedule expressed as a Deploy cron.

    Attributes:
        schedule: The cron string, with single blanks between its fields.
        timezone: The IANA name to create the cron with. None: the server's default, UTC.
        warnings: Where the server's firings differ from what the schedule's author may expect.
        last_fire: The last firing of a cron with a limited year field. None: the cron never ends.
    """

    model_config = ConfigDict(frozen=True)

    schedule: str
    timezone: str | None = None
    warnings: tuple[str, ...] = ()
    last_fire: datetime | None = None


class _Unchecked(NamedTuple):
    """A schedule of any kind as a cron string and timezone, before it is checked."""

    cron: str
    timezone: str | None
    warnings: tuple[str, ...] = ()
    seconds_meant: bool = False


def to_deploy_cron(
    schedule: ScheduleLike,
    *,
    timezone: str | None = None,
    allow_seconds: bool = False,
    now: datetime | None = None,
) -> DeployCron:
    """Express a schedule as a Deploy cron, or raise an error that says what to write instead.

    Nothing is sent. A Prefect interval below a day counts UTC time whatever its timezone, so its
    cron is in UTC; an interval of a day or more keeps its local hour. An anchor date with a fraction
    of a second is Prefect's default, the moment at which the schedule was written. It is ignored: such
    a cron fires on the whole minute, hour or at midnight.

    Args:
        schedule: A cron string, `prefect.schedules.Cron` or `Interval`, or Prefect's `CronSchedule`
            or `IntervalSchedule`.
        timezone: An IANA name. None: the schedule's own, or UTC if it has none.
        allow_seconds: True if a cron of six or seven fields has its seconds sixth, where the server
            reads them, and not first, where many systems have them.
        now: The moment from which the warnings look a year ahead. None: the present.

    Returns:
        The cron, with a warning for each date in the next year on which the server and Prefect fire
        differently.

    Raises:
        ScheduleError: The schedule cannot be expressed as a Deploy cron, it never fires, or the two
            timezones differ.

    Example:
        >>> from prefect.schedules import Cron
        >>> to_deploy_cron(Cron("0 9 * * 1-5", timezone="Asia/Tokyo"))
        DeployCron(schedule='0 9 * * 1-5', timezone='Asia/Tokyo', warnings=(), last_fire=None)
    """
    moment = _aware(now)
    read = _read(schedule, _known_timezone(timezone), moment)
    cron, zone = text.tidy(read.cron), read.timezone
    _check(cron, zone, moment, seconds_meant=allow_seconds or read.seconds_meant)
    end = last_fire(cron, zone)
    warnings = (
        *read.warnings,
        *_step_warnings(cron),
        *_daylight_warnings(cron, zone, moment),
        *_pace_warnings(cron, zone, moment),
        *_end_warnings(end),
    )
    return DeployCron(schedule=cron, timezone=zone, warnings=warnings, last_fire=end)


def next_fires(
    schedule: ScheduleLike, timezone: str | None = None, n: int = 5, *, now: datetime | None = None
) -> list[datetime]:
    """Preview the next `n` firings of a cron on the server, by the server's own algorithm.

    Nothing is sent. Seconds are read as the server reads them: sixth, never first. The server looks
    for due crons every few seconds, so a run starts up to that much later.

    Args:
        schedule: Any schedule that `to_deploy_cron` takes.
        timezone: An IANA name. None: the schedule's own, or UTC if it has none.
        n: How many firings; at least one.
        now: The moment after which firings are computed. None: the present.

    Returns:
        Moments in UTC, like the server's `next_run_date`. Fewer than `n` when the year field ends.

    Raises:
        ScheduleError: As for `to_deploy_cron`.
        InvalidRequestError: `n` is below one, or `now` has no timezone.

    Example:
        >>> from datetime import UTC, datetime
        >>> friday = datetime(2026, 1, 2, 12, tzinfo=UTC)
        >>> [fire.isoformat() for fire in next_fires("0 9 * * 1-5", "Asia/Tokyo", 1, now=friday)]
        ['2026-01-05T00:00:00+00:00']
    """
    if n < 1:
        raise InvalidRequestError(f"n={n} firings cannot be previewed. Ask for one or more.")
    moment = _aware(now)
    read = _read(schedule, _known_timezone(timezone), moment)
    cron = text.tidy(read.cron)
    _check(cron, read.timezone, moment, seconds_meant=True)
    return list(islice(server_fires(cron, read.timezone, moment), n))


# Reading schedules --------------------------------------------------------------------------------


def _read(schedule: ScheduleLike, timezone: str | None, now: datetime) -> _Unchecked:
    if isinstance(schedule, str):
        return _Unchecked(schedule, timezone)
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
    from prefect.schedules import Schedule

    if isinstance(schedule, Schedule):
        return _read_dataclass(schedule, timezone, now)
    if isinstance(schedule, CronSchedule):
        return _read_cron(schedule.cron, schedule.day_or, schedule.timezone, timezone)
    if isinstance(schedule, IntervalSchedule):
        return _read_interval(schedule, timezone, now)
    if isinstance(schedule, RRuleSchedule):
        raise ScheduleError(_rrule_message(schedule.rrule))
    raise ScheduleError(
        f"A {type(schedule).__name__} is not a schedule for a cron. Use a cron string, or Cron(...) or"
        " Interval(...) of prefect.schedules."
    )


def _read_dataclass(schedule: Schedule, timezone: str | None, now: datetime) -> _Unchecked:
    from prefect.client.schemas.schedules import IntervalSchedule

    if not schedule.active:
        raise ScheduleError(
            "The schedule has active=False, which is not part of a cron string. Leave it out and"
            " create the cron with enabled=False."
        )
    if schedule.parameters:
        raise ScheduleError(
            "The schedule has flow parameters, which no cron passes on. Leave them out and give"
            " the assistant's input to the cron."
        )
    if schedule.rrule is not None:
        raise ScheduleError(_rrule_message(schedule.rrule))
    if schedule.cron is not None:
        return _read_cron(schedule.cron, schedule.day_or, schedule.timezone, timezone)
    if schedule.interval is None:
        raise ScheduleError("The schedule is neither a cron nor an interval. Write Cron(...).")
    # Prefect's model rejects the same values, but with an error that is not ours.
    text.whole_seconds(schedule.interval)
    zone = _one_timezone(schedule.timezone, timezone)
    model = IntervalSchedule(
        interval=schedule.interval,
        anchor_date=schedule.anchor_date,
        timezone=zone,
    )
    return _read_interval(model, zone, now)


def _read_cron(cron: str, day_or: bool, own: str | None, timezone: str | None) -> _Unchecked:
    fields = text.tidy(cron).split()
    if not day_or and len(fields) >= 5:
        day_of_month, day_of_week = fields[2], fields[4]
        if not {day_of_month, day_of_week} & {"*", "?"}:
            raise ScheduleError(
                f"{cron!r} with day_or=False asks for days that match day of month {day_of_month!r}"
                f" and day of week {day_of_week!r}; the server always joins them with OR."
                f" {text.day_and_hint(day_of_month, day_of_week)}"
            )
    return _Unchecked(cron, _one_timezone(own, timezone))


def _read_interval(schedule: IntervalSchedule, timezone: str | None, now: datetime) -> _Unchecked:
    # Prefect fills in UTC where no timezone was given, so UTC need not be the author's choice.
    own = None if schedule.timezone == "UTC" else schedule.timezone
    zone = _one_timezone(own, timezone)
    anchor = plain(schedule.anchor_date)
    given = "anchor_date" in schedule.model_fields_set and not anchor.microsecond
    if schedule.interval < timedelta(days=1):
        cron = text.interval_cron(schedule.interval, anchor if given else None)
        return _Unchecked(cron, "UTC", seconds_meant=True)
    local = anchor.astimezone(ZoneInfo(zone or "UTC"))
    cron = text.interval_cron(schedule.interval, local if given else None)
    warnings = _season_warnings(local, zone, now) if given else (_no_anchor_warning(cron),)
    return _Unchecked(cron, zone, warnings, seconds_meant=True)


def _rrule_message(rrule: str) -> str:
    return (
        f"{rrule[:80]!r} is an RRule, and a Deploy cron has no recurrence rules. {INSTEAD} A cron"
        " can express weekdays ('0 9 * * 1-5'), the second Friday ('0 9 * * 5#2'), the last Friday"
        " ('0 9 * * L5') and the last day of the month ('0 9 L * *')."
    )


def _one_timezone(own: str | None, timezone: str | None) -> str | None:
    if own and timezone and own != timezone:
        raise ScheduleError(
            f"The schedule is in timezone {own!r} and timezone={timezone!r} was given too. Leave"
            " one of them out."
        )
    return timezone or _known_timezone(own or None)


def _known_timezone(timezone: str | None) -> str | None:
    if timezone is None:
        return None
    try:
        # The server answers some of these, such as 'America', with a 500 or not at all.
        ZoneInfo(timezone)
    except (KeyError, ValueError, TypeError, OSError):
        like = [name for name in available_timezones() if name.lower() == str(timezone).lower()]
        advice = f"Write {like[0]!r}." if like else "Write one such as 'America/New_York'."
        # A value that is not text may be a secret in the wrong field.
        given = repr(timezone) if isinstance(timezone, str) else f"A {type(timezone).__name__}"
        raise ScheduleError(f"{given} is no IANA timezone name. {advice}") from None
    return timezone


def _aware(now: datetime | None) -> datetime:
    if now is None:
        return datetime.now(UTC)
    if now.tzinfo is None:
        raise InvalidRequestError(f"now={now.isoformat()} has no timezone. Use datetime.now(UTC).")
    return plain(now).astimezone(UTC)


# Checking -----------------------------------------------------------------------------------------


def _check(cron: str, timezone: str | None, now: datetime, *, seconds_meant: bool) -> None:
    from croniter import CroniterError, croniter  # type: ignore[import-untyped]

    text.refuse_text(cron)
    fields = cron.split()
    swapped = text.seconds_first(fields) if len(fields) > 5 else None
    if swapped is not None and not croniter.is_valid(swapped):
        swapped = None
    try:
        croniter.expand(cron)
    except CroniterError as error:
        reason = str(error).strip().splitlines()[-1].rstrip(".")
        hint = text.spelling_hint(fields)
        if swapped:
            hint = f" The server reads seconds sixth, not first: write {swapped!r}."
        raise ScheduleError(f"{cron!r} is not a valid cron on the server: {reason}.{hint}") from None
    fire = next(server_fires(cron, timezone, now), None)
    if fire is None:
        raise ScheduleError(_never_message(cron, fields))
    if len(fields) > 5 and not seconds_meant:
        other = f"If they come first, write {swapped!r}." if swapped else text.INSTEAD_OF_SECONDS
        raise ScheduleError(
            f"{cron!r} has {len(fields)} fields: the server reads the seconds sixth and would fire"
            f" next at {fire.isoformat()}, where many systems read them first. {other} If you mean"
            " seconds as the server reads them, pass allow_seconds=True."
        )


def _never_message(cron: str, fields: list[str]) -> str:
    if len(fields) == 7:
        return f"{cron!r} has no firing left: year {fields[6]!r} has no such date in the future."
    if "#" in fields[4] and fields[2] not in "*?":
        why = "with '#' the server joins day of month and day of week with AND"
        return f"{cron!r} never fires: {why}. Write two crons, one for each."
    day, month = fields[2], fields[3]
    return (
        f"{cron!r} never fires: no month {month!r} has a day {day!r}. Write 'L' for the last day of"
        " a month."
    )


# Warnings -----------------------------------------------------------------------------------------


def _no_anchor_warning(cron: str) -> str:
    return (
        f"The interval has no anchor date to keep its time of day, so the cron is {cron!r}. Give"
        " anchor_date=, without microseconds, to choose the time."
    )


def _step_warnings(cron: str) -> Iterator[str]:
    for part in text.largest_with_step(cron.split()):
        value, step = part.split("/")
        yield (
            f"{part!r} in {cron!r} is {value} alone on the server and every {step} in Prefect."
            f" Write {value!r} or '*/{step}'."
        )


def _pace_warnings(cron: str, timezone: str | None, now: datetime) -> Iterator[str]:
    if len(cron.split()) < 6:
        return
    fires = list(islice(server_fires(cron, timezone, now), 61))
    gap = min((later - earlier for earlier, later in pairwise(fires)), default=HORIZON)
    if gap <= SCHEDULER_PERIOD:
        yield (
            f"{cron!r} fires every {text.describe(int(gap.total_seconds()))}, and the server looks"
            " for due crons every 5 seconds unless CRON_SCHEDULER_SLEEP_TIME says otherwise:"
            " several firings between two checks count as one."
        )


def _end_warnings(end: datetime | None) -> Iterator[str]:
    if end is not None:
        yield (
            f"The last firing is {end.isoformat()}. After it the dev server fires the cron"
            " again every few seconds, and crons created later not at all: delete it then, for"
            " example with temporary_cron."
        )


def _season_warnings(anchor: datetime, timezone: str | None, now: datetime) -> tuple[str, ...]:
    """Warn of the part of the year in which Prefect shifts an interval of whole days.

    Prefect 3.8 leaps from the anchor in seconds, not in days, and then keeps the hour it lands on
    (`IntervalSchedule._get_dates_generator`), against its own documentation. 3.9 keeps the anchor's.
    """
    if not is_prefect_before_3_9():
        return ()
    zone = ZoneInfo(timezone or "UTC")
    edges = [now, *clock_changes(zone, now, now + HORIZON), now + HORIZON]
    shifted = [
        f"{start.astimezone(zone):%Y-%m-%d} to {end.astimezone(zone):%Y-%m-%d}"
        for start, end in pairwise(edges)
        if start.astimezone(zone).utcoffset() != anchor.utcoffset()
    ]
    if not shifted:
        return ()
    return (
        f"From {text.english_list(shifted)} the clock in {zone.key} differs from the anchor date's,"
        f" and Prefect fires the interval at another hour. The server fires at {anchor:%H:%M} all"
        " year.",
    )


def _daylight_warnings(cron: str, timezone: str | None, now: datetime) -> Iterator[str]:
    if timezone is None:
        return
    zone = ZoneInfo(timezone)
    for change in clock_changes(zone, now, now + HORIZON):
        server, prefect = fires_around(cron, zone, change, now)
        if server != prefect:
            yield (
                f"{change.astimezone(zone):%Y-%m-%d}: clocks change in {timezone}. The server fires"
                f" at {_times(server, zone)}, Prefect at {_times(prefect, zone)}. Use timezone="
                "'UTC', or an hour that the change leaves alone, to fire alike."
            )


def _times(fires: Iterable[datetime], zone: ZoneInfo) -> str:
    found = [f"{fire.astimezone(zone):%H:%M%z}" for fire in fires]
    if len(found) > 4:
        found = [*found[:3], f"{len(found) - 3} times more"]
    return text.english_list(found) if found else "no time"
