"""What a fan-out came to, as a page in Prefect's UI. Holds no input, no header and no secret."""

from __future__ import annotations

import asyncio
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote, urlsplit

from prefect.artifacts import MarkdownArtifact
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from prefect_langgraph.logs import run_logger
from prefect_langgraph.models import RunStatus
from prefect_langgraph.reports.timeline import OUTCOME_COLOURS, Sample, data_uri, duration, timeline_svg
from prefect_langgraph.results import FanOutResult, RunResult

Links = Callable[[RunResult], str | None]

DEAREST_SHOWN = 10
FAILURES_SHOWN = 10
"""How many failed runs, and how many different errors, a report lists."""

ERROR_CHARACTERS = 300

SHORT_ERROR_CHARACTERS = 100
"""How much of an error is shown for each run, where it is shown in full above."""

PUBLISH_SECONDS = 30.0

_KEY_CHARACTERS = 100

_IN_ADDRESS = ":/?#@!$&*+,;=%~"

_MEANING = {
    RunStatus.SUCCESS: "ended with its values",
    RunStatus.INTERRUPTED: "waits for a person",
    RunStatus.CANCELLED: "stopped by somebody",
    RunStatus.TIMEOUT: "stopped by the server's own time limit",
    RunStatus.ERROR: "the graph raised an exception",
    RunStatus.LOST: "the server no longer knows it",
    RunStatus.RUNNING: "still running when this was written",
    RunStatus.PENDING: "still waiting on the server when this was written",
}


def current_flow_run() -> FlowRun | None:
    """The flow run that this code runs in, or None outside of any."""
    context = FlowRunContext.get()
    return context.flow_run if context is not None else None


def artifact_key(label: str) -> str:
    """An artifact key for this label in the current flow run; the same when the flow run is retried."""
    flow_run = current_flow_run()
    name = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:_KEY_CHARACTERS]
    # Names of flow runs repeat. The end of an id is random; its beginning may be the time.
    return name if flow_run is None else f"{name}-{flow_run.id.hex[-8:]}"


