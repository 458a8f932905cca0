"""The loop on its own OS thread: whoever calls, and however a caller stops, nothing is left running."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import pytest

from prefect_langgraph.errors import DeploymentError, LangGraphError
from prefect_langgraph.transport import loop as loop_module
from prefect_langgraph.transport.loop import IOLoop, io_loop

# Far more than any of it takes, so that a hang is a failure and not a wait.
BOUND = 300


@pytest.fixture
def own_loop() -> Iterator[IOLoop]:
    loop = IOLoop()
    yield loop
    loop.close()


class Job:
    """A coroutine function that waits until it is told to end, and notes what became of it."""

    def __init__(self, *, stubborn: bool = False, answer: str | None = None) -> None:
        self.started = threading.Event()
        self.cleaned = threading.Event()
        self.notes: list[str] = []
        self.release = asyncio.Event()
        self._stubborn = stubborn
        self._answer = answer

    async def __call__(self) -> str:
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.notes.append("cancelled")
            if self._stubborn:
                await self.release.wait()
            await asyncio.sleep(0.02)
            self.notes.append("cleaned up")
            self.cleaned.set()
            if self._answer is None:
                raise
            return self._answer
        return "released"

    __name__ = "job"


async def thread_id() -> int:
    await asyncio.sleep(0.001)
    return threading.get_ident()


def in_thread(run: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


# Who calls


def test_calls_from_many_os_threads_share_one_loop(own_loop: IOLoop) -> None:
    async def double(number: int) -> tuple[int, int]:
        return number * 2, await thread_id()

    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda number: own_loop.run(double, number), range(200)))
    assert [number for number, _ in answers] == [2 * number for number in range(200)]
    assert len({ident for _, ident in answers}) == 1
    assert answers[0][1] != threading.get_ident()


def test_synchronous_call_inside_a_running_event_loop_returns(own_loop: IOLoop) -> None:
    async def main() -> int:
        return own_loop.run(thread_id)

    assert asyncio.run(main()) != threading.get_ident()


def test_asynchronous_calls_from_several_event_loops_share_one_loop(own_loop: IOLoop) -> None:
    async def main() -> set[int]:
        return set(await asyncio.gather(*(own_loop.arun(thread_id) for _ in range(20))))

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: asyncio.run(main()), range(8)))
    assert len(set.union(*seen)) == 1


@pytest.mark.parametrize("form", ["run", "arun"])
def test_callers_context_reaches_the_coroutine(own_loop: IOLoop, form: str) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def read() -> str:
        return variable.get()

    async def main() -> str:
        return own_loop.run(read) if form == "run" else await own_loop.arun(read)

    variable.set("the caller's")
    assert asyncio.run(main()) == "the caller's"


@pytest.mark.parametrize("form", ["run", "arun"])
def test_exception_reaches_the_caller_unchanged(own_loop: IOLoop, form: str) -> None:
    error = KeyError("boo")

    async def fail() -> None:
        raise error

    async def main() -> None:
        if form == "run":
            own_loop.run(fail)
        await own_loop.arun(fail)

    with pytest.raises(KeyError) as caught:
        asyncio.run(main())
    assert caught.value is error


def test_synchronous_call_on_the_loops_own_thread_is_an_error(own_loop: IOLoop) -> None:
    async def outer() -> int:
        return own_loop.run(thread_id)

    with pytest.raises(LangGraphError, match=r"thread_id: .*Await the asynchronous twin instead"):
        own_loop.run(outer)


def test_asynchronous_call_on_the_loops_own_thread_is_awaited_in_place(own_loop: IOLoop) -> None:
    async def outer() -> tuple[int, int]:
        return threading.get_ident(), await own_loop.arun(thread_id)

    here, there = own_loop.run(outer)
    assert here == there


def test_call_after_close_gets_a_new_loop(own_loop: IOLoop) -> None:
    own_loop.run(thread_id)
    own_loop.close()
    assert own_loop.run(thread_id)


def test_coroutine_that_ends_the_loop_fails_its_caller_and_no_later_one(own_loop: IOLoop) -> None:
    # asyncio lets SystemExit through run_forever: the loop's OS thread is over.
    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        own_loop.run(leave)
    assert own_loop.run(thread_id)


# How a caller stops


@pytest.mark.parametrize("form", ["run", "arun"])
def test_coroutine_that_cancels_itself_raises_and_never_returns_none(
    own_loop: IOLoop, form: str
) -> None:
    async def give_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(BOUND)

    async def main() -> Any:
        return own_loop.run(give_up) if form == "run" else await own_loop.arun(give_up)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())


def test_cancelled_asynchronous_caller_waits_for_the_clean_up(own_loop: IOLoop) -> None:
    job = Job()

    async def main() -> None:
        caller = asyncio.create_task(own_loop.arun(job))
        await asyncio.to_thread(job.started.wait, BOUND)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert job.notes == ["cancelled", "cleaned up"]

    asyncio.run(main())


def test_caller_that_is_cancelled_before_the_coroutine_began_leaves_nothing_running(
    own_loop: IOLoop,
) -> None:
    job = Job()

    async def main() -> None:
        caller = asyncio.create_task(own_loop.arun(job))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

    asyncio.run(main())
    assert job.started.is_set() is job.cleaned.is_set()


def test_anyio_cancel_scope_waits_for_the_clean_up(own_loop: IOLoop) -> None:
    job = Job()

    async def main() -> bool:
        with anyio.move_on_after(BOUND) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(own_loop.arun, job)
                await anyio.to_thread.run_sync(job.started.wait, BOUND)
                scope.cancel()
        return scope.cancelled_caught

    assert anyio.run(main)
    assert job.notes == ["cancelled", "cleaned up"]


def test_anyio_timeout_is_raised_as_a_timeout(own_loop: IOLoop) -> None:
    job = Job()

    async def main() -> None:
        with anyio.fail_after(BOUND) as scope:

            async def expire() -> None:
                await asyncio.to_thread(job.started.wait, BOUND)
                scope.deadline = anyio.current_time()

            expiring = asyncio.create_task(expire())
            await own_loop.arun(job)
            await expiring

    with pytest.raises(TimeoutError):
        anyio.run(main)
    assert job.notes == ["cancelled", "cleaned up"]


def test_cancelled_caller_is_cancelled_even_when_the_coroutine_then_succeeds(own_loop: IOLoop) -> None:
    job = Job(answer="done after all")

    async def main() -> str:
        caller = asyncio.create_task(own_loop.arun(job))
        await asyncio.to_thread(job.started.wait, BOUND)
        caller.cancel()
        return await caller

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert job.notes == ["cancelled", "cleaned up"]


@contextmanager
def ended_later(loop: IOLoop, job: Job) -> Iterator[None]:
    """Let a job that ignores its cancellation end after all."""

    async def release() -> None:
        job.release.set()

    try:
        yield
    finally:
        loop.run(release)
        assert job.cleaned.wait(BOUND)


def test_clean_up_that_never_ends_holds_a_cancelled_caller_for_a_bounded_time(
    own_loop: IOLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "CLEANUP_SECONDS", 0.1)
    job = Job(stubborn=True)

    async def main() -> None:
        caller = asyncio.create_task(own_loop.arun(job))
        await asyncio.to_thread(job.started.wait, BOUND)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(caller, BOUND)

    with ended_later(own_loop, job):
        asyncio.run(main())
        assert job.notes == ["cancelled"]


class Stop(BaseException):
    """What a termination handler raises, in the main thread, at any bytecode."""


@contextmanager
def alarm_raises_stop() -> Iterator[None]:
    def handle(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, handle)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def stop_when(started: threading.Event) -> None:
    def wait_and_stop() -> None:
        if started.wait(BOUND):
            signal.raise_signal(signal.SIGALRM)

    in_thread(wait_and_stop)


def test_interrupted_synchronous_caller_waits_for_the_clean_up_and_raises(own_loop: IOLoop) -> None:
    job = Job()
    with alarm_raises_stop():
        stop_when(job.started)
        with pytest.raises(Stop):
            own_loop.run(job)
    assert job.notes == ["cancelled", "cleaned up"]


def test_interrupted_synchronous_caller_raises_even_when_the_coroutine_then_succeeds(
    own_loop: IOLoop,
) -> None:
    job = Job(answer="done after all")
    with alarm_raises_stop():
        stop_when(job.started)
        with pytest.raises(Stop):
            own_loop.run(job)
    assert job.notes == ["cancelled", "cleaned up"]


def test_clean_up_that_never_ends_holds_an_interrupted_caller_for_a_bounded_time(
    own_loop: IOLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "CLEANUP_SECONDS", 0.1)
    job = Job(stubborn=True)
    with ended_later(own_loop, job), alarm_raises_stop():
        stop_when(job.started)
        with pytest.raises(Stop):
            own_loop.run(job)
        assert job.notes == ["cancelled"]


def test_call_that_is_on_its_way_when_the_loop_closes_ends_for_its_caller(own_loop: IOLoop) -> None:
    job = Job()
    caught: list[BaseException] = []

    def call() -> None:
        try:
            own_loop.run(job)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            caught.append(error)

    caller = in_thread(call)
    assert job.started.wait(BOUND)
    own_loop.close()
    caller.join(BOUND)
    assert [type(error) for error in caught] == [asyncio.CancelledError]
    assert job.notes == ["cancelled", "cleaned up"]


# Whole processes

PRELUDE = """
import asyncio, os, signal, sys, threading, time
from prefect_langgraph.transport.loop import io_loop

