"""What tells a cron from what it should be, and what is to be done about a set of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.schedules import Cron, Interval
from pydantic import ValidationError

from prefect_langgraph import CronPlan, CronSpec, HeaderPolicyError, InvalidRequestError, ScheduleError
from prefect_langgraph.crons.reconcile import steps_for, tags_of
from prefect_langgraph.crons.request import (
    CRON_OWNER,
    CronRequest,
    build,
    cron_key,
    difference,
    handle_of,
    of_spec,
)
from prefect_langgraph.crons.spec_file import read_specs
from prefect_langgraph.ownership.keys import Key
from prefect_langgraph.ownership.tags import KEY

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TAGS = {KEY: "k", "prefect_flow_run_id": "f"}


def row_of(request: CronRequest, tags: Mapping[str, Any] = TAGS, **over: Any) -> dict[str, Any]:
    """The cron as the server has it after it was created so."""
    sent = request.create_arguments(tags, NOW)
    row = {
        "cron_id": "01a2",
        "assistant_id": "fe096781-5601-53d2-b2f6-0d3403f7e9ca",
        "thread_id": request.thread_id,
        "schedule": sent["schedule"],
        "timezone": sent["timezone"],
        "enabled": sent["enabled"],
        "end_time": sent["end_time"].isoformat() if sent["end_time"] else None,
        "on_run_completed": sent.get("on_run_completed"),
        "metadata": sent["metadata"],
        "next_run_date": "2026-03-01T13:00:00+00:00",
        "created_at": "2026-03-01T11:00:00+00:00",
        "payload": {**request.payload, "config": {"configurable": {"cron_id": "01a2"}}},
    }
    if "config" in request.payload:
        given = request.payload["config"]
        own = {**given.get("configurable", {}), "cron_id": "01a2"}
        row["payload"]["config"] = {**given, "configurable": own}
    return {**row, **over}


FULL: dict[str, Any] = {
    "timezone": "Europe/Berlin",
    "input": {"question": "a"},
    "config": {"configurable": {"model": "small"}, "tags": ["x"]},
    "context": {"user": "ada"},
    "webhook": "https://example.com/done",
    "metadata": {"team": "platform"},
    "interrupt_before": ["work"],
    "durability": "exit",
}


def test_cron_as_it_was_created_differs_in_nothing() -> None:
    request = build("agent", "0 9 * * *", **FULL)
    assert difference(row_of(request), request, TAGS, NOW) is None


def test_payload_in_the_servers_own_words_is_no_difference() -> None:
    request = build("agent", "0 9 * * *", interrupt_before=["work"], stream_mode="values")
    row = row_of(request)
    row["payload"] |= {"stream_mode": ["values"], "interrupt_before": None, "durability": "async"}
    assert difference(row, request, TAGS, NOW) is None


@pytest.mark.parametrize(
    ("over", "fields"),
    [
        ({"schedule": "0 8 * * *"}, ("schedule",)),
        ({"timezone": "Asia/Tokyo"}, ("timezone",)),
        ({"enabled": False}, ("enabled",)),
        ({"end_time": "2026-04-01T00:00:00+00:00"}, ("end_time",)),
        ({"on_run_completed": "keep"}, ("on_run_completed",)),
    ],
)
def test_change_made_by_hand_is_a_difference(over: dict[str, Any], fields: tuple[str, ...]) -> None:
    request = build("agent", "0 9 * * *", **FULL)
    change = difference(row_of(request, **over), request, TAGS, NOW)
    assert change is not None
    assert (change.fields, change.replace) == (fields, False)


def test_input_changed_by_hand_is_a_difference() -> None:
    request = build("agent", "0 9 * * *", **FULL)
    row = row_of(request)
    row["payload"]["input"] = {"question": "b"}
    change = difference(row, request, TAGS, NOW)
    assert change is not None
    assert change.fields == ("input",)
    assert change.patch["input"] == {"question": "a"}


@pytest.mark.parametrize(
    ("then", "fields"),
    [
        ({"input": {"question": "b"}}, ("input",)),
        ({"config": {"configurable": {"model": "large"}}}, ("config",)),
        ({"config": None}, ("config",)),
        ({"context": None}, ("context",)),
        ({"durability": "sync"}, ("durability",)),
        ({"metadata": {"team": "other"}}, ("metadata",)),
        ({"metadata": None}, ("metadata",)),
        ({"timezone": "UTC"}, ("timezone",)),
    ],
)
def test_changed_specification_is_an_update(then: dict[str, Any], fields: tuple[str, ...]) -> None:
    row = row_of(build("agent", "0 9 * * *", **FULL))
    change = difference(row, build("agent", "0 9 * * *", **{**FULL, **then}), TAGS, NOW)
    assert change is not None
    assert (change.fields, change.replace) == (fields, False)


def test_metadata_that_is_not_wanted_any_more_is_emptied() -> None:
    row = row_of(build("agent", "0 9 * * *", metadata={"team": "platform"}))
    change = difference(row, build("agent", "0 9 * * *"), TAGS, NOW)
    assert change is not None
    assert change.patch["metadata"]["team"] is None


@pytest.mark.parametrize("then", [{"webhook": None}, {"input": None}, {"durability": None}])
def test_part_that_no_update_can_take_away_needs_a_new_cron(then: dict[str, Any]) -> None:
    row = row_of(build("agent", "0 9 * * *", **FULL))
    change = difference(row, build("agent", "0 9 * * *", **{**FULL, **then}), TAGS, NOW)
    assert change is not None
    assert change.replace


def test_other_assistant_or_strategy_needs_a_new_cron() -> None:
    thread = "0198f3c4-0000-7000-8000-000000000000"
    row = row_of(build("agent", "0 9 * * *", thread_id=thread))
    for other in (
        build("other", "0 9 * * *", thread_id=thread),
        build("agent", "0 9 * * *", thread_id=thread, multitask_strategy="enqueue"),
        build("agent", "0 9 * * *"),
    ):
        change = difference(row, other, TAGS, NOW)
        assert change is not None
        assert change.replace


def test_enabling_sends_the_schedule_along() -> None:
    row = row_of(build("agent", "0 9 * * *", enabled=False))
    change = difference(row, build("agent", "0 9 * * *"), TAGS, NOW)
    assert change is not None
    assert change.patch["enabled"] is True
    assert change.patch["schedule"] == "0 9 * * *"


def test_reviving_an_ended_cron_sends_the_schedule_along() -> None:
    request = build("agent", "0 9 * * *")
    change = difference(row_of(request, end_time="2026-02-01T00:00:00Z"), request, TAGS, NOW)
    assert change is not None
    assert change.patch["end_time"] is None
    assert change.patch["schedule"] == "0 9 * * *"


def test_tags_of_an_earlier_owner_are_emptied() -> None:
    request = build("agent", "0 9 * * *")
    row = row_of(request, {KEY: "k", "prefect_flow_run_id": "old", "prefect_task_run_id": "t"})
    change = difference(row, request, TAGS, NOW)
    assert change is not None
    assert change.fields == ("tags",)
    tags = change.patch["metadata"]
    assert (tags["prefect_flow_run_id"], tags["prefect_task_run_id"]) == ("f", None)


def test_key_of_a_cron_is_not_the_key_of_a_run() -> None:
    key = Key.chosen("nightly")
    assert cron_key(key.text) not in (key.text, "nightly")


def test_lease_moves_the_end_but_never_past_the_end_that_was_asked_for() -> None:
    end = datetime.now(UTC) + timedelta(hours=1)
    request = build("agent", "0 9 * * *", lease=timedelta(minutes=30), end_time=end)
    assert request.ends(end - timedelta(minutes=50)) == end - timedelta(minutes=20)
    assert request.ends(end - timedelta(minutes=10)) == end


def test_cron_whose_year_field_ends_gets_an_end() -> None:
    request = build("agent", "0 9 1 1 * 0 2030", allow_seconds=True)
    assert request.ends(NOW) == datetime(2030, 1, 1, 9, 1, tzinfo=UTC)


def test_headers_are_refused_with_the_reason() -> None:
    with pytest.raises(HeaderPolicyError, match="config= or context=") as refused:
        build("agent", "0 9 * * *", headers={"x-user": "do-not-show"})
    assert "do-not-show" not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"end_time": datetime(2020, 1, 1, tzinfo=UTC)},
        {"end_time": datetime(2099, 1, 1)},
        {"lease": timedelta(0)},
        {"on_run_completed": "maybe"},
        {"multitask_strategy": "maybe"},
        {"input": object()},
        {"metadata": {"a": object()}},
        {"thread_id": "no-uuid"},
        {"assistant_id": ""},
        {"checkpoint_during": True},
    ],
)
def test_wrong_argument_is_refused_before_any_request(wrong: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"assistant_id": "agent", "schedule": "0 9 * * *", **wrong}
    with pytest.raises(InvalidRequestError):
        build(**arguments)


def test_prefect_schedule_in_a_specification_becomes_a_cron() -> None:
    spec = CronSpec(name="a", assistant_id="x", schedule=Cron("0 9 * * *", timezone="Asia/Tokyo"))  # type: ignore[arg-type]
    assert (spec.schedule, spec.timezone) == ("0 9 * * *", "Asia/Tokyo")
    every = CronSpec(name="a", assistant_id="x", schedule=Interval(timedelta(hours=6)))  # type: ignore[arg-type]
    assert CronSpec.model_validate_json(every.model_dump_json()) == every
    assert of_spec(every).cron.schedule == every.schedule


def test_specification_shows_no_input_when_it_is_printed_or_refused() -> None:
    spec = CronSpec(name="a", assistant_id="x", schedule="@daily", input={"secret": "do-not-show"})
    assert "do-not-show" not in repr(spec)
    with pytest.raises(ValidationError) as refused:
        CronSpec(name="a", assistant_id="x", schedule="@daily", context="do-not-show")  # type: ignore[arg-type]
    assert "do-not-show" not in str(refused.value)


# Sets of crons ------------------------------------------------------------------------------------


def specs(*names: str, schedule: str = "0 9 * * *") -> dict[str, CronRequest]:
    return {name: build("agent", schedule) for name in names}


def rows(owner: str, wanted: Mapping[str, CronRequest]) -> list[dict[str, Any]]:
    return [
        row_of(request, tags_of(owner, name), cron_id=f"{owner}-{name}")
        for name, request in wanted.items()
    ]


def actions(found: Any) -> list[tuple[str, str]]:
    return [(step.action, step.name) for step in found]


def test_plan_creates_updates_deletes_and_leaves() -> None:
    there = rows("me", specs("b", "c", "d"))
    wanted = {**specs("a", "b"), **specs("c", schedule="0 10 * * *")}
    found = steps_for(wanted, there, "me", prune=True, now=NOW)
    assert actions(found) == [("create", "a"), ("leave", "b"), ("update", "c"), ("delete", "d")]


def test_plan_without_prune_leaves_what_is_not_wanted() -> None:
    found = steps_for({}, rows("me", specs("a")), "me", prune=False, now=NOW)
    assert actions(found) == [("leave", "a")]


def test_plan_sees_no_crons_of_other_owners() -> None:
    there = [*rows("you", specs("a", "b")), row_of(build("agent", "0 9 * * *"))]
    assert actions(steps_for(specs("a"), there, "me", prune=True, now=NOW)) == [("create", "a")]


def test_plan_keeps_the_oldest_of_two_crons_of_one_name() -> None:
    [row] = rows("me", specs("a"))
    twin = {**row, "cron_id": "later", "created_at": "2026-03-01T11:00:01+00:00"}
    found = steps_for(specs("a"), [twin, row], "me", prune=True, now=NOW)
    assert actions(found) == [("leave", "a"), ("delete", "a")]
    assert found[1].row is twin


def test_plan_says_what_differs_and_shows_no_contents() -> None:
    there = rows("me", {"a": build("agent", "0 9 * * *", input={"q": "old-value"})})
    wanted = {"a": build("agent", "0 9 * * *", input={"q": "new-value"})}
    [step] = steps_for(wanted, there, "me", prune=True, now=NOW)
    plan = CronPlan(owner="me", url="http://localhost", changes=(step.shown,))
    assert plan.rows()[0]["differs"] == "input"
    for shown in (plan.model_dump_json(), repr(step), str(plan.rows())):
        assert "new-value" not in shown
        assert "old-value" not in shown


def test_handle_of_a_paused_or_ended_cron_has_no_next_date() -> None:
    row = row_of(build("agent", "0 9 * * *"), {CRON_OWNER: "me"})
    assert handle_of(row, url="u", name=None).next_run_date is not None
    assert handle_of({**row, "enabled": False}, url="u", name=None).next_run_date is None
    ended = {**row, "end_time": "2026-03-01T12:30:00+00:00"}
    assert handle_of(ended, url="u", name=None).next_run_date is None


# Files --------------------------------------------------------------------------------------------

YAML = """
owner: me
crons:
  - name: a
    assistant_id: agent
    schedule: 0 9 * * *
    end_time: 2099-01-01T00:00:00Z
