"""The picture of a fan-out, read back from its SVG."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest

from prefect_langgraph.models import RunStatus
from prefect_langgraph.reports.timeline import OUTCOME_COLOURS, Sample, data_uri, duration, timeline_svg

SVG = "{http://www.w3.org/2000/svg}"
ENDED = {status for status in RunStatus if status.ended}


def draw(samples: Sequence[Sample], seconds: float) -> ElementTree.Element:
    return ElementTree.fromstring(timeline_svg(samples, seconds=seconds))  # noqa: S314 our own


def texts(svg: ElementTree.Element) -> list[str]:
    return ["".join(node.itertext()) for node in svg.iter(f"{SVG}text")]


def heights_at_the_end(svg: ElementTree.Element) -> dict[str, float]:
    """How far up each filled band reaches where the picture ends, by its colour."""
    found: dict[str, float] = {}
    for path in svg.iter(f"{SVG}path"):
        fill = path.get("fill", "none")
        if fill == "none" or path.get("fill-opacity"):
            continue
        edge, base = path.attrib["d"].removesuffix("Z").rsplit("V", 1)
        last = re.findall(r"V([\d.]+)|M[\d.]+ ([\d.]+)", edge)[-1]
        found[fill] = float(base.partition("H")[0]) - float(last[0] or last[1])
    return found


def test_every_way_to_end_has_a_colour_of_its_own() -> None:
    assert set(OUTCOME_COLOURS) == ENDED
    assert len(set(OUTCOME_COLOURS.values())) == len(ENDED)


def test_legend_counts_each_state_that_occurs_and_no_other() -> None:
    samples = [
        Sample(0.0, waiting=10, in_flight=0),
        Sample(0.5, waiting=0, in_flight=10),
        Sample(2.0, waiting=0, in_flight=1, ended={RunStatus.SUCCESS: 8, RunStatus.ERROR: 1}),
    ]
    shown = texts(draw(samples, 2.0))
    assert {"success 8", "error 1", "in flight 1", "waiting to start "} <= set(shown)
    assert not any(text.startswith(("lost", "timeout")) for text in shown)


def test_bands_are_as_high_as_their_share() -> None:
    samples = [Sample(1.0, 0, 0, {RunStatus.SUCCESS: 75, RunStatus.ERROR: 25})]
    heights = heights_at_the_end(draw(samples, 1.0))
    success = heights[OUTCOME_COLOURS[RunStatus.SUCCESS]]
    # The band above is painted behind it, up to the top of the panel.
    assert success / heights[OUTCOME_COLOURS[RunStatus.ERROR]] == pytest.approx(0.75, abs=0.001)


def test_one_failure_of_ten_thousand_still_has_a_line() -> None:
    ended = {RunStatus.SUCCESS: 5_000, RunStatus.ERROR: 1}
    heights = heights_at_the_end(draw([Sample(1.0, 0, 4_999, ended)], 1.0))
    gap = heights[OUTCOME_COLOURS[RunStatus.ERROR]] - heights[OUTCOME_COLOURS[RunStatus.SUCCESS]]
    assert gap >= 2


def test_in_flight_has_a_scale_of_its_own() -> None:
    samples = [Sample(float(n), 10_000 - 50 - n, 50, {RunStatus.SUCCESS: n}) for n in range(100)]
    assert "in flight, at most 50 at once" in texts(draw(samples, 100.0))


def test_end_of_a_fan_out_that_ends_all_at_once_is_seen() -> None:
    samples = [Sample(0.0, 0, 1), Sample(3.0, 0, 0, {RunStatus.SUCCESS: 1})]
    path = next(
        path.attrib["d"]
        for path in draw(samples, 3.0).iter(f"{SVG}path")
        if path.get("fill") == OUTCOME_COLOURS[RunStatus.SUCCESS]
    )
    risen, right = (float(x) for x in re.findall(r"H([\d.]+)", path)[:2])
    assert right - risen > 10


@pytest.mark.parametrize("seconds", [0.0, 0.004, 0.7, 9, 59, 61, 3_599, 3_601, 90_000, 3_000_000])
def test_time_axis_has_a_few_round_ticks(seconds: float) -> None:
    svg = draw([Sample(0.0, 1, 0), Sample(seconds, 0, 0, {RunStatus.SUCCESS: 1})], seconds)
    bottom = max(float(node.attrib["y"]) for node in svg.iter(f"{SVG}text"))
    ticks = [node.text for node in svg.iter(f"{SVG}text") if float(node.attrib["y"]) == bottom]
    assert ticks[0] == "0"
    assert 3 <= len(ticks) <= 8
    assert len(set(ticks)) == len(ticks)


def test_no_run_at_all_is_drawn_without_an_error() -> None:
    assert draw([Sample(0.0, 0, 0)], 0.0).tag == f"{SVG}svg"


def test_address_of_the_picture_holds_the_picture_and_nothing_that_ends_a_link() -> None:
    svg = timeline_svg([Sample(0.0, 1, 0)], seconds=1.0)
    head, _, body = data_uri(svg).partition(",")
    assert head == "data:image/svg+xml;base64"
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", body)
    assert base64.b64decode(body).decode() == svg


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.0126, "13 ms"),
        (0.9996, "1 s"),
        (4.0, "4 s"),
        (4.26, "4.3 s"),
        (59.97, "1 min"),
        (200, "3 min 20 s"),
        (3_599.7, "1 h"),
        (3_900, "1 h 5 min"),
        (3_600 * 1_000, "1,000 h"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said
