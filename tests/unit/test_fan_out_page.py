"""The report of a fan-out, as markdown and as the page that markdown becomes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from markdown_it import MarkdownIt

from prefect_langgraph.models import Origin, RunHandle, RunStatus
from prefect_langgraph.reports.fan_out_page import (
    ERROR_CHARACTERS,
    FAILURES_SHOWN,
    artifact_key,
    fan_out_report,
    literal,
    percentiles,
    publish_report,
)
from prefect_langgraph.reports.timeline import Sample
from prefect_langgraph.results import FanOutResult, RunFailure, RunResult, Usage

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
HINT = "Run it again with the same `output_path`."


def ended(
    number: int = 0,
    status: RunStatus = RunStatus.SUCCESS,
    *,
    error: RunFailure | None = None,
    seconds: float | None = None,
    usage: Usage | None = None,
    origin: Origin = "started",
    values: Any = None,
) -> RunResult:
    return RunResult(
        handle=RunHandle(
            run_id=f"run-{number}",
            thread_id="thread",
            assistant_id="answer",
            url="http://localhost:2024",
            origin=origin,
        ),
        status=status,
        values=values,
        error=error,
        created_at=BEGAN if seconds is not None else None,
        ended_at=BEGAN + timedelta(seconds=seconds) if seconds is not None else None,
        usage=usage,
    )


def report(
    results: Sequence[RunResult],
    *,
    samples: Sequence[Sample] | None = None,
    link: str | None = None,
) -> str:
    if samples is None:
        samples = [Sample(0.0, len(results), 0), Sample(2.0, 0, len(results))]
    return fan_out_report(
        FanOutResult(results=tuple(results)),
        title="Runs of answer",
        samples=samples,
        seconds=2.0,
        links=None if link is None else lambda item: f"{link}{item.handle.run_id}",
        rerun_hint=HINT,
    )


def section(markdown: str, heading: str) -> str:
    return markdown.partition(f"## {heading}\n\n")[2].partition("\n## ")[0]


def page(markdown: str) -> str:
    """What a reader sees of it, as HTML."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    # Prefect's pages allow every image in a data: address, this parser by itself not SVG.
    parser.validateLink = lambda url: True  # type: ignore[method-assign]
    return str(parser.render(markdown))


def row(markdown: str) -> list[str]:
    return [cell.strip() for cell in markdown.strip().splitlines()[-1].strip("|").split("|")]


def test_success_of_all_is_said_first_and_nothing_of_failures() -> None:
    shown = report([ended(n) for n in range(1_200)])
    assert "**All 1,200 runs succeeded** in 2 s, 600 a second. All started by this attempt." in shown
    assert "| success | 1,200 | 100 % |" in section(shown, "Outcomes")
    assert HINT not in shown
    assert "did not succeed" not in shown


def test_failures_are_counted_by_outcome_and_followed_by_how_to_rerun_them() -> None:
    results = [ended(n) for n in range(7)]
    results += [ended(7, RunStatus.ERROR), ended(8, RunStatus.ERROR), ended(9, RunStatus.LOST)]
    shown = report(results)
    assert "**3 of 10 runs did not succeed**" in shown
    assert re.findall(r"\| (\w+) \| (\d+) \| (\d+) % \|", shown) == [
        ("success", "7", "70"),
        ("error", "2", "20"),
        ("lost", "1", "10"),
    ]
    assert shown.rstrip().endswith(HINT)


def test_every_status_has_a_row_with_its_meaning() -> None:
    rows = section(report([ended(0, status) for status in RunStatus]), "Outcomes")
    for status in RunStatus:
        assert re.search(rf"^\| {status} \| 1 \| 12.50 % \| \S.+ \|$", rows, flags=re.MULTILINE)


