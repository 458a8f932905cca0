"""A gateway in front of the deployment answers in its place, or keys are rotated, while calls go on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prefect import flow

from faults.conditional_faults import Only
from faults.tally import BATCH, CANCEL, RUN, Tally
from prefect_langgraph import (
    AuthenticationError,
    InvalidRequestError,
    LangGraphAssistant,
    LangGraphCredentials,
    LangGraphError,
    RunHandle,
    RunStatus,
    UnreachableError,
    acreate_cron,
    acreate_thread,
    astart_run,
    astart_runs,
    fan_out,
    get_run,
    join_run,
    join_runs,
    run_stateless,
    start_run,
    start_runs,
)
from prefect_langgraph.errors import RunLostError
from proxy import Answer, Exchange, Fault, Hold, Request, gateway_page, run_proxy, unhandled_500
from support.waiting import until

POLL = r"/threads/search$|/threads/[^/]+/runs(/[^/]+)?$|/threads/[^/]+$|/history$"
PAGES = [
    gateway_page(404),
    gateway_page(502),
    gateway_page(200),
    Answer(404, "404 page not found"),
    Answer(404, []),
    Answer(200, {"status": "ok"}),
    Answer(200, []),
    Answer(200, "null", media_type="application/json"),
    Answer(200, [{"status": "ok"}]),
    Answer(200, ["ok"]),
]


class While:
    """A fault while it is on; the requests pass when it is off."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.on = threading.Event()
        self.hits = 0

    async def apply(self, exchange: Exchange) -> None:
        if self.on.is_set():
            self.hits += 1
            await self.fault.apply(exchange)
        else:
            await exchange.relay()

    def meet(self, times: int) -> None:
        """Switch it on until so many requests have met it."""
        self.on.set()
        before = self.hits
        until(lambda: self.hits - before >= times, seconds=30)
        self.on.clear()


@pytest.fixture
def calm(tally: Tally) -> Tally:
    """The tally of a block with much patience: requests are repeated until the gateway is gone."""
    block = f"{tally.block}-calm"
    LangGraphCredentials(url=tally.proxy.url, patience_seconds=60).save(block)
    tally.block = block
    return tally


@contextlib.contextmanager
def a_gateway_each(tally: Tally, pages: list[Answer]) -> Iterator[list[tuple[Answer, Tally]]]:
    """For each page a block of much patience behind a proxy of its own."""
    with contextlib.ExitStack() as stack:
        found = []
        for page in pages:
            proxy = stack.enter_context(run_proxy(tally.proxy.target))
            block = f"{tally.block}-{uuid.uuid4().hex[:8]}"
            LangGraphCredentials(url=proxy.url, patience_seconds=60).save(block)
            found.append((page, tally.beside(proxy, block)))
        yield found


def at_once(call: Callable[[Answer, Tally, str], None], gateways: list[tuple[Answer, Tally]]) -> None:
    """Make a call through every gateway at the same time; each has a name for its tags."""
    with ThreadPoolExecutor(len(gateways)) as pool:
        calls = {
            f"{page.status} {page.body}": pool.submit(call, page, tally, f"g{number}")
            for number, (page, tally) in enumerate(gateways)
        }
        for page, made in calls.items():
            error = made.exception()
            assert error is None, f"{page}: {error!r}"


def test_answer_that_is_not_the_servers_ends_no_wait(tally: Tally) -> None:
    def through(page: Answer, tally: Tally, name: str) -> None:
        gateway = While(page)
        tally.proxy.on("*", POLL, gateway, times=None)
        tags = [f"{name}-{tag}" for tag in "abcd"]

        @flow
        def calls() -> list[str]:
            work = [{"tag": tag, "gate": True} for tag in tags]
            single = start_run("counted", work.pop(), credentials=tally.block)
            many = join_runs.submit(start_runs("counted", work, credentials=tally.block))
            one = join_run.submit(single)
            tally.wait_for_execution(tags[-1])
            gateway.meet(12)
            met.wait(60)  # the gate is one for all
            tally.open_gate()
            return [*(values["result"] for values in many.result().values), one.result()["result"]]

        assert calls() == tags
        assert tally.made == len(tags)
        assert {tag: tally.executed[tag] for tag in tags} == dict.fromkeys(tags, 1)

    met = threading.Barrier(len(PAGES))
    with a_gateway_each(tally, PAGES) as gateways:
        at_once(through, gateways)


