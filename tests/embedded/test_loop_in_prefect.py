"""Prefect's own ways to end a call, on the shared loop: none leaves its coroutine running."""

from __future__ import annotations

import asyncio
import threading

import pytest
from prefect import flow, task

from prefect_langgraph.transport.loop import io_loop

BOUND = 30

pytestmark = pytest.mark.usefixtures("prefect_server")


class Call:
    """Waits for longer than any test does, and notes how it ended."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.ended = threading.Event()
        self.notes: list[str] = []

    async def wait(self) -> str:
        self.started.set()
        try:
            await asyncio.sleep(10 * BOUND)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            self.notes.append("cleaned up")
            raise
        finally:
            self.ended.set()
        return "waited"


def test_timeout_of_a_task_on_the_main_thread_cancels_the_coroutine() -> None:
    call = Call()

    @task(timeout_seconds=0.3)
    def waits() -> str:
        return io_loop().run(call.wait)

    @flow
    def calls() -> str:
        return waits()

    with pytest.raises(TimeoutError):
        calls()
    assert call.notes == ["cleaned up"]


def test_timeout_of_a_submitted_task_cancels_the_coroutine() -> None:
    call = Call()

    @task(timeout_seconds=0.3)
    def waits() -> str:
        return io_loop().run(call.wait)

    @flow
    def submits() -> str:
        return waits.submit().result()

    with pytest.raises(TimeoutError):
        submits()
    assert call.notes == ["cleaned up"]


def test_timeout_of_an_asynchronous_task_cancels_the_coroutine() -> None:
    call = Call()

    @task(timeout_seconds=0.3)
    async def waits() -> str:
        return await io_loop().arun(call.wait)

    @flow
    async def calls() -> str:
        return await waits()

    with pytest.raises(TimeoutError):
        asyncio.run(calls())
    assert call.notes == ["cleaned up"]


def test_timeout_of_a_flow_cancels_the_coroutine() -> None:
    call = Call()

    @flow(timeout_seconds=0.5)
    def waits() -> str:
        return io_loop().run(call.wait)

    with pytest.raises(TimeoutError):
        waits()
    assert call.notes == ["cleaned up"]


def test_cancelled_asynchronous_task_cancels_the_coroutine() -> None:
    call = Call()

    @task
    async def waits() -> str:
        return await io_loop().arun(call.wait)

    @flow
    async def gives_up() -> None:
        running = asyncio.create_task(waits())
        await asyncio.to_thread(call.started.wait, BOUND)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(gives_up())
    assert call.notes == ["cleaned up"]


def test_call_that_fails_in_one_of_many_threads_leaves_the_others_alone() -> None:
    @task
    def half(number: int) -> int:
        async def work() -> int:
            await asyncio.sleep(0.01)
            if number == 3:
                raise ValueError("not this one")
            return number * 2

        return io_loop().run(work)

    @flow
    def many() -> list[int | None]:
        states = half.map(range(8))
        states.wait()
        return [None if future.state.is_failed() else future.result() for future in states]

    assert many() == [0, 2, 4, None, 8, 10, 12, 14]
