"""A flow run that waits without a process, on a Prefect server with PostgreSQL; prints what it came to.

python -m worker.suspended_on_postgresql begin FLOW BLOCK   the id of a new flow run
python -m worker.suspended_on_postgresql execute ID         "suspended", or what the flow returned
python -m worker.suspended_on_postgresql pass               how many flow runs wait, and were resumed
python -m worker.suspended_on_postgresql resume             passes until a flow run is resumed; as above
"""

from __future__ import annotations

import json
import sys
import time
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow

from prefect_langgraph import (
    ask_interrupts,
    join_runs,
    resume_waiting,
    start_runs,
    suspend_until_ended,
    with_finalizer,
)
from support.leftovers import FOREVER

RUNS = 3


@with_finalizer(parameter="block")
@flow
def waits(block: str) -> list[str]:
    """Start runs that go on for long, wait for them without a process, and tell what they came to."""
    handles = start_runs("worker", [FOREVER] * RUNS, credentials=block)
    suspend_until_ended(handles, stay_seconds=0)
    return [str(result.status) for result in join_runs(handles, on_failure="collect")]


@with_finalizer(parameter="block")
@flow
def asks(block: str) -> list[str]:
    """Ask a person without a process, and tell what the agent said."""
    handles = start_runs("refunds", [{"order": "A-7"}], credentials=block)
    return [values["said"] for values in ask_interrupts(handles).values]


FLOWS = {"waits": waits, "asks": asks}


def begin(name: str, block: str) -> str:
    with get_client(sync_client=True) as client:
        deployment_id = client.create_deployment(client.create_flow(FLOWS[name]), "on-postgresql")
        made = client.create_flow_run_from_deployment(deployment_id, parameters={"block": block})
        return str(made.id)


def execute(flow_run_id: str) -> object:
    with get_client(sync_client=True) as client:
        row = client.read_flow_run(UUID(flow_run_id))
        name = client.read_flow(row.flow_id).name
    try:
        return run_flow(FLOWS[name], flow_run=row)
    except Pause:
        return "suspended"


def one_pass() -> list[int]:
    report = resume_waiting()
    return [len(report.waiting), len(report.resumed)]


def passes_until_resumed() -> list[int]:
    """In one process: to start one for each look would take most of the test's time."""
    while not (counts := one_pass())[1]:
        time.sleep(0.2)
    return counts


if __name__ == "__main__":
    steps = {"begin": begin, "execute": execute, "pass": one_pass, "resume": passes_until_resumed}
    print(json.dumps(steps[sys.argv[1]](*sys.argv[2:])))  # noqa: T201 - read by the test
