"""What documented code finds: a saved block `default`, the repository's root, its own environment.

A form that asks a person is there as well, for a page that names one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import get_client

from prefect_langgraph import LangGraphCredentials
from prefect_langgraph.testing import LangGraphServer, PrefectServer
from support.plain_sdk import sync_sdk
from support.waiting import until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def default_block(langgraph_server: LangGraphServer, prefect_server: PrefectServer) -> str:
    """The saved block that calls without `credentials=` use; it leads to the shared server."""
    LangGraphCredentials(url=langgraph_server.url).save("default", overwrite=True)
    return "default"


@pytest.fixture
def reader(
    default_block: str, langgraph_server: LangGraphServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A reader who types what is documented, and leaves no crons, work pools or variables behind."""
    monkeypatch.chdir(ROOT)
    # As the tutorial exports it.
    monkeypatch.setenv("LANGGRAPH_API_URL", langgraph_server.url)
    before = dict(os.environ)
    _delete_work_pools()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        with sync_sdk(langgraph_server.url) as client:
            for cron in client.crons.search(limit=1000):
                client.crons.delete(cron["cron_id"])
        _delete_work_pools()


def _delete_work_pools() -> None:
    with get_client(sync_client=True) as prefect:
        for pool in prefect.read_work_pools():
            prefect.delete_work_pool(pool.name)


@pytest.fixture
def asking_form(langgraph_server: LangGraphServer, prefect_server: PrefectServer) -> Iterator[str]:
    """The id of the form of a flow run that goes on in a process of its own once it is answered."""
    script = ROOT / "tests" / "browser" / "asking_run.py"
    with subprocess.Popen(
        [sys.executable, str(script), langgraph_server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            flow_run_id = process.stdout.readline().strip()
            row = f"{prefect_server.api_url}/flow_runs/{flow_run_id}"
            until(lambda: httpx.get(row).raise_for_status().json()["state_name"] == "Paused")
            listed = [
                Path(sys.executable).with_name("prefect-langgraph"),
                "approvals",
                "list",
                "--json",
            ]
            rows = json.loads(subprocess.run(listed, check=True, capture_output=True).stdout)
            yield next(row["id"] for row in rows if row["flow_run_id"] == flow_run_id)
        finally:
            process.kill()
