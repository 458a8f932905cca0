"""When a cron fires on the server, and when Prefect would fire the same cron.

The two part only where a zone's clock changes: the server fires twice in an hour that comes twice
and moves a skipped time on to the next that exists; Prefect fires once and shifts the skipped time
by the whole change. What Prefect plans is what this process's Prefect would plan: the Prefect server,
which does it, is not asked for its version.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import version
from itertools import takewhile
from typing import Any
from zoneinfo import ZoneInfo


@cache
def is_prefect_before_3_9() -> bool:
    """Whether Prefect plans schedules as it did before 3.9, which changed what clock changes do."""
    major, minor = version("prefect").split(".")[:2]
    return (int(major), int(minor)) < (3, 9)


def plain(moment: datetime) -> datetime:
    """Return Python's own datetime: below Python 3.13 Prefect's are Pendulum's, which it deprecates."""
    return datetime.combine(moment.date(), moment.timetz())


def _croniter(cron: str, base: datetime) -> Any:
    # Imported here: 50 ms that an import of the package must not cost.
    from croniter import croniter  # type: ignore[import-untyped]

    return croniter(cron, base)


def server_fires(cron: str, timezone: str | None, after: datetime) -> Iterator[datetime]:
    """Yield the firings that the server computes, each from the one before it."""
    from croniter import CroniterBadDateError

    base = after.astimezone(ZoneInfo(timezone)) if timezone else after
    fires = _croniter(cron, base)
    while True:
        try:
            fire: datetime = fires.get_next(datetime)
        except CroniterBadDateError:
            return
        yield fire.astimezone(UTC)


def last_fire(cron: str, timezone: str | None) -> datetime | None:
    """Return the last firing of a cron with a limited year field, or None."""
    from croniter import croniter

    years = croniter.expand(cron)[0][6:]
    if not years or years[0] == ["*"]:
        return None
    after_the_last = datetime(max(years[0]) + 1, 1, 2, tzinfo=UTC)
    base = after_the_last.astimezone(ZoneInfo(timezone or "UTC"))
    last: datetime = _croniter(cron, base).get_prev(datetime)
    return last.astimezone(UTC)


def clock_changes(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """Yield the moments, to the second, at which the zone's offset from UTC changes."""
    day = timedelta(days=1)
    while start < end:
        low, high = start, min(start + day, end)
        start = high
        if low.astimezone(zone).utcoffset() == high.astimezone(zone).utcoffset():
            continue
        old = low.astimezone(zone).utcoffset()
        while high - low > timedelta(seconds=1):
            middle = low + (high - low) / 2
            if middle.astimezone(zone).utcoffset() == old:
                low = middle
            else:
                high = middle
        yield high.replace(microsecond=0)


def fires_around(
    cron: str, zone: ZoneInfo, change: datetime, now: datetime
) -> tuple[list[datetime], list[datetime]]:
    """Return what the server and what Prefect fire while a clock change makes a difference."""
    before = (change - timedelta(minutes=1)).astimezone(zone)
    offsets: tuple[Any, Any] = before.utcoffset(), change.astimezone(zone).utcoffset()
    reach = abs(offsets[1] - offsets[0])
    start, end = max(now, change - reach - timedelta(seconds=1)), change + reach
    fields = cron.split()
    # Every minute that fires at all tells the dates; all its seconds would take a second to list.
    minutes = " ".join([*fields[:5], *(["0", *fields[6:]] if len(fields) == 7 else [])])
    server = takewhile(
        lambda fire: fire < end, server_fires(minutes, zone.key, _previous(minutes, zone, start))
    )
    wall = (start - 2 * reach).astimezone(zone).replace(tzinfo=None)
    until = (end + 2 * reach).astimezone(zone).replace(tzinfo=None)
    walls = takewhile(
        lambda fire: fire.replace(tzinfo=None) < until,
        server_fires(minutes, None, wall.replace(tzinfo=UTC)),
    )
    prefect = sorted({_prefect_moment(fire.replace(tzinfo=None), zone) for fire in walls})
    return (
        [fire for fire in server if start < fire],
        [fire for fire in prefect if start < fire < end],
    )


def _previous(cron: str, zone: ZoneInfo, moment: datetime) -> datetime:
    """Return the firing from which the server computed the first one after a moment."""
    from croniter import CroniterBadDateError

    try:
        previous: datetime = _croniter(cron, moment.astimezone(zone)).get_prev(datetime)
    except CroniterBadDateError:
        return moment
    return previous.astimezone(UTC)


def _prefect_moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment that Prefect makes of a local time: always one, and the first of two."""
    moment = wall.replace(tzinfo=zone).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == wall:
        return moment
    if sys.version_info >= (3, 13) or not is_prefect_before_3_9():
        return moment
    # Prefect 3.8 uses pendulum below Python 3.13, which moves a time that is skipped back, not on.
    return wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
