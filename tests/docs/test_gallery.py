"""The demo and the examples of the gallery run as they stand, and come to what they promise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from docs.test_markdown import ROOT
from prefect_langgraph.testing import PrefectServer

# What each says when all is well.
SAYS = {
    "conversations": ["not refunded: nobody looked at it in time"],
    "digest": ["looks at the news", "- You asked: What is new?"],
    "enrichment": ["20 rows in", "'answer': 'You asked: What is 0 x 7?'", "Nothing is open"],
    "evaluation": ["{'Ada': 1.0, 'Bob': 0.5}"],
}


def test_gallery_is_complete() -> None:
    files = {path.stem for path in (ROOT / "examples" / "gallery").glob("*.py")}
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert files == set(SAYS)
    assert [name for name in files if f"python examples/gallery/{name}.py" not in page] == []


@pytest.mark.parametrize("name", SAYS)
def test_example_runs_as_it_stands(name: str, prefect_server: PrefectServer) -> None:
    ran = subprocess.run(
        [sys.executable, f"examples/gallery/{name}.py"],
        cwd=ROOT,
        env={**os.environ, "PREFECT_API_URL": prefect_server.api_url},
        capture_output=True,
        text=True,
        check=False,
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    assert [words for words in SAYS[name] if words not in said] == []


def test_demo_shows_each_thing_and_ends_with_three_commands() -> None:
    ran = subprocess.run(
        [sys.executable, "examples/demo.py"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    shown = ran.stdout
    for words in (
        "Ada decides: approve",
        "44 success",
        "of 20 runs were started",
        "Suspended",
        "Completed",
        "report, of a run that was adopted",
    ):
        assert words in shown
    commands = shown.partition("Three commands to try next:\n")[2].splitlines()
    assert [line.split()[0] for line in commands if line.strip()] == [
        ".venv/bin/python",
        ".venv/bin/prefect-langgraph",
        "make",
    ]
