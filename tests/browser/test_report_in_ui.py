"""The report of a fan-out on Prefect's own pages, in a real browser.

Each test leaves its screenshot in `output/browser/`, which git ignores: look at them after a change.
Prefect has two sets of pages, of which the reader chooses one, and a light and a dark theme.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from browser.chromium import BrowserError, Page, find_chromium
from browser.conftest import Shown
from prefect_langgraph.models import RunStatus
from prefect_langgraph.reports.timeline import OUTCOME_COLOURS

OUTPUT = Path(__file__).resolve().parents[2] / "output" / "browser"
PAGES = {"v1": "", "v2": "/v2"}
PICTURE = "document.querySelector('img[src^=\"data:image/svg+xml\"]')"

# Draws the picture again and counts the pixels that have a colour.
PIXELS = """
(() => {
  const picture = %s, canvas = document.createElement('canvas');
  canvas.width = picture.naturalWidth; canvas.height = picture.naturalHeight;
  const context = canvas.getContext('2d');
  context.drawImage(picture, 0, 0);
  const all = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const wanted = [1, 3, 5].map(at => parseInt('%s'.slice(at, at + 2), 16));
  let count = 0;
  for (let at = 0; at < all.length; at += 4)
    if (wanted.every((part, index) => Math.abs(all[at + index] - part) < 3)) count++;
  return count / (canvas.width * canvas.height);
})()
"""
# How light the page is behind the picture: the first ancestor that is not see-through.
LIGHT = """
(() => {
  for (let node = %s; node; node = node.parentElement) {
    const parts = getComputedStyle(node).backgroundColor;
    const context = document.createElement('canvas').getContext('2d');
    context.fillStyle = parts; context.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = context.getImageData(0, 0, 1, 1).data;
    if (node.tagName != 'IMG' && alpha == 255) return (red + green + blue) / 765;
  }
  return null;
})()
"""


def share_of(page: Page, status: RunStatus) -> float:
    """The part of the picture that has the colour of an outcome."""
    return float(page.evaluate(PIXELS % (PICTURE, OUTCOME_COLOURS[status])))


def open_report(page: Page, shown: Shown, name: str, pages: str, theme: str) -> None:
    (artifact,) = shown.artifacts(name, "markdown")
    page.size(1400, 2400)
    page.prefer(theme, {"theme": theme, "color-scheme": f'"{theme}"'})
    page.open(f"{shown.url}{PAGES[pages]}/artifacts/artifact/{artifact['id']}")
    page.wait_for(f"{PICTURE} && {PICTURE}.complete && {PICTURE}.naturalWidth")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("pages", PAGES)
@pytest.mark.parametrize(
    ("name", "verdict", "rows"),
    [
        ("few", "3 of 10 runs did not succeed", ["7\t70 %", "2\t20 %", "1\t10 %"]),
        ("many", "of 10,000 runs did not succeed", ["9,706\t97.06 %", "196\t1.96 %"]),
    ],
)
def test_report_is_read_on_prefects_page(
    page: Page, shown: Shown, name: str, verdict: str, rows: list[str], pages: str, theme: str
) -> None:
    open_report(page, shown, name, pages, theme)
    page.screenshot(OUTPUT / f"report-{name}-{pages}-{theme}.png")

    text = page.text()
    assert verdict in text
    for row in rows:
        assert row in text
    for heading in ("Outcomes", "Time per run", "Tokens", "Run only these again"):
        assert heading in text
    assert "<b>larger</b>" in text

    box = page.evaluate(f"{PICTURE}.getBoundingClientRect().toJSON()")
    assert box["width"] > 500
    assert 0 <= box["left"] < box["right"] <= 1400
    assert box["bottom"] < 1200  # without scrolling, on most screens
    # What was so at the end has a strip of the picture, however late the runs ended.
    assert share_of(page, RunStatus.SUCCESS) > 0.004
    assert share_of(page, RunStatus.ERROR) > 0.0005

    light = page.evaluate(LIGHT % PICTURE)
    assert light > 0.7 if theme == "light" else light < 0.3
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_flow_run_leads_to_its_report_and_its_progress(page: Page, shown: Shown) -> None:
    (report,) = shown.artifacts("few", "markdown")
    (progress,) = shown.artifacts("few", "progress")
    page.size(1400, 1200)
    page.prefer("light", {"theme": "light"})
    page.open(f"{shown.url}/v2/runs/flow-run/{report['flow_run_id']}?tab=Artifacts")
    for artifact in (report, progress):
        page.wait_for(f"document.body.innerText.includes({artifact['key']!r})")
    page.screenshot(OUTPUT / "flow-run.png")
    assert progress["data"] == 100
    assert "10 of 10 runs ended" in progress["description"]


def test_machine_without_a_browser_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BrowserError, match="apt-get install chromium"):
        find_chromium()
