"""A browser, a Prefect server with its pages, and flow runs to look at.

A server of its own: that of the other tests serves no pages, and takes longer to start with them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from browser.chromium import Page, run_chromium
from prefect_langgraph.testing import LangGraphServer, PrefectServer, run_prefect_server
from support.waiting import PATIENCE


@dataclass(frozen=True)
class Shown:
    """A Prefect server that has seen flow runs.

    Attributes:
        url: The address of its pages.
        flow_runs: The id of each flow run, by its name.
    """

    url: str
    flow_runs: dict[str, str]

    def artifacts(self, name: str, kind: str) -> list[dict[str, Any]]:
        """The artifacts of a kind that a flow run and its subflows made."""
        wanted = {"artifacts": {"type": {"any_": [kind]}}, "flow_runs": self._and_below(name)}
        answer = httpx.post(f"{self.url}/api/artifacts/filter", json=wanted)
        rows: list[dict[str, Any]] = answer.raise_for_status().json()
        return rows

    def drawn(self, name: str) -> list[str]:
        """The names in the graph of a flow run."""
        graph = httpx.get(f"{self.url}/api/flow_runs/{self.flow_runs[name]}/graph-v2")
        return [node["label"] for _, node in graph.raise_for_status().json()["nodes"]]

    def _and_below(self, name: str) -> dict[str, Any]:
        parent = self.flow_runs[name]
        below = httpx.post(
            f"{self.url}/api/flow_runs/filter",
            json={"flow_runs": {"parent_flow_run_id": {"any_": [parent]}}},
        )
        ids = [row["id"] for row in below.raise_for_status().json()]
        return {"id": {"any_": [parent, *ids]}}


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A browser, closed after each file: an open graph is drawn again and again, on the processor."""
    with run_chromium() as page:
        yield page


@pytest.fixture(scope="session")
def prefect_pages() -> Iterator[PrefectServer]:
    """A Prefect server with its pages."""
    with run_prefect_server(ui=True) as server:
        yield server


@pytest.fixture(scope="session")
def shown(prefect_pages: PrefectServer, langgraph_server: LangGraphServer) -> Shown:
    """Fan-outs to look at."""
    return _after("fan_outs.py", prefect_pages, langgraph_server)


@pytest.fixture(scope="session")
def typical(prefect_pages: PrefectServer, langgraph_server: LangGraphServer) -> Shown:
    """Everything else to look at."""
    return _after("typical_runs.py", prefect_pages, langgraph_server)


def _after(script: str, server: PrefectServer, langgraph_server: LangGraphServer) -> Shown:
    """The Prefect server once a script has run its flows there, in a process of its own."""
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script)), langgraph_server.url],
        env={**os.environ, "PREFECT_API_URL": server.api_url},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    flow_runs = json.loads(ran.stdout.strip().splitlines()[-1])
    return Shown(server.api_url.removesuffix("/api"), flow_runs)
