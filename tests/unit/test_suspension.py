"""Records of suspended waits as text, and whether a flow run is due. No servers."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_langgraph import InvalidRequestError, suspend_until_ended
from prefect_langgraph.ownership.owner import Owner
from prefect_langgraph.runs.request import with_webhook
from prefect_langgraph.suspension.record import (
    PART_CHARACTERS,
    Record,
    Target,
    UnknownRecordError,
    identity_of,
    inputs_of,
    name_of,
    new_pause_key,
    parts_of,
    record_name,
    record_of,
)
from prefect_langgraph.suspension.verdict import judge

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def target(runs: int, *, url: str = "http://a", credentials: str | None = "agents") -> Target:
    ids = tuple((str(uuid.uuid4()), str(uuid.uuid4()), bool(number % 2)) for number in range(runs))
    return Target(url, credentials, None, ids)


def record(*targets: Target, deadline: datetime | None = None) -> Record:
    name = name_of(identity_of(targets), max_wait_seconds=None, attempt=1)
    return Record(name, NOW, deadline, targets)


def stored(original: Record) -> Record:
    """What is read back."""
    inputs = dict(inputs_of(original))
    head = inputs.pop(original.name)
    return record_of(original.name, head, [inputs[key] for key in parts_of(head)])


def runs_of(kept: Record) -> set[tuple[str, tuple[str, str, bool]]]:
    return {(target.url, ids) for target in kept.targets for ids in target.runs}


@pytest.mark.parametrize("runs", [1, 30_000])
def test_record_is_read_back_as_it_was_written(runs: int) -> None:
    original = record(target(runs), target(2, url="http://b"), deadline=NOW + timedelta(hours=6))
    found = stored(original)
    assert runs_of(found) == runs_of(original)
    assert (found.deadline, found.recorded_at) == (original.deadline, NOW)
    assert found.runs == runs + 2


def test_large_record_goes_into_parts_of_which_the_head_is_written_last() -> None:
    inputs = inputs_of(record(target(30_000)))
    assert len(inputs) > 1
    assert all(len(value) <= PART_CHARACTERS for _, value in inputs)
    assert parts_of(inputs[-1][1]) == [key for key, _ in inputs[:-1]]


def test_keys_of_inputs_are_what_prefect_takes() -> None:
    for key, _ in inputs_of(record(target(30_000))):
        assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_second_execution_makes_the_same_name_in_whatever_order_its_runs_are() -> None:
    one, other = target(3), target(3, url="http://b")
    turned = Target(one.url, one.credentials, None, tuple(reversed(one.runs)))
    assert record(one, other).name == record(other, turned).name


def test_other_runs_another_limit_and_a_retry_make_another_name() -> None:
    one = target(3)
    names = {
        name_of(identity_of([one]), max_wait_seconds=None, attempt=1),
        name_of(identity_of([one]), max_wait_seconds=60.0, attempt=1),
        name_of(identity_of([one]), max_wait_seconds=None, attempt=2),
        name_of(identity_of([target(3)]), max_wait_seconds=None, attempt=1),
    }
    assert len(names) == 4


def test_pause_keys_lead_to_their_record_and_are_never_the_same() -> None:
    kept = record(target(1))
    keys = {new_pause_key(kept.name) for _ in range(3)}
    assert len(keys) == 3
    assert {record_name(key) for key in keys} == {kept.name}
    assert all(kept.owns(key) for key in keys)


@pytest.mark.parametrize("key", [None, "", "1", "my-own.key", "langgraph-wait", "langgraph-ask-1.2"])
def test_pauses_of_others_lead_to_no_record(key: str | None) -> None:
    assert record_name(key) is None


def test_record_of_a_later_version_is_refused() -> None:
    with pytest.raises(UnknownRecordError, match="version 2"):
        record_of("langgraph-wait-x", '{"version": 2}', [])


@pytest.mark.parametrize("head", ["", "[]", '{"version": 1}', '{"version": 1, "targets": 3}'])
def test_damaged_record_is_told_as_one(head: str) -> None:
    with pytest.raises(UnknownRecordError):
        record_of("langgraph-wait-x", head, [])


@pytest.mark.parametrize(
    ("left", "deadline", "action"),
    [
        (0, None, "resume"),
        (2, None, "wait"),
        (2, NOW + timedelta(seconds=1), "wait"),
        (2, NOW, "resume"),
        (None, NOW - timedelta(days=1), "wait"),
    ],
)
def test_flow_run_is_due_when_all_ended_or_its_deadline_passed_and_never_unasked(
    left: int | None, deadline: datetime | None, action: str
) -> None:
    assert judge(record(target(3), deadline=deadline), left, now=NOW).action == action


def test_flow_run_without_a_record_is_resumed_since_nothing_else_would_end_it() -> None:
    assert judge(None, 0, now=NOW).action == "resume"


@pytest.mark.parametrize("seconds", [-1, float("nan"), True, "60"])
def test_time_to_stay_that_is_none_is_refused(seconds: object) -> None:
    with pytest.raises(InvalidRequestError, match="stay_seconds"):
        suspend_until_ended([], stay_seconds=seconds)  # type: ignore[arg-type]


# The webhook


def resumed_by(webhook: str | None, **owner: Any) -> Any:
    with temporary_settings({PREFECT_API_URL: "https://prefect.example.com/api/"}):
        return with_webhook({"webhook": webhook, "input": {}}, Owner(**owner))["webhook"]


def test_webhook_resume_is_the_address_of_the_flow_run_at_the_top() -> None:
    found = resumed_by("resume", flow_run_id="sub", root=("top", 1))
    assert found == "https://prefect.example.com/api/flow_runs/top/resume"


@pytest.mark.parametrize("webhook", [None, "https://example.com/hook"])
def test_other_webhooks_are_passed_on_as_they_are(webhook: str | None) -> None:
    assert resumed_by(webhook) == webhook


def test_webhook_resume_outside_of_a_flow_run_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="this is no flow run"):
        resumed_by("resume")
