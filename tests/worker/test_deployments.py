"""prefect.yaml as its comments say it: typed, blocks made in the forms, every deployment run.

A real Prefect server, work pool and worker. What became of each run is asked of Prefect and of the
LangGraph server.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk.client import SyncLangGraphClient
from prefect import Flow, flow
from prefect.runtime import flow_run

import prefect_langgraph
from prefect_langgraph import LangGraphCredentials, create_cron, reconcile_crons, start_run
from prefect_langgraph.testing import LangGraphServer
from support.leftovers import FOREVER, YEARLY, left_by, logs_of
from support.waiting import until
from worker.api import Api, Row
from worker.commands import ROOT, run_documented
from worker.conftest import Worker

KEY = "lsv2_pt_s3cr3t"
TOKEN = "Bearer t0k3n-value"
TAG = "langgraph"  # every deployment of prefect.yaml has it
TOP = ("prefect.yaml", "core", "blocks", "tasks", "flows", "examples")


def files_in(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the repository, of which nobody but these tests knows."""
    folder = tmp_path_factory.mktemp("clone")
    for name in TOP:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def files_before(clone: Path) -> set[str]:
    return files_in(clone)


def deploy(api: Api, clone: Path) -> dict[str, Row]:
    """Every deployment as Prefect has it, by name. The sweep's schedule is then paused."""
    run_documented("deploy", folder=clone)
    found = api.deployments(TAG)
    for row in found.values():
        for schedule in row["schedules"]:
            path = f"/deployments/{row['id']}/schedules/{schedule['id']}"
            api.ask("PATCH", path, {"active": False})
    return found


@pytest.fixture(scope="module")
def deployed(prefect_api: Api, pool: str, clone: Path, files_before: set[str]) -> dict[str, Row]:
    run_documented("block", folder=clone)
    return deploy(prefect_api, clone)


@pytest.fixture(scope="module")
def picked(
    prefect_api: Api, deployed: dict[str, Row], langgraph_server: LangGraphServer
) -> dict[str, Any]:
    """The blocks that the deployments name, made by the forms of the UI: the credentials as picked."""
    secrets = {"api_key": KEY, "headers": {"x-gateway": TOKEN}}
    credentials = prefect_api.make_block(
        "langgraph-credentials", "default", {"url": langgraph_server.url, **secrets}
    )
    reference = {"$ref": {"block_document_id": credentials}}
    for name, assistant in {"default": "answer", "talk": "chat", "long": "worker"}.items():
        form = {"credentials": reference, "assistant_id": assistant}
        prefect_api.make_block("langgraph-assistant", name, form)
    return reference


@pytest.fixture(scope="module")
def forgotten(picked: dict[str, Any], langgraph_server: LangGraphServer) -> str:
    """A flow run that has ended and left a run and a cron."""
    credentials = LangGraphCredentials(url=langgraph_server.url)
    ids: list[str] = []

    @flow(name="forgetful")
    def forgetful() -> None:
        ids.append(str(flow_run.id))
        start_run("worker", FOREVER, credentials=credentials)
        create_cron("worker", YEARLY, credentials=credentials)

    forgetful()
    return ids[0]


