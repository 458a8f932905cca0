"""What a sweep decides, with the time passed in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from prefect_langgraph.cleanup.verdict import FlowRunFacts, HeartbeatFacts, Left, Verdict, judge

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def facts(
    state: str,
    *,
    ended_at: datetime | None = None,
    active: bool = False,
    attempt: int = 1,
    running_for: float | None = 7200,
) -> FlowRunFacts:
    since = ago(running_for) if active and running_for is not None else None
    return FlowRunFacts("a-name", state, ended_at is not None, ended_at, active, attempt, since)


RUNNING = facts("Running", active=True)
COMPLETED = facts("Completed", ended_at=ago(3600))


def lease(touched: float, *, of: str = "own", attempt: int = 1, seconds: float = 120) -> HeartbeatFacts:
    return HeartbeatFacts(of, attempt, seconds, ago(touched))


def judged(
    own: FlowRunFacts | None,
    *leases: HeartbeatFacts,
    root: FlowRunFacts | str | None = "no root",
    touched: datetime | None = None,
) -> Verdict:
    known = {"own": own}
    if not isinstance(root, str):
        known["root"] = root
    left = Left("own", None if isinstance(root, str) else "root", touched)
    return judge(left, known, leases, now=NOW, grace_seconds=300)


@pytest.mark.parametrize(
    ("own", "action"),
    [
        (COMPLETED, "release"),
        (facts("Crashed", ended_at=ago(301)), "release"),
        (facts("Completed", ended_at=ago(299)), "keep"),
        (RUNNING, "keep"),
        (facts("Cancelling", active=True), "keep"),
        (facts("Suspended"), "keep"),
        (facts("AwaitingRetry"), "keep"),
    ],
    ids=lambda value: getattr(value, "state", value),
)
def test_flow_run_is_released_when_it_ended_longer_ago_than_the_grace(
    own: FlowRunFacts, action: str
) -> None:
    verdict = judged(own)
    assert verdict.action == action
    assert own.state in verdict.reason


def test_gone_flow_run_is_released_once_nothing_of_it_has_changed_for_the_grace() -> None:
    assert judged(None, touched=ago(600)) == Verdict("release", "is gone from Prefect, 10 minutes ago")
    assert judged(None, touched=ago(10)).action == "keep"


def test_what_nobody_knows_the_age_of_stays() -> None:
    verdict = judged(None)
    assert verdict.action == "keep"
    assert "nobody knows" in verdict.reason


def test_running_flow_run_whose_lease_ran_out_is_released_after_the_grace() -> None:
    assert judged(RUNNING, lease(421)).action == "release"
    assert judged(RUNNING, lease(419)).action == "keep"


def test_flow_run_lives_while_one_of_its_leases_does() -> None:
    assert judged(RUNNING, lease(5000), lease(100)).action == "keep"


@pytest.mark.parametrize("state", ["Running", "Cancelling"])
@pytest.mark.parametrize("running_for", [4999, 10, None])
def test_sign_of_life_from_before_the_present_execution_says_nothing(
    state: str, running_for: float | None
) -> None:
    resumed = facts(state, active=True, running_for=running_for)
    assert judged(resumed, lease(5000)) == Verdict("keep", f"is {state}")
    assert judged(COMPLETED, lease(5000, of="root"), root=resumed).action == "keep"


def test_sign_of_life_that_stopped_in_the_present_execution_counts_beside_older_ones() -> None:
    resumed = facts("Running", active=True, running_for=1000)
    assert judged(resumed, lease(5000), lease(900)).action == "release"
    assert judged(resumed, lease(5000), lease(100)).action == "keep"


def test_lease_says_nothing_of_another_attempt() -> None:
    assert judged(facts("Running", active=True, attempt=2), lease(5000)).action == "keep"


def test_lease_says_nothing_of_a_flow_run_that_waits_to_go_on() -> None:
    assert judged(facts("AwaitingRetry"), lease(5000)).action == "keep"


def test_lease_that_the_server_does_not_date_says_nothing() -> None:
    undated = HeartbeatFacts("own", 1, 120, None)
    assert judged(RUNNING, undated, lease(5000)).action == "keep"


def test_subflow_waits_for_the_flow_run_around_it() -> None:
    verdict = judged(COMPLETED, root=RUNNING)
    assert verdict == Verdict("keep", "the flow run around it, root, is Running")
    assert judged(COMPLETED, root=facts("Failed", ended_at=ago(10))).action == "keep"
    assert judged(COMPLETED, root=facts("Failed", ended_at=ago(600))).action == "release"


def test_subflow_dies_with_the_process_of_the_flow_run_around_it() -> None:
    assert judged(RUNNING, lease(5000, of="root"), root=RUNNING).action == "release"
    assert judged(RUNNING, lease(10, of="root"), root=RUNNING).action == "keep"
    assert judged(RUNNING, lease(5000), root=RUNNING).action == "keep"
