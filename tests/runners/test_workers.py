"""What becomes of the worker processes, and of the runs of those that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from prefect_dask import DaskTaskRunner

from faults.tally import Tally
from runners import flows
from runners.conftest import two_workers
from support.waiting import PATIENCE, until

TESTS = Path(__file__).parent.parent
PYTHON = (sys.executable, "-X", "faulthandler", "-W", "always::ResourceWarning")
BAD = (
    "unclosed transport",
    "unclosed event loop",
    "never retrieved",
    "was destroyed",
    "Traceback",
    "Fatal",
)


def wait_until_gone(group: int) -> None:
    """Wait until no process of a group is left."""

    def is_gone() -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return False

    until(is_gone)


@pytest.mark.parametrize("runner", ["processes", "dask"])
def test_program_ends_with_its_worker_processes_and_leaves_nothing_open(
    tally: Tally, runner: str
) -> None:
    # The workers inherit these: Python tells what was left open, and of crashes.
    with subprocess.Popen(
        [*PYTHON, "-m", "runners.script", runner, tally.block],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        shown, errors = program.communicate(timeout=PATIENCE)
    assert shown.strip() == str(["same"] * 5), errors
    assert program.returncode == 0, errors
    assert [bad for bad in BAD if bad in errors] == [], errors
    wait_until_gone(program.pid)
    assert tally.made == 5
    tally.nothing_left()


def busy_worker(client: Client) -> int:
    """The process id of the worker that has a task."""
    (address,) = [name for name, tasks in client.processing().items() if tasks]
    return int(client.run(os.getpid, workers=[address])[address])


def test_run_of_a_dask_worker_that_died_is_adopted_by_the_one_that_gets_its_task(
    tally: Tally,
) -> None:
    # A cluster of its own: once in a while nothing comes in the place of a worker that was killed.
    with two_workers() as cluster:
        waits = flows.waits.with_options(task_runner=DaskTaskRunner(address=cluster.scheduler_address))
        results: list[Any] = []
        flow_run = threading.Thread(target=lambda: results.append(waits(tally.block)))
        flow_run.start()
        tally.wait_for_execution("gated")
        with Client(cluster, set_as_default=False) as client:
            os.kill(busy_worker(client), signal.SIGKILL)
            tally.open_gate()
            flow_run.join(PATIENCE)
    assert results == ["gated"]
    assert tally.made == 1
    assert tally.executed == {"gated": 1}
    tally.nothing_left()
