"""The image of examples/container as processes: what it runs, and how that ends when it is told to.

A container runtime sends SIGTERM to one process, waits, and then kills everything.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import httpx
from langgraph_sdk.client import SyncLangGraphClient

from prefect_langgraph.testing.process import HOST, ServerProcess
from support.dockerfile import command, environment
from support.leftovers import active_runs, left_by
from support.waiting import PATIENCE, until
from worker.api import Api
from worker.deployed import SCATTERED
from worker.test_suspension import begun, state_of


class Image(ServerProcess):
    """What the image runs when it is told nothing else."""

    name = "image"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder=folder, throw_away=False, port=None, startup_seconds=PATIENCE)

    def _command(self) -> tuple[str, Sequence[str]]:
        module, *arguments = command()
        return module, arguments

    def _environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            **environment(),
            "PREFECT_WORKER_WEBSERVER_HOST": HOST,
            "PREFECT_WORKER_WEBSERVER_PORT": str(self.port),
        }

    def _ready(self, client: httpx.Client) -> bool:
        return client.get("/health").status_code == httpx.codes.OK


@contextmanager
def job(flow_run_id: UUID) -> Iterator[subprocess.Popen[bytes]]:
    """One flow run, as a work pool has a container execute it."""
    with subprocess.Popen(
        [sys.executable, "-m", "prefect", "flow-run", "execute", str(flow_run_id)],
        env={**os.environ, **environment()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_worker_of_the_image_is_healthy_and_hears_that_it_has_to_end(pool: str, tmp_path: Path) -> None:
    image = Image(tmp_path)
    try:
        image.start()
        # It answers a moment before it listens to signals.
        until(lambda: "started!" in image.log_tail())
        image.stop()
        # No shell has kept the signal. Once in a while Prefect's worker goes on all the same.
        assert "Received SIGTERM" in image.log_tail()
    finally:
        image.close()


def test_flow_run_whose_container_has_to_end_cancels_its_runs_and_is_scheduled_again(
    deployment: str, client: SyncLangGraphClient, prefect_api: Api
) -> None:
    flow_run_id = begun(deployment, "scattered")

    def at_work() -> list[str]:
        threads = left_by(client, flow_run_id).threads
        return [run for thread in threads for run in active_runs(client, thread)]

    with job(flow_run_id) as process:
        until(lambda: len(at_work()) == SCATTERED)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert state_of(prefect_api, flow_run_id) == "AwaitingRetry"
    assert at_work() == []
    prefect_api.ask("DELETE", f"/flow_runs/{flow_run_id}")