def test_runs_that_were_adopted_or_restarted_are_told_from_started_ones() -> None:
    origins: list[Origin] = ["started"] * 7 + ["adopted"] * 2 + ["restarted"]
    shown = report([ended(n, origin=origin) for n, origin in enumerate(origins)])
    assert (
        ". 7 started by this attempt, 2 adopted from an earlier attempt, "
        "1 started afresh after they had failed in an earlier attempt."
    ) in shown


def test_runs_that_an_earlier_flow_run_had_finished_are_not_counted_as_started() -> None:
    shown = report([ended(n) for n in range(10)], samples=[Sample(0.0, 4, 0), Sample(2.0, 0, 4)])
    assert (
        "in 2 s, 2 a second. 6 succeeded before and were skipped, 4 started by this attempt." in shown
    )


def test_latency_percentiles_are_of_the_runs_that_ended() -> None:
    results = [ended(n, seconds=float(n)) for n in range(101)] + [ended(101, RunStatus.RUNNING)]
    shown = section(report(results), "Time per run")
    assert "101 runs" in shown
    assert row(shown) == ["50 s", "1 min 30 s", "1 min 39 s", "1 min 40 s"]


def test_percentiles_of_one_run_are_that_run() -> None:
    assert percentiles([4.0]) == (4.0, 4.0, 4.0)


def test_unknown_times_leave_latency_out() -> None:
    assert "Time per run" not in report([ended()])


def test_tokens_are_added_up_where_messages_carry_them() -> None:
    usage = Usage(input_tokens=1_000, output_tokens=200, total_tokens=1_200)
    shown = section(report([ended(0, usage=usage), ended(1, usage=usage), ended(2)]), "Tokens")
    assert "the messages of 2 runs" in shown
    assert "1 run said none" in shown
    assert row(shown) == ["2,000", "400", "2,400", "1,200", "1,200", "1,200"]
    assert "The dearest: input 0: 1,200, input 1: 1,200." in shown
    assert "Tokens" not in report([ended()])


def test_dearest_runs_lead_to_their_pages_where_they_have_one() -> None:
    usage = Usage(total_tokens=7)
    results = [ended(number, usage=usage) for number in range(2)]
    shown = section(report(results, link="https://example.com/"), "Tokens")
    assert "input 1: 7 ([run-1](https://example.com/run-1))." in shown


def test_first_failures_are_listed_with_input_error_and_link() -> None:
    results = [ended(0), ended(1, RunStatus.ERROR, error=RunFailure(error="ValueError", message="no"))]
    shown = section(report(results, link="https://example.com/"), "The run that did not succeed")
    assert shown.startswith(
        "- **Input 1**, error: ValueError\\: no ([run-1](https://example.com/run-1))"
    )


def test_thousands_of_failures_are_listed_up_to_a_limit_and_counted_by_reason() -> None:
    boom, rare = RunFailure(error="Boom"), RunFailure(error="Rare")
    results = [ended(0, RunStatus.ERROR, error=rare)]
    results += [ended(n, RunStatus.ERROR, error=boom) for n in range(1, 5_000)]
    shown = report(results)
    first = section(shown, "First runs that did not succeed")
    assert f"The first {FAILURES_SHOWN} of 5,000 runs." in first
    assert len(re.findall(r"^- ", first, flags=re.MULTILINE)) == FAILURES_SHOWN
    assert section(shown, "Why").splitlines()[:2] == [
        "- **4,999 runs, error**: Boom",
        "- **1 run, error**: Rare",
    ]
    assert len(shown) < 20_000


def test_thousands_of_different_errors_are_bounded_too() -> None:
    results = [
        ended(n, RunStatus.ERROR, error=RunFailure(error="E", message=f"{n // 2} " + "x" * 10_000))
        for n in range(4_000)
    ]
    shown = report(results)
    assert f"The most frequent {FAILURES_SHOWN} of 2,000 reasons." in shown
    per_run = section(shown, "First runs that did not succeed").splitlines()[2:]
    assert all(len(line) < 200 for line in per_run)
    assert len(shown) < 20_000


