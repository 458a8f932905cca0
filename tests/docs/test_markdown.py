"""All code in README and docs runs, against the real servers, and all their links lead somewhere.

The Python and shell blocks of a page run in their order: Python in one namespace, shell in a folder.
Blocks with a title are files of the reader's project: they are written to that folder, and where one of
them is a pytest file, pytest runs. `shell.py` says which lines of the shell run in part, and why. JSON
and YAML can be read.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prefect import Flow, Task
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import load_flow_from_entrypoint

import prefect_langgraph
from docs.shell import PARTLY, run_shell, what_runs
from prefect_langgraph.testing import LangGraphServer, PrefectServer

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
# These have links, and no Python.
OTHERS = [ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
# The addresses that pages name are those of servers on their usual ports.
PREFECT, LANGGRAPH = "http://127.0.0.1:4200/api", "http://127.0.0.1:2024"
PYTHON, SHELL = {"python", "py"}, {"bash"}
FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    language: str
    title: str | None
    line: int
    code: str


def blocks_of(page: Path) -> Iterator[Block]:
    """Give the fenced blocks of a page, with the line at which their code begins."""
    opened: tuple[str, str, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        match = FENCE.match(line)
        if opened is None and match is not None:
            opened, lines = (match["fence"], match["info"].strip(), number + 1), []
        elif opened is not None and line.strip() == opened[0]:
            title = re.search(r'title="([^"]+)"', opened[1])
            language = opened[1].split(maxsplit=1)[0] if opened[1] else ""
            yield Block(language, title[1] if title else None, opened[2], "\n".join(lines) + "\n")
            opened = None
        else:
            lines.append(line)
    assert opened is None, f"{page} has a fence that is never closed"


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def code_of(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.language in {*PYTHON, *SHELL}]


def files_of(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.title is not None]


def write_files(page: Path, folder: Path) -> None:
    """Make the files of a page."""
    for block in files_of(page):
        assert block.title is not None
        if block.language in PYTHON:
            compile(block.code, block.title, "exec", dont_inherit=True)
        file = folder / block.title
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.code, encoding="utf-8")


# Prefect's notifications import a library that imports it.
@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("page", [page for page in [*PAGES, *OTHERS] if code_of(page)], ids=name)
def test_code_of_a_page_runs_in_its_order(
    page: Path, tmp_path: Path, addresses: dict[str, str], request: pytest.FixtureRequest
) -> None:
    # A real file with the page's own line numbers: Prefect reads a flow's source, and so do people.
    file = tmp_path / f"{page.stem}.py"
    module = ModuleType("page")
    module.__file__ = str(file)
    text = page.read_text(encoding="utf-8")
    source = [""] * len(text.splitlines())
    ran = [block for block in code_of(page) if block.title is None]
    for block in ran:
        if block.language in PYTHON:
            source[block.line - 1 : block.line - 1 + block.code.count("\n")] = block.code.splitlines()
    file.write_text("\n".join(source), encoding="utf-8")
    project = project_of(page, tmp_path / "project")
    if "FORM_ID" in text:
        addresses |= {"FORM_ID": request.getfixturevalue("asking_form")}
    for block in ran:
        if block.language in SHELL:
            run_shell(block.code, folder=project, addresses=addresses, port=free_port())
        else:
            code = compile("\n" * (block.line - 1) + block.code, str(file), "exec", dont_inherit=True)
            exec(code, vars(module))  # noqa: S102 - our own documentation


@pytest.fixture
def addresses(langgraph_server: LangGraphServer, prefect_server: PrefectServer) -> dict[str, str]:
    """What the words of a page stand for here."""
    return {PREFECT: prefect_server.api_url, LANGGRAPH: langgraph_server.url}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def project_of(page: Path, folder: Path) -> Path:
    """The reader's folder, with the page's files, and with what stands in a clone."""
    folder.mkdir()
    write_files(page, folder)
    for there in ("examples", "prefect.yaml"):
        if not (folder / there).exists():
            (folder / there).symlink_to(ROOT / there)
    return folder


def test_every_line_that_runs_in_part_stands_on_a_page() -> None:
    fitted = {
        partly
        for page in [*PAGES, *OTHERS]
        for block in blocks_of(page)
        if block.language in SHELL
        for _, partly in what_runs(block.code)
    }
    assert [partly.line for partly in PARTLY if partly not in fitted] == []


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name)
def test_data_of_a_page_can_be_read(page: Path) -> None:
    for block in blocks_of(page):
        if block.language == "json":
            json.loads(block.code)
        elif block.language == "yaml":
            assert list(yaml.safe_load_all(block.code)), block.line
        else:
            # What is neither run nor read stands in a language that promises nothing.
            assert block.language in {*PYTHON, *SHELL, "text"}, f"line {block.line}: {block.language}"


@pytest.mark.parametrize("page", [page for page in PAGES if files_of(page)], ids=name)
def test_files_of_a_page_are_a_project_whose_tests_pass(
    page: Path, tmp_path: Path, default_block: str
) -> None:
    write_files(page, tmp_path)
    tests = [block.title for block in files_of(page) if (block.title or "").startswith("test_")]
    if not tests:
        return
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", ".", "-p", "no:cacheprovider", *tests],
        cwd=tmp_path,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


DEPLOYED = [page for page in PAGES if "prefect.yaml" in {block.title for block in files_of(page)}]


@pytest.mark.parametrize("page", DEPLOYED, ids=name)
def test_deployments_of_a_page_are_flows_that_take_the_parameters(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    deployments = yaml.safe_load((tmp_path / "prefect.yaml").read_text("utf-8"))["deployments"]
    assert deployments
    for deployment in deployments:
        flow: Flow[..., Any] = load_flow_from_entrypoint(deployment["entrypoint"])
        flow.validate_parameters(deployment["parameters"])
        for schedule in deployment["schedules"]:
            CronSchedule(**schedule)


WORKFLOWS = [
    page
    for page in PAGES
    if any((block.title or "").startswith(".github/workflows/") for block in files_of(page))
]


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("page", WORKFLOWS, ids=name)
def test_steps_of_a_workflow_run(page: Path, tmp_path: Path) -> None:
    project = project_of(page, tmp_path / "project")
    for file in (project / ".github" / "workflows").iterdir():
        for job in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].values():
            script = "".join(f"{step['run']}\n" for step in job["steps"] if "run" in step)
            assert script
            run_shell(script, folder=project, addresses={}, port=free_port())


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    texts = HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name)
def test_every_row_of_a_page_is_in_a_table(page: Path) -> None:
    lines = ["", *page.read_text(encoding="utf-8").splitlines(), ""]
    firsts = [
        number
        for number in range(1, len(lines) - 1)
        if lines[number].startswith("|") and not lines[number - 1].startswith("|")
    ]
    # A table begins with its head and a rule; rows after a blank line are shown with their pipes.
    cut = [number for number in firsts if not re.fullmatch(r"[|:\- ]+", lines[number + 1])]
    assert cut == []


def test_readme_names_every_task_and_flow() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    public = {name: getattr(prefect_langgraph, name) for name in prefect_langgraph.__all__}
    tasks_and_flows = {name for name, value in public.items() if isinstance(value, Task | Flow)}
    twins = {f"a{name}" for name in tasks_and_flows}
    plain = sorted(tasks_and_flows - twins)
    assert {"run_stateless", "search_crons", "sweep"} <= set(plain)
    assert [name for name in plain if f"`{name}`" not in text] == []
