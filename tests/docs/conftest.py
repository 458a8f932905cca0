"""What documented code finds: a saved block `default`, the repository's root, its own environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_langgraph import LangGraphCredentials
from prefect_langgraph.testing import LangGraphServer, PrefectServer
from support.plain_sdk import sync_sdk

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
    """A reader who types what is documented, and leaves neither crons nor variables behind."""
    monkeypatch.chdir(ROOT)
    # As the tutorial exports it.
    monkeypatch.setenv("LANGGRAPH_API_URL", langgraph_server.url)
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        with sync_sdk(langgraph_server.url) as client:
            for cron in client.crons.search(limit=1000):
                client.crons.delete(cron["cron_id"])