def test_every_request_of_a_call_outlives_the_answers_of_a_gateway(tally: Tally) -> None:
    def through(page: Answer, tally: Tally, name: str) -> None:
        met: set[str] = set()

        def first(request: Request) -> bool:
            parts = request.path.split("/")
            kind = f"{request.method} {'/'.join(part for part in parts if len(part) != 36)}"
            new = kind not in met
            met.add(kind)
            return new

        tally.proxy.on("*", "", Only(first, page), times=None)
        tags = [f"{name}-{tag}" for tag in "abc"]

        @flow
        def calls() -> list[str]:
            one = run_stateless("counted", {"tag": tags[0]}, credentials=tally.block)
            work = [{"tag": tag} for tag in tags[1:]]
            handles = start_runs("counted", work, credentials=tally.block)
            return [one["result"], *(values["result"] for values in join_runs(handles).values)]

        assert calls() == tags
        assert tally.made == len(tags)
        assert {tag: tally.executed[tag] for tag in tags} == dict.fromkeys(tags, 1)

    # An empty list is what the server itself says of a thread without runs, and of one without states.
    pages = [page for page in PAGES if (page.status, page.body) != (200, [])]
    with a_gateway_each(tally, pages) as gateways:
        at_once(through, gateways)
    tally.nothing_left()


def test_gateway_that_stays_is_unreachable_and_not_a_lost_run(impatient: Tally) -> None:
    handle = start_run("counted", {"tag": "a", "gate": True}, credentials=impatient.block)
    impatient.proxy.on("*", "", gateway_page(404), times=None)
    with pytest.raises(UnreachableError, match="404"):
        get_run.with_options(retries=0)(handle)
    impatient.proxy.clear()
    impatient.open_gate()
    assert join_run(handle)["result"] == "a"


def test_servers_own_404_is_a_lost_run_only_after_the_patience_of_the_connection(
    tally: Tally,
) -> None:
    handle = start_run("counted", {"tag": "a", "gate": True}, credentials=tally.block)
    gone = While(Answer(404, {"detail": "Thread not found"}))
    tally.proxy.on("*", POLL, gone, times=None)
    results: list[Any] = []
    waiting = threading.Thread(target=lambda: results.append(join_run(handle)["result"]))
    waiting.start()
    tally.wait_for_execution("a")
    # Restored from a backup, or started with an empty memory, a server says so for seconds.
    gone.meet(9)
    tally.open_gate()
    waiting.join(60)
    assert results == ["a"]


def test_run_that_the_server_keeps_denying_is_lost(impatient: Tally) -> None:
    handle = start_run("counted", {"tag": "a", "gate": True}, credentials=impatient.block)
    impatient.proxy.on("*", POLL, Answer(404, {"detail": "Thread not found"}), times=None)
    with pytest.raises(RunLostError):
        join_run(handle)
    impatient.proxy.clear()
    impatient.open_gate()
    impatient.settle()


# -- keys --------------------------------------------------------------------------------------------


