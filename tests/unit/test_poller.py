"""The poller: the price of a wait, and never a wrong answer, whatever a server does not understand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_langgraph.errors import AuthenticationError, DeploymentError, InvalidRequestError
from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.results import RunResult
from prefect_langgraph.runs import poller
from prefect_langgraph.runs.lookup import Lookup
from prefect_langgraph.runs.output import Outputs
from prefect_langgraph.runs.poller import Poller, interval
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import Deployment
from support.odd_server import OddServer, deployment_of

BOUND = 300


def on(
    server: OddServer, body: Callable[[Deployment], Coroutine[Any, Any, Any]], **options: Any
) -> Any:
    """Run a test's body with the deployment of a server; when it is over nothing is left polling."""

    async def main() -> Any:
        async with deployment_of(server, **options) as deployment:
            answer = await asyncio.wait_for(body(deployment), BOUND)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for _ in range(3):
                await asyncio.sleep(0)
            assert [task for task in others if not task.done()] == []
            return answer

    return asyncio.run(main())


async def wait(deployment: Deployment, handle: RunHandle, *, exact: bool = True) -> RunResult:
    found = await deployment.part(Poller).wait(handle, deadline=Deadline(), exact=exact)
    assert found is not None
    return found


async def wait_for_all(deployment: Deployment, handles: list[RunHandle]) -> list[RunResult]:
    return list(await asyncio.gather(*(wait(deployment, one, exact=False) for one in handles)))


def joined(server: OddServer, handles: list[RunHandle]) -> list[RunResult]:
    async def body(deployment: Deployment) -> list[RunResult]:
        return await wait_for_all(deployment, handles)

    found: list[RunResult] = on(server, body)
    return found


def later(server: OddServer, *changes: Callable[[], Any]) -> asyncio.Task[None]:
    """Make one change each time the server was asked again."""

    async def change() -> None:
        for one in changes:
            await server.asked_again(2)
            one()

    return asyncio.create_task(change())


# The interval


@given(st.floats(min_value=0, max_value=1e7))
def test_interval_is_between_tens_of_milliseconds_and_seconds(age: float) -> None:
    assert 0.03 <= interval(age) <= 2.0


@given(st.floats(min_value=0, max_value=1e6), st.floats(min_value=0, max_value=1e6))
def test_interval_grows_with_the_age_of_the_wait(one: float, other: float) -> None:
    young, old = sorted((one, other))
    assert interval(young) <= interval(old)


def test_end_of_a_one_second_run_is_asked_for_within_a_tenth_of_a_second() -> None:
    assert interval(1.0) <= 0.1


# What a wait costs


def test_thousand_runs_cost_a_handful_of_requests() -> None:
    server = OddServer()
    handles = [server.add(status="running") for _ in range(1000)]

    async def body(deployment: Deployment) -> list[RunResult]:
        for handle in handles:
            deployment.part(Poller).note_started(handle.run_id)
        ending = later(server, lambda: [server.set(h, "success", {"n": h.run_id}) for h in handles])
        found = await wait_for_all(deployment, handles)
        await ending
        return found

    results = on(server, body)
    assert [result.values["n"] for result in results] == [handle.run_id for handle in handles]
    assert server.largest == 1000
    assert sum(server.asked.values()) <= 80


def test_more_runs_than_an_answer_holds_are_asked_for_in_pages() -> None:
    server = OddServer()
    handles = [server.add({"n": number}) for number in range(1500)]

    async def body(deployment: Deployment) -> list[RunResult]:
        for handle in handles:
            deployment.part(Poller).note_started(handle.run_id)
        return await wait_for_all(deployment, handles)

    results = on(server, body)
    assert [result.values["n"] for result in results] == list(range(1500))
    assert server.largest == 1000


