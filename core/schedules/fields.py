"""What can be read off a schedule's text or an interval, without asking when it fires.

Pure: text and numbers in, text or a refusal out. `prefect_langgraph.schedules` is the public side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from prefect_langgraph.errors import ScheduleError

MINUTE, HOUR, DAY, WEEK = 60, 3600, 86_400, 604_800

# From these lengths on, an interval is one cron: each divides the next unit without a rest.
CRON_INTERVALS: tuple[int, ...] = (
    *(n for n in range(1, 60) if 60 % n == 0),
    *(n * MINUTE for n in range(1, 60) if 60 % n == 0),
    *(n * HOUR for n in range(1, 24) if 24 % n == 0),
    DAY,
    WEEK,
)

EPOCH_WEEKDAY = 4  # 1 January 1970 was a Thursday; cron counts from Sunday.

INSTEAD_OF_SECONDS = "If no seconds are meant, leave the sixth field out."

MAX_SPLIT = 4  # More crons than this are no advice.

_FIELD_SIZES = (60, 24, 31, 12, 7, 60)

_RANDOM_FIELD = re.compile(r"^[hr](\(\d+-\d+\))?(/\d+)?$", re.IGNORECASE)

_LAST_WEEKDAY = re.compile(r"^([0-7])L$", re.IGNORECASE)

_LARGEST = ("59", "23", "31", "12|dec", "6|sat", "59", "2099")

_LARGEST_WITH_STEP = tuple(re.compile(rf"^({value})/(\d+)$", re.IGNORECASE) for value in _LARGEST)

_UNITS = ((WEEK, "week"), (DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"), (1, "second"))


def tidy(schedule: str) -> str:
    """Return the schedule with single blanks, so that equal crons are equal texts.

    Example:
        >>> tidy("  0  9 * * MON ")
        '0 9 * * MON'
    """
    return " ".join(schedule.split())


def seconds_first(fields: Sequence[str]) -> str:
    """Return six or seven fields, read with the seconds in front, in the server's order.

    Example:
        >>> seconds_first("0 30 9 * * 1".split())
        '30 9 * * 1'
        >>> seconds_first("15 30 9 * * 1".split())
        '30 9 * * 1 15'
    """
    second, rest, year = fields[0], list(fields[1:6]), list(fields[6:])
    if second == "0" and year in ([], ["*"], ["?"]):
        return " ".join(rest)
    return " ".join([*rest, second, *year])


def refuse_text(schedule: str) -> None:
    """Raise for what no Deploy cron says, whatever its fields.

    Raises:
        ScheduleError: `@reboot`, `@every`, Jenkins' H and R, or a number of fields that is not
            five, six or seven.
    """
    name = schedule.lower()
    if name == "@reboot":
        raise ScheduleError(
            "'@reboot' fires when a machine starts, and a deployment has no such moment. Start the"
            " run where the start happens, with start_run, or write a time such as '0 0 * * *'."
        )
    if name.startswith("@every"):
        raise ScheduleError(
            f"{schedule!r} is an interval, not a cron. Write prefect.schedules.Interval("
            "timedelta(minutes=5)) or the equal cron '*/5 * * * *'."
        )
    if name.startswith("@"):
        return
    fields = schedule.split()
    for field in fields:
        if _RANDOM_FIELD.match(field):
            raise ScheduleError(
                f"{schedule!r} leaves the choice of {field!r} to the scheduler: H is refused by the"
                " server, and R is drawn again for every firing. Write a fixed value, such as"
                " '17 3 * * *'."
            )
    if len(fields) not in (5, 6, 7):
        raise ScheduleError(
            f"{schedule!r} has {len(fields)} fields. A cron has five (minute, hour, day of month,"
            " month, day of week), as in '0 9 * * 1-5', or a name such as '@daily'."
        )


def spelling_hint(fields: Sequence[str]) -> str:
    """Return advice for spellings of other crons that the server does not read, or nothing."""
    if len(fields) >= 5 and (last := _LAST_WEEKDAY.match(fields[4])):
        return f" The last such weekday of the month is written 'L{last[1]}' here."
    if len(fields) >= 5 and fields[2].upper().startswith(("L-", "LW")):
        return " Days counted from the end of the month cannot be said; 'L' alone, the last day, can."
    return ""


def largest_with_step(fields: Sequence[str]) -> list[str]:
    """Return the parts such as `59/15` that the server and Prefect read differently.

    Croniter 7, on the server, reads the field's largest value alone; the older croniter in
    Prefect reads a step over the whole field.

    Example:
        >>> largest_with_step("59/15 0,23/2 * * *".split())
        ['59/15', '23/2']
    """
    return [
        part
        for field, pattern in zip(fields, _LARGEST_WITH_STEP, strict=False)
        for part in field.split(",")
        if pattern.match(part)
    ]


def day_and_hint(day_of_month: str, day_of_week: str) -> str:
    """Return how to say "this day of the month and this weekday" where a cron can, or how not.

    Example:
        >>> day_and_hint("8-14", "fri")
        "Write the day of week 'fri#2' and the day of month '*'."
    """
    block = re.fullmatch(r"(\d+)-(\d+)", day_of_month)
    names = day_of_week.split(",")
    if block and all(re.fullmatch(r"[0-7]|[a-zA-Z]{3}", name) for name in names):
        first, last = int(block[1]), int(block[2])
        if first in (1, 8, 15, 22) and last == first + 6:
            weekdays = ",".join(f"{name}#{first // 7 + 1}" for name in names)
            return f"Write the day of week {weekdays!r} and the day of month '*'."
    return (
        "A weekday counted within its month can be said, such as '0 9 * * 5#2' for the second"
        " Friday; otherwise let a Prefect deployment with this schedule call run_stateless."
    )


def interval_cron(interval: timedelta, anchor: datetime | None) -> str:
    """Return the cron that fires every `interval`, in step with `anchor`.

    Args:
        interval: The time between two firings.
        anchor: Any one firing. Below a day its UTC time counts, from a day on its own local time.
            None puts the firings on the whole units, from Sunday midnight on.

    Raises:
        ScheduleError: No single cron fires so. The message names those that come close.

    Example:
        >>> interval_cron(timedelta(minutes=15), None)
        '*/15 * * * *'
        >>> interval_cron(timedelta(days=7), datetime(2026, 1, 5, 9, 30, tzinfo=UTC))
        '30 9 * * 1'
    """
    seconds = whole_seconds(interval)
    phase = _phase(anchor, absolute=seconds < DAY) % seconds
    if seconds not in CRON_INTERVALS:
        raise ScheduleError(_odd_interval(seconds, phase))
    minute, hour, weekday = "*", "*", "*"
    second = _field(range(phase % MINUTE, 60, seconds), 60) if seconds < MINUTE else str(phase % 60)
    if seconds >= MINUTE:
        minute = _field(range(phase % HOUR // MINUTE, 60, max(1, seconds // MINUTE)), 60)
    if seconds >= HOUR:
        hour = _field(range(phase % DAY // HOUR, 24, max(1, seconds // HOUR)), 24)
    if seconds == WEEK:
        weekday = str(phase // DAY)
    five = f"{minute} {hour} * * {weekday}"
    return five if second == "0" else f"{five} {second}"


def describe(seconds: int) -> str:
    """Return a length of time in its largest whole unit.

    Example:
        >>> describe(5400)
        '90 minutes'
    """
    size, unit = next(pair for pair in _UNITS if seconds % pair[0] == 0)
    count = seconds // size
    return f"{count} {unit}{'' if count == 1 else 's'}"


def english_list(items: Iterable[str], word: Literal["and", "or"] = "and") -> str:
    """Return items as English lists them.

    Example:
        >>> english_list(["a", "b", "c"])
        'a, b and c'
    """
    found = list(items)
    return f" {word} ".join(part for part in (", ".join(found[:-1]), *found[-1:]) if part)


def whole_seconds(interval: timedelta) -> int:
    """Return the seconds of an interval, or raise a `ScheduleError` if it has a fraction."""
    seconds = int(interval.total_seconds())
    if interval <= timedelta(0) or timedelta(seconds=seconds) != interval:
        raise ScheduleError(
            f"An interval of {interval.total_seconds():g} seconds is no cron: it needs a whole"
            " number of seconds, one at least. Write timedelta(seconds=1) or more."
        )
    return seconds


def _phase(anchor: datetime | None, *, absolute: bool) -> int:
    """Seconds since a Sunday midnight, of the UTC clock or of the anchor's own."""
    if anchor is None:
        return 0
    clock = anchor.astimezone(UTC) if absolute else anchor
    elapsed = clock.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (int(elapsed.total_seconds()) + EPOCH_WEEKDAY * DAY) % WEEK


