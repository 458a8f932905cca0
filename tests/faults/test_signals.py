"""The process of a flow run is asked to end while one of its tasks waits for a run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow

from faults import flows
from faults.attempts import attempt, new_flow_run, read_flow_run
from faults.tally import CANCEL, Tally
from proxy import LoseResponse
from support.waiting import PATIENCE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_task_that_a_signal_interrupts_cancels_its_run_and_waits_until_that_is_so(
    tally: Tally, tmp_path: Path, number: signal.Signals
) -> None:
    # Without a finalizer nobody else would do it, and one confirmation gets lost on its way.
    lost = tally.proxy.on("POST", CANCEL, LoseResponse())
    flow_run = new_flow_run(flows.stateless_unowned, block=tally.block, work={"tag": "a", "gate": True})
    with attempt(flows.stateless_unowned, flow_run, tmp_path) as running:
        tally.wait_for_execution("a")
        assert running.process.pid
        os.kill(running.process.pid, number)
        running.process.join(PATIENCE)
        # After a SIGTERM Prefect lets the process end as if it had not caught it.
        assert running.process.exitcode not in (None, 0)
        said = running.log()
    assert lost.hits == 1
    assert (tally.made, tally.executed) == (1, {"a": 1})
    tally.nothing_left()
    assert "cancelled" in said
    state = read_flow_run(flow_run).state
    assert state is not None
    assert state.is_crashed()


# Ctrl-C in an asynchronous flow that blocks its loop is asyncio's: its first one waits for the loop.
@pytest.mark.parametrize(
    ("flow", "number"),
    [
        (flows.submitted, signal.SIGTERM),
        (flows.submitted, signal.SIGINT),
        (flows.mapped, signal.SIGTERM),
        (flows.mapped, signal.SIGINT),
        (flows.amapped, signal.SIGTERM),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else value.fn.__name__,
)
def test_calls_on_other_os_threads_cancel_their_runs_when_a_signal_ends_the_process(
    tally: Tally, tmp_path: Path, flow: Flow[..., Any], number: signal.Signals
) -> None:
    flow_run = new_flow_run(flow, block=tally.block, work={"tag": "a", "gate": True})
    with attempt(flow, flow_run, tmp_path) as running:
        for call in range(4):
            tally.wait_for_execution(f"a-{call}")
        assert running.process.pid
        os.kill(running.process.pid, number)
        running.process.join(PATIENCE)
        assert running.process.exitcode not in (None, 0), running.log()
    assert tally.made == 4
    tally.nothing_left()
