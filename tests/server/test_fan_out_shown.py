"""What a real Prefect shows of a fan-out: the progress artifact, the events and the report."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.automations import Automation
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import FlowRunContext

from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.reports import progress as progress_module
from prefect_langgraph.reports.events import (
    FAN_OUT_ENDED,
    FAN_OUT_STARTED,
    PER_RUN_EVENTS,
    RUN_ENDED,
    FanOutEvents,
)
from prefect_langgraph.reports.fan_out_page import artifact_key, publish_report
from prefect_langgraph.reports.progress import FanOutProgress
from prefect_langgraph.results import RunFailure, RunResult
from prefect_langgraph.testing import PrefectServer
from prefect_langgraph.transport.loop import io_loop
from support.waiting import PATIENCE, until

ROOT = Path(__file__).resolve().parents[2]
SECRET = "sk-very-secret"
Row = dict[str, Any]


def ended(number: int, status: RunStatus = RunStatus.SUCCESS) -> RunResult:
    handle = RunHandle(run_id=f"run-{number}", thread_id="t", assistant_id="answer", url="http://x")
    failure = RunFailure(error="ValueError", message=SECRET)
    return RunResult(handle=handle, status=status, values={"secret": SECRET}, error=failure)


def in_flow_run(work: Callable[[], Coroutine[Any, Any, None]], **options: Any) -> str:
    """Do the work on the shared loop inside a flow run, and return the flow run's id."""
    ids: list[str] = []

    @flow(**{"name": "shown", **options})
    def shown() -> None:
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        ids.append(str(context.flow_run.id))
        io_loop().run(work)

    shown()
    assert len(set(ids)) == 1
    return ids[0]


def artifacts_of(server: PrefectServer, flow_run_id: str) -> list[Row]:
    wanted = {"flow_runs": {"id": {"any_": [flow_run_id]}}}
    answer = httpx.post(f"{server.api_url}/artifacts/filter", json=wanted)
    rows: list[Row] = answer.raise_for_status().json()
    # What Prefect notes about results is an artifact too, one without a key.
    return sorted((row for row in rows if row["key"]), key=lambda row: str(row["created"]))


def events_of(server: PrefectServer, name: str, flow_run_id: str, count: int) -> list[Row]:
    """The events that are related to a flow run, once there are so many."""
    related = {"resources_in_roles": [(f"prefect.flow-run.{flow_run_id}", "flow-run")]}
    return events_where(server, {"event": {"name": [name]}, "related": related}, count)


def events_where(server: PrefectServer, which: dict[str, Any], count: int) -> list[Row]:
    """Events, once there are so many: Prefect takes them in behind our back."""
    wanted = {"filter": which, "limit": 50}

    def first_page() -> Row | None:
        answer = httpx.post(f"{server.api_url}/events/filter", json=wanted, timeout=PATIENCE)
        found: Row = answer.raise_for_status().json()
        return found if found["total"] >= count else None

    page = until(first_page)
    assert page is not None
    rows: list[Row] = page["events"]
    while page["next_page"]:
        page = httpx.get(page["next_page"], timeout=PATIENCE).raise_for_status().json()
        rows += page["events"]
    return rows


async def _update_seen(monkeypatch: pytest.MonkeyPatch, seen: list[tuple[float, Any, Any]]) -> None:
    """Note each update of an artifact on its way to the server."""
    send = PrefectClient.update_artifact

    async def update(self: PrefectClient, artifact_id: UUID, artifact: ArtifactUpdate) -> None:
        seen.append((time.monotonic(), artifact.data, artifact.description))
        await send(self, artifact_id, artifact)

    monkeypatch.setattr(PrefectClient, "update_artifact", update)


def test_progress_artifact_follows_the_fan_out_to_its_end(prefect_server: PrefectServer) -> None:
    async def work() -> None:
        async with FanOutProgress(4, label="fan-out-answer") as progress:
            progress.started(4)
            for number in range(3):
                progress.ended(ended(number))
            progress.ended(ended(3, RunStatus.ERROR))

    flow_run_id = in_flow_run(work)
    (artifact,) = artifacts_of(prefect_server, flow_run_id)
    assert artifact["type"] == "progress"
    assert artifact["data"] == 100
    assert artifact["description"] == "4 of 4 runs ended, 3 success, 1 error"
    assert artifact["key"] == f"fan-out-answer-progress-{UUID(flow_run_id).hex[-8:]}"


