"""What people look at on Prefect's own pages, in a real browser: a flow run's graph and logs, the
tables, the forms of the blocks.

Each test leaves its screenshot in `output/browser/`, which git ignores: look at them after a change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from browser.chromium import Page
from browser.conftest import Shown
from browser.typical_runs import OWNER, SOURCES
from prefect_langgraph.testing import LangGraphServer

OUTPUT = Path(__file__).resolve().parents[2] / "output" / "browser"
PAGES = {"v1": "", "v2": "/v2"}
IN_GRAPH = ["run answer", f"start {SOURCES} runs of worker", f"join {SOURCES} runs", "run chat"]

# The rows of the table on the page, as a list of lists.
TABLE = """
[...document.querySelectorAll('table tr')]
  .map(row => [...row.children].map(cell => cell.innerText.trim()))
  .filter(row => row.some(cell => cell))
"""
# Of the page's largest canvas: which share of it is green, as Prefect draws what has succeeded. The
# graph is drawn again for every frame, and its buffer is empty in between: it is read within one.
GREEN = """
new Promise(done => requestAnimationFrame(() => {
  const all = [...document.querySelectorAll('canvas')];
  const from = all.sort((a, b) => b.width * b.height - a.width * a.height)[0];
  if (!from) return done(0);
  const to = document.createElement('canvas');
  to.width = from.width; to.height = from.height;
  const context = to.getContext('2d');
  context.drawImage(from, 0, 0);
  const data = context.getImageData(0, 0, to.width, to.height).data;
  let green = 0;
  for (let at = 0; at < data.length; at += 4)
    if (data[at + 1] > 120 && data[at] < 80 && data[at + 2] < 120) green++;
  done(green / (to.width * to.height));
}))
"""


def show(page: Page, shown: Shown, path: str, pages: str, wait: str, height: int = 1000) -> str:
    """Open a page, wait until it shows a text, and return all that it shows."""
    page.size(1400, height)
    page.prefer("light", {"theme": "light", "color-scheme": '"light"'})
    page.open(f"{shown.url}{PAGES[pages]}{path}")
    page.wait_for(f"document.body.innerText.includes({wait!r})")
    return page.text()


def show_table(page: Page, shown: Shown, artifact: dict[str, Any], pages: str) -> list[dict[str, str]]:
    """Open a table artifact and return its rows as they are read on the page."""
    show(page, shown, f"/artifacts/artifact/{artifact['id']}", pages, artifact["description"])
    page.wait_for("document.querySelectorAll('table tr').length > 1")
    header, *rows = page.evaluate(TABLE)
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_names_of_flow_runs_say_what_ran(page: Page, shown: Shown, typical: Shown) -> None:
    text = show(page, typical, "/runs?limit=100", "v2", "research ants", height=2400)
    page.screenshot(OUTPUT / "flow-runs.png")
    for name in (
        "research ants",
        "run support",
        f"reconcile crons of {OWNER}",
        "answer on * * * * * * for",
        "sweep default",
        "fan out 10 runs of worker",
    ):
        assert name in text


@pytest.mark.parametrize("pages", PAGES)
def test_flow_run_shows_a_graph_with_names_that_say_what_ran_and_a_log_that_tells_of_it(
    page: Page, typical: Shown, pages: str
) -> None:
    # Its last line: a page holds as many lines as fit.
    flow_run = f"/runs/flow-run/{typical.flow_runs['research']}"
    text = show(page, typical, flow_run, pages, "threads deleted", height=3000)
    for line in (
        " of answer on thread ",
        ": ended, success after ",
        f"{SOURCES} runs: {SOURCES} started",
    ):
        assert line in text
    assert "not-to-be-shown" not in text
    # WebGL draws the graph: there is no text to read, so its bars are looked for. They are more than
    # the green line below them.
    page.wait_for(f"{GREEN}.then(share => share > 0.012)")
    page.screenshot(OUTPUT / f"research-{pages}.png")
    # This is what it draws.
    assert sorted(typical.drawn("research")) == sorted(["create thread", *IN_GRAPH])


def test_task_runs_of_a_flow_run_are_listed_by_what_ran(page: Page, typical: Shown) -> None:
    flow_run = f"/runs/flow-run/{typical.flow_runs['research']}?tab=TaskRuns"
    text = show(page, typical, flow_run, "v2", "run chat")
    page.screenshot(OUTPUT / "task-runs.png")
    for name in IN_GRAPH:
        assert f"\n{name}\n" in text


@pytest.mark.parametrize("pages", PAGES)
def test_cron_plan_is_a_table_of_what_became_of_each(page: Page, typical: Shown, pages: str) -> None:
    (artifact,) = typical.artifacts("crons", "table")
    rows = show_table(page, typical, artifact, pages)
    page.screenshot(OUTPUT / f"cron-plan-{pages}.png")
    assert artifact["description"].startswith(f"Crons of '{OWNER}': 1 updated, 1 created, 1 deleted")
    assert list(rows[0])[:5] == ["action", "name", "schedule", "timezone", "differs"]
    assert [list(row.values())[:5] for row in rows if row["action"] != "unowned"] == [
        ["update", "digest", "0 8 * * 1-5", "Europe/Berlin", "schedule, input"],
        ["create", "nightly", "15 2 * * *", "Europe/London", ""],
        ["delete", "retired", "@daily", "UTC", ""],
        ["leave", "weekly", "30 6 * * MON", "UTC", ""],
    ]
    assert "0 4 * * *" in [row["schedule"] for row in rows if row["action"] == "unowned"]


@pytest.mark.parametrize("pages", PAGES)
def test_sweep_report_says_what_it_released_and_what_it_left(
    page: Page, typical: Shown, pages: str
) -> None:
    (artifact,) = typical.artifacts("morning", "table")
    rows = {row["flow run"]: row for row in show_table(page, typical, artifact, pages)}
    page.screenshot(OUTPUT / f"sweep-{pages}.png")
    assert artifact["description"] == (
        "Released 1 active run, 1 thread of 1 flow run. 1 flow run was left alone."
    )
    left, mine = rows["forgot its run"], rows["morning round"]
    assert [left[name] for name in ("action", "crons", "runs", "threads")] == ["release", "0", "1", "1"]
    assert left["why"].startswith("is Completed, ")
    assert (mine["action"], mine["why"]) == ("keep", "is Running, with 1 busy thread")
    # Its conversation is kept for whoever goes on with it.
    assert rows["research ants"]["action"] == "nothing to release"


def test_values_that_an_assistant_came_to_are_a_table(page: Page, typical: Shown) -> None:
    (values,) = typical.artifacts("assistant", "table")
    assert show_table(page, typical, values, "v2") == [
        {"name": "question", "value": "What is 6 x 7?"},
        {"name": "answer", "value": "You asked: What is 6 x 7?"},
    ]
    page.screenshot(OUTPUT / "assistant.png")


def test_firings_of_a_cron_window_are_a_table(page: Page, typical: Shown) -> None:
    (fired,) = typical.artifacts("window", "table")
    rows = show_table(page, typical, fired, "v1")
    page.screenshot(OUTPUT / "cron-window.png")
    assert {row["status"] for row in rows} == {"success"}
    assert all(row["fired"].endswith(" UTC") for row in rows)


FORMS = {
    "langgraph-credentials": (
        "URL",
        "API key",
        "Headers",
        "Maximum connections",
        "Request timeout",
        "Patience",
        "Header policy",
        "Token command",
        "Trace URL",
        "Studio URL",
    ),
    "langgraph-assistant": ("Credentials", "Assistant", "Config", "Context", "Metadata"),
}


@pytest.mark.parametrize("block", FORMS)
@pytest.mark.parametrize("pages", PAGES)
def test_form_of_a_block_asks_in_a_sensible_order(
    page: Page, typical: Shown, block: str, pages: str
) -> None:
    text = show(page, typical, f"/blocks/catalog/{block}/create", pages, FORMS[block][-1], height=2000)
    page.screenshot(OUTPUT / f"{block}-{pages}.png")
    lines = text.splitlines()
    labels = [line.removesuffix(" (Optional)") for line in lines[lines.index("Create") :]]
    found = [label for label in labels if label in FORMS[block]]
    # One of the two sets of pages heads the field of a nested block by the block's own name.
    wanted = [name for name in FORMS[block] if (pages, name) != ("v1", "Credentials")]
    assert found == wanted


def test_key_is_masked_while_it_is_typed(page: Page, typical: Shown) -> None:
    # The old pages have a text area for every string, whatever its schema says.
    show(page, typical, "/blocks/catalog/langgraph-credentials/create", "v2", "API key", height=1700)
    kinds = "[...document.querySelectorAll('input')].map(field => field.type)"
    page.wait_for(f"{kinds}.includes('password')")


@pytest.mark.parametrize("block", FORMS)
@pytest.mark.parametrize("pages", PAGES)
def test_catalog_shows_code_to_copy(page: Page, typical: Shown, block: str, pages: str) -> None:
    code = "from prefect_langgraph import LangGraph"
    text = show(page, typical, f"/blocks/catalog/{block}", pages, code, height=1200)
    page.screenshot(OUTPUT / f"catalog-{block}-{pages}.png")
    assert "Documentation" in text


def test_run_that_waits_for_a_person_leads_to_langgraph_studio(
    page: Page, shown: Shown, langgraph_server: LangGraphServer
) -> None:
    (report,) = shown.artifacts("few", "markdown")
    show(page, shown, f"/artifacts/artifact/{report['id']}", "v2", "waits for a person (")
    link = page.wait_for("document.querySelector('a[href*=studio]')?.href")
    asked = parse_qs(urlsplit(link).query, strict_parsing=True)
    assert urlsplit(link).hostname == "smith.langchain.com"
    assert asked["baseUrl"] == [langgraph_server.url]
    assert len(asked["threadId"][0]) == 36
