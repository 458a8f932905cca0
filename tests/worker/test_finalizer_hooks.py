"""`with_finalizer` where its hook runs in another process, and the sweep where no hook runs."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from langgraph_sdk.client import SyncLangGraphClient
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Cancelling

from prefect_langgraph import SweepEntry, sweep
from prefect_langgraph.testing import PrefectServer
from server.owned import active_runs, left_by, logs_of, until
from worker.conftest import Worker
from worker.deployed import BLOCK, RUNS

SLOW = 120  # a worker has to notice, and the process of a hook to import Prefect


class Begun:
    """A deployed flow run that has made everything it makes."""

    def __init__(self, client: SyncLangGraphClient, deployment: str) -> None:
        self._client = client
        self.thread_id = client.threads.create()["thread_id"]
        made: Any = run_deployment(
            deployment, parameters={"thread_id": self.thread_id}, timeout=0, as_subflow=False
        )
        self.id: UUID = made.id
        assert until(self._is_complete, seconds=SLOW), self.row().state

    def _is_complete(self) -> bool:
        left = left_by(self._client, self.id)
        return len(left.runs) == RUNS and len(left.crons) == 1

    def row(self) -> FlowRun:
        with get_client(sync_client=True) as prefect:
            return prefect.read_flow_run(self.id)

    @property
    def pid(self) -> int:
        """The process that the worker started for it."""
        return int(str(self.row().infrastructure_pid).rpartition(":")[2])

    def is_released(self) -> bool:
        """True when nothing is left, but the caller's own thread."""
        assert self._client.threads.get(self.thread_id)
        return not left_by(self._client, self.id) and not active_runs(self._client, self.thread_id)


@pytest.fixture
def begun(client: SyncLangGraphClient, deployment: str, worker: Worker) -> Iterator[Begun]:
    """A flow run in the middle."""
    run = Begun(client, deployment)
    pid = run.pid
    yield run
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_cancelled_flow_run_is_released_by_its_hook(
    begun: Begun, prefect_server: PrefectServer
) -> None:
    with get_client(sync_client=True) as prefect:
        prefect.set_flow_run_state(begun.id, Cancelling())
    assert until(begun.is_released, seconds=SLOW)
    assert until(lambda: begun.row().state_name == "Cancelled", seconds=SLOW)
    assert until(lambda: f"{RUNS} runs cancelled" in logs_of(prefect_server.api_url, begun.id))


def test_killed_process_is_released_by_the_hook_in_a_new_one(
    begun: Begun, prefect_server: PrefectServer
) -> None:
    os.kill(begun.pid, signal.SIGKILL)
    assert until(begun.is_released, seconds=SLOW)
    assert until(lambda: begun.row().state_name == "Crashed", seconds=SLOW)
    assert until(lambda: f"{RUNS} runs cancelled" in logs_of(prefect_server.api_url, begun.id))


def test_process_killed_with_its_worker_is_released_by_one_sweep(begun: Begun, worker: Worker) -> None:

    def planned() -> list[SweepEntry]:
        report = sweep(BLOCK, grace_seconds=0, dry_run=True)
        return [entry for entry in report.released if entry.flow_run_id == str(begun.id)]

    assert not planned()
    worker.kill()  # first, or it would see its process crash
    os.kill(begun.pid, signal.SIGKILL)
    entry = until(planned)[0]
    assert entry.state == "Running"
    assert "gave no sign of life" in entry.reason
    assert not begun.is_released()
    done = sweep(BLOCK, grace_seconds=0)
    assert begun.is_released()
    assert [len(e.runs) for e in done.released if e.flow_run_id == str(begun.id)] == [RUNS]
