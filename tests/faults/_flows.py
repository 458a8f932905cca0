"""The flows that the processes of `_attempts` execute."""

from __future__ import annotations

from typing import Any

import httpx
from prefect import flow

from prefect_langgraph import (
    join_runs,
    run_on_thread,
    run_stateless,
    start_run,
    start_runs,
    with_finalizer,
)


def reach(url: str, mark: str) -> None:
    """A place in a flow where the proxy can hold it."""
    httpx.get(f"{url}/ok", params={"mark": mark}, timeout=120)


@with_finalizer(parameter="block")
@flow
def one_run(block: str, tag: str, sleep: float = 0, mark: str | None = None) -> Any:
    values = run_stateless("counted", {"tag": tag, "sleep": sleep}, credentials=block)
    if mark is not None:
        reach(mark, "returned")
    return values


@flow
def one_run_unowned(block: str, tag: str, sleep: float = 0) -> Any:
    return run_stateless("counted", {"tag": tag, "sleep": sleep}, credentials=block)


@with_finalizer(parameter="block")
@flow
def one_run_on_thread(block: str, tag: str, thread_id: str, sleep: float = 0) -> Any:
    given = {"tag": tag, "sleep": sleep}
    return run_on_thread(thread_id, "counted", given, credentials=block)


@with_finalizer(parameter="block")
@flow
def one_started(block: str, tag: str, sleep: float = 0) -> str:
    return start_run("counted", {"tag": tag, "sleep": sleep}, credentials=block).run_id


@with_finalizer(parameter="block")
@flow
def many_runs(block: str, tag: str, count: int, sleep: float = 0) -> list[str]:
    inputs = [{"tag": f"{tag}-{number}", "sleep": sleep} for number in range(count)]
    handles = start_runs("counted", inputs, credentials=block)
    return [values["result"] for values in join_runs(handles).values]