def test_many_waiters_of_one_run_ask_once() -> None:
    server = OddServer()
    handle = server.add({"n": 1})

    async def body(deployment: Deployment) -> list[RunResult]:
        return list(await asyncio.gather(*(wait(deployment, handle) for _ in range(50))))

    results = on(server, body)
    assert {result.status for result in results} == {RunStatus.SUCCESS}
    assert sum(server.asked.values()) <= 4


# Joins that are held


def started_here(deployment: Deployment, handles: list[RunHandle]) -> None:
    for handle in handles:
        deployment.part(Poller).note_started(handle.run_id)


def test_run_whose_join_is_held_is_asked_for_when_it_has_ended() -> None:
    server = OddServer(joins="late")
    handle = server.add(status="running")

    async def body(deployment: Deployment) -> tuple[RunResult, float]:
        began = time.monotonic()
        started_here(deployment, [handle])
        waiting = asyncio.create_task(wait(deployment, handle))
        await server.asked_again(1)
        server.set(handle, "success", {"n": 1})
        return await waiting, time.monotonic() - began

    result, took = on(server, body)
    assert (result.status, result.values) == (RunStatus.SUCCESS, {"n": 1})
    assert server.asked["join"] == 1
    # On a slow machine it is also asked for while the join is held.
    assert server.asked["runs"] <= 1 + took / poller.HELD_SECONDS


@pytest.mark.parametrize("joins", ["early", "never", None])
def test_join_that_says_nothing_of_the_end_is_only_a_hint(
    joins: Literal["early", "never"] | None,
) -> None:
    server = OddServer(joins=joins)
    handle = server.add(status="running")

    async def body(deployment: Deployment) -> RunResult:
        started_here(deployment, [handle])
        waiting = asyncio.create_task(wait(deployment, handle))
        while not server.asked["runs"]:
            await server.asked_again(1)
        assert not waiting.done()
        server.set(handle, "success", {"n": 1})
        return await waiting

    result = on(server, body)
    assert (result.status, result.values) == (RunStatus.SUCCESS, {"n": 1})


def test_join_that_is_answered_at_once_is_held_ever_less_often() -> None:
    server = OddServer(joins="early")
    handle = server.add(status="running")

    async def body(deployment: Deployment) -> tuple[RunResult, float]:
        began = time.monotonic()
        waiting = asyncio.create_task(wait(deployment, handle))
        while server.asked["join"] < 3:
            await server.asked_again(1)
        took = time.monotonic() - began
        server.set(handle, "success", {"n": 1})
        return await waiting, took

    # Pauses of a half and of one second came before the third.
    assert on(server, body)[1] >= 1.5


@pytest.mark.parametrize(
    ("count", "connections", "held"), [(8, 32, 8), (8, 4, 1), (8, 2, 0), (9, 32, 0)]
)
def test_joins_are_held_for_the_few_and_leave_connections(
    count: int, connections: int, held: int
) -> None:
    server = OddServer(joins="late")
    handles = [server.add(status="running") for _ in range(count)]

    async def body(deployment: Deployment) -> int:
        waiting = asyncio.gather(*(wait(deployment, handle) for handle in handles))
        while server.asked["runs"] + server.asked["search"] < (1 if count > 8 else count):
            await server.asked_again(1)
        joins = server.asked["join"]
        for handle in handles:
            server.set(handle, "success", {"n": 1})
        await waiting
        return joins

    assert on(server, body, max_connections=connections) == held


# Servers that differ

ODD: dict[str, dict[str, Any]] = {
    "as it should be": {},
    "ignores ids": {"ignores_ids": True},
    "refuses select": {"refuses_select": True},
    "caps its answers": {"cap": 3},
    "caps its answers at one": {"cap": 1},
    "has no search": {"lacks": frozenset({"search"})},
    "does not list runs": {"lacks": frozenset({"runs"})},
    "has neither": {"lacks": frozenset({"search", "runs"})},
    "ignores ids and refuses select": {"ignores_ids": True, "refuses_select": True},
    "ignores the filter of a history": {"ignores_filter": True},
    "is overloaded now and then": {"status": {"search": [429, 503, 500], "runs": [503], "run": [500]}},
}


