"""Joining many runs: in order, by each policy, within a deadline."""

from __future__ import annotations

import gc

import pytest
from langgraph_sdk.client import SyncLangGraphClient
from prefect import flow

from prefect_langgraph import (
    FanOutError,
    InvalidRequestError,
    JoinTimeoutError,
    LangGraphCredentials,
    RunCancelledError,
    RunFailedError,
    RunHandle,
    RunInterruptedError,
    RunStatus,
    cancel_runs,
    join_run,
    join_runs,
    run_stateless,
    start_run,
    start_runs,
)
from proxy import Answer, Proxy
from support.marked_runs import SEARCH

pytestmark = pytest.mark.usefixtures("prefect_server")

MIXED = [{"tag": "a", "sleep": 0.4}, {"fail": "no luck"}, {"interrupts": 1}, {"tag": "d"}]
ENDS = [RunStatus.SUCCESS, RunStatus.ERROR, RunStatus.INTERRUPTED, RunStatus.SUCCESS]


def statuses(client: SyncLangGraphClient, handles: list[RunHandle]) -> list[str]:
    """How the server itself lists the runs of these threads; a thread that is gone has none."""
    found = client.threads.search(ids=[handle.thread_id for handle in handles], limit=100)
    return [thread["status"] for thread in found]


def test_collect_returns_every_result_in_input_order(credentials: LangGraphCredentials) -> None:
    handles = start_runs("worker", MIXED, credentials=credentials)
    result = join_runs(handles, on_failure="collect")
    assert [each.status for each in result] == ENDS
    assert [each.handle for each in result] == handles
    assert [values["result"] for values in result.values] == ["a", "partial", "partial", "d"]


def test_raise_waits_for_all_and_holds_every_result(credentials: LangGraphCredentials) -> None:
    handles = start_runs("worker", MIXED, credentials=credentials)
    with pytest.raises(FanOutError) as caught:
        join_runs(handles)
    assert [each.status for each in caught.value.result] == ENDS
    assert [type(error) for error in caught.value.exceptions] == [RunFailedError, RunInterruptedError]


def test_fail_fast_cancels_the_rest_and_waits_until_it_is_so(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    handles = start_runs(
        "worker", [{"sleep": 60}, {"fail": "no luck"}, {"sleep": 60}], credentials=credentials
    )
    with pytest.raises(FanOutError) as caught:
        join_runs(handles, on_failure="fail_fast")
    assert [each.status for each in caught.value.result] == [
        RunStatus.CANCELLED,
        RunStatus.ERROR,
        RunStatus.CANCELLED,
    ]
    assert "busy" not in statuses(client, handles)


@pytest.mark.parametrize("limit", [None, 0.5], ids=["fail_fast", "deadline"])
def test_join_that_stops_early_leaves_no_exception_unread(
    credentials: LangGraphCredentials, caplog: pytest.LogCaptureFixture, limit: float | None
) -> None:
    given = (
        [{"sleep": 60}, {"fail": "no luck"}, {"sleep": 60}] if limit is None else [{"sleep": 60}] * 2
    )
    handles = start_runs("worker", given, credentials=credentials)
    with pytest.raises((FanOutError, JoinTimeoutError)):
        join_runs(handles, on_failure="fail_fast", max_wait_seconds=limit, on_timeout="cancel")
    gc.collect()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_deadline_of_a_join_leaves_the_runs_alone(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    handles = start_runs("worker", [{"tag": "quick"}, {"sleep": 60}], credentials=credentials)
    with pytest.raises(JoinTimeoutError) as caught:
        join_runs(handles, max_wait_seconds=3)
    assert caught.value.result is not None
    assert caught.value.result[0].status is RunStatus.SUCCESS
    assert not caught.value.result[1].status.ended
    assert statuses(client, handles[1:]) == ["busy"]
    collected = join_runs(handles[1:], on_failure="collect", max_wait_seconds=0.5)
    assert not collected[0].status.ended
    assert cancel_runs(handles[1:]).counts == {RunStatus.CANCELLED: 1}


def test_deadline_with_cancel_stops_what_has_not_ended(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    handles = start_runs("worker", [{"sleep": 60}] * 2, credentials=credentials)
    with pytest.raises(JoinTimeoutError):
        join_runs(handles, max_wait_seconds=1, on_timeout="cancel")
    assert "busy" not in statuses(client, handles)


def test_deadline_of_a_run_cancels_it_and_leaves_no_thread(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    with pytest.raises(JoinTimeoutError) as caught:
        run_stateless("worker", {"sleep": 60}, credentials=credentials, max_wait_seconds=1)
    assert caught.value.handle is not None
    assert statuses(client, [caught.value.handle]) == []


def test_deadline_of_a_single_join_can_leave_or_cancel(credentials: LangGraphCredentials) -> None:
    handle = start_run("worker", {"sleep": 60}, credentials=credentials)
    with pytest.raises(JoinTimeoutError):
        join_run(handle, max_wait_seconds=0.5)
    with pytest.raises(JoinTimeoutError):
        join_run(handle, max_wait_seconds=0.5, on_timeout="cancel")
    with pytest.raises(RunCancelledError):
        join_run(handle)


def test_joining_nothing_is_an_empty_result() -> None:
    assert len(join_runs([])) == 0


@pytest.mark.parametrize("wrong", [{"on_failure": "never"}, {"on_timeout": "wait"}])
def test_unknown_policy_is_refused_before_any_request(
    through_proxy: LangGraphCredentials, proxy: object, wrong: dict[str, str]
) -> None:
    handle = RunHandle(run_id="a", thread_id="b", assistant_id="c", url=through_proxy.url)
    with pytest.raises(InvalidRequestError):
        join_runs([handle], credentials=through_proxy, **wrong)  # type: ignore[arg-type]
    assert not proxy.seen()  # type: ignore[attr-defined]


def test_warning_of_the_poller_is_in_no_flow_runs_log(
    proxy: Proxy, through_proxy: LangGraphCredentials, caplog: pytest.LogCaptureFixture
) -> None:
    @flow
    def waits() -> None:
        handles = start_runs("worker", [{"sleep": 1}] * 12, credentials=through_proxy)
        # Whoever asks first is not whom it concerns: the poller asks for everybody.
        proxy.on("POST", SEARCH, Answer(503), times=2)
        join_runs(handles)

    waits()
    warned = [record for record in caplog.records if record.message.startswith("Could not ask for 12")]
    assert warned
    assert not [record.name for record in warned if "_runs" in record.name]