def test_fan_out_that_stops_early_leaves_the_progress_it_had(prefect_server: PrefectServer) -> None:
    async def work() -> None:
        with contextlib.suppress(ZeroDivisionError):
            async with FanOutProgress(4, label="fan-out-answer") as progress:
                progress.started(2)
                progress.ended(ended(0))
                raise ZeroDivisionError

    (artifact,) = artifacts_of(prefect_server, in_flow_run(work))
    assert artifact["data"] == 25
    assert artifact["description"] == "1 of 4 runs ended, 1 success, 1 in flight"


def test_progress_artifact_is_updated_at_most_once_a_second(
    prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, Any, Any]] = []

    async def work() -> None:
        await _update_seen(monkeypatch, seen)
        async with FanOutProgress(250, label="fan-out-answer") as progress:
            for number in range(250):
                progress.started(1)
                progress.ended(ended(number))
                await asyncio.sleep(0.01)

    in_flow_run(work)
    # The last one is the end, which does not wait.
    *during, (_, last, _) = seen
    assert last == 100
    assert 1 <= len(during) <= 4
    gaps = [after[0] - before[0] for before, after in pairwise(during)]
    assert all(gap >= progress_module.UPDATE_SECONDS for gap in gaps)


def test_error_of_prefect_is_logged_once_and_the_fan_out_goes_on(
    prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused: list[object] = []

    async def refuse(self: PrefectClient, artifact_id: UUID, artifact: ArtifactUpdate) -> None:
        refused.append(artifact_id)
        request = httpx.Request("PATCH", "http://prefect/")
        response = httpx.Response(500, request=request, headers={"x-secret": SECRET})
        raise httpx.HTTPStatusError(SECRET, request=request, response=response)

    monkeypatch.setattr(PrefectClient, "update_artifact", refuse)
    monkeypatch.setattr(progress_module, "UPDATE_SECONDS", 0.02)
    left: list[int] = []

    async def work() -> None:
        async with FanOutProgress(20, label="fan-out-answer") as progress:
            for number in range(20):
                progress.ended(ended(number))
                await asyncio.sleep(0.02)
        left.append(sum(progress.samples[-1].ended.values()))

    in_flow_run(work)
    assert left == [20]
    assert len(refused) == 1
    told = [line for line in caplog.messages if "given up" in line]
    assert told == ["The progress artifact of the fan-out is given up: HTTPStatusError (HTTP 500)"]


def test_prefect_that_hangs_holds_up_the_end_for_a_bounded_time(
    prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(self: PrefectClient, artifact: ArtifactCreate) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(PrefectClient, "create_artifact", hang)
    monkeypatch.setattr(progress_module, "_CLOSE_SECONDS", 0.2)

    async def work() -> None:
        async with asyncio.timeout(PATIENCE), FanOutProgress(1, label="fan-out-answer") as progress:
            progress.ended(ended(0))

    in_flow_run(work)
    assert "The progress artifact may be out of date" in caplog.text


def test_report_keeps_its_key_when_the_flow_run_is_retried(prefect_server: PrefectServer) -> None:
    attempts: list[int] = []

    async def work() -> None:
        attempts.append(len(attempts))
        key = artifact_key("fan-out-answer")
        await publish_report(f"# Attempt {len(attempts)}", key=key, description="Fan-out: 1 success")
        if len(attempts) == 1:
            raise ConnectionError("once")

    first, second = artifacts_of(prefect_server, in_flow_run(work, retries=1))
    assert first["key"] == second["key"]
    assert (first["data"], second["data"]) == ("# Attempt 1", "# Attempt 2")


def test_report_that_prefect_refuses_does_not_lose_the_results(
    prefect_server: PrefectServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        await publish_report("# x", key="NOT A KEY", description="d")

    assert artifacts_of(prefect_server, in_flow_run(work)) == []
    assert "The report of the fan-out was not saved" in caplog.text


def test_events_tell_start_each_end_and_total_with_the_flow_run(prefect_server: PrefectServer) -> None:
    async def work() -> None:
        events = FanOutEvents(2, label="fan-out-answer")
        events.fan_out_started()
        events.run_ended(ended(0))
        events.run_ended(ended(1, RunStatus.ERROR))
        events.fan_out_ended(seconds=2.5)

    flow_run_id = in_flow_run(work)
    (started,) = events_of(prefect_server, FAN_OUT_STARTED, flow_run_id, 1)
    runs = events_of(prefect_server, RUN_ENDED, flow_run_id, 2)
    (total,) = events_of(prefect_server, FAN_OUT_ENDED, flow_run_id, 1)
    fan_out = f"langgraph.fan-out.{flow_run_id}"
    assert started["resource"]["prefect.resource.id"] == fan_out
    assert started["payload"] == {"total": 2}
    assert {
        (run["resource"]["prefect.resource.id"], run["resource"]["langgraph.run.outcome"])
        for run in runs
    } == {("langgraph.run.run-0", "success"), ("langgraph.run.run-1", "error")}
    assert total["resource"]["langgraph.fan-out.outcome"] == "partial"
    assert total["payload"] == {
        "outcome": "partial",
        "total": 2,
        "counts": {"error": 1, "success": 1},
        "seconds": 2.5,
        "tokens": None,
    }
    for event in (started, *runs, total):
        roles = {row["prefect.resource.role"]: row["prefect.resource.id"] for row in event["related"]}
        assert roles["flow-run"] == f"prefect.flow-run.{flow_run_id}"
        assert roles["flow"].startswith("prefect.flow.")
        assert SECRET not in str(event)
    assert all(
        {"prefect.resource.id": fan_out, "prefect.resource.role": "fan-out"} in run["related"]
        for run in runs
    )


def test_runs_have_events_up_to_a_limit_and_failures_have_one_of_their_own(
    prefect_server: PrefectServer,
) -> None:
    async def work() -> None:
        events = FanOutEvents(PER_RUN_EVENTS * 3, label="fan-out-answer")
        for number in range(PER_RUN_EVENTS * 3 - 2):
            events.run_ended(ended(number))
        events.run_ended(ended(1_000, RunStatus.ERROR))
        events.run_ended(ended(1_001, RunStatus.TIMEOUT))
        events.fan_out_ended(seconds=1.0)

    flow_run_id = in_flow_run(work)
    runs = events_of(prefect_server, RUN_ENDED, flow_run_id, PER_RUN_EVENTS + 2)
    (total,) = events_of(prefect_server, FAN_OUT_ENDED, flow_run_id, 1)
    outcomes = Counter(run["resource"]["langgraph.run.outcome"] for run in runs)
    assert outcomes == {"success": PER_RUN_EVENTS, "error": 1, "timeout": 1}
    assert total["payload"]["counts"] == {**outcomes, "success": PER_RUN_EVENTS * 3 - 2}


def test_outcome_of_the_whole_is_said_in_one_word(prefect_server: PrefectServer) -> None:
    good, bad = RunStatus.SUCCESS, RunStatus.ERROR
    cases = {
        "all good": (2, [good, good], "success"),
        "nothing to do": (0, [], "success"),
        "one waits": (2, [good, RunStatus.INTERRUPTED], "partial"),
        "none good": (2, [RunStatus.CANCELLED, bad], "failure"),
        "stopped": (2, [good], "incomplete"),
    }

    async def work() -> None:
        for label, (total, statuses, _) in cases.items():
            events = FanOutEvents(total, label=label)
            for number, status in enumerate(statuses):
                events.run_ended(ended(number, status))
            events.fan_out_ended(seconds=0.0)

    found = events_of(prefect_server, FAN_OUT_ENDED, in_flow_run(work), len(cases))
    assert {
        event["resource"]["prefect.resource.name"]: event["resource"]["langgraph.fan-out.outcome"]
        for event in found
    } == {label: outcome for label, (_, _, outcome) in cases.items()}


def test_documented_automation_acts_on_a_fan_out_that_failed_in_part(
    prefect_server: PrefectServer,
) -> None:
    page = (ROOT / "docs" / "reference" / "events.md").read_text(encoding="utf-8")
    found: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], found)  # noqa: S102 our own page
    automation: Automation = found["automation"]

    def fan_out(status: RunStatus) -> str:
        async def work() -> None:
            events = FanOutEvents(2, label="fan-out-answer")
            events.run_ended(ended(0))
            events.run_ended(ended(1, status))
            events.fan_out_ended(seconds=1.0)

        return in_flow_run(work, name="langgraph-fan-out")

    try:
        fan_out(RunStatus.SUCCESS)
        (cause,) = events_of(prefect_server, FAN_OUT_ENDED, fan_out(RunStatus.ERROR), 1)
        where = {
            "event": {"name": ["prefect.automation.triggered"]},
            "resource": {"id": [f"prefect.automation.{automation.id}"]},
        }
        (triggered,) = events_where(prefect_server, where, 1)
    finally:
        with get_client(sync_client=True) as client:
            client.delete_automation(automation.id)
    assert f"prefect.event.{cause['id']}" in [
        row["prefect.resource.id"] for row in triggered["related"]
    ]


def test_outside_a_flow_run_nothing_is_emitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def emit(*args: object, **kwargs: object) -> None:
        raise AssertionError("emitted")

    monkeypatch.setattr("prefect_langgraph.reports.events.emit_event", emit)
    events = FanOutEvents(1, label="x")
    events.fan_out_started()
    events.run_ended(ended(0))
    events.fan_out_ended(seconds=1.0)