@pytest.mark.parametrize("verified", [True, False], ids=["started elsewhere", "started here"])
@pytest.mark.parametrize("oddity", ODD)
def test_every_run_gets_its_own_outcome_from_a_server_that(oddity: str, verified: bool) -> None:
    server = OddServer(**{name: _copied(value) for name, value in ODD[oddity].items()})
    for number in range(20):
        server.add({"stranger": number})
    handles = [server.add({"n": number}) for number in range(12)]
    handles += [server.add({"n": 12}, status="error"), server.add({"n": 13}, status="interrupted")]

    async def body(deployment: Deployment) -> list[RunResult]:
        if not verified:
            for handle in handles:
                deployment.part(Poller).note_started(handle.run_id)
        return await wait_for_all(deployment, handles)

    results = on(server, body)
    assert [result.handle for result in results] == handles
    assert [result.values for result in results] == [{"n": number} for number in range(14)]
    assert [result.status for result in results[:12]] == [RunStatus.SUCCESS] * 12
    assert [result.status for result in results[12:]] == [RunStatus.ERROR, RunStatus.CANCELLED]


def _copied(value: Any) -> Any:
    return {key: list(items) for key, items in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize(
    "oddity", ["ignores ids", "refuses select", "caps its answers", "has no search"]
)
def test_server_that_cannot_be_asked_together_is_asked_one_by_one_from_then_on(oddity: str) -> None:
    server = OddServer(**ODD[oddity])
    server.add({"stranger": 1})
    handles = [server.add(status="running") for _ in range(12)]

    async def body(deployment: Deployment) -> int:
        waiting = asyncio.gather(*(wait(deployment, one, exact=False) for one in handles))
        while deployment.part(Lookup).searches_by_ids:
            await server.asked_again(1)
        before = server.asked["search"]
        for handle in handles:
            server.set(handle, "success", {"n": 1})
        await waiting
        return server.asked["search"] - before

    assert on(server, body) <= 1


@pytest.mark.parametrize(
    "oddity", ["as it should be", "refuses select", "ignores the filter of a history"]
)
def test_run_on_a_thread_that_has_seen_later_runs_gets_its_own_values(oddity: str) -> None:
    server = OddServer(**ODD[oddity])
    first = server.add({"n": "first"})
    shared = first.model_copy(update={"owns_thread": False})
    server.add({"n": "second"}, thread_id=first.thread_id)
    server.add(status="running", thread_id=first.thread_id)
    [result] = joined(server, [shared])
    assert (result.status, result.values) == (RunStatus.SUCCESS, {"n": "first"})


def test_run_far_back_in_a_long_history_gets_its_own_values() -> None:
    server = OddServer(ignores_filter=True)
    first = server.add({"n": "first"})
    for number in range(250):
        server.add({"n": number}, thread_id=first.thread_id)
    [result] = joined(server, [first.model_copy(update={"owns_thread": False})])
    assert result.values == {"n": "first"}


def test_run_that_wrote_nothing_is_not_given_what_others_wrote() -> None:
    server = OddServer(ignores_filter=True)
    first = server.add({"n": "first"})
    second = server.add({"n": "second"}, thread_id=first.thread_id)
    del server.history[first.thread_id][0]
    [result] = joined(server, [second])
    assert result.values is None


def test_history_that_cannot_be_told_apart_is_an_error_and_no_answer() -> None:
    server = OddServer(ignores_filter=True, ignores_before=True)
    first = server.add({"n": "first"})
    for number in range(150):
        server.add({"n": number}, thread_id=first.thread_id)
    with pytest.raises(DeploymentError, match="does not tell which state run"):
        joined(server, [first.model_copy(update={"owns_thread": False})])


def test_lookup_refuses_to_send_empty_ids() -> None:
    async def body(deployment: Deployment) -> None:
        with pytest.raises(ValueError, match="every thread of the server"):
            await deployment.part(Lookup).threads([])

    server = OddServer()
    on(server, body)
    assert not server.asked


# Runs that are missing


def test_run_that_the_server_never_knew_is_lost_after_several_looks() -> None:
    server = OddServer()
    handle = server.add()
    server.drop(handle, thread=True)
    [result] = joined(server, [handle])
    assert result.status is RunStatus.LOST
    assert server.asked["run"] >= 3


def test_run_that_vanishes_while_its_thread_remains_was_rolled_back() -> None:
    server = OddServer()
    handle = server.add(status="running")

    async def body(deployment: Deployment) -> RunResult:
        deployment.part(Poller).note_started(handle.run_id)
        rolling = later(server, lambda: server.drop(handle, thread=False))
        found = await wait(deployment, handle)
        await rolling
        return found

    assert on(server, body).status is RunStatus.CANCELLED


@pytest.mark.parametrize("times", [1, 2])
def test_run_that_a_restarting_server_does_not_know_yet_is_not_lost(times: int) -> None:
    server = OddServer(forgets=times)
    handle = server.add({"n": 1})
    [result] = joined(server, [handle])
    assert (result.status, result.values) == (RunStatus.SUCCESS, {"n": 1})


# Deadlines, refusals, and what is left


def test_wait_past_its_deadline_gives_nothing_and_leaves_the_others_waiting() -> None:
    server = OddServer()
    handle = server.add(status="running")

    async def body(deployment: Deployment) -> tuple[Any, RunResult]:
        patient = asyncio.create_task(wait(deployment, handle))
        hasty = await deployment.part(Poller).wait(handle, deadline=Deadline.after(0.1))
        server.set(handle, "success", {"n": 1})
        return hasty, await patient

    hasty, patient = on(server, body)
    assert hasty is None
    assert patient.values == {"n": 1}


def test_cancelled_wait_leaves_the_others_waiting() -> None:
    server = OddServer()
    handle = server.add(status="running")

    async def body(deployment: Deployment) -> RunResult:
        patient = asyncio.create_task(wait(deployment, handle))
        leaving = asyncio.create_task(wait(deployment, handle))
        await asyncio.sleep(0.05)
        leaving.cancel()
        await asyncio.wait([leaving])
        server.set(handle, "success", {"n": 1})
        return await patient

    assert on(server, body).values == {"n": 1}


def test_status_is_told_when_it_changes_and_not_before() -> None:
    server = OddServer()
    handle = server.add(status="pending")
    told: list[RunStatus] = []

    async def body(deployment: Deployment) -> None:
        changing = later(
            server, lambda: server.set(handle, "running"), lambda: server.set(handle, "success", {})
        )
        await deployment.part(Poller).wait(handle, deadline=Deadline(), on_status=told.append)
        await changing

    on(server, body)
    assert told == [RunStatus.RUNNING]


def test_refusal_ends_the_waits_it_is_about_and_no_others() -> None:
    server = OddServer(refuses=lambda path: 401 if one.thread_id in path else None)
    one, other = server.add({"n": 1}), server.add({"n": 2})

    async def body(deployment: Deployment) -> list[Any]:
        waits = (wait(deployment, handle) for handle in (one, other))
        return list(await asyncio.gather(*waits, return_exceptions=True))

    found = on(server, body)
    assert [type(item) for item in found] == [AuthenticationError, RunResult]


def test_refusal_that_passes_within_the_patience_ends_no_wait() -> None:
    server = OddServer(status={"runs": [401, 403, 401]})
    [result] = joined(server, [server.add({"n": 1})])
    assert result.values == {"n": 1}


def test_wait_goes_on_through_a_server_that_answers_nothing_for_a_while() -> None:
    server = OddServer(status={"runs": [503] * 4, "search": [503] * 4})
    handle = server.add({"n": 1})
    [result] = joined(server, [handle])
    assert result.values == {"n": 1}


def test_look_tells_how_a_run_stands_without_waiting() -> None:
    server = OddServer()
    running, ended = server.add(status="running"), server.add({"n": 1})

    async def body(deployment: Deployment) -> list[RunResult]:
        deadline = Deadline.after(BOUND)
        return [await deployment.part(Poller).look(one, deadline=deadline) for one in (running, ended)]

    assert [result.status for result in on(server, body)] == [RunStatus.RUNNING, RunStatus.SUCCESS]


# Deadlines as such


@pytest.mark.parametrize("seconds", [0, -1, 0.0, float("nan"), "3", True])
def test_limit_that_is_no_positive_number_is_refused(seconds: Any) -> None:
    with pytest.raises(InvalidRequestError, match="greater than zero"):
        Deadline.after(seconds)


def test_limit_of_none_never_passes() -> None:
    deadline = Deadline.after(None)
    assert deadline.remaining() is None
    assert not deadline.passed


def test_remaining_time_is_never_negative() -> None:
    deadline = Deadline.after(5)
    assert deadline.end is not None
    assert deadline.remaining(deadline.end + 1) == 0
    assert deadline.remaining(deadline.end - 2) == 2


def test_few_waits_are_asked_about_exactly_and_many_together() -> None:
    few, many = OddServer(), OddServer()
    joined(few, [few.add({"n": 1}) for _ in range(2)])
    joined(many, [many.add({"n": 1}) for _ in range(poller.EXACT_WAITS + 1)])
    assert many.asked["search"]


# Answers that others give in the server's place


@pytest.mark.parametrize("times", [1, 2, 4])
def test_history_that_is_denied_for_a_while_makes_no_success_without_values(times: int) -> None:
    server = OddServer(denies_history=times)
    first = server.add({"turn": 1})
    handle = server.add({"turn": 2}, thread_id=first.thread_id)

    async def body(deployment: Deployment) -> RunResult:
        found = await wait(deployment, handle)
        return await deployment.part(Outputs).finished(found, Deadline.after(BOUND))

    result = on(server, body)
    assert (result.status, result.values) == (RunStatus.SUCCESS, {"turn": 2})


def test_thread_whose_history_is_denied_keeps_its_values_where_a_run_did_nothing() -> None:
    server = OddServer()
    first = server.add({"turn": 1})
    handle = server.add({"turn": 1}, thread_id=first.thread_id)
    server.history[first.thread_id] = server.history[first.thread_id][1:]
    server.history[first.thread_id][0]["created_at"] = "2026-01-01T00:00:00+00:00"

    async def body(deployment: Deployment) -> RunResult:
        found = await wait(deployment, handle)
        assert found.values is None
        server.denies_history = 2  # its own states, and then all
        return await deployment.part(Outputs).finished(found, Deadline.after(BOUND))

    assert on(server, body).values == {"turn": 1}


def test_several_threads_that_poison_a_page_are_told_apart_at_once() -> None:
    server = OddServer()
    handles = [server.add({"number": number}, status="running") for number in range(400)]
    server.poison = frozenset(handle.thread_id for handle in handles[::20])

    def end() -> None:
        for number, handle in enumerate(handles):
            server.set(handle, "success", {"number": number})

    async def body(deployment: Deployment) -> list[RunResult]:
        waits = asyncio.ensure_future(wait_for_all(deployment, handles))
        pages = 0
        # Until a search holds none of them: the others are asked for together again.
        while not server.asked["healthy"]:
            pages = server.asked["search"]
            await asyncio.sleep(0.01)
        assert pages < 600, server.asked
        end()
        return await waits

    found = on(server, body)
    assert [result.values for result in found] == [{"number": number} for number in range(400)]
