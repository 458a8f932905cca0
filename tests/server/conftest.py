"""What the tests against a real server share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from langgraph_sdk.client import SyncLangGraphClient

from prefect_langgraph import LangGraphCredentials
from prefect_langgraph.testing import LangGraphServer, run_langgraph_server
from proxy import Proxy, run_proxy
from support.plain_sdk import sync_sdk
from support.runtime import run_agent_server

AGENT = Path(__file__).resolve().parents[2] / "examples" / "agent" / "langgraph.json"


@pytest.fixture(scope="session")
def credentials(langgraph_server: LangGraphServer) -> LangGraphCredentials:
    """A block for the shared server, as it is before anybody saved it."""
    return LangGraphCredentials(url=langgraph_server.url)


@pytest.fixture(scope="session")
def client(credentials: LangGraphCredentials) -> Iterator[SyncLangGraphClient]:
    """The plain SDK: what the server itself says."""
    with sync_sdk(credentials.url) as client:
        yield client


@pytest.fixture
def proxy(langgraph_server: LangGraphServer) -> Iterator[Proxy]:
    """A proxy of this test's own in front of the shared server."""
    with run_proxy(langgraph_server.url) as proxy:
        yield proxy


@pytest.fixture
def through_proxy(proxy: Proxy) -> LangGraphCredentials:
    """A block for the shared server by way of the proxy."""
    return LangGraphCredentials(url=proxy.url, patience_seconds=5)


@pytest.fixture(scope="session")
def firing_server() -> Iterator[LangGraphServer]:
    """A server of its own for crons that fire: it looks for due ones every second."""
    with run_langgraph_server(AGENT, jobs=20, env={"CRON_SCHEDULER_SLEEP_TIME": "1"}) as server:
        yield server


GRAPHS = Path(__file__).resolve().parent / "graphs" / "langgraph.json"


@pytest.fixture(scope="session")
def odd_graphs() -> Iterator[LangGraphCredentials]:
    """A block for a server of its own with graphs whose output is not their state, and others."""
    with run_agent_server(GRAPHS, jobs=20) as server:
        yield LangGraphCredentials(url=server.url)


@pytest.fixture(scope="session")
def odd_client(odd_graphs: LangGraphCredentials) -> Iterator[SyncLangGraphClient]:
    """The plain SDK for `odd_graphs`."""
    with odd_graphs.get_sync_client() as client:
        yield client
