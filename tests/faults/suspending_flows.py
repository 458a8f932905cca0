"""Flows that suspend while their runs go on, for the processes of `_attempts`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from prefect import flow, suspend_flow_run, task

from prefect_langgraph import (
    RunHandle,
    aask_interrupts,
    ask_interrupts,
    astart_runs,
    get_run,
    join_run,
    join_runs,
    run_on_thread,
    start_run,
    start_runs,
    temporary_cron,
    with_finalizer,
)
from prefect_langgraph.flows.suspension import WaitBy, asuspend_until_ended, suspend_until_ended

RUNS = 3


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def waits(
    block: str,
    work: dict[str, Any],
    stay_seconds: float = 0,
    max_wait_seconds: float | None = None,
    on_failure: Any = "raise",
) -> list[Any]:
    """Start a few runs, wait for them without a process, and join them."""
    given = [{**work, "tag": f"{work['tag']}-{number}"} for number in range(RUNS)]
    handles = start_runs("counted", given, credentials=block)
    suspend_until_ended(handles, stay_seconds=stay_seconds, max_wait_seconds=max_wait_seconds)
    return [str(result.status) for result in join_runs(handles, on_failure=on_failure)]


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def waits_for(block: str, given: list[dict[str, Any]]) -> list[Any]:
    """Wait for runs that somebody else has started."""
    handles = [RunHandle.model_validate(handle) for handle in given]
    suspend_until_ended(handles, stay_seconds=0, credentials=block)
    results = join_runs(handles, on_failure="collect", credentials=block)
    return [str(result.status) for result in results]


@with_finalizer(parameter="block", lease_seconds=2)
@flow
async def awaits(block: str, work: dict[str, Any], thread_id: str) -> list[Any]:
    """The asynchronous twin, for a run on a caller's thread."""
    handle = start_run("counted", work, thread_id=thread_id, credentials=block)
    await asuspend_until_ended([handle], stay_seconds=0)
    return [join_run(handle)["result"]]


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def waits_in_new_code(block: str, work: dict[str, Any]) -> list[Any]:
    """What `waits` became while it was suspended: other inputs."""
    given = [{**work, "tag": f"new-{number}"} for number in range(RUNS)]
    handles = start_runs("counted", given, credentials=block)
    suspend_until_ended(handles, stay_seconds=0)
    return [str(result.status) for result in join_runs(handles)]


@task(persist_result=True)
def noted_once(path: str) -> None:
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("task\n")


@with_finalizer(parameter="block", lease_seconds=2)
@flow(persist_result=True)
def notes(block: str, work: dict[str, Any], path: str) -> str:
    """Write down which of its code is executed."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("code\n")
    noted_once(path)
    handle = start_run("counted", work, credentials=block)
    suspend_until_ended([handle], stay_seconds=0)
    result: str = join_run(handle)["result"]
    return result


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def own_suspension(block: str, work: dict[str, Any]) -> list[Any]:
    """Suspend without this package."""
    handle = start_run("counted", work, credentials=block)
    suspend_flow_run(key="of-the-user")
    return [join_run(handle)["result"]]


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def joins(block: str, work: dict[str, Any]) -> list[Any]:
    """Wait in a task of this package, and go on with another."""
    handle = start_run("counted", work, credentials=block)
    values = join_run(handle)
    get_run(handle)
    return [values["result"]]


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def inside_a_cron(block: str, work: dict[str, Any]) -> list[Any]:
    """Suspend inside the block of a cron."""
    with temporary_cron("counted", "0 0 1 1 *", {"tag": "cron"}, credentials=block) as cron:
        handle = start_run("counted", work, credentials=block)
        suspend_until_ended([handle], stay_seconds=0)
        return [join_run(handle)["result"], cron.handle.cron_id]


@flow
def in_subflow(block: str, work: dict[str, Any]) -> str:
    handle = start_run("counted", work, credentials=block)
    suspend_until_ended([handle], stay_seconds=0)
    result: str = join_run(handle)["result"]
    return result


@task
def in_task(block: str, work: dict[str, Any]) -> str:
    return in_subflow.fn(block, work)


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def cannot(block: str, work: dict[str, Any], where: str) -> list[Any]:
    """Wait where nothing can suspend."""
    return [in_task(block, work) if where == "task" else in_subflow(block, work)]


@flow
def without_finalizer(block: str, work: dict[str, Any]) -> list[Any]:
    return [in_subflow.fn(block, work)]


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def asks(
    block: str, graph: str, inputs: list[Any], options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Start runs, have a person answer what they ask, and tell what they came to."""
    handles = start_runs(graph, inputs, credentials=block)
    given = {"stay_seconds": 60, **(options or {})}
    result = ask_interrupts(handles, on_failure=given.pop("on_failure", "raise"), **given)
    return {
        "statuses": [str(one.status) for one in result],
        "values": result.values,
        "answers": [
            [answer.question.title, answer.reply, answer.answered_by] for answer in result.answers
        ],
        "errors": [one.error.error if one.error is not None else None for one in result],
    }


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def asks_with_options(block: str, graph: str, thread_id: str, options: dict[str, Any]) -> Any:
    """Ask what a run with options asks, which stops once more afterwards."""
    handle = start_run(graph, {}, thread_id=thread_id, credentials=block, **options)
    return ask_interrupts([handle], wait="process", credentials=block).values[0]