@pytest.fixture(scope="module")
def thread_id(client: SyncLangGraphClient) -> str:
    return client.threads.create()["thread_id"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results") / "results.jsonl"


@pytest.fixture(scope="module")
def started(
    prefect_api: Api,
    deployed: dict[str, Row],
    picked: dict[str, Any],
    forgotten: str,
    thread_id: str,
    results: Path,
    shared_worker: Worker,
) -> dict[str, str]:
    """A flow run of every deployment, all at once: their ids. The sweep is started twice."""
    tick = {"assistant_id": "worker", "schedule": "* * * * * */1", "input": {"tag": "tick"}}
    runs: dict[str, tuple[str, Mapping[str, Any]]] = {
        "fan-out": (
            "fan-out",
            {
                "assistant_id": "worker",
                "inputs": [{"tag": "a"}, {"fail": "no luck"}, {"tag": "c"}],
                "max_failures": 1,
                "output_path": str(results),
            },
        ),
        "cron-window": (
            "cron-window",
            {**tick, "allow_seconds": True, "duration": "PT1M", "max_results": 2},
        ),
        "picked": (
            "cron-window",
            {**tick, "schedule": YEARLY, "duration": "PT1S", "credentials": picked},
        ),
        # What somebody types into the form's field for JSON is sent like this.
        "run-assistant": (
            "run-assistant",
            {"input": {"__prefect_kind": "json", "value": '{"question": "What is 6 x 7?"}'}},
        ),
        "talk": (
            "run-assistant",
            {
                "assistant": "talk",
                "input": {"messages": [{"role": "user", "content": "Hello"}]},
                "thread_id": thread_id,
            },
        ),
        "reconcile-crons": ("reconcile-crons", {}),
        "sweep": ("sweep", {"grace_seconds": 0}),
        "another sweep": ("sweep", {"grace_seconds": 0}),
    }
    ids = {
        name: prefect_api.run(deployed[deployment], parameters)
        for name, (deployment, parameters) in runs.items()
    }
    shared_worker.start()
    return ids


def released(client: SyncLangGraphClient, flow_run_id: str) -> bool:
    """True as soon as nothing is left: the finalizer runs when the flow run has completed."""
    return until(lambda: not left_by(client, flow_run_id))


def tables(api: Api, flow_run_id: str) -> dict[str, list[dict[str, Any]]]:
    """The table artifacts of a flow run, by key."""
    rows = api.artifacts(flow_run_id)
    return {row["key"]: json.loads(row["data"]) for row in rows if row["type"] == "table"}


# What is deployed


def test_every_flow_of_the_package_is_deployed_under_a_sensible_name(
    prefect_api: Api, deployed: dict[str, Row]
) -> None:
    public = {name: getattr(prefect_langgraph, name) for name in prefect_langgraph.__all__}
    flows = {value.name for value in public.values() if isinstance(value, Flow)}
    assert {prefect_api.flow_name(row) for row in deployed.values()} == flows
    assert {f"langgraph-{name}" for name in deployed} == flows


def test_deployments_say_what_they_do_and_where_they_run(deployed: dict[str, Row], pool: str) -> None:
    for row in deployed.values():
        assert row["description"].endswith(".")
        assert row["work_pool_name"] == pool
        described = row["parameter_openapi_schema"]["properties"].values()
        assert all(len(parameter["description"]) > 10 for parameter in described)


def test_sweep_and_resumer_have_a_schedule_and_nothing_else_has(deployed: dict[str, Row]) -> None:
    schedules = {name: row["schedules"] for name, row in deployed.items() if row["schedules"]}
    assert all(one["active"] for [one] in schedules.values())
    assert all(one["schedule"]["timezone"] == "UTC" for [one] in schedules.values())
    assert {name: one["schedule"]["cron"] for name, [one] in schedules.items()} == {
        "sweep": "*/15 * * * *",
        "resume": "* * * * *",
    }


def test_prefects_server_makes_the_flow_runs_of_the_schedule(
    prefect_api: Api, deployed: dict[str, Row]
) -> None:
    row = deployed["sweep"]
    path = f"/deployments/{row['id']}/schedules/{row['schedules'][0]['id']}"
    wanted = {
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        "deployments": {"id": {"any_": [row["id"]]}},
    }
    prefect_api.ask("PATCH", path, {"active": True})
    try:
        # With SQLAlchemy 2.1 it makes none, and only its log says so.
        assert until(lambda: prefect_api.ask("POST", "/flow_runs/filter", wanted))
    finally:
        prefect_api.ask("PATCH", path, {"active": False})


def test_deployments_of_which_two_at_once_would_hurt_run_one_at_a_time(
    deployed: dict[str, Row],
) -> None:
    limits = {
        name: (row["global_concurrency_limit"]["limit"], (row["concurrency_options"] or {}))
        for name, row in deployed.items()
        if row["global_concurrency_limit"]
    }
    assert {name: limit for name, (limit, _) in limits.items()} == {
        "fan-out": 1,
        "reconcile-crons": 1,
        "resume": 1,
        "sweep": 1,
    }
    for name in ("resume", "sweep"):
        assert limits[name][1]["collision_strategy"] == "CANCEL_NEW"


def test_module_entrypoints_need_no_clone_and_the_file_is_read_from_its_own(
    deployed: dict[str, Row], clone: Path
) -> None:
    by_path = deployed["reconcile-crons"]
    assert by_path["entrypoint"] == "flows/reconcile_crons.py:reconcile_crons_flow"
    [step] = by_path["pull_steps"]
    assert [options["directory"] for options in step.values()] == [str(clone)]
    for row in deployed.values():
        if row is not by_path:
            assert row["entrypoint"].startswith("prefect_langgraph.flows.")
            assert str(clone) not in json.dumps(row)
            assert not row["pull_steps"]


def test_stored_parameters_name_blocks(deployed: dict[str, Row]) -> None:
    # The resumer serves every block that a suspended flow run names.
    assert deployed["resume"]["parameters"] == {}
    for name in deployed.keys() - {"resume"}:
        block = "assistant" if name == "run-assistant" else "credentials"
        assert deployed[name]["parameters"][block] == "default"


# What becomes of each


def test_fan_out_runs_its_inputs_and_reports_them(
    prefect_api: Api, started: dict[str, str], client: SyncLangGraphClient, results: Path
) -> None:
    row = prefect_api.completed(started["fan-out"])
    assert row["name"] == "fan out 3 runs of worker"
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["status"] for line in lines] == ["success", "error", "success"]
    assert [(line["values"] or {}).get("result") for line in lines] == ["a", "partial", "c"]
    [report] = [row for row in prefect_api.artifacts(row["id"]) if row["type"] == "markdown"]
    assert "3 runs of worker" in report["data"]
    assert released(client, row["id"])