def _field(values: Iterable[int], size: int) -> str:
    """Return the shortest field for evenly spaced values."""
    found = list(values)
    if len(found) == size:
        return "*"
    if len(found) <= 2:
        return ",".join(str(value) for value in found)
    step = found[1] - found[0]
    start = "*" if found[0] == 0 and found[-1] + step >= size else f"{found[0]}-{size - 1}"
    return f"{start}/{step}"


def _odd_interval(seconds: int, phase: int) -> str:
    below = max((n for n in CRON_INTERVALS if n < seconds), default=None)
    above = min((n for n in CRON_INTERVALS if n > seconds), default=None)
    close = english_list((describe(n) for n in (below, above) if n), "or")
    split = _split(seconds, phase) if seconds < DAY and DAY % seconds == 0 else []
    crons = english_list(repr(cron) for cron in split)
    several = f", or make {len(split)} crons in timezone 'UTC': {crons}" if split else ""
    return (
        f"Every {describe(seconds)} is no single cron: a cron starts over every minute, hour, day"
        f" and week, and {describe(seconds)} does not fit into them evenly. Use {close}{several},"
        " or let a Prefect deployment with this schedule call run_stateless."
    )


def _split(seconds: int, phase: int) -> list[str]:
    """Return the few five-field crons that together fire every `seconds`, or none."""
    if seconds % MINUTE or phase % MINUTE:
        return []
    hours_of: dict[int, list[int]] = {}
    for moment in sorted((phase + n * seconds) % DAY for n in range(DAY // seconds)):
        hours_of.setdefault(moment % HOUR // MINUTE, []).append(moment // HOUR)
    minutes_of: dict[tuple[int, ...], list[int]] = {}
    for minute, hours in hours_of.items():
        minutes_of.setdefault(tuple(hours), []).append(minute)
    if len(minutes_of) > MAX_SPLIT:
        return []
    return [
        f"{','.join(str(minute) for minute in minutes)} {_field(hours, 24)} * * *"
        for hours, minutes in minutes_of.items()
    ]