@flow
def asks_again_later(block: str, graph: str, work: dict[str, Any], thread_id: str) -> list[Any]:
    """Ask about a run, have eleven more on its thread, and ask about it again."""
    handle = start_run(graph, work, thread_id=thread_id, credentials=block)
    first = ask_interrupts([handle], wait="process", credentials=block)
    for _ in range(11):
        run_on_thread(thread_id, graph, {"asks": 0}, credentials=block)
    second = ask_interrupts([handle], wait="process", credentials=block)
    return [len(first.answers), len(second.answers)]


@with_finalizer(parameter="block", lease_seconds=2)
@flow
async def asks_side_by_side(block: str, graph: str, inputs: list[Any]) -> list[Any]:
    """Ask about each run in a call of its own, at the same time."""
    handles = await astart_runs(graph, inputs, credentials=block)
    found = await asyncio.gather(*(aask_interrupts([one], wait="process") for one in handles))
    return [result.values[0]["answers"] for result in found]


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def asks_in_subflow(block: str, graph: str, inputs: list[Any]) -> dict[str, Any]:
    """Ask where nothing can suspend."""
    result: dict[str, Any] = asks(block, graph, inputs)
    return result


@with_finalizer(parameter="block", lease_seconds=2)
@flow(retries=1)
def asks_with_retry(block: str, graph: str, inputs: list[Any]) -> dict[str, Any]:
    """Ask, and begin again when a run fails after the answer."""
    result: dict[str, Any] = asks.fn(block, graph, inputs)
    return result


@with_finalizer(parameter="block", lease_seconds=2)
@flow(retries=1)
def asks_and_fails(block: str, graph: str, inputs: list[Any], path: str, wait: WaitBy) -> None:
    """Ask, and fail afterwards, whatever was answered."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("attempt\n")
    ask_interrupts(start_runs(graph, inputs, credentials=block), wait=wait)
    raise RuntimeError("after the answer")


@with_finalizer(parameter="block", lease_seconds=2)
@flow
def asks_twice(block: str, graph: str, inputs: list[Any]) -> dict[str, Any]:
    """Give each run twice."""
    handles = start_runs(graph, inputs, credentials=block)
    return {"values": ask_interrupts([*handles, *handles]).values}


@flow
def asks_twice_without_finalizer(block: str, graph: str, inputs: list[Any]) -> list[Any]:
    """Ask about the same runs twice, in a flow whose calls clean up by themselves."""
    handles = start_runs(graph, inputs, credentials=block)
    first, second = (ask_interrupts(handles) for _ in range(2))
    return [first.values, second.values, len(first.answers), len(second.answers)]
