"""One bad run, thread, request or answer hurts only its own caller.

Each kind of poison is put beside ten healthy waits in the same process: these take no longer than
without it, and whoever asked about the poison gets a typed error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from faults.conditional_faults import Only
from faults.silent_servers import Dribble, Silence
from faults.tally import Tally
from prefect_langgraph import (
    DeploymentError,
    JoinTimeoutError,
    LangGraphCredentials,
    RunFailedError,
    RunHandle,
    RunStatus,
    acancel_run,
    aget_run,
    ajoin_run,
    ajoin_runs,
    arun_on_thread,
    arun_stateless,
    astart_run,
)
from proxy import Answer, CutBody, Fault, Request, gateway_page, unhandled_500

HEALTHY = 10
WORK_SECONDS = 1.0
ROOM = 3.0  # how much longer healthy waits may take than without the poison: noise of a shared machine
ROOM_SECONDS = 3.0
SECRET = "s3cret-v4lue"
GRAPHS: dict[str, tuple[dict[str, Any], str]] = {
    "tuple_key": ({}, "TypeError"),
    "bytes_key": ({}, "TypeError"),
    "big_int": ({}, "TypeError"),
    "deep": ({}, "TypeError"),
    "asks_with_tuple_key": ({}, "TypeError"),
    "asks_with_big_int": ({}, "TypeError"),
    "strict": ({"number": SECRET}, "ValidationError"),
}

Bad = Callable[[LangGraphCredentials], Awaitable[Any]]


def credentials_of(url: str, **options: Any) -> LangGraphCredentials:
    return LangGraphCredentials(url=url, patience_seconds=3, **options)


async def _healthy(credentials: LangGraphCredentials) -> float:
    """Seconds that ten healthy waits take, of which half wait for handles."""
    began = time.monotonic()
    work = {"sleep": WORK_SECONDS}
    handles = [
        await astart_run("counted", {**work, "tag": f"joined-{number}"}, credentials=credentials)
        for number in range(HEALTHY // 2)
    ]
    values = await asyncio.gather(
        *(
            arun_stateless("counted", {**work, "tag": f"ran-{number}"}, credentials=credentials)
            for number in range(HEALTHY - len(handles))
        ),
        *(ajoin_run(handle, credentials=credentials, max_wait_seconds=60) for handle in handles),
    )
    took = time.monotonic() - began
    assert all(item["result"] == item["tag"] for item in values)
    return took


async def _beside(bad: Bad, credentials: LangGraphCredentials) -> tuple[float, Any]:
    poison = asyncio.ensure_future(bad(credentials))
    took = await _healthy(credentials)
    return took, (await asyncio.gather(poison, return_exceptions=True))[0]


@pytest.fixture(scope="module")
def without_poison(fault_server: Any, prefect_server: Any) -> float:
    return asyncio.run(_healthy(credentials_of(fault_server.url)))


def beside_ten_healthy_waits(bad: Bad, credentials: LangGraphCredentials, without: float) -> Any:
    took, outcome = asyncio.run(_beside(bad, credentials))
    assert took <= ROOM * without + ROOM_SECONDS, f"{took:.1f} s, {without:.1f} s without the poison"
    return outcome


# Graphs

WAYS: dict[str, Callable[[str, Any, LangGraphCredentials], Awaitable[Any]]] = {}


def way(function: Callable[[str, Any, LangGraphCredentials], Awaitable[Any]]) -> Any:
    WAYS[function.__name__] = function
    return function


@way
async def run_stateless(graph: str, given: Any, credentials: LangGraphCredentials) -> Any:
    return await arun_stateless(graph, given, credentials=credentials, max_wait_seconds=20)


@way
async def run_on_thread(graph: str, given: Any, credentials: LangGraphCredentials) -> Any:
    async with credentials.get_client() as client:
        thread_id = (await client.threads.create())["thread_id"]
    return await arun_on_thread(thread_id, graph, given, credentials=credentials, max_wait_seconds=20)


@way
async def join_run(graph: str, given: Any, credentials: LangGraphCredentials) -> Any:
    handle = await astart_run(graph, given, credentials=credentials)
    return await ajoin_run(handle, credentials=credentials, max_wait_seconds=20)


@way
async def join_run_started_elsewhere(graph: str, given: Any, credentials: LangGraphCredentials) -> Any:
    async with credentials.get_client() as client:
        thread_id = (await client.threads.create())["thread_id"]
        run = await client.runs.create(thread_id, graph, input=given)
    handle = RunHandle(
        run_id=run["run_id"], thread_id=thread_id, assistant_id=graph, url=str(credentials.url)
    )
    return await ajoin_run(handle, credentials=credentials, max_wait_seconds=20)


@way
async def join_runs(graph: str, given: Any, credentials: LangGraphCredentials) -> Any:
    handle = await astart_run(graph, given, credentials=credentials)
    found = await ajoin_runs([handle], credentials=credentials, on_failure="collect")
    error = found[0].as_error()
    assert error is not None
    raise error


@pytest.mark.parametrize("graph", GRAPHS)
def test_graph_that_poisons_its_thread_fails_for_its_callers_only(
    tally: Tally, without_poison: float, graph: str, caplog: pytest.LogCaptureFixture
) -> None:
    given, error = GRAPHS[graph]

    async def all_ways(credentials: LangGraphCredentials) -> list[Any]:
        ways = [ask(graph, given, credentials) for ask in WAYS.values()]
        return await asyncio.gather(*ways, return_exceptions=True)

    found = beside_ten_healthy_waits(all_ways, credentials_of(tally.proxy.url), without_poison)
    for name, outcome in zip(WAYS, found, strict=True):
        assert type(outcome) is RunFailedError, f"{name}: {outcome!r}"
        assert outcome.error == error
        assert SECRET not in str(outcome) + str(outcome.detail) + caplog.text


@pytest.mark.parametrize("graph", GRAPHS)
def test_poisoned_run_is_told_by_get_run_and_left_alone_by_cancel_run(tally: Tally, graph: str) -> None:
    credentials = credentials_of(tally.proxy.url)

    async def calls() -> list[Any]:
        handle = await astart_run(graph, GRAPHS[graph][0], credentials=credentials)
        with pytest.raises(RunFailedError):
            await ajoin_run(handle.model_copy(update={"owns_thread": False}), credentials=credentials)
        return [
            await aget_run(handle, credentials=credentials),
            await acancel_run(handle, credentials=credentials, max_wait_seconds=20),
        ]

    for result in asyncio.run(calls()):
        assert result.status is RunStatus.ERROR
        assert result.error.error == GRAPHS[graph][1]
        assert SECRET not in str(result.error)


def test_failed_run_whose_history_fails_is_told_after_one_question(tally: Tally) -> None:
    credentials = credentials_of(tally.proxy.url)

    async def calls() -> Any:
        handle = await astart_run("asks_with_tuple_key", {}, credentials=credentials)
        with pytest.raises(RunFailedError):
            await ajoin_run(handle.model_copy(update={"owns_thread": False}), credentials=credentials)
        asked = tally.proxy.count("POST", HISTORY)
        return await aget_run(handle, credentials=credentials), asked

    result, asked = asyncio.run(calls())
    assert result.status is RunStatus.ERROR
    assert tally.proxy.count("POST", HISTORY) == asked + 1


def test_run_that_had_ended_at_the_deadline_is_told_though_its_history_fails(tally: Tally) -> None:
    credentials = credentials_of(tally.proxy.url)

    async def calls() -> Any:
        handle = await astart_run("counted", {"tag": "done"}, credentials=credentials)
        tally.settle()
        tally.proxy.on("POST", HISTORY, Answer(500), times=None)
        return await ajoin_run(
            handle, credentials=credentials, max_wait_seconds=0.05, on_timeout="cancel"
        )

    assert asyncio.run(calls())["result"] == "done"


HISTORIES: dict[str, Fault] = {
    "429": Answer(429, retry_after=0.1),
    "502 of a gateway": gateway_page(502),
    "404 of a gateway": gateway_page(404),
    "200 of a gateway": gateway_page(200),
    "an object": Answer(200, {}),
    "an empty list": Answer(200, []),
    "half an answer": CutBody(),
}


@pytest.mark.parametrize("fault", HISTORIES)
def test_run_whose_history_alone_cannot_be_read_is_told_from_what_else_can(
    tally: Tally, fault: str
) -> None:
    credentials = credentials_of(tally.proxy.url)
    tally.proxy.on("POST", HISTORY, HISTORIES[fault], times=None)

    async def calls() -> Any:
        values = await arun_stateless("counted", {"tag": "whole"}, credentials=credentials)
        handle = await astart_run("raises", {"given": SECRET}, credentials=credentials)
        with pytest.raises(RunFailedError) as failed:
            await ajoin_run(handle, credentials=credentials)
        return values, failed.value.error

    values, error = asyncio.run(calls())
    assert (values["result"], error) == ("whole", "ValueError")
    assert tally.made == 2


# Requests and answers

SEARCH, RUNS, ROW, HISTORY = r"/threads/search$", r"/runs$", r"/runs/[^/]+$", r"/history$"

ANSWERS: dict[str, Fault] = {
    "no answer": Silence(),
    "an answer that never ends": Dribble(),
    "500": unhandled_500(),
    "400": Answer(400, {"detail": f"input_value='{SECRET}'"}),
    "html": Answer(200, "<html>a page</html>"),
    "an object": Answer(200, {"detail": "odd"}),
    "a list of no rows": Answer(200, ["odd", None, 7]),
    "rows of no meaning": Answer(200, [{"thread_id": 7, "status": ["odd"]}, {"run_id": None}]),
    "a status of the future": Answer(200, [{"run_id": "x", "thread_id": "x", "status": "paused"}]),
}


def test_waits_whose_every_question_goes_wrong_hurt_no_other(
    tally: Tally, without_poison: float, caplog: pytest.LogCaptureFixture
) -> None:
    async def bad(answer: Fault, credentials: LangGraphCredentials) -> Any:
        handle = await astart_run("counted", {"tag": "bad"}, credentials=credentials)

        def is_about_it(request: Request) -> bool:
            return handle.thread_id in request.path + request.body.decode()

        tally.proxy.on("*", r"^/threads/.*", Only(is_about_it, answer), times=None)
        return await ajoin_run(handle, credentials=credentials, max_wait_seconds=8)

    async def each(credentials: LangGraphCredentials) -> list[Any]:
        waits = [bad(answer, credentials) for answer in ANSWERS.values()]
        return await asyncio.gather(*waits, return_exceptions=True)

    found = beside_ten_healthy_waits(each, credentials_of(tally.proxy.url), without_poison)
    for answer, outcome in zip(ANSWERS, found, strict=True):
        assert isinstance(outcome, JoinTimeoutError | DeploymentError | dict), f"{answer}: {outcome!r}"
        assert SECRET not in str(outcome) + caplog.text


@pytest.mark.parametrize("answer", ANSWERS)
def test_one_answer_of_the_wrong_kind_is_asked_for_again(
    tally: Tally, without_poison: float, answer: str
) -> None:
    """Ten waits are asked for together, three one by one; of each kind of question one goes wrong."""
    for method, path in (("POST", SEARCH), ("GET", RUNS), ("POST", HISTORY)):
        tally.proxy.on(method, path, ANSWERS[answer])
    credentials = credentials_of(tally.proxy.url)

    async def three(credentials: LangGraphCredentials) -> Any:
        handles = [
            await astart_run("counted", {"tag": f"one-{number}"}, credentials=credentials)
            for number in range(3)
        ]
        return await ajoin_runs(handles, credentials=credentials, max_wait_seconds=60)

    found = beside_ten_healthy_waits(three, credentials, without_poison)
    assert [values["result"] for values in found.values] == ["one-0", "one-1", "one-2"]


def test_one_thread_that_poisons_a_page_of_hundreds_is_told_apart(
    tally: Tally, without_poison: float
) -> None:
    """A search fails whenever it is asked for one certain thread."""
    count = 200
    credentials = credentials_of(tally.proxy.url)

    async def calls() -> tuple[float, Any]:
        began = time.monotonic()
        handles = [
            await astart_run("counted", {"tag": f"{number}"}, credentials=credentials)
            for number in range(count)
        ]
        bad = handles[77].thread_id
        poison = Only(lambda request: bad in request.body.decode(), unhandled_500())
        tally.proxy.on("POST", SEARCH, poison, times=None)
        began = time.monotonic()
        found = await ajoin_runs(handles, credentials=credentials, max_wait_seconds=120)
        return time.monotonic() - began, found

    took, found = asyncio.run(calls())
    assert [values["result"] for values in found.values] == [f"{number}" for number in range(count)]
    assert tally.proxy.count("GET", RUNS) < count / 2
    assert took < 30


def test_one_404_of_the_search_does_not_end_asking_together(tally: Tally) -> None:
    tally.proxy.on("POST", SEARCH, Answer(404))
    credentials = credentials_of(tally.proxy.url)

    async def calls() -> Any:
        handles = [
            await astart_run("counted", {"tag": f"{number}", "gate": True}, credentials=credentials)
            for number in range(20)
        ]
        joining = asyncio.ensure_future(ajoin_runs(handles, credentials=credentials))
        while tally.proxy.count("POST", SEARCH) < 5:  # noqa: ASYNC110 - another OS thread counts
            await asyncio.sleep(0.05)
        tally.open_gate()
        return await joining

    assert len(asyncio.run(calls())) == 20
