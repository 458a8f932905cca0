"""Our tasks inside other people's tasks: a retry of the caller meets the runs of its first attempt.

The tasks here only say which key they would use; which run a key leads to needs a LangGraph server.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from prefect import flow, task
from prefect.futures import wait

from prefect_langgraph import RunHandle
from prefect_langgraph.ownership.keys import key_for
from prefect_langgraph.ownership.owner import current_owner
from prefect_langgraph.tasks._task import LangGraphTask, langgraph_task
from prefect_langgraph.transport.loop import io_loop

pytestmark = pytest.mark.usefixtures("prefect_server")


async def _key(value: Any) -> str:
    deployment: Any = None
    owner = await current_owner().with_root()
    found = await key_for(
        deployment, owner, "start_run", {"input": value}, idempotency_key=None, once=True
    )
    assert found is not None
    return found.text


@langgraph_task("key", run_name="key")
def key(value: Any) -> str:
    return io_loop().run(_key, value)


@langgraph_task("key", run_name="key")
async def akey(value: Any) -> str:
    return await io_loop().arun(_key, value)


class Attempts:
    """The keys that each caller's attempts saw; a caller fails until it has had enough of them."""

    def __init__(self, until: int) -> None:
        self._until = until
        self.of: dict[str, list[list[str]]] = defaultdict(list)

    def note(self, caller: str, keys: list[str]) -> None:
        self.of[caller].append(keys)
        if len(self.of[caller]) < self._until:
            raise RuntimeError("once more")

    def check(self, callers: int, calls: int) -> None:
        assert len(self.of) == callers
        everything = []
        for attempts in self.of.values():
            assert len(attempts) == self._until
            assert all(keys == attempts[0] for keys in attempts)
            everything += attempts[0]
        assert len(set(everything)) == callers * calls


def test_retried_caller_meets_its_own_keys() -> None:
    attempts = Attempts(until=3)

    @task(retries=2)
    def caller(name: str) -> None:
        attempts.note(name, [key("same"), key("same")])

    @flow
    def work() -> None:
        wait([caller.submit(name) for name in "abc"])

    work()
    attempts.check(callers=3, calls=2)


def test_retried_caller_meets_its_own_keys_of_submitted_tasks() -> None:
    attempts = Attempts(until=2)

    @task(retries=1)
    def caller(name: str) -> None:
        first = key.submit("same").result()
        attempts.note(name, [first, *key.map(["same", "other"]).result()])

    @flow
    def work() -> None:
        for name in "ab":
            caller(name)

    work()
    attempts.check(callers=2, calls=3)


def test_retried_asynchronous_caller_meets_its_own_keys() -> None:
    attempts = Attempts(until=2)

    @task(retries=1)
    async def caller(name: str) -> None:
        attempts.note(name, [await akey("same"), await akey("same")])

    @flow
    async def work() -> None:
        await asyncio.gather(*(caller(name) for name in "abc"))

    asyncio.run(work())
    attempts.check(callers=3, calls=2)


def test_own_retry_meets_its_own_key() -> None:
    attempts = Attempts(until=3)

    @langgraph_task("flaky", run_name="flaky")
    def flaky(name: str) -> None:
        attempts.note(name, [io_loop().run(_key, "same")])

    def whatever(*_: object) -> bool:
        return True

    again = flaky.with_options(retries=2, retry_delay_seconds=0, retry_condition_fn=whatever)

    @flow
    def work() -> None:
        wait([again.submit(name) for name in "abc"])

    work()
    attempts.check(callers=3, calls=1)


def test_second_execution_of_a_flow_run_meets_the_keys_of_the_first() -> None:
    attempts = Attempts(until=2)

    @flow(retries=1)
    def work() -> None:
        attempts.note("flow", [key("same"), key("same"), key("other")])

    work()
    attempts.check(callers=1, calls=3)


def test_second_execution_of_a_subflow_meets_the_keys_of_the_first() -> None:
    attempts = Attempts(until=2)

    @flow(retries=1)
    def inner() -> None:
        attempts.note("inner", [key("same"), key("same")])

    @flow
    def outer() -> str:
        inner()
        return key("same")

    after = outer()
    attempts.check(callers=1, calls=2)
    assert after not in attempts.of["inner"][0]


def test_second_execution_of_a_flow_run_meets_the_keys_of_its_subflow() -> None:
    attempts = Attempts(until=2)

    @flow
    def inner() -> list[str]:
        return [key("same"), key("same")]

    @flow(retries=1)
    def outer() -> None:
        attempts.note("outer", [key("same"), *inner()])

    outer()
    attempts.check(callers=1, calls=3)


def test_other_flow_run_has_other_keys() -> None:
    @flow
    def work() -> str:
        return key("same")

    assert work() != work()


def test_task_with_options_still_tracks_its_caller() -> None:
    assert type(key.with_options(name="other")) is LangGraphTask


def test_handle_is_one_value_to_map() -> None:
    handle = RunHandle(run_id="r", thread_id="t", assistant_id="a", url="http://localhost:2024")

    @task
    def pair(found: RunHandle, number: int) -> str:
        return f"{found.run_id}{number}"

    @task
    def made(number: int) -> RunHandle:
        return handle.model_copy(update={"run_id": str(number)})

    @flow
    def work() -> tuple[list[str], list[str]]:
        together = pair.map([handle, handle], [1, 2]).result()
        return together, pair.map(made.map([7, 8]), [1, 2]).result()

    assert work() == (["r1", "r2"], ["71", "82"])
