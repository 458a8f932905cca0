"""The flows of the package with `.serve()`: no work pool, no worker, and the same outcome."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from langgraph_sdk.client import SyncLangGraphClient

from prefect_langgraph import LangGraphAssistant, LangGraphCredentials, resume_waiting
from prefect_langgraph.testing import LangGraphServer, PrefectServer
from prefect_langgraph.testing.process import HOST, ServerProcess
from support.leftovers import FOREVER, YEARLY, left_by
from support.waiting import PATIENCE, until
from worker.api import Api, Row
from worker.served import NAME
from worker.test_suspension import end_its_runs, suspended

BLOCK = "served"


class Served(ServerProcess):
    """A user's script that serves flows. Each flow run has a process of its own."""

    name = "script that serves"

    def __init__(self, how: str, folder: Path) -> None:
        self._how = how
        super().__init__(folder=folder, throw_away=False, port=None, startup_seconds=PATIENCE)

    def _command(self) -> tuple[str, Sequence[str]]:
        return "worker.served", [self._how, BLOCK]

    def _environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_RUNNER_SERVER_ENABLE": "true",
            "PREFECT_RUNNER_SERVER_HOST": HOST,
            "PREFECT_RUNNER_SERVER_PORT": str(self.port),
        }

    def _ready(self, client: httpx.Client) -> bool:
        return client.get("/health").status_code == httpx.codes.OK


@pytest.fixture(scope="module")
def served(
    prefect_server: PrefectServer,
    langgraph_server: LangGraphServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """Scripts that serve every flow of the package."""
    credentials = LangGraphCredentials(url=langgraph_server.url)
    credentials.save(BLOCK, overwrite=True)
    LangGraphAssistant(credentials=credentials, assistant_id="answer").save(BLOCK, overwrite=True)
    with ExitStack() as stack:
        for how in ("one", "several"):
            script = Served(how, tmp_path_factory.mktemp(f"served-{how}"))
            stack.callback(script.close)
            script.start()
        yield


def deployment_of(api: Api, flow_name: str) -> Row:
    row: Row = api.ask("GET", f"/deployments/name/{flow_name}/{NAME}")
    return row


RUNS: dict[str, dict[str, Any]] = {
    "langgraph-fan-out": {"assistant_id": "worker", "inputs": [{"tag": "a"}, {"tag": "b"}]},
    "langgraph-cron-window": {"assistant_id": "worker", "schedule": YEARLY, "duration": "PT1S"},
    "langgraph-reconcile-crons": {"specs": [], "owner": "served"},
    "langgraph-run-assistant": {"input": {"question": "?"}},
    "langgraph-resume": {"dry_run": True},
    "langgraph-sweep": {"dry_run": True},
}


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("flow_name", RUNS)
def test_served_flow_runs_and_leaves_nothing(
    flow_name: str, prefect_api: Api, client: SyncLangGraphClient
) -> None:
    deployment = deployment_of(prefect_api, flow_name)
    row = prefect_api.completed(prefect_api.run(deployment, RUNS[flow_name]))
    # The finalizer is a hook, which runs when the flow run has completed.
    assert until(lambda: not left_by(client, row["id"]))


@pytest.mark.usefixtures("served")
def test_served_flow_waits_without_a_process_and_goes_on_when_it_is_resumed(
    prefect_api: Api, client: SyncLangGraphClient
) -> None:
    parameters = {
        "assistant_id": "worker",
        "inputs": [FOREVER, FOREVER],
        "wait": "suspend",
        "stay_seconds": 0,
        "on_failure": "collect",
    }
    flow_run_id = UUID(prefect_api.run(deployment_of(prefect_api, "langgraph-fan-out"), parameters))
    suspended(prefect_api, flow_run_id)
    end_its_runs(client, flow_run_id)
    assert until(lambda: resume_waiting().resumed)
    prefect_api.completed(str(flow_run_id))
    assert until(lambda: not left_by(client, flow_run_id))


@pytest.mark.usefixtures("served")
def test_served_flow_that_is_cancelled_leaves_nothing(
    prefect_api: Api, client: SyncLangGraphClient
) -> None:
    parameters = {"assistant_id": "worker", "inputs": [FOREVER, FOREVER]}
    flow_run_id = prefect_api.run(deployment_of(prefect_api, "langgraph-fan-out"), parameters)
    assert until(lambda: len(left_by(client, flow_run_id).runs) == 2)
    cancelling = {"state": {"type": "CANCELLING"}}
    prefect_api.ask("POST", f"/flow_runs/{flow_run_id}/set_state", cancelling)
    assert until(lambda: not left_by(client, flow_run_id))
    assert prefect_api.ended(flow_run_id)["state_name"] == "Cancelled"
