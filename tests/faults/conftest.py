"""A LangGraph server that is only for the faults, so that whatever remains on it was left by a test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from inspect import signature
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from faults import suspending_flows as flows
from faults.suspended import GATED, Start, Suspended
from faults.tally import Tally
from prefect_langgraph import LangGraphCredentials
from prefect_langgraph.testing import LangGraphServer, PrefectServer
from proxy import Proxy, run_proxy
from support.plain_sdk import sync_sdk
from support.runtime import run_agent_server

CONFIG = Path(__file__).parent / "server" / "langgraph.json"


@pytest.fixture(scope="session")
def executions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the graph writes down each execution."""
    path = tmp_path_factory.mktemp("faults") / "executions"
    path.touch()
    return path


@pytest.fixture(scope="session")
def fault_server(executions: Path) -> Iterator[LangGraphServer]:
    env = {"EXECUTIONS_FILE": str(executions), "CRON_SCHEDULER_SLEEP_TIME": "1"}
    with run_agent_server(CONFIG, jobs=60, env=env) as server:
        yield server


@pytest.fixture
def proxy(fault_server: LangGraphServer) -> Iterator[Proxy]:
    with run_proxy(fault_server.url) as proxy:
        yield proxy


@pytest.fixture
def tally(
    prefect_server: PrefectServer, fault_server: LangGraphServer, proxy: Proxy, executions: Path
) -> Iterator[Tally]:
    """The tally of a test that begins and ends with an empty server."""
    with _tally(proxy, fault_server, executions, patience_seconds=5) as tally:
        yield tally


@pytest.fixture
def impatient(
    prefect_server: PrefectServer, fault_server: LangGraphServer, proxy: Proxy, executions: Path
) -> Iterator[Tally]:
    """The same with a block by which a call gives up soon, so that its task is retried."""
    with _tally(proxy, fault_server, executions, patience_seconds=0.5) as tally:
        yield tally


@contextmanager
def _tally(
    proxy: Proxy, server: LangGraphServer, executions: Path, *, patience_seconds: float
) -> Iterator[Tally]:
    block = f"fault-{uuid.uuid4().hex[:12]}"
    LangGraphCredentials(url=proxy.url, patience_seconds=patience_seconds).save(block)
    with sync_sdk(server.url) as client:
        tally = Tally(proxy, client, executions, block)
        yield tally
        tally.clear()


@pytest.fixture
def start(tally: Tally, tmp_path: Path) -> Iterator[Start]:
    """Makes a flow run, by default one whose runs wait behind the gate.

    Afterwards it is deleted: a pass of another test's resumer would ask about it.
    """
    made: list[UUID] = []

    def begin(flow: Flow[..., Any] = flows.waits, **parameters: Any) -> Suspended:
        work = {"work": GATED} if "work" in signature(flow.fn).parameters else {}
        run = Suspended(tally, tmp_path, flow, **{**work, **parameters})
        made.append(run.id)
        return run

    yield begin
    with get_client(sync_client=True) as client:
        for flow_run_id in made:
            with suppress(ObjectNotFound):
                client.delete_flow_run(flow_run_id)


@pytest.fixture
def prefect_proxy(prefect_server: PrefectServer) -> Iterator[Proxy]:
    with run_proxy(prefect_server.api_url.removesuffix("/api")) as proxy:
        yield proxy
