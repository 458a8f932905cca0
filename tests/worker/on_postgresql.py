"""Flows that are run against a Prefect server on PostgreSQL; prints the ids of their flow runs.

python -m worker.on_postgresql BLOCK
"""

from __future__ import annotations

import json
import sys

from prefect import flow
from prefect.runtime import flow_run

from prefect_langgraph import create_cron, fan_out, run_stateless, start_run, sweep, with_finalizer
from support.leftovers import FOREVER, YEARLY

INPUTS = [{"tag": str(number)} for number in range(20)]


@flow
def forgetful(block: str) -> str:
    """Leave a run and a cron behind."""
    start_run("worker", FOREVER, credentials=block)
    create_cron("worker", YEARLY, credentials=block)
    return str(flow_run.id)


@with_finalizer(parameter="block", cancel_unfinished=True)
@flow
def tidy(block: str) -> str:
    """The same, and a fan-out and a run that was waited for, under a finalizer."""
    start_run("worker", FOREVER, credentials=block)
    create_cron("worker", YEARLY, credentials=block)
    assert run_stateless("worker", {"tag": "a"}, credentials=block)["result"] == "a"
    results = fan_out("worker", INPUTS, credentials=block, per_run_tasks=True)
    assert [values["result"] for values in results.values] == [item["tag"] for item in INPUTS]
    return str(flow_run.id)


if __name__ == "__main__":
    block = sys.argv[1]
    made = {"forgetful": forgetful(block), "tidy": tidy(block)}
    report = sweep(block, grace_seconds=0)
    swept = [entry.flow_run_id for entry in report.released]
    print(json.dumps({**made, "swept": swept}))  # noqa: T201 - read by the test
