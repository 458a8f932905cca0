"""`with_finalizer` where its hook runs in another process, and the sweep where no hook runs."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from langgraph_sdk.client import SyncLangGraphClient
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Cancelling

from prefect_langgraph import SweepEntry, sweep
from prefect_langgraph.ownership.heartbeat import is_heartbeat
from prefect_langgraph.testing import PrefectServer
from support.leftovers import active_runs, left_by, logs_of
from support.waiting import until
from worker.conftest import Worker
from worker.deployed import BLOCK, CRONS, RUNS, SCATTERED


class Begun:
    """A deployed flow run that has made everything it makes."""

    def __init__(self, client: SyncLangGraphClient, deployment: str) -> None:
        self._client = client
        self.thread_id = client.threads.create()["thread_id"]
        made: Any = run_deployment(
            f"owner/{deployment}", parameters={"thread_id": self.thread_id}, timeout=0, as_subflow=False
        )
        self.id: UUID = made.id
        assert until(self._is_complete), self.row().state

    def _is_complete(self) -> bool:
        left = left_by(self._client, self.id)
        return len(left.runs) == RUNS and len(left.crons) == CRONS

    def row(self) -> FlowRun:
        with get_client(sync_client=True) as prefect:
            return prefect.read_flow_run(self.id)

    @property
    def pid(self) -> int:
        """The process that the worker started for it."""
        return int(str(self.row().infrastructure_pid).rpartition(":")[2])

    def last_sign(self) -> str:
        """When its lease was renewed."""
        tags = {"prefect_flow_run_id": str(self.id)}
        threads = self._client.threads.search(metadata=tags, limit=1000)
        return max(str(thread["updated_at"]) for thread in threads if is_heartbeat(thread["metadata"]))

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
    assert until(begun.is_released)
    assert until(lambda: begun.row().state_name == "Cancelled")
    said = f"{CRONS} crons deleted, {RUNS} runs cancelled"
    assert until(lambda: said in logs_of(prefect_server.api_url, begun.id))


def test_cancelled_flow_run_without_a_finalizer_has_its_mapped_and_submitted_calls_cancel_their_runs(
    client: SyncLangGraphClient, deployment: str, worker: Worker
) -> None:
    made: Any = run_deployment(f"scattered/{deployment}", timeout=0, as_subflow=False)
    assert until(lambda: len(left_by(client, made.id).runs) == SCATTERED)
    with get_client(sync_client=True) as prefect:
        prefect.set_flow_run_state(made.id, Cancelling())
        assert until(lambda: not left_by(client, made.id))
        assert until(lambda: prefect.read_flow_run(made.id).state_name == "Cancelled")


def test_killed_process_is_released_by_the_hook_in_a_new_one(
    begun: Begun, prefect_server: PrefectServer
) -> None:
    os.kill(begun.pid, signal.SIGKILL)
    assert until(begun.is_released)
    assert until(lambda: begun.row().state_name == "Crashed")
    said = f"{CRONS} crons deleted, {RUNS} runs cancelled"
    assert until(lambda: said in logs_of(prefect_server.api_url, begun.id))


def test_suspended_flow_run_keeps_its_things_until_it_was_resumed_and_has_ended(
    client: SyncLangGraphClient, deployment: str, worker: Worker, prefect_server: PrefectServer
) -> None:
    api_url = prefect_server.api_url
    made: Any = run_deployment(f"patient/{deployment}", timeout=0, as_subflow=False)

    def state() -> str | None:
        with get_client(sync_client=True) as prefect:
            return prefect.read_flow_run(made.id).state_name

    assert until(lambda: state() == "Suspended"), state()
    before = left_by(client, made.id)
    assert len(before.crons) == 1
    (entry,) = (
        entry for entry in sweep(BLOCK, grace_seconds=0).entries if entry.flow_run_id == str(made.id)
    )
    assert (entry.action, entry.state) == ("keep", "Suspended")
    after = left_by(client, made.id)
    assert {*after.threads, *after.crons} == {*before.threads, *before.crons}

    with get_client(sync_client=True) as prefect:
        prefect.resume_flow_run(made.id)
    assert until(lambda: state() in ("Completed", "Failed", "Crashed")), state()
    assert state() == "Completed"
    assert until(lambda: not left_by(client, made.id))
    # Its second execution found the run and the cron of its first.
    assert until(lambda: "1 cron deleted" in logs_of(api_url, made.id))
    said = logs_of(api_url, made.id)
    assert (said.count("Started run"), said.count("Adopted, from an earlier attempt, run")) == (1, 1)


def test_resumed_flow_run_lives_before_its_first_call_and_is_released_when_its_process_died(
    client: SyncLangGraphClient, deployment: str, worker: Worker, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    made: Any = run_deployment(
        f"patient/{deployment}", parameters={"gate": str(gate)}, timeout=0, as_subflow=False
    )

    def row() -> FlowRun:
        with get_client(sync_client=True) as prefect:
            return prefect.read_flow_run(made.id)

    def swept() -> SweepEntry:
        entries = sweep(BLOCK, grace_seconds=0).entries
        return next(entry for entry in entries if entry.flow_run_id == str(made.id))

    assert until(lambda: row().state_name == "Suspended"), row().state
    first = row().infrastructure_pid
    before = left_by(client, made.id)
    gate.unlink()
    with get_client(sync_client=True) as prefect:
        prefect.resume_flow_run(made.id)
    # The new process lives and has not called the deployment; all heartbeats are of the first one.
    assert until(lambda: row().state_name == "Running"), row().state
    assert swept().action == "keep", swept().reason
    assert not set(before.threads) - set(left_by(client, made.id).threads)

    assert until(lambda: row().infrastructure_pid not in (None, first))
    worker.kill()  # first, or it would see its process crash
    os.kill(int(str(row().infrastructure_pid).rpartition(":")[2]), signal.SIGKILL)
    entry = until(lambda: (found := swept()).action == "release" and found)
    assert entry, swept()
    assert "gave no sign of life" in entry.reason
    assert not left_by(client, made.id)


def test_process_killed_with_its_worker_is_released_by_one_sweep(begun: Begun, worker: Worker) -> None:

    def planned() -> list[SweepEntry]:
        report = sweep(BLOCK, grace_seconds=0, dry_run=True)
        return [entry for entry in report.released if entry.flow_run_id == str(begun.id)]

    # On a busy machine a sign of life may come later than the lease of the test, and then again.
    assert until(lambda: not planned())
    worker.kill()  # first, or it would see its process crash
    # The flow run goes on without it, and so do its signs of life.
    before = begun.last_sign()
    assert until(lambda: begun.last_sign() > before)
    assert until(lambda: not planned())
    os.kill(begun.pid, signal.SIGKILL)
    entry = until(planned)[0]
    assert entry.state == "Running"
    assert "gave no sign of life" in entry.reason
    assert not begun.is_released()
    done = sweep(BLOCK, grace_seconds=0)
    assert begun.is_released()
    (entry,) = (entry for entry in done.released if entry.flow_run_id == str(begun.id))
    assert (len(entry.runs), len(entry.crons)) == (RUNS, CRONS)