# A shell that runs the tests in the background has its children ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

def say(text):
    print(text, flush=True)

async def work():
    say("started")
    try:
        await asyncio.sleep(600)
    finally:
        await asyncio.sleep(0.1)
        say("cleaned up")

async def echo(text):
    await asyncio.sleep(0.001)
    return text
"""


@contextmanager
def process(script: str) -> Iterator[subprocess.Popen[str]]:
    code = PRELUDE + textwrap.dedent(script)
    started = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def output_of(script: str) -> list[str]:
    with process(script) as child:
        out, err = child.communicate(timeout=BOUND)
        assert child.returncode == 0, err
        return out.split("\n")[:-1]


def after_signal(script: str, number: signal.Signals) -> tuple[list[str], int]:
    """What a script says after it said "started" and got a signal, and its exit status."""
    with process(script) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n", child.communicate()
        child.send_signal(number)
        out, _ = child.communicate(timeout=BOUND)
        return out.split("\n")[:-1], child.returncode


def test_ctrl_c_cancels_the_coroutine_and_raises() -> None:
    script = """
    try:
        say(f"returned {io_loop().run(work)}")
    except KeyboardInterrupt:
        say("interrupted")
    """
    assert after_signal(script, signal.SIGINT) == (["cleaned up", "interrupted"], 0)


def test_ctrl_c_in_asyncio_run_cancels_the_coroutine_and_raises() -> None:
    script = """
    try:
        say(f"returned {asyncio.run(io_loop().arun(work))}")
    except KeyboardInterrupt:
        say("interrupted")
    """
    assert after_signal(script, signal.SIGINT) == (["cleaned up", "interrupted"], 0)


def test_second_ctrl_c_ends_the_wait_for_the_clean_up() -> None:
    script = """
    async def work():
        say("started")
        try:
            await asyncio.sleep(600)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(600)

    try:
        say(f"returned {io_loop().run(work)}")
    except KeyboardInterrupt:
        say("interrupted")
    """
    assert after_signal(script, signal.SIGINT) == (["interrupted"], 0)


def test_termination_signal_with_a_raising_handler_cancels_the_coroutine_and_raises() -> None:
    script = """
    def leave(*_):
        sys.exit(7)

    signal.signal(signal.SIGTERM, leave)
    io_loop().run(work)
    say("returned")
    """
    assert after_signal(script, signal.SIGTERM) == (["cleaned up"], 7)


def test_interpreter_exits_while_a_call_waits_on_a_daemon_thread() -> None:
    script = """
    started = threading.Event()

    async def wait():
        started.set()
        try:
            await asyncio.sleep(600)
        finally:
            say("cancelled")

    threading.Thread(target=lambda: io_loop().run(wait), daemon=True).start()
    started.wait()
    """
    assert output_of(script)[:1] == ["cancelled"]


def test_interpreter_exits_although_a_coroutine_ignores_its_cancellation() -> None:
    script = """
    started = threading.Event()

    async def stay():
        started.set()
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                pass

    threading.Thread(target=lambda: io_loop().run(stay), daemon=True).start()
    started.wait()
    say("leaving")
    """
    assert output_of(script) == ["leaving"]


def test_interpreter_exits_although_the_loop_was_used_last_in_an_exit_handler() -> None:
    script = """
    import atexit
    atexit.register(lambda: say(io_loop().run(echo, "at exit")))
    say(io_loop().run(echo, "before"))
    """
    assert output_of(script) == ["before", "at exit"]


def test_forked_child_has_a_loop_of_its_own_and_leaves_the_parents_alone() -> None:
    script = """
    started, release = threading.Event(), asyncio.Event()

    async def wait():
        started.set()
        await release.wait()
        return "the parent's call went on"

    async def let_go():
        release.set()

    answers = []
    waiting = threading.Thread(target=lambda: answers.append(io_loop().run(wait)))
    waiting.start()
    started.wait()
    # A lock that somebody holds at the fork is held for ever in the child.
    with io_loop()._lock:
        child = os.fork()
    if child == 0:
        say(io_loop().run(echo, "child"))
        say(asyncio.run(io_loop().arun(echo, "child, asynchronous")))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    io_loop().run(let_go)
    waiting.join()
    say(answers[0])
    """
    assert output_of(script) == ["child", "child, asynchronous", "the parent's call went on"]


def test_child_of_a_child_has_a_loop_too() -> None:
    script = """
    io_loop().run(echo, "parent")
    for generation in (1, 2):
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            if generation == 2:
                os._exit(0)
            break
        say(io_loop().run(echo, f"generation {generation}"))
        if generation == 2:
            os._exit(0)
    """
    assert output_of(script) == ["generation 1", "generation 2"]


def test_multiprocessing_children_use_the_loop() -> None:
    script = """
    import multiprocessing

    def child(number):
        return io_loop().run(echo, number)

    io_loop().run(echo, "parent")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        say(pool.map(child, range(6)))
    """
    assert output_of(script) == ["[0, 1, 2, 3, 4, 5]"]


def test_thread_of_the_loop_is_a_daemon_and_starts_with_the_first_call() -> None:
    script = """
    names = lambda: [t.name for t in threading.enumerate() if "langgraph" in t.name]
    say(names())
    io_loop().run(echo, "")
    io_loop().run(echo, "")
    say(names())
    """
    assert output_of(script) == ["[]", "['prefect-langgraph-io']"]


def test_waiting_costs_next_to_no_cpu(own_loop: IOLoop) -> None:
    async def pause() -> None:
        await asyncio.sleep(1.0)

    before = time.thread_time()
    own_loop.run(pause)
    assert time.thread_time() - before < 0.02


def test_loop_of_the_process_is_always_the_same() -> None:
    assert io_loop() is io_loop()


def test_no_request_hangs_on_an_error_for_whoever_pickles_all_of_it() -> None:
    request = httpx.Request("POST", "http://localhost", headers={"x-api-key": "s3cr3t"})

    async def fails() -> None:
        try:
            raise httpx.ConnectError("no", request=request)
        except httpx.ConnectError as lost:
            refused = DeploymentError("not there")
            refused.__context__ = lost
            try:
                raise LookupError("the caller's own")
            except LookupError as own:
                raise ExceptionGroup("some", [refused, ValueError("other")]) from own

    with pytest.raises(ExceptionGroup) as caught:
        io_loop().run(fails)
    own = caught.value.__cause__
    assert isinstance(own, LookupError)
    assert own.__context__ is None
    assert caught.value.exceptions[0].__context__ is None
