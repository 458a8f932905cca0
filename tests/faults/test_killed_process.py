"""The process of a flow run killed at each step of a run's life, and the flow run executed again.

So it is when a container is started again, or a worker with its flow runs. The process is held at
that step by the proxy, which then never passes on what was on its way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect import Flow

from faults import flows
from faults.attempts import attempt, new_flow_run, read_flow_run
from faults.conditional_faults import Only
from faults.tally import BATCH, CRON, PRUNE, RUN, THREAD, Tally
from prefect_langgraph import sweep
from proxy import Hold, Request
from support.waiting import PATIENCE

COPY = r"/threads/[^/]+/copy$"
HISTORY = r"/threads/[^/]+/history$"

BEFORE_CREATE, AFTER_CREATE = "before create", "after create"
LIFE = {
    "before its thread is made": ("POST", THREAD, False),
    "after its thread is made": ("POST", THREAD, True),
    BEFORE_CREATE: ("POST", RUN, False),
    AFTER_CREATE: ("POST", RUN, True),
    "while polling": ("GET", RUN, True),
    "after the end, before its result is read": ("POST", HISTORY, False),
    "after its result is read": ("POST", HISTORY, True),
    "after the task, before the flow's end": ("GET", flows.LINGER, False),
}


def not_lease(request: Request) -> bool:
    """A lease is kept beside the calls, by a task of its own."""
    return b"prefect_lease" not in request.body


def kill_and_execute_again(
    tally: Tally,
    folder: Path,
    flow: Flow[..., Any],
    place: tuple[str, str, bool],
    **parameters: Any,
) -> list[str]:
    """Kill the first execution at a place; what the second one returned."""
    method, path, answer = place
    hold = Hold(answer=answer)
    rule = tally.proxy.on(method, path, Only(not_lease, hold), times=None)
    if path == flows.LINGER:
        parameters["linger"] = tally.proxy.url
    flow_run = new_flow_run(flow, block=tally.block, **parameters)
    with attempt(flow, flow_run, folder) as first:
        assert hold.reached.wait(PATIENCE), first.log()
        first.kill()
    hold.release()
    assert rule.hits
    with attempt(flow, flow_run, folder) as second:
        result: list[str] = second.result()
    return result


def one_run_each(tally: Tally, tags: list[str]) -> None:
    """Each tag was made and executed once, and nothing is left."""
    assert tally.made == len(tags)
    assert tally.executed == dict.fromkeys(tags, 1)
    tally.nothing_left()


@pytest.mark.parametrize("place", LIFE)
def test_stateless_run_is_adopted_wherever_the_process_was_killed(
    tally: Tally, tmp_path: Path, place: str
) -> None:
    result = kill_and_execute_again(tally, tmp_path, flows.stateless, LIFE[place], work={"tag": "a"})
    assert result == ["a"]
    one_run_each(tally, ["a"])


@pytest.mark.parametrize("place", [BEFORE_CREATE, AFTER_CREATE])
@pytest.mark.parametrize("flow", [flows.on_thread, flows.background], ids=lambda flow: flow.name)
def test_run_on_a_users_thread_is_adopted_after_a_kill(
    tally: Tally, tmp_path: Path, flow: Flow[..., Any], place: str
) -> None:
    thread_id = tally.user_thread()
    result = kill_and_execute_again(
        tally, tmp_path, flow, LIFE[place], work={"tag": "a"}, thread_id=thread_id
    )
    assert result == ["a"]
    one_run_each(tally, ["a"])
    assert len(tally.client.runs.list(thread_id)) == 1


@pytest.mark.parametrize(
    "place",
    [("POST", COPY, False), ("POST", COPY, True), ("POST", PRUNE, False), ("POST", PRUNE, True)],
    ids=["before the copy", "after the copy", "before its deletion", "after its deletion"],
)
def test_kill_while_the_output_is_learned_leaves_no_copy_of_the_thread(
    tally: Tally, tmp_path: Path, place: tuple[str, str, bool]
) -> None:
    result = kill_and_execute_again(tally, tmp_path, flows.stateless_untold, place, work={"tag": "a"})
    assert result == ["a"]
    one_run_each(tally, ["a"])


@pytest.mark.parametrize("answer", [False, True], ids=[BEFORE_CREATE, AFTER_CREATE])
def test_batch_is_adopted_after_a_kill(tally: Tally, tmp_path: Path, answer: bool) -> None:
    place = ("POST", BATCH, answer)
    result = kill_and_execute_again(tally, tmp_path, flows.many, place, work={"tag": "a"})
    assert result == ["a-0", "a-1", "a-2"]
    one_run_each(tally, result)


@pytest.mark.parametrize("answer", [False, True], ids=[BEFORE_CREATE, AFTER_CREATE])
def test_cron_is_found_again_after_a_kill(tally: Tally, tmp_path: Path, answer: bool) -> None:
    place = ("POST", CRON, answer)
    kill_and_execute_again(tally, tmp_path, flows.with_cron, place, work={"tag": "a"})
    assert tally.crons_made == 1
    tally.nothing_left()


def test_kill_before_the_finalizer_has_pruned_leaves_it_to_the_sweep(
    tally: Tally, tmp_path: Path
) -> None:
    flow_run = new_flow_run(flows.stateless, block=tally.block, work={"tag": "a"})
    hold = Hold()
    tally.proxy.on("POST", PRUNE, hold)
    with attempt(flows.stateless, flow_run, tmp_path) as first:
        assert hold.reached.wait(PATIENCE), first.log()
        first.kill()
    state = read_flow_run(flow_run).state
    assert state is not None
    assert state.is_completed()
    assert tally.remaining()
    sweep(tally.block, grace_seconds=0)
    one_run_each(tally, ["a"])


@pytest.mark.parametrize("answer", [False, True], ids=["before", "after"])
def test_without_a_finalizer_once_ends_when_the_result_was_handed_over(
    tally: Tally, tmp_path: Path, answer: bool
) -> None:
    place = ("POST", PRUNE, answer)
    kill_and_execute_again(tally, tmp_path, flows.stateless_unowned, place, work={"tag": "a"})
    assert tally.made == (2 if answer else 1)
    tally.nothing_left()
