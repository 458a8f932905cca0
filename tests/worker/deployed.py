"""Flows that the tests deploy: each makes things on the server and then waits for what comes."""

from __future__ import annotations

import time

from prefect import flow

from prefect_langgraph import create_cron, start_run, with_finalizer

BLOCK = "worker-tests"
YEARLY = "0 0 1 1 *"
RUNS = 3  # two on threads of their own, one on a caller's
LEASE_SECONDS = 2.0


@with_finalizer(BLOCK, lease_seconds=LEASE_SECONDS)
@flow
def owner(thread_id: str) -> None:
    """Start runs on threads of their own and on a caller's, make a cron, and go on for long."""
    for number in range(RUNS - 1):
        start_run("worker", {"sleep": 600, "tag": str(number)}, credentials=BLOCK)
    start_run("worker", {"sleep": 600}, thread_id=thread_id, credentials=BLOCK)
    create_cron("worker", YEARLY, credentials=BLOCK)
    time.sleep(600)
