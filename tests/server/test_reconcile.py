"""Crons as desired state, on the real server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from langgraph_sdk.client import SyncLangGraphClient
from prefect import flow
from prefect.artifacts import Artifact
from prefect.flows import load_flow_from_entrypoint

from prefect_langgraph import (
    CronPlan,
    CronSpec,
    InvalidRequestError,
    LangGraphCredentials,
    NotFoundError,
    areconcile_crons,
    create_cron,
    reconcile_crons,
    search_crons,
    update_cron,
)
from prefect_langgraph.ownership.tags import FLOW_RUN_ID
from prefect_langgraph.testing import LangGraphServer, run_langgraph_server
from proxy import Answer, Hold, LoseResponse, Proxy, run_proxy
from support.plain_sdk import sync_sdk

pytestmark = pytest.mark.usefixtures("prefect_server")

ROOT = Path(__file__).resolve().parents[2]
YEARLY = "0 9 1 1 *"


@pytest.fixture(scope="module")
def server() -> Iterator[LangGraphServer]:
    """A server of its own: what nobody owns is part of every plan."""
    with run_langgraph_server(ROOT / "examples" / "agent" / "langgraph.json") as server:
        yield server


@pytest.fixture
def block(server: LangGraphServer) -> LangGraphCredentials:
    return LangGraphCredentials(url=server.url, patience_seconds=5)


@pytest.fixture
def sdk(block: LangGraphCredentials) -> Iterator[SyncLangGraphClient]:
    """The plain SDK; the server has no crons before and after."""
    with sync_sdk(block.url) as client:
        yield client
        while rows := client.crons.search(limit=1000):
            for row in rows:
                client.crons.delete(row["cron_id"])


@pytest.fixture
def counted(server: LangGraphServer) -> Iterator[Proxy]:
    with run_proxy(server.url) as proxy:
        yield proxy


def spec(name: str, schedule: str = YEARLY, **options: Any) -> CronSpec:
    return CronSpec(name=name, assistant_id="worker", schedule=schedule, **options)


def did(plan: CronPlan) -> list[tuple[str, str]]:
    return [(change.action, change.name) for change in plan.changes]


def test_crons_become_what_they_should_be_and_stay_so(
    block: LangGraphCredentials, sdk: SyncLangGraphClient
) -> None:
    first = [spec("a"), spec("b", input={"tag": "b"}), spec("c", enabled=False)]
    assert did(reconcile_crons(first, owner="me", credentials=block)) == [
        ("create", "a"),
        ("create", "b"),
        ("create", "c"),
    ]
    before = {row["metadata"]["prefect_cron_name"]: row for row in sdk.crons.search()}
    then = [spec("a"), spec("b", "0 10 1 1 *", input={"tag": "B"}), spec("d")]
    plan = reconcile_crons(then, owner="me", credentials=block)
    assert did(plan) == [("leave", "a"), ("update", "b"), ("delete", "c"), ("create", "d")]
    after = {row["metadata"]["prefect_cron_name"]: row for row in sdk.crons.search()}
    assert {*after} == {"a", "b", "d"}
    assert after["a"] == before["a"]
    assert after["b"]["cron_id"] == before["b"]["cron_id"]
    assert (after["b"]["schedule"], after["b"]["payload"]["input"]) == ("0 10 1 1 *", {"tag": "B"})
    again = reconcile_crons(then, owner="me", credentials=block)
    assert not again.has_changes
    assert {row["cron_id"]: row for row in sdk.crons.search()} == {
        row["cron_id"]: row for row in after.values()
    }


def test_dry_run_changes_nothing_and_tells_what_it_would(
    block: LangGraphCredentials, sdk: SyncLangGraphClient
) -> None:
    reconcile_crons([spec("a"), spec("b")], owner="me", credentials=block)
    before = sdk.crons.search()
    wanted = [spec("b", timezone="Asia/Tokyo"), spec("c")]
    plan = reconcile_crons(wanted, owner="me", dry_run=True, credentials=block)
    assert did(plan) == [("delete", "a"), ("update", "b"), ("create", "c")]
    assert plan.of("update")[0].fields == ("timezone",)
    assert not plan.applied
    assert sdk.crons.search() == before


def test_change_made_by_hand_is_changed_back(
    block: LangGraphCredentials, sdk: SyncLangGraphClient
) -> None:
    wanted = [spec("a", input={"tag": "a"}, config={"tags": ["x"]})]
    reconcile_crons(wanted, owner="me", credentials=block)
    [cron] = search_crons(owner="me", credentials=block)
    sdk.crons.update(cron.cron_id, enabled=False, schedule="@daily", input={"tag": "other"})
    plan = reconcile_crons(wanted, owner="me", credentials=block)
    assert plan.changes[0].fields == ("schedule", "enabled", "input")
    update_cron(cron, config={"tags": ["y"]}, credentials=block)
    assert reconcile_crons(wanted, owner="me", credentials=block).changes[0].fields == ("config",)
    [row] = sdk.crons.search()
    assert (row["cron_id"], row["enabled"], row["schedule"]) == (cron.cron_id, True, YEARLY)
    assert row["payload"]["config"]["tags"] == ["x"]
    assert not reconcile_crons(wanted, owner="me", credentials=block).has_changes


def test_owners_never_touch_each_others_crons_nor_unowned_nor_flow_runs_ones(
    block: LangGraphCredentials, sdk: SyncLangGraphClient
) -> None:
    sdk.crons.create("answer", schedule=YEARLY)

    @flow
    def makes() -> None:
        create_cron("answer", YEARLY, credentials=block)

    makes()
    reconcile_crons([spec("a"), spec("b")], owner="you", credentials=block)
    plan = reconcile_crons([spec("a")], owner="me", credentials=block)
    assert did(plan) == [("create", "a")]
    plan = reconcile_crons([], owner="me", credentials=block)
    assert did(plan) == [("delete", "a")]
    assert len(plan.unowned) == 1
    left = sdk.crons.search()
    owners = sorted(str((row["metadata"] or {}).get("prefect_cron_owner")) for row in left)
    assert owners == ["None", "None", "you", "you"]
    assert sum(FLOW_RUN_ID in (row["metadata"] or {}) for row in left) == 1


def test_crons_reconciled_in_a_flow_run_outlive_it(
    block: LangGraphCredentials, sdk: SyncLangGraphClient
) -> None:
    @flow
    def makes() -> None:
        reconcile_crons([spec("a")], owner="me", credentials=block)

    makes()
    [row] = sdk.crons.search()
    assert FLOW_RUN_ID not in row["metadata"]


def test_prune_can_be_left_out(block: LangGraphCredentials, sdk: SyncLangGraphClient) -> None:
    reconcile_crons([spec("a")], owner="me", credentials=block)
    plan = reconcile_crons([], owner="me", prune=False, credentials=block)
    assert did(plan) == [("leave", "a")]
    assert sdk.crons.count() == 1


def test_ten_differences_among_300_are_ten_changes_and_few_requests(
    counted: Proxy, block: LangGraphCredentials, sdk: SyncLangGraphClient
) -> None:
    through = LangGraphCredentials(url=counted.url)
    wanted = [spec(f"cron-{n:03}", input={"tag": str(n)}) for n in range(300)]
    reconcile_crons(wanted, owner="me", credentials=through)
    assert sdk.crons.count() == 300
    changed = [
        *(spec(f"cron-{n:03}", "0 10 1 1 *", input={"tag": str(n)}) for n in range(4)),
        *wanted[4:297],
        *(spec(f"new-{n}") for n in range(3)),
    ]
    counted.clear()
    plan = reconcile_crons(changed, owner="me", credentials=through)
    assert plan.counts == {"update": 4, "leave": 293, "delete": 3, "create": 3}
    sent = [(request.method, request.path.rsplit("/", 1)[-1]) for request in counted.requests]
    # One look before, one change each, one look after: others may create at the same time.
    assert sum(method == "PATCH" for method, _ in sent) == 4
    assert sum(method == "DELETE" for method, _ in sent) == 3
    assert sum(end == "crons" for _, end in sent) == 3
    assert len(sent) == 12
    counted.clear()
    assert not reconcile_crons(changed, owner="me", credentials=through).has_changes
    assert counted.count() == 1


def test_search_goes_on_past_the_most_that_one_answer_holds(
    block: LangGraphCredentials, sdk: SyncLangGraphClient
) -> None:
    made = [sdk.crons.create("worker", schedule=YEARLY)["cron_id"] for _ in range(1010)]  # type: ignore[typeddict-item]
    assert [cron.cron_id for cron in search_crons(credentials=block)] == made
    assert len(search_crons(limit=1005, credentials=block)) == 1005
    plan = reconcile_crons([], owner="me", dry_run=True, credentials=block)
    assert len(plan.unowned) == 1010


def test_two_who_reconcile_at_once_leave_one_cron_of_each_name(
    counted: Proxy, sdk: SyncLangGraphClient
) -> None:
    through = LangGraphCredentials(url=counted.url)
    # Both have looked, and found nothing, before the first one creates.
    hold = Hold()
    counted.on("POST", "/runs/crons$", hold, times=None)
    wanted = [spec("a"), spec("b")]

    async def race() -> None:
        racers = [
            asyncio.create_task(areconcile_crons(wanted, owner="me", credentials=through))
            for _ in range(2)
        ]
        while counted.count("POST", "/runs/crons$") < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        hold.release()
        await asyncio.gather(*racers)

    asyncio.run(race())
    names = [row["metadata"]["prefect_cron_name"] for row in sdk.crons.search()]
    assert sorted(names) == ["a", "b"]


def test_lost_response_is_no_second_cron(counted: Proxy, sdk: SyncLangGraphClient) -> None:
    through = LangGraphCredentials(url=counted.url, patience_seconds=5)
    counted.on("POST", "/runs/crons$", LoseResponse())
    reconcile_crons([spec("a"), spec("b")], owner="me", credentials=through)
    assert sdk.crons.count() == 2


def test_change_that_fails_does_not_keep_the_others_from_being_made(
    counted: Proxy, block: LangGraphCredentials, sdk: SyncLangGraphClient
) -> None:
    through = LangGraphCredentials(url=counted.url)
    counted.on("POST", "/runs/crons$", Answer(404))
    wanted = [spec(name) for name in "abc"]
    with pytest.raises(NotFoundError) as failed:
        reconcile_crons(wanted, owner="me", credentials=through)
    assert "1 of 3 changes to the crons of 'me' failed" in str(failed.value.__notes__)
    assert sdk.crons.count() == 2
    plan = reconcile_crons(wanted, owner="me", credentials=block)
    assert plan.counts == {"create": 1, "leave": 2}


def test_wrong_specification_changes_nothing(counted: Proxy, sdk: SyncLangGraphClient) -> None:
    through = LangGraphCredentials(url=counted.url)
    wrong: list[Any] = [spec("a"), {"name": "b", "assistant_id": "worker", "schedule": YEARLY, "x": 1}]
    with pytest.raises(InvalidRequestError, match="Cron 'b': x"):
        reconcile_crons(wrong, owner="me", credentials=through)
    assert counted.count() == 0


def test_plan_is_a_table_without_inputs(block: LangGraphCredentials, sdk: SyncLangGraphClient) -> None:
    owner = f"Team {uuid.uuid4().hex[:8]}"
    reconcile_crons([spec("a", input={"tag": "do-not-show"})], owner=owner, credentials=block)
    report = Artifact.get(f"langgraph-crons-{owner.lower().replace(' ', '-')}")
    assert report is not None
    assert '"action": "create"' in str(report.data)
    assert "do-not-show" not in str(report.data) + str(report.description)


def test_deployment_of_prefect_yaml_reconciles_the_sample_file(
    server: LangGraphServer,
    block: LangGraphCredentials,
    sdk: SyncLangGraphClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Where Prefect runs a flow of this repository.
    monkeypatch.chdir(ROOT)
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    [found] = [entry for entry in deployments if entry["name"] == "reconcile-crons"]
    reconcile = load_flow_from_entrypoint(found["entrypoint"])
    parameters = {**found["parameters"], "credentials": block}
    reconcile.validate_parameters(found["parameters"])
    plan = reconcile(**parameters)
    assert plan.counts == {"create": 3}
    assert {row["metadata"]["prefect_cron_name"] for row in sdk.crons.search()} == {
        "morning-question",
        "nightly-check",
        "weekly-digest",
    }
    assert not reconcile(**parameters).has_changes


@pytest.mark.parametrize(
    "part",
    [
        {"context": {}},
        {"config": {}},
        {"config": {"configurable": {}}},
        {"config": {"tags": []}},
        {"metadata": {}},
        {"input": {}},
        {"input": []},
        {"interrupt_before": []},
        {"stream_mode": []},
    ],
    ids=str,
)
def test_part_that_is_empty_is_settled_by_the_first_call(
    part: dict[str, Any], block: LangGraphCredentials, sdk: SyncLangGraphClient
) -> None:
    spec = CronSpec(name="a", assistant_id="worker", schedule=YEARLY, **part)
    reconcile_crons([spec], owner="empty", credentials=block)
    again = reconcile_crons([spec], owner="empty", credentials=block)
    assert [change.action for change in again.changes] == ["leave"]
    filled = CronSpec(name="a", assistant_id="worker", schedule=YEARLY, context={"user": "ada"})
    for change in (filled, spec):
        reconcile_crons([change], owner="empty", credentials=block)
        settled = reconcile_crons([change], owner="empty", credentials=block)
        assert [change.action for change in settled.changes] == ["leave"]


def test_end_that_has_passed_is_warned_of_too_where_it_stops_the_others(
    block: LangGraphCredentials, sdk: SyncLangGraphClient, caplog: pytest.LogCaptureFixture
) -> None:
    ended = datetime.now(UTC) - timedelta(days=1)
    spec = CronSpec(name="a", assistant_id="worker", schedule=YEARLY, end_time=ended)
    reconcile_crons([spec], owner="ended", credentials=block, dry_run=True)
    assert "cannot read end_time" in caplog.text


def test_no_specifications_are_refused_with_what_to_give(
    block: LangGraphCredentials, sdk: SyncLangGraphClient
) -> None:
    with pytest.raises(InvalidRequestError, match="specs is None"):
        reconcile_crons(None, owner="me", credentials=block)  # type: ignore[arg-type]