def test_cron_window_collects_firings_and_leaves_no_cron(
    prefect_api: Api, started: dict[str, str], client: SyncLangGraphClient
) -> None:
    row = prefect_api.completed(started["cron-window"])
    [fired] = tables(prefect_api, row["id"]).values()
    assert len(fired) >= 2
    assert {line["status"] for line in fired} <= {"success", "cancelled"}
    assert sum(line["status"] == "success" for line in fired) >= 2
    assert released(client, row["id"])


def test_block_that_was_picked_in_the_ui_is_used_and_what_was_made_with_it_released(
    prefect_api: Api, started: dict[str, str], client: SyncLangGraphClient
) -> None:
    row = prefect_api.completed(started["picked"])
    assert released(client, row["id"])
    said = "LangGraph (the block that was picked): 1 thread deleted"
    assert until(lambda: said in logs_of(prefect_api.url, row["id"]))


def test_assistant_made_in_the_form_runs_on_a_json_input(
    prefect_api: Api, started: dict[str, str], client: SyncLangGraphClient
) -> None:
    row = prefect_api.completed(started["run-assistant"])
    assert row["name"] == "run default"
    [shown] = tables(prefect_api, row["id"]).values()
    assert {"name": "answer", "value": "You asked: What is 6 x 7?"} in shown
    assert released(client, row["id"])


def test_assistant_on_a_thread_leaves_its_words_there(
    prefect_api: Api, started: dict[str, str], client: SyncLangGraphClient, thread_id: str
) -> None:
    row = prefect_api.completed(started["talk"])
    state: Any = client.threads.get_state(thread_id)["values"]
    assert [message["content"] for message in state["messages"]] == [
        "Hello",
        "chat heard 'Hello' in turn 1",
    ]
    [run] = client.runs.list(thread_id)
    assert run["metadata"]["prefect_flow_run_id"] == row["id"]
    assert run["metadata"]["prefect_deployment_id"] == row["deployment_id"]


def test_crons_become_what_the_file_of_the_clone_says(
    prefect_api: Api, started: dict[str, str], clone: Path, langgraph_server: LangGraphServer
) -> None:
    row = prefect_api.completed(started["reconcile-crons"])
    [plan] = tables(prefect_api, row["id"]).values()
    assert {line["action"] for line in plan} == {"create"}
    credentials = LangGraphCredentials(url=langgraph_server.url)
    specs = str(clone / "examples" / "crons.yaml")
    again = reconcile_crons(specs, dry_run=True, credentials=credentials)
    assert not again.has_changes
    assert again.counts
    assert reconcile_crons([], owner="prefect-langgraph-examples", credentials=credentials).applied


