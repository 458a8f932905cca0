"""Two processes execute the same flow run at the same time: a zombie and its successor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect import Flow

from faults import flows
from faults.attempts import attempt, new_flow_run
from faults.conditional_faults import Only
from faults.tally import THREAD, Tally
from faults.test_killed_process import not_lease, one_run_each
from proxy import Hold
from support.waiting import PATIENCE

FLOWS = [flows.stateless, flows.on_thread, flows.background]
each_flow = pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)


def parameters_of(tally: Tally, flow: Flow[..., Any], **more: Any) -> dict[str, Any]:
    if flow is flows.on_thread:
        more["thread_id"] = tally.user_thread()
    return {"block": tally.block, "work": {"tag": "a", **more.pop("work", {})}, **more}


@each_flow
def test_processes_that_run_side_by_side_share_their_runs(
    tally: Tally, tmp_path: Path, flow: Flow[..., Any]
) -> None:
    parameters = parameters_of(tally, flow, work={"sleep": 3}, linger=tally.proxy.url)
    flow_run = new_flow_run(flow, **parameters)
    # Both have what they asked for before one of them ends the flow run.
    lingering = [Hold(), Hold()]
    for hold in lingering:
        tally.proxy.on("GET", flows.LINGER, hold)
    with attempt(flow, flow_run, tmp_path) as one, attempt(flow, flow_run, tmp_path) as other:
        for hold in lingering:
            assert hold.reached.wait(PATIENCE), one.log() + other.log()
        assert tally.made == 1
        for hold in lingering:
            hold.release()
        outcomes = [one.outcome(), other.outcome()]
    assert ("value", ["a"]) in outcomes
    one_run_each(tally, ["a"])


@each_flow
def test_zombie_that_wakes_up_after_its_claim_finds_the_run_of_its_successor(
    tally: Tally, tmp_path: Path, flow: Flow[..., Any]
) -> None:
    parameters = parameters_of(tally, flow, linger=tally.proxy.url)
    flow_run = new_flow_run(flow, **parameters)
    claim, lingering = Hold(answer=True), Hold()
    held: list[bytes] = []

    def first_claim(request: Any) -> bool:
        if not held and not_lease(request):
            held.append(request.body)
            return True
        return False

    tally.proxy.on("POST", THREAD, Only(first_claim, claim), times=None)
    tally.proxy.on("GET", flows.LINGER, lingering, times=None)
    with attempt(flow, flow_run, tmp_path) as zombie:
        assert claim.reached.wait(PATIENCE), zombie.log()
        with attempt(flow, flow_run, tmp_path) as successor:
            assert lingering.reached.wait(PATIENCE), successor.log()
            claim.release()
            zombie.wait_for_log("Adopted", "taken over")
            lingering.release()
            assert successor.result() == ["a"]
            zombie.outcome()
    one_run_each(tally, ["a"])


def test_batch_of_processes_that_run_side_by_side_is_started_once(tally: Tally, tmp_path: Path) -> None:
    flow_run = new_flow_run(
        flows.many, block=tally.block, work={"tag": "a", "sleep": 3}, linger=tally.proxy.url
    )
    lingering = [Hold(), Hold()]
    for hold in lingering:
        tally.proxy.on("GET", flows.LINGER, hold)
    with (
        attempt(flows.many, flow_run, tmp_path) as one,
        attempt(flows.many, flow_run, tmp_path) as other,
    ):
        for hold in lingering:
            assert hold.reached.wait(PATIENCE), one.log() + other.log()
        assert tally.made == 3
        for hold in lingering:
            hold.release()
        outcomes = [one.outcome(), other.outcome()]
    tags = ["a-0", "a-1", "a-2"]
    assert ("value", tags) in outcomes
    one_run_each(tally, tags)