class Guard:
    """A gateway that asks for the key of the day."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.refused = 0

    async def apply(self, exchange: Exchange) -> None:
        if exchange.request.headers.get("x-api-key") == self.key:
            await exchange.relay()
        else:
            self.refused += 1
            await Answer(401, {"detail": "Invalid API key"}).apply(exchange)


@pytest.fixture
def guard(tally: Tally) -> Guard:
    guard = Guard("first-key")
    save_key(tally, "first-key")
    tally.proxy.on("*", "", guard, times=None)
    return guard


def save_key(tally: Tally, key: str, patience_seconds: float = 5) -> None:
    block = LangGraphCredentials(url=tally.proxy.url, api_key=key, patience_seconds=patience_seconds)
    block.save(tally.block, overwrite=True)


def test_wait_that_began_before_the_key_was_rotated_goes_on_with_the_new_one(
    tally: Tally, guard: Guard
) -> None:
    @flow
    def calls() -> tuple[list[str], str]:
        given = [{"tag": tag, "gate": True} for tag in "ab"]
        handles = start_runs("counted", given, credentials=tally.block)
        many = join_runs.submit(handles)
        one = run_stateless.submit("counted", {"tag": "c", "gate": True}, credentials=tally.block)
        tally.wait_for_execution("c")
        guard.key = "second-key"
        # The old key is refused before the new one is in the block.
        until(lambda: guard.refused, seconds=30)
        save_key(tally, "second-key")
        tally.open_gate()
        return [values["result"] for values in many.result().values], one.result()["result"]

    assert calls() == (["a", "b"], "c")
    assert guard.refused
    assert tally.made == 3


def test_call_after_the_rotation_uses_the_new_key_though_the_old_one_is_remembered(
    tally: Tally, guard: Guard
) -> None:
    assert run_stateless("counted", {"tag": "a"}, credentials=tally.block)["result"] == "a"
    guard.key = "second-key"
    save_key(tally, "second-key")
    assert run_stateless("counted", {"tag": "b"}, credentials=tally.block)["result"] == "b"


def test_stream_of_a_killed_process_is_cancelled_with_the_new_key(tally: Tally, guard: Guard) -> None:
    code = (
        "import sys; from prefect_langgraph import stream_run\n"
        "for part in stream_run('counted', {'tag': 'a', 'gate': True}, credentials=sys.argv[1]):\n"
        "    print(part.event, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tally.block],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert next(line for line in process.stdout if line == "metadata\n")
        guard.key = "second-key"
        save_key(tally, "second-key")
        process.kill()
    until(lambda: not tally.active(), seconds=30)


@pytest.mark.parametrize("status", [401, 403])
def test_one_refusal_of_the_key_in_the_middle_of_a_wait_does_not_end_it(
    tally: Tally, status: int
) -> None:
    handle = start_run("counted", {"tag": "a", "gate": True}, credentials=tally.block)
    refusal = tally.proxy.on("*", POLL, Answer(status, {"detail": "no"}), times=2)
    results: list[Any] = []
    waiting = threading.Thread(target=lambda: results.append(join_run(handle)["result"]))
    waiting.start()
    until(lambda: refusal.hits == 2, seconds=30)
    tally.open_gate()
    waiting.join(60)
    assert results == ["a"]


@pytest.mark.parametrize(("on_timeout", "goes_on"), [("cancel", False), ("leave", True)])
def test_key_that_stays_refused_ends_the_wait_and_the_run_does_as_on_timeout_says(
    impatient: Tally, on_timeout: Any, goes_on: bool
) -> None:
    # Only what reads is refused: the run can be cancelled.
    refusal = Answer(401, {"detail": "no"})
    impatient.proxy.on("GET", r"/runs", refusal, times=None)
    impatient.proxy.on("POST", r"/threads/search$", refusal, times=None)

    @flow
    def calls() -> Any:
        return run_stateless(
            "counted",
            {"tag": "a", "gate": True},
            credentials=impatient.block,
            on_timeout=on_timeout,
        )

    with pytest.raises(AuthenticationError) as caught:
        calls()
    cancelled = len(impatient.proxy.done("POST", CANCEL))
    impatient.proxy.clear()
    assert bool(cancelled) is not goes_on
    assert ("goes on" in str(caught.value)) is goes_on
    impatient.open_gate()
    impatient.settle()


@pytest.mark.parametrize(("on_timeout", "goes_on"), [("cancel", False), ("leave", True)])
def test_key_that_stays_refused_ends_a_join_and_its_runs_do_as_on_timeout_says(
    impatient: Tally, on_timeout: Any, goes_on: bool
) -> None:
    refusal = Answer(401, {"detail": "no"})

    @flow
    def calls() -> Any:
        given = [{"tag": tag, "gate": True} for tag in "ab"]
        handles = start_runs("counted", given, credentials=impatient.block)
        impatient.wait_for_execution("b")
        impatient.proxy.on("GET", r"/runs", refusal, times=None)
        impatient.proxy.on("POST", r"/threads/search$", refusal, times=None)
        return join_runs(handles, on_timeout=on_timeout)

    with pytest.raises(AuthenticationError) as caught:
        calls()
    cancelled = len(impatient.proxy.done("POST", CANCEL))
    impatient.proxy.clear()
    assert cancelled == (0 if goes_on else 2)
    assert ("go on" in str(caught.value)) is goes_on
    impatient.open_gate()
    impatient.settle()


def test_key_that_is_wrong_from_the_start_is_refused_at_once(tally: Tally, guard: Guard) -> None:
    save_key(tally, "wrong-key", patience_seconds=600)
    with pytest.raises(AuthenticationError):
        start_run.with_options(retries=0)("counted", {"tag": "a"}, credentials=tally.block)
    assert tally.made == 0


# -- one input that the server cannot bear ---------------------------------------------------------


def poisoned(request: Request) -> bool:
    return b'"poison' in request.body


def test_input_that_the_server_fails_on_is_refused_and_not_an_outage(tally: Tally) -> None:
    tally.proxy.on("POST", RUN, Only(poisoned, unhandled_500()), times=None)

    @flow
    def calls() -> Any:
        return run_stateless("counted", {"tag": "poison"}, credentials=tally.block)

    with pytest.raises(InvalidRequestError, match="500") as caught:
        calls()
    assert "poison" not in str(caught.value)
    tally.nothing_left()


@pytest.mark.parametrize("count", [1, 3, 40])
def test_input_that_the_server_fails_on_takes_no_other_of_the_batch_with_it(
    calm: Tally, count: int
) -> None:
    # The patience of an outage is not what this takes.
    calm.proxy.on("POST", f"{RUN}|{BATCH}", Only(poisoned, unhandled_500()), times=None)
    tags = [f"t{number}" for number in range(count)]
    works = [{"tag": tag} for tag in tags]
    works.insert(count // 2, {"tag": "poison"})
    began = time.monotonic()
    result = fan_out("counted", works, credentials=calm.block, on_failure="collect")
    assert time.monotonic() - began < 60
    assert result.counts == {RunStatus.SUCCESS: count, RunStatus.ERROR: 1}
    assert result[count // 2].error is not None
    assert "500" in result[count // 2].error.message
    assert calm.made == count


def test_batch_of_inputs_that_the_server_fails_on_ends_as_the_failure_of_each(tally: Tally) -> None:
    tally.proxy.on("POST", f"{RUN}|{BATCH}", Only(poisoned, unhandled_500()), times=None)
    works = [{"tag": f"poison-{number}"} for number in range(3)]
    result = fan_out("counted", works, credentials=tally.block, on_failure="collect")
    assert result.counts == {RunStatus.ERROR: 3}
    assert {item.error.error for item in result if item.error} == {"InvalidRequestError"}
    assert tally.made == 0


# -- one run that the server would not tell about ----------------------------------------------------


class FirstThread:
    """Refuses whatever is about the first thread that somebody waits for."""

    def __init__(self) -> None:
        self.thread_id: str | None = None

    def __call__(self, request: Request) -> bool:
        text = request.path + request.body.decode()
        if self.thread_id is None and request.path.endswith("/threads/search"):
            self.thread_id = (request.json.get("ids") or [None])[0]
        return self.thread_id is not None and self.thread_id in text


@pytest.mark.parametrize("way", ["join_runs", "fan_out"])
def test_run_that_cannot_be_asked_about_takes_no_other_result_with_it(tally: Tally, way: str) -> None:
    refuses = Only(FirstThread(), Answer(422, {"detail": "odd"}))
    works = [{"tag": f"t{number}", "sleep": 1} for number in range(12)]

    @flow
    def calls() -> Any:
        if way == "fan_out":
            tally.proxy.on("*", POLL, refuses, times=None)
            return fan_out("counted", works, credentials=tally.block, on_failure="collect")
        handles = start_runs("counted", works, credentials=tally.block)
        tally.proxy.on("*", POLL, refuses, times=None)
        return join_runs(handles, on_failure="collect")

    result = calls()
    tally.proxy.clear()
    assert result.counts[RunStatus.SUCCESS] == 11
    (other,) = result.failed
    assert other.error is not None
    assert other.error.error == "InvalidRequestError"
    tally.settle()


# -- answers that are lost as the deadline passes ----------------------------------------------------


class SilentAfter:
    """One request is carried out; from then on nobody says anything, until told to."""

    def __init__(self, path: str) -> None:
        self._path = re.compile(path)
        self.silent = False
        self.done = False

    async def apply(self, exchange: Exchange) -> None:
        request = exchange.request
        if not self.done and request.method == "POST" and self._path.search(request.path):
            self.done = self.silent = True
            await exchange.fetch()
        if self.silent:
            while self.silent:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            exchange.hang_up()
        else:
            await exchange.relay()


@pytest.mark.parametrize("path", [RUN, BATCH], ids=["start_run", "start_runs"])
def test_start_whose_answer_is_lost_as_the_deadline_passes_leaves_no_run(
    calm: Tally, path: str
) -> None:
    gateway = SilentAfter(path)
    calm.proxy.on("*", "", gateway, times=None)
    work = {"tag": "a", "gate": True}

    @flow
    def calls() -> None:
        if path == RUN:
            start_run("counted", work, credentials=calm.block, max_wait_seconds=3)
        else:
            start_runs("counted", [work], credentials=calm.block, max_wait_seconds=3)

    with pytest.raises(LangGraphError):
        calls()
    assert gateway.done
    gateway.silent = False
    assert calm.made == 1
    until(lambda: not calm.active(), seconds=30)
    until(lambda: not calm.remaining(), seconds=30)


# -- callers that are cancelled --------------------------------------------------------------------


def test_caller_cancelled_while_the_server_says_later_ends_promptly_and_sends_no_more(
    tally: Tally,
) -> None:
    later = tally.proxy.on("POST", RUN, Answer(429, retry_after=600), times=None)

    @flow
    async def calls() -> float:
        call = asyncio.create_task(astart_run("counted", {"tag": "a"}, credentials=tally.block))
        while not later.hits:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        began = time.monotonic()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return time.monotonic() - began

    assert asyncio.run(calls()) < 5
    assert later.hits == 1
    tally.nothing_left()


def test_caller_cancelled_while_its_create_is_lost_leaves_no_run(tally: Tally) -> None:
    hold = Hold(answer=True)

    class HeldThenLost:
        async def apply(self, exchange: Exchange) -> None:
            await exchange.fetch()
            hold.reached.set()
            while not hold._released.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            exchange.hang_up()

    tally.proxy.on("POST", RUN, HeldThenLost())

    @flow
    async def calls() -> None:
        work = {"tag": "a", "gate": True}
        call = asyncio.create_task(astart_run("counted", work, credentials=tally.block))
        await asyncio.to_thread(hold.reached.wait, 30)
        call.cancel()
        hold.release()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(calls())
    assert tally.made == 1
    tally.nothing_left()


# Prefect's own client may be cancelled while it connects, and the loop of `asyncio.run` is closed then.
MAY_LEAVE_A_CONNECTION = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function _SelectorTransport.__del__"
    ":pytest.PytestUnraisableExceptionWarning"
)

Making = Callable[[str, str], Coroutine[Any, Any, Any]]
WORK = {"gate": True}


async def _trigger(block: str, tag: str) -> Any:
    credentials = await LangGraphCredentials.aload(block)
    assistant = LangGraphAssistant(credentials=credentials, assistant_id="counted")
    return await assistant.atrigger({"tag": tag, **WORK})


MAKERS: dict[str, Making] = {
    "start_runs": lambda block, tag: astart_runs("counted", [{"tag": tag, **WORK}], credentials=block),
    "start_run.fn": lambda block, tag: astart_run.fn(
        "counted", {"tag": tag, **WORK}, credentials=block
    ),
    "trigger": _trigger,
    "create_cron": lambda block, tag: acreate_cron(
        "counted", "0 0 1 1 *", {"tag": tag}, credentials=block
    ),
    "create_thread": lambda block, tag: acreate_thread(metadata={"tag": tag}, credentials=block),
}


@MAY_LEAVE_A_CONNECTION
@pytest.mark.parametrize("name", MAKERS)
def test_call_that_is_cancelled_around_its_success_leaves_nothing(tally: Tally, name: str) -> None:
    """All around the moment, as for `start_run`."""

    @flow
    async def calls() -> int:
        began = time.monotonic()
        await MAKERS[name](tally.block, "first")
        took, kept = time.monotonic() - began, 1
        for number in range(20):
            call = asyncio.create_task(MAKERS[name](tally.block, str(number)))
            await asyncio.wait([call], timeout=took * (0.2 + number / 14))
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
                kept += 1
        return kept

    kept = asyncio.run(calls())
    gc.collect()  # what is left is found here, and not in another test
    if name == "create_cron":
        assert len(tally.client.crons.search(limit=100)) == kept
    elif name == "create_thread":
        assert len(tally.threads()) == kept
    else:
        assert len(tally.active()) == kept


@MAY_LEAVE_A_CONNECTION
def test_start_that_is_cancelled_around_its_success_leaves_no_run(tally: Tally) -> None:
    """All around the moment: the caller has the handle, or there is no run."""

    @flow
    async def calls() -> list[RunHandle]:
        began = time.monotonic()
        kept = [await astart_run("counted", {"tag": "first", "gate": True}, credentials=tally.block)]
        took = time.monotonic() - began
        for number in range(30):
            work = {"tag": str(number), "gate": True}
            call = asyncio.create_task(astart_run("counted", work, credentials=tally.block))
            await asyncio.wait([call], timeout=took * (0.2 + number / 20))
            call.cancel()
            try:
                kept.append(await call)
            except asyncio.CancelledError:
                continue
        return kept

    kept = asyncio.run(calls())
    gc.collect()
    alive = set(tally.active())
    assert alive == {handle.run_id for handle in kept}
