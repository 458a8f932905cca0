"""A picture of a fan-out over time, as SVG. Pure.

Two panels share the time axis: all runs by state, stacked, and the runs in flight on a scale of their
own, since fifty of ten thousand would not show. A state that has a single run among thousands keeps a
line of its own.

Prefect's pages are light or dark by a choice of their reader that an image does not learn of, and no
grey is easy to read on both. So the picture has a background of its own, dark, which suits both.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from prefect_langgraph.models import RunStatus


@dataclass(frozen=True)
class Sample:
    """How many runs of a fan-out were in each state at one moment.

    Attributes:
        seconds: Since the fan-out began.
        waiting: Not yet sent to the server.
        in_flight: Taken by the server and not ended: pending or running there.
        ended: How many ended with each status; a status that none has is absent.
    """

    seconds: float
    waiting: int
    in_flight: int
    ended: Mapping[RunStatus, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All runs of the fan-out."""
        return self.waiting + self.in_flight + sum(self.ended.values())


@dataclass(frozen=True)
class _Band:
    name: str
    colour: str
    heights: Sequence[int]


_BACKGROUND = "#1d2129"

_TEXT = "#c9d0da"

_GRID = "#fff3"

_IN_FLIGHT = "#4c8dff"

_WAITING = "#5b6472"

# From the bottom up; a test holds the keys against the statuses that are an end.
OUTCOME_COLOURS = {
    RunStatus.SUCCESS: "#35ab78",
    RunStatus.INTERRUPTED: "#a77be0",
    RunStatus.CANCELLED: "#b98a60",
    RunStatus.TIMEOUT: "#f0b429",
    RunStatus.ERROR: "#f0525f",
    RunStatus.LOST: "#f59ad0",
}

_WIDTH, _LEFT, _RIGHT = 900, 72, 880

_LEGEND_TOP, _LEGEND_ROW, _LEGEND_COLUMN, _LEGEND_COLUMNS = 30, 22, 202, 4

_STACK_HEIGHT, _FLIGHT_HEIGHT, _GAP = 210, 70, 34

_THINNEST = 2.0

_ENOUGH_TICKS = 6


def timeline_svg(samples: Sequence[Sample], *, seconds: float) -> str:
    """Draw the samples of a fan-out that took `seconds`.

    Args:
        samples: In order of time; the last one holds until the end. At least one.
        seconds: How long the fan-out took.
    """
    bands = _bands(samples)
    total = max(sample.total for sample in samples)
    took = max(seconds, samples[-1].seconds)
    # Room to see what was so at the end.
    end = max(took * 1.02, 0.01)
    stack_top = _LEGEND_TOP + _LEGEND_ROW * math.ceil(len(bands) / _LEGEND_COLUMNS) + 6
    flight_top = stack_top + _STACK_HEIGHT + _GAP
    bottom = flight_top + _FLIGHT_HEIGHT
    xs = [_LEFT + (_RIGHT - _LEFT) * min(sample.seconds, end) / end for sample in samples]
    flights = [sample.in_flight for sample in samples]
    summary = ", ".join(f"{band.heights[-1]:,} {band.name}" for band in bands if band.heights[-1])
    parts = [
        f"<title>{escape(f'{total:,} runs over {duration(took)}: {summary}')}</title>",
        *_legend(bands),
        *_time_axis(end, [(stack_top, _STACK_HEIGHT), (flight_top, _FLIGHT_HEIGHT)], bottom),
        *_count_axis(total, stack_top, _STACK_HEIGHT),
        *_stack(bands, total, xs, stack_top),
        _label(_LEFT, flight_top - 8, f"in flight, at most {max(flights):,} at once", "start"),
        *_count_axis(max(flights), flight_top, _FLIGHT_HEIGHT),
        _flight(flights, xs, flight_top),
    ]
    height = bottom + 36
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" font-family="system-ui,sans-serif" '
        f'font-size="13" fill="{_TEXT}">'
        f'<rect width="{_WIDTH}" height="{height}" rx="10" fill="{_BACKGROUND}"/>{"".join(parts)}</svg>'
    )


def data_uri(svg: str) -> str:
    """The picture as an address that an image in markdown can have."""
    # Base64, because markdown gives a meaning to parentheses, spaces and quotes.
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def duration(seconds: float) -> str:
    """Seconds as people say them: `4.2 s`, `3 min 20 s`, `1 h 5 min`."""
    if seconds < 0.0005:
        return "0 s"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