@pytest.mark.parametrize(
    "text",
    [
        "a | b",
        "`code` and ``more``",
        "<img src=x onerror=alert(1)> & &amp;",
        "[a](javascript:alert(1)) ![b](http://x) [c]: d",
        "**bold** _em_ ~~gone~~ # no heading",
        "\\ back\\slash \\| \\`",
        "1. no list - + *",
        "$x$ {{ jinja }} %}",
    ],
)
def test_error_text_is_shown_as_it_is(text: str) -> None:
    results = [ended(0), ended(1, RunStatus.ERROR, error=RunFailure(error="Error", message=text))]
    html = page(section(report(results), "The run that did not succeed"))
    shown = re.sub(r"<li>|</li>|<ul>|</ul>|<strong>|</strong>|<h2>.*|\n", "", html)
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert shown.partition("<p>")[0].startswith(f"Input 1, error: Error: {escaped} (run-1)")


def test_error_text_of_many_lines_is_one_bounded_line() -> None:
    assert literal("a\n\n# b\r\n\tc\u2028d\u202ee\x00f") == "a \\# b c d e f"
    assert len(literal("x" * 10_000)) == ERROR_CHARACTERS
    assert literal("x" * 10_000).endswith("x…")


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("https://user:hunter2@example.com/a?b=1&c=2#d", "https://example.com/a?b=1&amp;c=2#d"),
        ("https://example.com/a b)c(<d>\n", "https://example.com/a%20b%29c%28%3Cd%3E"),
        ("http://[::1]:2024/x", "http://%5B::1%5D:2024/x"),
    ],
)
def test_link_leads_where_it_should_and_carries_no_password(address: str, target: str) -> None:
    html = page(report([ended(0, RunStatus.ERROR)], link=address))
    assert f'href="{target}' in html
    assert "hunter2" not in html


@pytest.mark.parametrize("address", ["javascript:alert(1)//", "data:text/html,", "/runs/", ""])
def test_address_that_is_no_page_is_not_a_link(address: str) -> None:
    shown = report([ended(0, RunStatus.ERROR)], link=address)
    assert "(run-0)" in shown
    assert "](" not in section(shown, "The run that did not succeed")


def test_run_that_never_got_an_id_is_listed_without_one() -> None:
    never = RunResult(
        handle=RunHandle(run_id="", thread_id="", assistant_id="a", url="http://x"),
        status=RunStatus.ERROR,
        error=RunFailure(error="InvalidRequestError"),
    )
    assert "- **Input 0**, error: InvalidRequestError\n" in report([never])


def test_picture_is_an_image_that_says_in_words_what_it_shows() -> None:
    results = [*(ended(n) for n in range(9)), ended(9, RunStatus.TIMEOUT)]
    html = page(report(results))
    assert re.search(r'<img src="data:image/svg\+xml;base64,[^"]+"', html)
    assert 'alt="Timeline of 10 runs over 2 s: 9 success, 1 timeout"' in html


def test_values_and_interrupts_are_in_no_report() -> None:
    secret = "sk-very-secret"
    result = RunResult(
        handle=ended().handle,
        status=RunStatus.INTERRUPTED,
        values={"key": secret},
        interrupts=({"id": "i", "value": secret},),
    )
    assert secret not in report([result, ended(1, values={"key": secret})])


def test_fan_out_of_nothing_has_a_report() -> None:
    shown = report([], samples=[Sample(0.0, 0, 0)])
    assert "There was nothing to run." in shown
    assert "![" not in shown


def test_key_has_only_the_characters_that_prefect_allows() -> None:
    assert artifact_key("Fan-out: My_Agent/ä  v2!") == "fan-out-my-agent-v2"
    assert len(artifact_key("x" * 1_000)) <= 100


def test_report_outside_a_flow_run_is_not_published(caplog: pytest.LogCaptureFixture) -> None:
    # No server answers here; an attempt would be logged as one that failed.
    asyncio.run(publish_report("# x", key="k", description="d"))
    assert caplog.text == ""
