"""A work pool and a worker, as the comments of prefect.yaml say: real processes that tests kill."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest
from langgraph_sdk.client import SyncLangGraphClient
from prefect import Flow

from prefect_langgraph import LangGraphCredentials
from prefect_langgraph.testing import LangGraphServer, PrefectServer, run_langgraph_server
from prefect_langgraph.testing.process import HOST, ServerProcess
from support.plain_sdk import sync_sdk
from support.waiting import PATIENCE
from worker.api import Api
from worker.commands import ROOT, documented, run_documented
from worker.deployed import BLOCK

AGENT = ROOT / "examples" / "agent" / "langgraph.json"


class Worker(ServerProcess):
    """A process worker. Each flow it runs has a process group of its own, and outlives it."""

    name = "worker"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder=folder, throw_away=False, port=None, startup_seconds=PATIENCE)

    def _command(self) -> tuple[str, Sequence[str]]:
        return "prefect", [*documented("worker"), "--with-healthcheck"]

    def _environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "PREFECT_WORKER_QUERY_SECONDS": "0.5",
            "PREFECT_WORKER_WEBSERVER_HOST": HOST,
            "PREFECT_WORKER_WEBSERVER_PORT": str(self.port),
        }

    def _ready(self, client: httpx.Client) -> bool:
        return client.get("/health").status_code == httpx.codes.OK


@pytest.fixture(scope="session")
def langgraph_server() -> Iterator[LangGraphServer]:
    """A server of its own, which looks for crons that are due every second."""
    with run_langgraph_server(AGENT, jobs=20, env={"CRON_SCHEDULER_SLEEP_TIME": "1"}) as server:
        yield server


@pytest.fixture(scope="session")
def client(langgraph_server: LangGraphServer) -> Iterator[SyncLangGraphClient]:
    """The plain SDK: what the server itself says."""
    with sync_sdk(langgraph_server.url) as client:
        yield client


@pytest.fixture(scope="session")
def prefect_api(prefect_server: PrefectServer) -> Api:
    return Api(prefect_server.api_url)


@pytest.fixture(scope="session")
def pool(prefect_server: PrefectServer) -> str:
    """The work pool for processes that prefect.yaml names."""
    run_documented("work-pool")
    return documented("work-pool")[2]


@pytest.fixture(scope="session")
def deployment(pool: str, langgraph_server: LangGraphServer) -> str:
    """The name of the deployments of the flows in `deployed.py`, which find the block they name."""
    LangGraphCredentials(url=langgraph_server.url).save(BLOCK, overwrite=True)
    for name in ("owner", "patient", "reviewer", "sleeper", "scattered"):
        flow = Flow.from_source(str(Path(__file__).parent), f"deployed.py:{name}")
        assert isinstance(flow, Flow)
        flow.deploy("tests", work_pool_name=pool, build=False, push=False, print_next_steps=False)
    return "tests"


@pytest.fixture(scope="module")
def shared_worker(pool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker, which a test may have killed. It ends with its file: it would make its pool anew, and
    take flow runs that others execute."""
    worker = Worker(tmp_path_factory.mktemp("worker"))
    yield worker
    worker.close()


@pytest.fixture
def worker(shared_worker: Worker) -> Worker:
    """A worker that runs, and may be killed."""
    shared_worker.start()
    return shared_worker