def test_sweep_releases_what_was_forgotten_and_a_second_one_is_called_off(
    prefect_api: Api, started: dict[str, str], client: SyncLangGraphClient, forgotten: str
) -> None:
    rows = [prefect_api.ended(started[name]) for name in ("sweep", "another sweep")]
    swept, called_off = sorted(rows, key=lambda row: str(row["state_name"]), reverse=True)
    assert (swept["state_name"], called_off["state_name"]) == ("Completed", "Cancelled")
    assert "concurrency limit" in called_off["state"]["message"]
    assert not left_by(client, forgotten)
    [report] = tables(prefect_api, swept["id"]).values()
    [entry] = [line for line in report if line["id"] == forgotten]
    assert (entry["crons"], entry["runs"], entry["threads"]) == (1, 1, 1)


def test_killed_process_of_an_assistants_flow_run_is_released_by_its_hook(
    prefect_api: Api,
    deployed: dict[str, Row],
    picked: dict[str, Any],
    client: SyncLangGraphClient,
    worker: Worker,
) -> None:
    parameters = {"assistant": "long", "input": FOREVER}
    flow_run_id = prefect_api.run(deployed["run-assistant"], parameters)
    assert until(lambda: left_by(client, flow_run_id).runs)
    pid = prefect_api.flow_run(flow_run_id)["infrastructure_pid"]
    os.kill(int(pid.rpartition(":")[2]), signal.SIGKILL)
    assert until(lambda: not left_by(client, flow_run_id))
    assert prefect_api.ended(flow_run_id)["state_name"] == "Crashed"
    said = "1 run cancelled"
    assert until(lambda: said in logs_of(prefect_api.url, flow_run_id))


# What is left


def test_no_secret_is_in_what_prefect_shows(prefect_api: Api, started: dict[str, str]) -> None:
    shown = [prefect_api.ended(flow_run_id) for flow_run_id in started.values()]
    shown += [row for flow_run_id in started.values() for row in prefect_api.artifacts(flow_run_id)]
    shown += prefect_api.deployments(TAG).values()
    for path in ("/block_documents/filter", "/task_runs/filter"):
        shown += prefect_api.ask("POST", path, {})
    logs = [logs_of(prefect_api.url, flow_run_id) for flow_run_id in started.values()]
    events = {"filter": {"occurred": {"since": "2020-01-01T00:00:00Z"}}, "limit": 50}
    shown += prefect_api.ask("POST", "/events/filter", events)["events"]
    text = json.dumps([shown, logs])
    assert "What is 6 x 7?" in text
    assert "Fan-out of 3 runs ended" in text
    assert KEY not in text
    assert TOKEN not in text


def test_deploying_again_changes_nothing(
    prefect_api: Api, deployed: dict[str, Row], started: dict[str, str], clone: Path
) -> None:
    for flow_run_id in started.values():
        prefect_api.ended(flow_run_id)

    def lasting(rows: Mapping[str, Row]) -> list[Any]:
        # What tells of moments and versions changes; so do the ids of schedules, which are made anew.
        kept = ("id", "tags", "parameters", "entrypoint", "pull_steps", "work_pool_name", "description")
        return [
            [row[field] for field in kept]
            + [row["global_concurrency_limit"] and row["global_concurrency_limit"]["limit"]]
            + [(one["active"], one["schedule"]) for one in row["schedules"]]
            for _, row in sorted(rows.items())
        ]

    assert lasting(deploy(prefect_api, clone)) == lasting(deployed)


def test_deploying_and_running_leave_no_file_in_the_clone(
    prefect_api: Api, started: dict[str, str], clone: Path, files_before: set[str]
) -> None:
    for flow_run_id in started.values():
        prefect_api.ended(flow_run_id)
    assert files_in(clone) == files_before
