"""The site builds without a warning, needs no network, and leaves out nothing that is public."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mkdocstrings import Inventory
from prefect import Flow, Task

import prefect_langgraph
from prefect_langgraph import errors

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(set(prefect_langgraph.__all__) - {"__version__"})
ERRORS = [name for name in vars(errors) if inspect.isclass(getattr(errors, name)) and "Error" in name]
# What a page loads by itself when it is opened, or when it is styled.
LOADED = re.compile(
    r"""<(?:script|img|iframe)[^>]+src="(?P<src>[^"]+)"|<link[^>]+href="(?P<href>[^"]+)"|"""
    r"""@import\s+(?:url\()?["']?(?P<style>[^"')]+)"""
)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it, in a folder of its own."""
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


@pytest.fixture(scope="session")
def documented(site: Path) -> dict[str, Path]:
    """The page of every name that the reference has."""
    with (site / "objects.inv").open("rb") as file:
        inventory = Inventory.parse_sphinx(file)
    return {name: site / item.uri.partition("#")[0] for name, item in inventory.items()}


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))


def test_every_public_name_is_in_the_reference(documented: dict[str, Path]) -> None:
    assert [name for name in NAMES if f"prefect_langgraph.{name}" not in documented] == []


@pytest.mark.parametrize("name", NAMES)
def test_public_name_is_shown_with_its_docstring(name: str, documented: dict[str, Path]) -> None:
    found = getattr(prefect_langgraph, name)
    described = found.fn if isinstance(found, Task | Flow) else found
    summary = (inspect.getdoc(described) or "").splitlines()[0].replace("`", "")
    assert len(summary) > 10
    shown = text_of(documented[f"prefect_langgraph.{name}"])
    assert summary in shown.replace("&#39;", "'").replace("&amp;", "&")


@pytest.mark.parametrize(
    "name", ["run_stateless", "join_runs", "stream_run", "fan_out", "with_finalizer"]
)
def test_tasks_and_flows_are_shown_with_their_parameters(
    name: str, documented: dict[str, Path]
) -> None:
    found = getattr(prefect_langgraph, name)
    function = found.fn if isinstance(found, Task | Flow) else found
    shown = text_of(documented[f"prefect_langgraph.{name}"])
    signature = shown[shown.index(f"{name}(") :]
    for parameter in inspect.signature(function).parameters:
        assert f"{parameter}:" in signature


def test_fields_of_a_block_are_shown_with_what_its_form_says(documented: dict[str, Path]) -> None:
    for block in (prefect_langgraph.LangGraphCredentials, prefect_langgraph.LangGraphAssistant):
        shown = text_of(documented[f"prefect_langgraph.{block.__name__}"])
        for field in block.model_fields.values():
            said = (field.description or "").partition('{"')[0]  # the page shows quotes otherwise
            assert said
            assert said in shown


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loaded = {
        (page.relative_to(site).as_posix(), target)
        for page in [*site.rglob("*.html"), *site.rglob("*.css")]
        for found in LOADED.finditer(page.read_text(encoding="utf-8"))
        for target in [found["src"] or found["href"] or found["style"]]
        if re.match(r"(https?:)?//", target)
    }
    assert loaded == set()


def test_files_beside_the_docs_are_pages_of_the_site(site: Path) -> None:
    page = (site / "guarantees.html").read_text(encoding="utf-8")
    assert 'href="source/tests/faults/test_killed_process.py.html"' in page
    shown = text_of(site / "source" / "tests" / "faults" / "test_killed_process.py.html")
    assert "def test_batch_is_adopted_after_a_kill" in shown


def test_every_error_has_its_entry_in_troubleshooting() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    entries = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert set(ERRORS) >= {name for name in NAMES if name.endswith("Error")}
    for name in ERRORS:
        assert len(entries.get(name, "")) > 100, f"{name} has no entry"