def _bands(samples: Sequence[Sample]) -> list[_Band]:
    """The states that occur, from the bottom of the stack up."""
    outcomes = [
        _Band(str(status), colour, [sample.ended.get(status, 0) for sample in samples])
        for status, colour in OUTCOME_COLOURS.items()
    ]
    here = [
        _Band("in flight", _IN_FLIGHT, [sample.in_flight for sample in samples]),
        _Band("waiting to start", _WAITING, [sample.waiting for sample in samples]),
    ]
    return [band for band in (*outcomes, *here) if any(band.heights)]


def _legend(bands: Sequence[_Band]) -> Iterable[str]:
    for index, band in enumerate(bands):
        row, column = divmod(index, _LEGEND_COLUMNS)
        x, y = _LEFT + column * _LEGEND_COLUMN, _LEGEND_TOP + row * _LEGEND_ROW
        count = f"{band.heights[-1]:,}" if band.heights[-1] else ""
        yield f'<rect x="{x}" y="{y - 11}" width="13" height="13" rx="3" fill="{band.colour}"/>'
        bold = f'<tspan font-weight="600" fill="#fff">{count}</tspan>'
        yield f'<text x="{x + 20}" y="{y}">{escape(band.name)} {bold}</text>'


def _stack(bands: Sequence[_Band], total: int, xs: Sequence[float], top: float) -> Iterable[str]:
    """The bands, each painted over the lower part of the one above it."""
    tops = [0.0] * len(xs)
    shapes: list[str] = []
    for band in bands:
        for index, height in enumerate(band.heights):
            drawn = _STACK_HEIGHT * height / max(total, 1)
            tops[index] += max(drawn, _THINNEST) if height else 0.0
        edge = [max(top, top + _STACK_HEIGHT - height) for height in tops]
        path = f"{_steps(xs, edge)}V{top + _STACK_HEIGHT:g}H{xs[0]:.1f}Z"
        shapes.append(f'<path d="{path}" fill="{band.colour}"/>')
    return reversed(shapes)


def _flight(flights: Sequence[int], xs: Sequence[float], top: float) -> str:
    base, peak = top + _FLIGHT_HEIGHT, max(*flights, 1)
    edge = [base - _FLIGHT_HEIGHT * count / peak for count in flights]
    line = _steps(xs, edge)
    return (
        f'<path d="{line}V{base:g}H{xs[0]:.1f}Z" fill="{_IN_FLIGHT}" fill-opacity=".35"/>'
        f'<path d="{line}" fill="none" stroke="{_IN_FLIGHT}" stroke-width="1.5"/>'
    )


def _steps(xs: Sequence[float], ys: Sequence[float]) -> str:
    """A line that keeps each height until the next: between two samples nothing is known to change."""
    points = [f"M{xs[0]:.1f} {ys[0]:.1f}"]
    for x, y, before in zip(xs[1:], ys[1:], ys, strict=False):
        points.append(f"H{x:.1f}" if y == before else f"H{x:.1f}V{y:.1f}")
    return "".join(points) + f"H{_RIGHT}"


def _count_axis(most: int, top: float, height: float) -> Iterable[str]:
    base = top + height
    yield f'<path d="M{_LEFT} {top:g}H{_RIGHT}M{_LEFT} {base:g}H{_RIGHT}" stroke="{_GRID}"/>'
    yield _label(_LEFT - 8, base + 4, "0", "end")
    if most:
        yield _label(_LEFT - 8, top + 9, f"{most:,}", "end")


def _time_axis(end: float, panels: Sequence[tuple[float, float]], bottom: float) -> Iterable[str]:
    step = _tick_step(end)
    for index in range(int(end / step + 1e-9) + 1):
        x = _LEFT + (_RIGHT - _LEFT) * index * step / end
        for top, height in panels:
            yield f'<path d="M{x:.1f} {top:g}v{height:g}" stroke="{_GRID}"/>'
        # The label of a tick at the very end would be cut off in the middle.
        anchor = "end" if x > _RIGHT - 20 else "middle"
        yield _label(x, bottom + 18, duration(index * step) if index else "0", anchor)


def _tick_step(end: float) -> float:
    """Seconds between ticks: a round number, and few enough ticks."""
    rough = end / _ENOUGH_TICKS
    for step in (60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200):
        if 30 < rough <= step:
            return float(step)
    if rough > 43200:
        return 86400.0 * math.ceil(rough / 86400)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
