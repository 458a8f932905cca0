"""Flows that the tests deploy: each makes things on the server and then waits for what comes."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import flow, suspend_flow_run, unmapped

from prefect_langgraph import (
    ask_interrupts,
    create_cron,
    join_run,
    join_runs,
    run_stateless,
    start_run,
    start_runs,
    suspend_until_ended,
    with_finalizer,
)

BLOCK = "worker-tests"
YEARLY = "0 0 1 1 *"
RUNS = 3  # two on threads of their own, one on a caller's
CRONS = 3  # one of them on the caller's thread
LEASE_SECONDS = 2.0
SCATTERED = 4  # calls on other OS threads


@with_finalizer(BLOCK, lease_seconds=LEASE_SECONDS)
@flow
def owner(thread_id: str) -> None:
    """Start runs on threads of their own and on a caller's, make crons, and go on for long."""
    for number in range(RUNS - 1):
        start_run("worker", {"sleep": 600, "tag": str(number)}, credentials=BLOCK)
    start_run("worker", {"sleep": 600}, thread_id=thread_id, credentials=BLOCK)
    for _ in range(CRONS - 1):
        create_cron("worker", YEARLY, credentials=BLOCK)
    create_cron("worker", YEARLY, thread_id=thread_id, credentials=BLOCK)
    time.sleep(600)


@with_finalizer(BLOCK, lease_seconds=LEASE_SECONDS)
@flow
def patient(gate: str | None = None) -> str:
    """Start a run and make a cron, give the process back until somebody says so, and join the run.

    Args:
        gate: Each execution begins its work when this file exists; None: at once.
    """
    while gate is not None and not Path(gate).exists():
        time.sleep(0.1)
    handle = start_run("worker", {"tag": "kept"}, credentials=BLOCK)
    create_cron("worker", YEARLY, credentials=BLOCK)
    suspend_flow_run(timeout=600)
    result: str = join_run(handle)["result"]
    return f"{handle.origin} {result}"


@flow
def scattered() -> None:
    """Without a finalizer, map and submit calls that go on for long, and be somewhere else."""
    given = [{"sleep": 600, "tag": str(number)} for number in range(SCATTERED - 1)]
    run_stateless.map(unmapped("worker"), given, credentials=BLOCK)
    run_stateless.submit("worker", {"sleep": 600}, credentials=BLOCK)
    time.sleep(600)


@with_finalizer(BLOCK, lease_seconds=LEASE_SECONDS)
@flow
def reviewer() -> list[str]:
    """Have a person review a refund, without a process, and tell what the agent said."""
    handles = start_runs("refunds", [{"order": "A-7"}], credentials=BLOCK)
    return [values["said"] for values in ask_interrupts(handles).values]


@with_finalizer(parameter="block", lease_seconds=LEASE_SECONDS)
@flow
def sleeper(webhook: str | None = None, block: str = BLOCK) -> list[str]:
    """Start a run that goes on for long, wait for it without a process, and tell what it came to."""
    handle = start_run("worker", {"sleep": 600}, credentials=block, webhook=webhook)
    suspend_until_ended([handle], stay_seconds=0)
    return [str(result.status) for result in join_runs([handle], on_failure="collect")]
