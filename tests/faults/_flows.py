"""The flows that the processes of `_attempts` execute.

Each reports the runs it got, and then stops at a place where the proxy can hold it.
"""

from __future__ import annotations

from typing import Any

import httpx
from prefect import flow
from prefect.task_runners import ProcessPoolTaskRunner

from prefect_langgraph import (
    RunHandle,
    create_cron,
    join_run,
    join_runs,
    run_on_thread,
    run_stateless,
    start_run,
    start_runs,
    with_finalizer,
)

LINGER = "/ok$"


def _linger(url: str | None) -> None:
    if url is not None:
        httpx.get(f"{url}/ok", timeout=120)


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def stateless(block: str, work: dict[str, Any], linger: str | None = None) -> list[str]:
    values = run_stateless("counted", work, credentials=block)
    _linger(linger)
    return [values["result"]]


@flow
def stateless_unowned(block: str, work: dict[str, Any], linger: str | None = None) -> list[str]:
    values = run_stateless("counted", work, credentials=block)
    _linger(linger)
    return [values["result"]]


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def on_thread(block: str, work: dict[str, Any], thread_id: str, linger: str | None = None) -> list[str]:
    values = run_on_thread(thread_id, "counted", work, credentials=block)
    _linger(linger)
    return [values["result"]]


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def background(
    block: str, work: dict[str, Any], thread_id: str | None = None, linger: str | None = None
) -> list[str]:
    handle = start_run("counted", work, thread_id=thread_id, credentials=block)
    _linger(linger)
    return [join_run(handle)["result"]]


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def many(block: str, work: dict[str, Any], linger: str | None = None) -> list[str]:
    given = [{**work, "tag": f"{work['tag']}-{number}"} for number in range(3)]
    handles = start_runs("counted", given, credentials=block)
    _linger(linger)
    return [values["result"] for values in join_runs(handles).values]


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def with_cron(block: str, work: dict[str, Any], linger: str | None = None) -> list[str]:
    create_cron("counted", "0 0 1 1 *", work, credentials=block)
    _linger(linger)
    return []


POOLED: list[list[RunHandle]] = []


@flow(retries=1, task_runner=ProcessPoolTaskRunner(max_workers=2))
def pooled(block: str) -> None:
    """Start four identical runs in a process pool, twice."""
    futures = [start_run.submit("counted", {"tag": "same"}, credentials=block) for _ in range(4)]
    POOLED.append([future.result() for future in futures])
    if len(POOLED) % 2:
        raise RuntimeError("once more")
