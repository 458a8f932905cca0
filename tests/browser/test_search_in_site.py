"""Search in the documentation, opened from its folder as `make docs` says, without a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from browser.chromium import Page

ROOT = Path(__file__).resolve().parents[2]
RESULTS = "[...document.querySelectorAll('.md-search-result__item a')]"
TYPED = """(() => {
  const field = document.querySelector('input[name=query]');
  const now = Date.now();
  if (!(now - window.typed < 3000)) {
    window.typed = now;
    field.focus();
    for (const text of ['', 'with_finalizer']) {
      field.value = text;
      field.dispatchEvent(new Event('input', {bubbles: true}));
      field.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true}));
    }
  }
  return document.querySelectorAll('.md-search-result__item a').length > 0;
})()"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


@pytest.mark.parametrize("opened", ["index.html", "how-to/crons.html"])
def test_what_is_searched_for_is_found_in_a_site_opened_from_its_folder(
    page: Page, site: Path, opened: str
) -> None:
    page.size(1200, 900)
    page.open((site / opened).as_uri())
    page.wait_for("!!document.querySelector('input[name=query]')")
    # Without a window nothing has the focus, with which the search begins.
    page.call("Emulation.setFocusEmulationEnabled", enabled=True)
    # What is typed before the index is read is searched for by nobody, so it is typed again.
    page.wait_for(TYPED)
    found = page.evaluate(f"{RESULTS}.map(link => link.href)")
    assert any(link.partition("?")[0].endswith("/how-to/clean-up.html") for link in found)
    # What a result leads to is a page of the folder.
    page.open(found[0])
    assert "with_finalizer" in page.text()
