"""Identical calls of one attempt are separate runs, and each finds its own again at the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from prefect import flow, task, unmapped

from faults import flows
from faults.tally import Tally
from prefect_langgraph import (
    RunCancelledError,
    RunFailedError,
    RunHandle,
    RunInterruptedError,
    astart_run,
    cancel_run,
    join_run,
    join_runs,
    run_on_thread,
    start_run,
    start_runs,
    with_finalizer,
)
from prefect_langgraph.errors import JoinTimeoutError

WORK = {"tag": "same"}
FIRST_FAILS = {"tag": "same", "fail_first": 1}
GATED = {"tag": "same", "gate": True}


class AgainError(Exception):
    """Makes Prefect execute the flow run, or the task, again."""


def in_a_loop(block: str) -> list[RunHandle]:
    return [start_run("counted", WORK, credentials=block) for _ in range(4)]


def mapped(block: str) -> list[RunHandle]:
    return list(start_run.map(["counted"] * 4, unmapped(WORK), credentials=block).result())


def submitted(block: str) -> list[RunHandle]:
    futures = [start_run.submit("counted", WORK, credentials=block) for _ in range(4)]
    return [future.result() for future in futures]


def in_one_batch(block: str) -> list[RunHandle]:
    return list(start_runs("counted", [WORK] * 4, credentials=block))


def ids_of(handles: list[RunHandle]) -> set[str]:
    return {handle.run_id for handle in handles}


def check(tally: Tally, attempts: list[list[RunHandle]], made: int) -> None:
    """Both attempts had the same runs, all different."""
    first, second = attempts
    assert len(ids_of(first)) == len(first)
    assert ids_of(first) == ids_of(second)
    assert {handle.origin for handle in first} == {"started"}
    assert {handle.origin for handle in second} == {"adopted"}
    assert tally.made == made
    tally.settle()
    tally.clear()


@pytest.mark.parametrize("style", [in_a_loop, mapped, submitted, in_one_batch])
def test_identical_calls_are_separate_runs_and_found_again_by_the_next_attempt(
    tally: Tally, style: Callable[[str], list[RunHandle]]
) -> None:
    attempts: list[list[RunHandle]] = []

    @flow(retries=1)
    def calls() -> None:
        attempts.append(style(tally.block))
        if len(attempts) == 1:
            raise AgainError

    calls()
    check(tally, attempts, made=4)


def test_identical_calls_gathered_are_separate_runs_and_found_again(tally: Tally) -> None:
    attempts: list[list[RunHandle]] = []

    def start() -> Coroutine[Any, Any, RunHandle]:
        return astart_run("counted", WORK, credentials=tally.block)

    @flow(retries=1)
    async def calls() -> None:
        attempts.append(list(await asyncio.gather(*(start() for _ in range(4)))))
        if len(attempts) == 1:
            raise AgainError

    asyncio.run(calls())
    check(tally, attempts, made=4)


def test_identical_calls_in_a_process_pool_are_separate_runs_and_found_again(
    tally: Tally,
) -> None:
    flows.POOLED.clear()
    flows.pooled(tally.block)
    check(tally, flows.POOLED, made=4)


def test_retried_tasks_of_a_user_meet_their_own_runs(tally: Tally) -> None:
    seen: dict[int, list[str]] = {}

    @task(retries=1)
    def step(number: int) -> str:
        handles = [start_run("counted", WORK, credentials=tally.block) for _ in range(2)]
        seen.setdefault(number, []).append(" ".join(handle.run_id for handle in handles))
        if len(seen[number]) == 1:
            raise AgainError
        return " ".join(sorted(join_run(handle)["result"] for handle in handles))

    @flow
    def calls() -> list[str]:
        return list(step.map([1, 2, 3]).result())

    assert calls() == ["same same"] * 3
    assert all(first == again for first, again in seen.values())
    assert len(set(" ".join(first for first, _ in seen.values()).split())) == 6
    assert tally.made == 6
    tally.nothing_left()


def test_subflow_is_executed_again_with_the_flow_around_it_and_adopts(tally: Tally) -> None:
    attempts: list[list[RunHandle]] = []

    @flow
    def inner() -> list[RunHandle]:
        return in_a_loop(tally.block)

    @flow(retries=1)
    def outer() -> None:
        attempts.append(inner())
        if len(attempts) == 1:
            raise AgainError

    outer()
    check(tally, attempts, made=4)


def test_subflow_in_a_retried_task_starts_again(tally: Tally) -> None:
    attempts: list[list[RunHandle]] = []

    @flow
    def inner() -> list[RunHandle]:
        return [start_run("counted", WORK, credentials=tally.block)]

    @task(retries=1)
    def step() -> None:
        attempts.append(inner())
        if len(attempts) == 1:
            raise AgainError

    @flow
    def outer() -> None:
        step()

    outer()
    assert ids_of(attempts[0]) != ids_of(attempts[1])
    assert tally.made == 2
    tally.settle()


def test_idempotency_key_settles_it_for_a_subflow_in_a_retried_task(tally: Tally) -> None:
    attempts: list[list[RunHandle]] = []

    @flow
    def inner() -> list[RunHandle]:
        return [start_run("counted", WORK, credentials=tally.block, idempotency_key="mine")]

    @task(retries=1)
    def step() -> None:
        attempts.append(inner())
        if len(attempts) == 1:
            raise AgainError

    @flow
    def outer() -> None:
        step()

    outer()
    check(tally, attempts, made=1)


def fails(block: str) -> None:
    with pytest.raises(RunFailedError):
        join_run(start_run("counted", FIRST_FAILS, credentials=block))


def is_cancelled(block: str) -> None:
    handle = start_run("counted", GATED, credentials=block)
    cancel_run(handle)
    with pytest.raises(RunCancelledError):
        join_run(handle)


def is_too_late(block: str) -> None:
    handle = start_run("counted", GATED, credentials=block)
    with pytest.raises(JoinTimeoutError):
        join_run(handle, max_wait_seconds=0.5, on_timeout="cancel")


@pytest.mark.parametrize("ends", [fails, is_cancelled, is_too_late])
def test_run_that_did_not_succeed_gets_a_fresh_attempt(
    tally: Tally, ends: Callable[[str], None]
) -> None:
    origins: list[str] = []

    @with_finalizer(tally.block)
    @flow(retries=1)
    def calls() -> Any:
        if not origins:
            ends(tally.block)
            origins.append("")
            raise AgainError
        tally.open_gate()
        handle = start_run("counted", FIRST_FAILS if ends is fails else GATED, credentials=tally.block)
        origins.append(handle.origin)
        return join_run(handle)["result"]

    assert calls() == "same"
    assert origins[1:] == ["restarted"]
    assert tally.made == 2
    tally.nothing_left()


def test_failed_items_of_a_batch_get_a_fresh_attempt_and_the_others_are_adopted(
    tally: Tally,
) -> None:
    attempts: list[list[str]] = []
    inputs = [{"tag": "good"}, {"tag": "bad", "fail_first": 1}]

    @with_finalizer(tally.block)
    @flow(retries=1)
    def calls() -> list[str]:
        handles = start_runs("counted", inputs, credentials=tally.block)
        attempts.append([handle.origin for handle in handles])
        return [values["result"] for values in join_runs(handles).values]

    assert calls() == ["good", "bad"]
    assert attempts == [["started", "started"], ["adopted", "restarted"]]
    assert tally.made == 3
    assert tally.executed == {"good": 1, "bad": 2}
    tally.nothing_left()


def test_without_a_finalizer_what_was_joined_starts_again(tally: Tally) -> None:
    attempts: list[list[RunHandle]] = []

    @flow(retries=1)
    def calls() -> None:
        handle = start_run("counted", WORK, credentials=tally.block)
        attempts.append([handle])
        join_run(handle)
        if len(attempts) == 1:
            raise AgainError

    calls()
    assert ids_of(attempts[0]) != ids_of(attempts[1])
    tally.nothing_left()


def test_resumed_run_is_not_taken_for_the_one_that_asked(tally: Tally) -> None:
    attempts: list[list[RunHandle]] = []

    @with_finalizer(tally.block, cancel_unfinished=True)
    @flow(retries=1)
    def calls() -> Any:
        handle = start_run("counted", {"tag": "same", "ask": "Go on?"}, credentials=tally.block)
        attempts.append([handle])
        with pytest.raises(RunInterruptedError):
            join_run(handle)
        answer: Any = {"resume": "yes"}
        values = run_on_thread(handle.thread_id, "counted", command=answer, credentials=tally.block)
        if len(attempts) == 1:
            raise AgainError
        return values["answer"]

    assert calls() == "yes"
    check(tally, attempts, made=2)