def fan_out_report(
    result: FanOutResult,
    *,
    title: str,
    samples: Sequence[Sample],
    seconds: float,
    links: Links | None,
    rerun_hint: str,
    budget: str = "",
) -> str:
    """Write the report of a fan-out, in markdown.

    Args:
        result: What became of each run.
        title: The heading, as plain text.
        samples: What `FanOutProgress` saw.
        seconds: How long the fan-out took by the wall clock.
        links: Gives the address of a run's page, or None where there is none.
        rerun_hint: How to run only what failed, in markdown. Shown when something failed.
        budget: What was used of the budget, as plain text.
    """
    sections = [
        f"# {literal(title)}",
        _summary(result, samples, seconds),
        _picture(result, samples, seconds),
        _outcomes(result),
        _latency(result),
        _tokens(result, budget, links),
        *_failures(result, links),
        f"## Run only these again\n\n{rerun_hint}" if result.failed and rerun_hint else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


async def publish_report(markdown: str, *, key: str, description: str) -> None:
    """Make the report an artifact of the current flow run; outside of one, do nothing.

    The results do not depend on it: when Prefect's API refuses, that is logged.
    """
    if current_flow_run() is None:
        return
    try:
        async with asyncio.timeout(PUBLISH_SECONDS):
            await MarkdownArtifact(key=key, description=description, markdown=markdown).acreate()
    except Exception as error:  # noqa: BLE001 a report must not lose the results that it is about
        run_logger().warning("The report of the fan-out was not saved: %s", describe(error))


def describe(error: Exception) -> str:
    """An error of Prefect's API in a few words, without the request."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return type(error).__name__ + (f" (HTTP {status})" if status is not None else "")


def literal(text: str, limit: int = ERROR_CHARACTERS) -> str:
    """Text of somebody else's as one bounded line that markdown shows as it is."""
    line = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+", " ", text).split())
    if len(line) > limit:
        line = line[: limit - 1].rstrip() + "…"
    # CommonMark: a backslash before any ASCII punctuation makes it literal, in tables too.
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", line)


def _summary(result: FanOutResult, samples: Sequence[Sample], seconds: float) -> str:
    total, good = len(result), result.counts.get(RunStatus.SUCCESS, 0)
    if not total:
        return "There was nothing to run."
    if good == total:
        verdict = "The run succeeded" if total == 1 else f"All {total:,} runs succeeded"
    else:
        verdict = f"{total - good:,} of {total:,} runs did not succeed"
    # The samples know only what this execution had to do; a file of results may have held the rest.
    now = min(samples[-1].total, total) if samples else total
    rate = f", {_rounded(now / seconds)} a second" if seconds > 0 and now else ""
    origins = Counter(item.origin for item in result)
    ways = {
        "succeeded before and were skipped": total - now,
        "started by this attempt": max(origins["started"] - (total - now), 0),
        "adopted from an earlier attempt": origins["adopted"],
        "started afresh after they had failed in an earlier attempt": origins["restarted"],
    }
    shown = ", ".join(f"{count:,} {way}" for way, count in ways.items() if count)
    history = "All started by this attempt" if ways["started by this attempt"] == total else shown
    return f"**{verdict}** in {duration(seconds)}{rate}. {history}."


def _picture(result: FanOutResult, samples: Sequence[Sample], seconds: float) -> str:
    if not samples or not len(result):
        return ""
    counts = ", ".join(f"{count:,} {status}" for status, count in _ordered(result))
    uri = data_uri(timeline_svg(samples, seconds=seconds))
    return f"![Timeline of {len(result):,} runs over {duration(seconds)}: {counts}]({uri})"


def _ordered(result: FanOutResult) -> list[tuple[RunStatus, int]]:
    order = [*OUTCOME_COLOURS, RunStatus.RUNNING, RunStatus.PENDING]
    return [(status, count) for status in order if (count := result.counts.get(status, 0))]


def _outcomes(result: FanOutResult) -> str:
    if not len(result):
        return ""
    rows = [
        (str(status), f"{count:,}", _percent(count, len(result)), _MEANING[status])
        for status, count in _ordered(result)
    ]
    return "## Outcomes\n\n" + _table(("Outcome", "Runs", "Share", "Meaning"), rows, right=(1, 2))


def _latency(result: FanOutResult) -> str:
    found = sorted(item.seconds for item in result if item.status.ended and item.seconds is not None)
    if not found:
        return ""
    p50, p90, p99 = percentiles(found)
    row = [duration(value) for value in (p50, p90, p99, found[-1])]
    return (
        "## Time per run\n\nFrom creation to end by the server's clock, its queue included; "
        f"{len(found):,} runs.\n\n"
        + _table(("Half within", "90 % within", "99 % within", "Longest"), [row])
    )


def percentiles(found: Sequence[float]) -> tuple[float, float, float]:
    """The 50th, 90th and 99th percentile of at least one number."""
    if len(found) == 1:
        return found[0], found[0], found[0]
    cuts = statistics.quantiles(found, n=100, method="inclusive")
    return cuts[49], cuts[89], cuts[98]


def _tokens(result: FanOutResult, budget: str, links: Links | None) -> str:
    reported = [
        (item.usage.total_tokens, index, item) for index, item in enumerate(result) if item.usage
    ]
    if not reported:
        return f"## Tokens\n\nNo run reports any. {literal(budget)}" if budget else ""
    total = result.usage
    row = [f"{value:,}" for value in (total.input_tokens, total.output_tokens, total.total_tokens)]
    each = sorted(tokens for tokens, _, _ in reported)
    half, _, most = percentiles(each)
    spread = [f"{value:,.0f}" for value in (half, most, each[-1])]
    dearest = sorted(reported, key=lambda one: -one[0])[:DEAREST_SHOWN]
    named = ", ".join(
        f"input {index}{_named(item)}: {tokens:,}{_link(item, links, needs_page=True)}"
        for tokens, index, item in dearest
    )
    said = f"Reported by the messages of {len(reported):,} runs, a lower bound of what was used."
    if total.unreported:
        said += f" {_runs(total.unreported)} said none."
    sections = [
        "## Tokens",
        " ".join([said, literal(budget)]).strip(),
        f"The dearest: {named}." if len(reported) > 1 else "",
        _table(
            ("Input", "Output", "Total", "Half of the runs within", "99 % within", "Dearest"),
            [[*row, *spread]],
        ),
    ]
    return "\n\n".join(section for section in sections if section)


def _failures(result: FanOutResult, links: Links | None) -> Iterable[str]:
    failed = [
        (index, item) for index, item in enumerate(result) if item.status is not RunStatus.SUCCESS
    ]
    if not failed:
        return
    # Lists, not tables: one of Prefect's two pages does not break lines in a table.
    kinds = Counter((item.status, _why(item)) for _, item in failed)
    limit = ERROR_CHARACTERS
    if len(kinds) < len(failed):
        shown = kinds.most_common(FAILURES_SHOWN)
        lines = [f"- **{_runs(count)}, {status}**: {why}" for (status, why), count in shown]
        yield _listed("Why", lines, "The most frequent {} of {:,} reasons.", len(kinds))
        limit = SHORT_ERROR_CHARACTERS
    lines = [
        f"- **Input {index}**{_named(item)}, {item.status}: {_why(item, limit)}{_link(item, links)}"
        for index, item in failed[:FAILURES_SHOWN]
    ]
    heading = "First runs that did not succeed" if len(failed) > 1 else "The run that did not succeed"
    yield _listed(heading, lines, "The first {} of {:,} runs.", len(failed))


def _named(item: RunResult) -> str:
    return f" ({literal(item.key, SHORT_ERROR_CHARACTERS)})" if item.key is not None else ""


def _listed(heading: str, lines: Sequence[str], of_all: str, count: int) -> str:
    more = of_all.format(len(lines), count) + "\n\n" if count > len(lines) else ""
    return f"## {heading}\n\n{more}" + "\n".join(lines)


def _why(result: RunResult, limit: int = ERROR_CHARACTERS) -> str:
    if result.status is RunStatus.ERROR and result.error is not None:
        return literal(str(result.error), limit)
    return _MEANING[result.status]


def _link(item: RunResult, links: Links | None, *, needs_page: bool = False) -> str:
    """The run's id in parentheses, which leads to its page; nothing if it needs one and has none."""
    run_id = item.handle.run_id
    if not run_id:
        return ""
    # One of Prefect's two pages shows backslashes in the text of a link, so only odd ids are escaped.
    text = run_id if re.fullmatch(r"[\w-]+", run_id) else literal(run_id)
    address = _page(item, links)
    if address is None:
        return "" if needs_page else f" ({text})"
    return f" ([{text}]({address}))"


def _page(item: RunResult, links: Links | None) -> str | None:
    """The address of a run's page, as markdown takes it; None where it has none."""
    parts = urlsplit((links(item) if links is not None else None) or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    # A password in an address must not be shown, and what is left must not end the link.
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return quote(address, safe=_IN_ADDRESS)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    rule = ["---:" if column in right else "---" for column in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def _runs(count: int) -> str:
    return f"{count:,} run{'s' if count != 1 else ''}"


def _percent(count: int, total: int) -> str:
    share = 100 * count / total
    return f"{share:.0f} %" if share == round(share) else f"{share:.2f} %"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"
