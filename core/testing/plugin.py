"""The pytest plugin: the fixture `langgraph_server` and its ini options."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_langgraph.testing.servers import LangGraphServer, run_langgraph_server

__all__ = ["langgraph_server", "pytest_addoption"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("langgraph_config", "The langgraph.json of the fixture langgraph_server.", default="")
    parser.addini("langgraph_jobs", "How many runs that server works on at once.", default="10")


@pytest.fixture(scope="session")
def langgraph_server(pytestconfig: pytest.Config) -> Iterator[LangGraphServer]:
    """One LangGraph development server for the whole test session."""
    config = _find_config(pytestconfig)
    with run_langgraph_server(config, jobs=int(pytestconfig.getini("langgraph_jobs"))) as server:
        yield server


def _find_config(pytestconfig: pytest.Config) -> Path:
    if named := pytestconfig.getini("langgraph_config"):
        return pytestconfig.rootpath / str(named)
    start = pytestconfig.invocation_params.dir.resolve()
    for folder in (start, *start.parents):
        if (folder / "langgraph.json").is_file():
            return folder / "langgraph.json"
    raise pytest.UsageError(
        f"There is no langgraph.json in {start} or above it. Name one with the ini option "
        "langgraph_config."
    )
