"""Flow runs that suspend while their runs go on, and whatever may happen to them meanwhile.

Each ends with right results, every run is made once, and nothing is left. The flow runs are of a
Prefect deployment; the test executes them as a worker does, whenever they are due.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import temporary_settings
from prefect.states import Cancelling
from prefect.states import Suspended as SuspendedState

from faults import suspending_flows as flows
from faults.attempts import attempt
from faults.suspended import (
    GATED,
    GOOD,
    TAGS,
    OnceOf,
    Start,
    Suspended,
    entry_of,
    impatient_settings,
    one_pass,
    records,
)
from faults.tally import Tally
from prefect_langgraph import (
    LangGraphAssistant,
    LangGraphCredentials,
    afan_out,
    fan_out,
    run_assistant,
    start_runs,
    sweep,
)
from prefect_langgraph.flows.resume import resumer_of
from prefect_langgraph.suspension.models import ResumeEntry, ResumeReport
from prefect_langgraph.transport.loop import io_loop
from proxy import (
    Answer,
    Fault,
    Hold,
    LoseRequest,
    LoseResponse,
    Proxy,
)
from support.second_look import SEARCH, SecondLook, hold_second_look
from support.waiting import PATIENCE, until


def test_flow_run_waits_without_a_process_until_its_runs_have_ended(start: Start) -> None:
    run = start()
    run.suspends()
    entry = entry_of(one_pass(), run.id)
    assert entry is not None
    assert (entry.action, entry.runs, entry.left) == ("wait", flows.RUNS, flows.RUNS)
    run.resumed_when_over()
    assert run.ends() == GOOD
    assert len(records(run.id)) == 1
    run.once_and_nothing_left()


def test_run_on_a_callers_thread_is_waited_for_by_the_asynchronous_twin(
    start: Start, tally: Tally
) -> None:
    run = start(flows.awaits, work={"tag": "a", "gate": True}, thread_id=tally.user_thread())
    run.suspends()
    run.resumed_when_over()
    assert run.ends() == ["a"]
    run.once_and_nothing_left(["a"])


def test_runs_that_end_while_the_process_stays_cost_no_suspension(start: Start, tally: Tally) -> None:
    tally.open_gate()
    run = start(stay_seconds=60)
    assert run.ends() == GOOD
    assert not records(run.id)
    run.once_and_nothing_left()


def test_runs_that_end_while_it_suspends_are_seen_by_the_second_look(
    start: Start, tally: Tally
) -> None:
    run = start()
    second = hold_second_look(tally.proxy)
    with run.executes() as first:
        assert second.reached.wait(PATIENCE), first.log()
        assert run.state == "Suspended"
        tally.open_gate()
        tally.settle()
        second.release()
        assert first.outcome()[0] == "error"
    # Nobody else has resumed it.
    assert run.state == "Resuming"
    assert run.ends() == GOOD
    run.once_and_nothing_left()


def test_process_killed_between_suspension_and_second_look_is_resumed_by_the_resumer(
    start: Start, tally: Tally
) -> None:
    run = start()
    second = hold_second_look(tally.proxy)
    with run.executes() as first:
        assert second.reached.wait(PATIENCE), first.log()
        first.kill()
    second.release()
    assert run.state == "Suspended"
    run.resumed_when_over()
    assert run.ends() == GOOD
    run.once_and_nothing_left()


def test_clicks_too_early_lead_to_another_look_and_another_suspension(start: Start) -> None:
    run = start()
    run.suspends()
    for _ in range(3):
        for _ in range(7):
            run.click()  # only the first finds it suspended
        assert run.state == "Resuming"
        run.suspends()
    assert len(records(run.id)) == 1
    run.resumed_when_over()
    assert run.ends() == GOOD
    run.once_and_nothing_left()


def test_webhook_that_comes_before_the_suspension_is_lost_and_the_resumer_finds_it(
    start: Start, tally: Tally
) -> None:
    run = start()
    first_look = Hold()
    tally.proxy.on("POST", SEARCH, first_look)
    with run.executes() as running:
        assert first_look.reached.wait(PATIENCE), running.log()
        run.click()
        assert run.state == "Running"
        first_look.release()
        assert running.outcome()[0] == "error"
    assert run.state == "Suspended"
    run.resumed_when_over()
    assert run.ends() == GOOD
    run.once_and_nothing_left()


def test_webhook_that_comes_twice_resumes_once(start: Start, tally: Tally) -> None:
    run = start()
    run.suspends()
    tally.open_gate()
    tally.settle()
    with ThreadPoolExecutor(2) as pool:
        for click in [pool.submit(run.click) for _ in range(2)]:
            click.result()
    assert run.state == "Resuming"
    assert run.ends() == GOOD
    run.click()  # and once more, long after
    assert run.state == "Completed"
    run.once_and_nothing_left()


def test_runs_whose_data_is_gone_end_the_wait_as_lost(start: Start, tally: Tally) -> None:
    handles = start_runs("counted", [{**GATED, "tag": tag} for tag in TAGS], credentials=tally.block)
    run = start(flows.waits_for, given=[handle.model_dump(mode="json") for handle in handles])
    run.suspends()
    tally.clear()  # as when a deployment is set up anew
    entry = entry_of(one_pass(), run.id)
    assert entry is not None
    assert (entry.action, entry.left) == ("resume", 0)
    assert run.ends() == ["lost"] * flows.RUNS


def test_two_resumers_at_once_resume_once(start: Start, tally: Tally) -> None:
    run = start()
    run.suspends()
    tally.open_gate()
    tally.settle()

    async def both() -> list[ResumeReport]:
        return await asyncio.gather(*(resumer_of(None).one_pass() for _ in range(2)))

    reports = io_loop().run(both)
    assert not any(report.failures for report in reports)
    assert run.state == "Resuming"
    assert run.ends() == GOOD
    run.once_and_nothing_left()


def test_langgraph_down_for_a_pass_resumes_nobody_and_the_next_pass_does(
    start: Start, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    run.suspends()
    tally.open_gate()
    tally.settle()
    monkeypatch.setattr("prefect_langgraph.suspension.resumer.ASK_SECONDS", 1.0)
    down = tally.proxy.on("*", "", LoseRequest(), times=None)
    report = one_pass()
    entry = entry_of(report, run.id)
    assert entry is not None
    assert (entry.action, entry.left) == ("wait", None)
    assert tally.block in report.failures[0]
    assert down.hits
    down.end()
    run.resumed_when_over()
    assert run.ends() == GOOD
    run.once_and_nothing_left()


def test_langgraph_down_for_the_second_look_leaves_it_to_the_resumer(
    start: Start, tally: Tally
) -> None:
    run = start()
    down = tally.proxy.on("POST", SEARCH, SecondLook(LoseRequest()), times=None)
    run.suspends()
    assert run.state == "Suspended"
    down.end()
    run.resumed_when_over()
    assert run.ends() == GOOD
    run.once_and_nothing_left()


def test_runs_that_failed_while_it_was_suspended_are_not_started_again(
    start: Start, tally: Tally
) -> None:
    run = start(work={**GATED, "fail_first": 1}, on_failure="collect")
    run.suspends()
    run.resumed_when_over()
    assert run.ends() == ["error"] * flows.RUNS
    run.once_and_nothing_left()


def test_deadline_that_passed_while_nobody_resumed_cancels_and_raises(
    start: Start, tally: Tally
) -> None:
    run = start(max_wait_seconds=3600)
    run.suspends()
    assert one_pass(dry_run=True).waiting
    an_hour_passes(run.id)
    entry = entry_of(one_pass(), run.id)
    assert entry is not None
    assert (entry.action, entry.left) == ("resume", flows.RUNS)
    with run.executes() as running:
        kind, value = running.outcome()
    assert kind == "error"
    assert "JoinTimeoutError" in value
    assert "max_wait_seconds=3600" in value
    assert run.state == "TimedOut"  # Prefect's name for a failure by a TimeoutError
    tally.settle()
    assert tally.made == flows.RUNS
    tally.nothing_left()


def an_hour_passes(flow_run_id: UUID) -> None:
    """Put the deadline of a suspended flow run an hour back, in its record."""
    [name] = records(flow_run_id)
    with get_client(sync_client=True) as client:
        head = json.loads(client.read_flow_run_input(flow_run_id, name))
        passed = datetime.fromisoformat(head["deadline"]) - timedelta(hours=1)
        client.delete_flow_run_input(flow_run_id, name)
        head["deadline"] = passed.isoformat()
        client.create_flow_run_input(flow_run_id, name, json.dumps(head))


def test_dry_run_says_who_is_due_and_touches_nothing(start: Start, tally: Tally) -> None:
    run = start()
    run.suspends()
    tally.open_gate()
    tally.settle()
    entry = entry_of(one_pass(dry_run=True), run.id)
    assert entry is not None
    assert (entry.action, entry.left) == ("resume", 0)
    assert run.state == "Suspended"


def test_new_code_with_other_inputs_waits_for_its_own_runs(start: Start, tally: Tally) -> None:
    run = start()
    run.suspends()
    run.click()
    run.flow = flows.waits_in_new_code
    run.suspends()
    assert len(records(run.id)) == 2
    run.resumed_when_over()
    assert run.ends() == GOOD
    run.once_and_nothing_left([*TAGS, *(f"new-{number}" for number in range(flows.RUNS))])


def test_sweep_without_grace_takes_nothing_from_a_suspended_flow_run(
    start: Start, tally: Tally
) -> None:
    run = start()
    run.suspends()
    kept = sweep(tally.block, grace_seconds=0).kept
    [reason] = [entry.reason for entry in kept if entry.flow_run_id == str(run.id)]
    assert reason == f"is Suspended, with {flows.RUNS} busy threads"
    run.click()
    sweep(tally.block, grace_seconds=0)
    run.suspends()
    sweep(tally.block, grace_seconds=0)
    run.resumed_when_over()
    sweep(tally.block, grace_seconds=0)
    assert run.ends() == GOOD
    run.once_and_nothing_left()


def test_code_before_the_suspension_runs_again_and_a_task_with_a_persisted_result_does_not(
    start: Start, tally: Tally, tmp_path: Path
) -> None:
    path = tmp_path / "notes"
    run = start(flows.notes, path=str(path))
    run.suspends()
    run.resumed_when_over()
    assert run.ends() == "a"
    assert path.read_text().split() == ["code", "task", "code"]
    run.once_and_nothing_left(["a"])


@pytest.mark.parametrize(
    ("flow", "more", "why"),
    [
        (flows.cannot, {"where": "subflow"}, "this is a subflow"),
        (flows.cannot, {"where": "task"}, "this is a task"),
        (flows.without_finalizer, {}, "the flow has no finalizer"),
    ],
)
def test_where_nothing_can_suspend_it_waits_in_the_process_and_says_why(
    start: Start, tally: Tally, flow: Flow[..., Any], more: dict[str, Any], why: str
) -> None:
    run = start(flow, **more)
    with run.executes() as running:
        running.wait_for_log(why)
        assert run.state == "Running"
        tally.open_gate()
        assert running.result() == ["a"]
    assert running.log().count("without suspending") == 1
    run.once_and_nothing_left(["a"])


# What ends while it is suspended: Prefect runs no hook for it


def test_flow_run_that_was_cancelled_while_suspended_is_released_at_the_next_pass(
    start: Start, tally: Tally
) -> None:
    run = start()
    run.suspends()
    cancel(run.id)
    assert run.state == "Cancelled"
    entry = released_by_a_pass(run)
    assert "Cancelled" in entry.reason
    tally.nothing_left()


def test_two_blocks_of_one_address_tell_once_of_what_was_released(start: Start, tally: Tally) -> None:
    run = start()
    run.suspends()
    cancel(run.id)
    LangGraphCredentials(url=tally.proxy.url, api_key="another").save("another-key", overwrite=True)
    report = io_loop().run(resumer_of([tally.block, "another-key"]).one_pass)
    mine = [entry.action for entry in report.entries if entry.flow_run_id == str(run.id)]
    assert mine == ["release"]
    tally.settle()
    tally.nothing_left()


def test_flow_run_that_was_cancelled_while_resuming_is_released_at_the_next_pass(
    start: Start, tally: Tally
) -> None:
    run = start()
    run.suspends()
    run.click()
    assert run.state == "Resuming"
    cancel(run.id)
    released_by_a_pass(run)
    tally.nothing_left()


def test_flow_run_that_was_deleted_while_suspended_is_released_once_its_process_gave_no_sign(
    start: Start, tally: Tally
) -> None:
    run = start()
    run.suspends()
    with get_client(sync_client=True) as client:
        client.delete_flow_run(run.id)
    assert until(lambda: entry_of(one_pass(tally.block), run.id))
    tally.settle()
    tally.nothing_left()


def test_flow_run_whose_prefect_deployment_was_deleted_ends_and_is_released(
    start: Start, tally: Tally
) -> None:
    run = start()
    run.suspends()
    deployment_id = run.row.deployment_id
    assert deployment_id is not None
    with get_client(sync_client=True) as client:
        client.delete_deployment(deployment_id)
    report = one_pass()
    assert [entry.action for entry in report.entries if entry.flow_run_id == str(run.id)] == [
        "fail",
        "release",
    ]
    assert run.state == "Failed"
    tally.settle()
    tally.nothing_left()


def test_cron_of_a_block_in_which_the_flow_run_suspends_stays_until_the_block_ends(
    start: Start, tally: Tally
) -> None:
    run = start(flows.inside_a_cron)
    run.suspends()
    [cron] = tally.client.crons.search(limit=10)
    run.resumed_when_over()
    assert run.ends() == ["a", cron["cron_id"]]
    assert tally.crons_made == 1
    run.once_and_nothing_left(["a"])


def test_suspension_of_a_users_own_is_not_touched(start: Start, tally: Tally) -> None:
    run = start(flows.own_suspension)
    run.suspends()
    tally.open_gate()
    tally.settle()
    assert entry_of(one_pass(), run.id) is None
    assert run.state == "Suspended"
    run.click()
    assert run.ends() == ["a"]
    run.once_and_nothing_left(["a"])


def cancel(flow_run_id: UUID) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run_id, Cancelling())


def released_by_a_pass(run: Suspended) -> ResumeEntry:
    entry = entry_of(one_pass(run.tally.block), run.id)
    assert entry is not None
    assert entry.action == "release"
    run.tally.settle()
    return entry


# Flows of the package


@pytest.mark.parametrize("flow", [fan_out, afan_out])
def test_fan_out_suspends_once_all_are_started_and_reports_all(
    start: Start, tally: Tally, flow: Flow[..., Any]
) -> None:
    given = [{**GATED, "tag": tag} for tag in TAGS]
    run = start(flow, assistant_id="counted", inputs=given, wait="suspend", stay_seconds=0)
    run.suspends()
    run.resumed_when_over()
    result = run.ends()
    assert [values["result"] for values in result.values] == TAGS
    run.once_and_nothing_left()


@pytest.mark.parametrize("saved", [True, False], ids=["saved credentials", "credentials of its own"])
def test_saved_assistant_is_run_without_a_process(start: Start, tally: Tally, saved: bool) -> None:
    credentials = (
        LangGraphCredentials.load(tally.block)
        if saved
        else LangGraphCredentials(url=tally.proxy.url, patience_seconds=5)
    )
    LangGraphAssistant(credentials=credentials, assistant_id="counted").save(tally.block)
    run = start(run_assistant, input=GATED, wait="suspend", stay_seconds=0)
    run.suspends()
    run.resumed_when_over()
    assert run.ends()["result"] == "a"
    run.once_and_nothing_left(["a"])


# Others at work on the same flow run


def test_person_who_suspends_it_while_a_task_waits_cancels_no_run_and_all_are_adopted(
    start: Start, tally: Tally
) -> None:
    run = start(flows.joins)
    with run.executes() as running:
        tally.wait_for_execution("a")
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, SuspendedState(pause_key="a-person"))
        assert run.state == "Suspended"
        tally.open_gate()
        kind, _ = running.outcome()
    assert kind == "error"
    assert run.state == "Suspended"
    assert entry_of(one_pass(), run.id) is None
    run.click()
    assert run.ends() == ["a"]
    run.once_and_nothing_left(["a"])


# Prefect fails


STEPS = {
    "when it records": ("POST", "/input$", b"langgraph-wait"),
    "when it suspends": ("POST", "/set_state$", b"langgraph-wait"),
}
PASSES = {
    "when it looks for suspended flow runs": ("POST", "/flow_runs/filter$"),
    "when it reads a record": ("GET", "/input/"),
    "when it resumes": ("POST", "/resume$"),
}


@pytest.mark.parametrize("fault", [Answer(503), LoseResponse()], ids=["503", "answer lost"])
@pytest.mark.parametrize("step", STEPS)
def test_failure_of_prefect_while_it_suspends_is_waited_out_in_the_process(
    start: Start, prefect_proxy: Proxy, step: str, fault: Fault
) -> None:
    run = start()
    method, path, word = STEPS[step]
    once = OnceOf(word, fault)
    prefect_proxy.on(method, path, once, times=None)
    settings = {setting.name: value for setting, value in impatient_settings(prefect_proxy).items()}
    with attempt(run.flow, run.id, run.folder, settings) as running:
        assert running.outcome()[0] == "error"
    assert once.shown
    assert run.state == "Suspended"
    assert len(records(run.id)) == 1
    run.resumed_when_over()
    assert run.ends() == GOOD
    run.once_and_nothing_left()


@pytest.mark.parametrize("step", PASSES)
def test_failure_of_prefect_during_a_pass_leaves_it_to_the_next(
    start: Start, tally: Tally, prefect_proxy: Proxy, step: str
) -> None:
    run = start()
    run.suspends()
    tally.open_gate()
    tally.settle()
    method, path = PASSES[step]
    rule = prefect_proxy.on(method, path, Answer(503))
    with temporary_settings(impatient_settings(prefect_proxy)):
        try:
            report = one_pass()
        except PrefectHTTPStatusError:
            pass
        else:
            assert report.failures
    assert rule.hits == 1
    assert run.state == "Suspended"
    run.resumed_when_over()
    assert run.ends() == GOOD
    run.once_and_nothing_left()
