"""The flows that the processes of `_attempts` execute.

Each reports the runs it got, and then stops at a place where the proxy can hold it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
from prefect import flow, task, unmapped
from prefect.task_runners import ProcessPoolTaskRunner

from prefect_langgraph import (
    RunHandle,
    arun_stateless,
    create_cron,
    join_run,
    join_runs,
    run_on_thread,
    run_stateless,
    start_run,
    start_runs,
    stream_run,
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


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def stateless_untold(block: str, work: dict[str, Any]) -> list[str]:
    return [run_stateless("untold", work, credentials=block)["result"]]


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


def _tagged(work: dict[str, Any], count: int) -> list[dict[str, Any]]:
    return [{**work, "tag": f"{work['tag']}-{number}"} for number in range(count)]


@task
def _calls(block: str, work: dict[str, Any]) -> Any:
    return run_stateless("counted", work, credentials=block)


@task
def _streams(block: str, work: dict[str, Any]) -> list[Any]:
    return list(stream_run("counted", work, credentials=block))


@flow
def _below(block: str, work: dict[str, Any]) -> Any:
    return run_stateless.submit("counted", work, credentials=block).result()


@task
def _calls_a_flow(block: str, work: dict[str, Any]) -> Any:
    return _below(block, work)


@flow
def submitted(block: str, work: dict[str, Any]) -> list[Any]:
    """Submit a call, a user's task with one, one that streams, and one with a flow of its own."""
    given = _tagged(work, 4)
    tasks: list[Callable[..., Any]] = [_calls.submit, _streams.submit, _calls_a_flow.submit]
    futures = [run_stateless.submit("counted", given[0], credentials=block)]
    futures += [submit(block, item) for submit, item in zip(tasks, given[1:], strict=True)]
    return [future.result() for future in futures]


@flow
def mapped(block: str, work: dict[str, Any]) -> None:
    """Map a call, and be somewhere else when the signal comes."""
    run_stateless.map(unmapped("counted"), _tagged(work, 4), credentials=block)
    time.sleep(600)


@flow
async def amapped(block: str, work: dict[str, Any]) -> list[Any]:
    """Map the asynchronous twin."""
    futures = arun_stateless.map(unmapped("counted"), _tagged(work, 4), credentials=block)
    return [future.result() for future in futures]
