"""The answer of each request that changes something is lost, and the call goes on or is retried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from prefect import flow

from faults.conditional_faults import OutageAfter
from faults.tally import BATCH, CANCEL, CRON, PRUNE, RUN, THREAD, Tally
from prefect_langgraph import (
    RunStatus,
    cancel_run,
    cancel_runs,
    create_cron,
    create_thread,
    delete_cron,
    delete_thread,
    join_run,
    join_runs,
    run_on_thread,
    run_stateless,
    start_run,
    start_runs,
)
from prefect_langgraph.tasks._task import is_transient
from proxy import CutBody, LoseRequest, LoseResponse, unhandled_500

Call = Callable[[Tally, dict[str, Any]], Any]


def stateless(tally: Tally, options: dict[str, Any]) -> Any:
    values = run_stateless.with_options(**options)("counted", {"tag": "a"}, credentials=tally.block)
    return [values["result"]]


def on_thread(tally: Tally, options: dict[str, Any]) -> Any:
    run = run_on_thread.with_options(**options)
    return [run(tally.user_thread(), "counted", {"tag": "a"}, credentials=tally.block)["result"]]


def background(tally: Tally, options: dict[str, Any]) -> Any:
    start = start_run.with_options(**options)
    handle = start("counted", {"tag": "a"}, credentials=tally.block)
    return [join_run(handle)["result"]]


def many(tally: Tally, options: dict[str, Any]) -> Any:
    start = start_runs.with_options(**options)
    handles = start("counted", [{"tag": "a"}, {"tag": "b"}], credentials=tally.block)
    return [values["result"] for values in join_runs(handles).values]


def name_of(value: Any) -> str:
    """For the names of test cases."""
    if isinstance(value, str):
        return value.rpartition("/")[2].strip("$")
    return getattr(value, "__name__", type(value).__name__)


CALLS = [stateless, on_thread, background, many]


def run_in_flow(tally: Tally, call: Call, options: dict[str, Any] | None = None) -> None:
    """Run the call in a flow; see that it made one run per call and left nothing."""

    @flow
    def calls() -> Any:
        return call(tally, options or {})

    answers = calls()
    assert tally.made == len(answers)
    assert tally.executed == dict.fromkeys(answers, 1)
    tally.nothing_left()


@pytest.mark.parametrize("call", CALLS, ids=name_of)
def test_lost_responses_are_settled_within_the_call(tally: Tally, call: Call) -> None:
    start = BATCH if call is many else RUN
    rules = [tally.proxy.on("POST", path, LoseResponse()) for path in (THREAD, start, PRUNE)]
    run_in_flow(tally, call)
    assert [rule.hits for rule in rules] == [1, 1, 1]


@pytest.mark.parametrize(
    ("call", "path"), [(stateless, RUN), (on_thread, RUN), (many, BATCH)], ids=name_of
)
def test_start_whose_answers_tell_nothing_is_looked_for_and_made_once(
    tally: Tally, call: Call, path: str
) -> None:
    faults = (LoseRequest(), unhandled_500(), CutBody())
    rules = [tally.proxy.on("POST", path, fault) for fault in faults]
    run_in_flow(tally, call)
    assert [rule.hits for rule in rules] == [1, 1, 1]


@pytest.mark.parametrize(
    ("call", "path"),
    [(call, path) for call in CALLS for path in (THREAD, BATCH if call is many else RUN)],
    ids=name_of,
)
def test_lost_response_is_adopted_by_the_retry_of_the_task(
    impatient: Tally, call: Call, path: str
) -> None:
    retried: list[str] = []

    def note(task: Any, task_run: Any, state: Any) -> bool:
        retried.append(type(state.data).__name__)
        return is_transient(task, task_run, state)

    # The call itself looks for a batch a second later, and then gives up after its patience.
    outage = OutageAfter("POST", path, seconds=2.0 if path == BATCH else 1.5)
    impatient.proxy.on("*", "", outage, times=None)
    # An attempt may give up at once: there are enough of them to outlast the outage.
    options = {"retries": 20, "retry_condition_fn": note, "retry_delay_seconds": 0.1}
    run_in_flow(impatient, call, options)
    assert retried
    assert set(retried) == {"UnreachableError"}


def test_lost_response_of_a_cancellation_is_confirmed(tally: Tally) -> None:
    @flow
    def calls() -> RunStatus:
        handle = start_run("counted", {"tag": "a", "sleep": 60}, credentials=tally.block)
        return cancel_run(handle).status

    rule = tally.proxy.on("POST", CANCEL, LoseResponse())
    assert calls() is RunStatus.CANCELLED
    assert (rule.hits, tally.made) == (1, 1)
    tally.nothing_left()


def test_lost_responses_of_many_cancellations_are_confirmed(tally: Tally) -> None:
    @flow
    def calls() -> list[RunStatus]:
        given = [{"tag": tag, "sleep": 60} for tag in "abc"]
        handles = start_runs("counted", given, credentials=tally.block)
        return [result.status for result in cancel_runs(handles)]

    rule = tally.proxy.on("POST", CANCEL, LoseResponse(), times=3)
    assert calls() == [RunStatus.CANCELLED] * 3
    assert (rule.hits, tally.made) == (3, 3)
    tally.nothing_left()


def test_lost_response_of_a_cron_makes_one_cron_and_its_deletion_is_repeated(
    tally: Tally,
) -> None:
    @flow
    def calls() -> int:
        cron = create_cron("counted", "0 0 1 1 *", {"tag": "a"}, credentials=tally.block)
        found = tally.client.crons.search(limit=10)
        assert [row["cron_id"] for row in found] == [cron.cron_id]
        tally.proxy.on("DELETE", r"/runs/crons/", LoseResponse())
        delete_cron(cron)
        return len(found)

    rule = tally.proxy.on("POST", CRON, LoseResponse())
    assert calls() == 1
    assert (rule.hits, tally.crons_made) == (1, 1)
    tally.nothing_left()


def test_cron_whose_response_was_lost_is_found_by_the_retry_of_the_task(
    impatient: Tally,
) -> None:
    @flow
    def calls() -> None:
        create = create_cron.with_options(retries=3, retry_delay_seconds=0.1, retry_condition_fn=None)
        delete_cron(create("counted", "0 0 1 1 *", {"tag": "a"}, credentials=impatient.block))

    impatient.proxy.on("*", "", OutageAfter("POST", CRON, seconds=1.5), times=None)
    calls()
    assert impatient.crons_made == 1
    impatient.nothing_left()


def test_lost_responses_of_a_users_thread_make_one_thread_and_delete_it(tally: Tally) -> None:
    @flow
    def calls() -> str:
        thread_id = create_thread(metadata={"users_own": True}, credentials=tally.block)
        assert [thread["thread_id"] for thread in tally.threads()] == [thread_id]
        delete_thread(thread_id, credentials=tally.block)
        return thread_id

    rules = [
        tally.proxy.on(method, path, LoseResponse())
        for method, path in (("POST", THREAD), ("DELETE", r"/threads/"))
    ]
    calls()
    assert [rule.hits for rule in rules] == [1, 1]
    assert tally.threads() == []
