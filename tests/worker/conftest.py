"""A work pool and a worker: real processes that tests kill."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest
from langgraph_sdk.client import SyncLangGraphClient
from prefect import Flow, get_client
from prefect.client.schemas.actions import WorkPoolCreate

from prefect_langgraph import LangGraphCredentials
from prefect_langgraph._process import HOST, ServerProcess
from prefect_langgraph.testing import LangGraphServer, PrefectServer
from worker.deployed import BLOCK

POOL = "finalizer-tests"


class Worker(ServerProcess):
    """A process worker. Each flow it runs has a process group of its own, and outlives it."""

    name = "worker"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder=folder, throw_away=False, port=None, startup_seconds=120)

    def _command(self) -> tuple[str, Sequence[str]]:
        return "prefect", ["worker", "start", "--pool", POOL, "--with-healthcheck"]

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
def client(langgraph_server: LangGraphServer) -> Iterator[SyncLangGraphClient]:
    """The plain SDK: what the server itself says."""
    with LangGraphCredentials(url=langgraph_server.url).get_sync_client() as client:
        yield client


@pytest.fixture(scope="session")
def deployment(prefect_server: PrefectServer, langgraph_server: LangGraphServer) -> str:
    """A deployment of the flow `owner`, in a work pool for processes, with the block it names."""
    LangGraphCredentials(url=langgraph_server.url).save(BLOCK, overwrite=True)
    with get_client(sync_client=True) as prefect:
        prefect.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    flow = Flow.from_source(str(Path(__file__).parent), "deployed.py:owner")
    assert isinstance(flow, Flow)
    flow.deploy("tests", work_pool_name=POOL, build=False, push=False, print_next_steps=False)
    return "owner/tests"


@pytest.fixture(scope="session")
def shared_worker(deployment: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker, which a test may have killed."""
    worker = Worker(tmp_path_factory.mktemp("worker"))
    yield worker
    worker.close()


@pytest.fixture
def worker(shared_worker: Worker) -> Worker:
    """A worker that runs, and may be killed."""
    shared_worker.start()
    return shared_worker