"""
JSON = '[{"name": "a", "assistant_id": "agent", "schedule": "0 9 * * *"}]'


def test_specifications_are_read_from_yaml_and_json(tmp_path: Path) -> None:
    for name, content in (("crons.yaml", YAML), ("crons.json", JSON)):
        file = tmp_path / name
        file.write_text(content)
        assert [*read_specs(str(file), "me")[1]] == ["a"]
    assert read_specs(tmp_path / "crons.yaml", None)[0] == "me"


def test_owner_who_is_not_the_files_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "crons.yaml"
    file.write_text(YAML)
    with pytest.raises(InvalidRequestError, match="names the owner 'me'"):
        read_specs(file, "you")
    with pytest.raises(InvalidRequestError, match="owner"):
        read_specs([], None)


@pytest.mark.parametrize(
    "content", ["{", "crons: 5", "just text", "owner: 3\ncrons: []", "crons: []\nextra: 1"]
)
def test_file_that_holds_no_list_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "crons.yaml"
    file.write_text(content)
    with pytest.raises(InvalidRequestError, match=r"crons\.yaml"):
        read_specs(file, "me")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="No such file"):
        read_specs(tmp_path / "none.yaml", "me")


def test_everything_wrong_is_said_at_once_and_no_input_with_it() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        read_specs(
            [
                {"name": "a", "assistant_id": "x", "schedule": "0 0 31 2 *"},
                {"name": "b", "assistant_id": "x", "schedule": "@daily", "inptu": "do-not-show"},
                {"name": "c", "assistant_id": "x", "schedule": "@daily"},
                {"name": "c", "assistant_id": "x", "schedule": "@daily"},
                "do-not-show",  # type: ignore[list-item]
            ],
            "me",
        )
    for part in ("Cron 'a'", "Cron 'b': inptu", "two crons named 'c'", "Cron 4 is a str"):
        assert part in str(refused.value)
    assert "do-not-show" not in str(refused.value)


def test_wrong_schedules_alone_are_a_schedule_error() -> None:
    with pytest.raises(ScheduleError, match="Cron 'a'"):
        read_specs([{"name": "a", "assistant_id": "x", "schedule": "@reboot"}], "me")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- name: a\n  schedule: */5 * * * *\n", r"line 2.*quotes.*schedule: \"\*/5 \* \* \* \*\""),
        ("crons:\n- {name: a, schedule: * * * * *}\n", "line 2.*quotes"),
        ("- name: a\n  schedule: @daily\n", r"line 2.*quotes.*schedule: \"@daily\""),
        ("owner: 123\ncrons: []\n", r"owner.*number.*quotes.*owner: \"123\""),
        ("owner: 2026-01-01\ncrons: []\n", "owner.*quotes"),
        ("owner: [a]\ncrons: []\n", "owner.*list.*text"),
        ("version: 1\nowner: a\ncrons: []\n", "version.*only `owner` and `crons`"),
        ("owner: a\ncron: []\n", "cron.*only `owner` and `crons`"),
        ("owner: a\n", "has no `crons`"),
        ("owner: a\ncrons:\n", "crons.*empty"),
        ("owner: a\ncrons: {b: 1}\n", "crons.*mapping.*list"),
        ("name: a\nassistant_id: b\nschedule: 0 9 * * *\n", "one cron.*list"),
        ("", "is empty"),
        ("just words\n", "no list of crons"),
        ("[1, 2\n", "neither YAML nor JSON.*line"),
    ],
)
def test_file_that_is_wrong_is_told_where_and_what_to_write(
    text: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "crons.yaml"
    file.write_text(text)
    with pytest.raises(InvalidRequestError, match=f"(?s){said}") as caught:
        read_specs(file, "me" if "owner: a" not in text else None)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("specs", [None, 5, True, {"name": "a"}, b"crons.yaml"])
def test_what_are_no_specifications_is_refused(specs: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"specs is .*: give .*CronSpec.*path"):
        read_specs(specs, "me")


@pytest.mark.parametrize(
    "empty", [{"context": {}}, {"config": {}}, {"config": {"configurable": {}}}, {"metadata": {}}]
)
def test_part_that_is_empty_is_as_one_that_is_not_there(empty: dict[str, Any]) -> None:
    request = build("agent", "0 9 * * *", **empty)
    assert difference(row_of(request), request, TAGS, NOW) is None
    row = row_of(request)
    row["payload"] = {"config": {"configurable": {"cron_id": "01a2"}}, "context": None}
    assert difference(row, request, TAGS, NOW) is None
