"""The same on a Prefect server that keeps its state in PostgreSQL, as those of teams do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langgraph_sdk.client import SyncLangGraphClient

from prefect_langgraph import LangGraphAssistant, LangGraphCredentials
from prefect_langgraph.testing import LangGraphServer, PrefectServer, run_prefect_server
from support.leftovers import active_runs, left_by
from support.postgresql import TESTS, Postgres, run_postgres
from support.waiting import PATIENCE
from worker.api import Api, name_field
from worker.on_postgresql import INPUTS

BLOCK = "on-postgresql"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with run_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def prefect_on_postgres(postgres: Postgres) -> Iterator[PrefectServer]:
    with run_prefect_server(
        env={"PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{postgres.address}"}
    ) as server:
        yield server


def python(server: PrefectServer, *arguments: str) -> str:
    """Run Python against the server; the last line that it printed."""
    ran = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(TESTS), "PREFECT_API_URL": server.api_url},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.strip().splitlines()[-1]


def test_fan_out_finalizer_and_sweep_do_their_work_on_postgresql(
    postgres: Postgres,
    prefect_on_postgres: PrefectServer,
    langgraph_server: LangGraphServer,
    client: SyncLangGraphClient,
) -> None:
    api = Api(prefect_on_postgres.api_url)
    python(prefect_on_postgres, "-m", "prefect", "block", "register", "-m", "prefect_langgraph")
    api.make_block("langgraph-credentials", BLOCK, {"url": langgraph_server.url})
    made = json.loads(python(prefect_on_postgres, "-m", "worker.on_postgresql", BLOCK))
    assert made["swept"] == [made["forgetful"]]
    assert not left_by(client, made["forgetful"])
    assert not left_by(client, made["tidy"])
    assert api.flow_run(made["tidy"])["state_name"] == "Completed"
    fan_outs = api.ask(
        "POST", "/flow_runs/filter", {"flows": {"name": {"any_": ["langgraph-fan-out"]}}}
    )
    assert [row["state_name"] for row in fan_outs] == ["Completed"]
    tasks = {"task_runs": {"flow_run_id": {"any_": [fan_outs[0]["id"]]}}}
    assert api.ask("POST", "/task_runs/count", tasks) == len(INPUTS)
    # It was PostgreSQL all the time.
    assert postgres.ask("select count(*) from flow_run where state_name = 'Completed'") == "4"


def steps_on(server: PrefectServer, langgraph_server: LangGraphServer) -> Callable[..., Any]:
    """Runs a step of `suspended_on_postgresql`, whose flows find the block they name."""
    python(server, "-m", "prefect", "block", "register", "-m", "prefect_langgraph")
    Api(server.api_url).make_block("langgraph-credentials", BLOCK, {"url": langgraph_server.url})
    module = "worker.suspended_on_postgresql"
    return lambda *arguments: json.loads(python(server, "-m", module, *arguments))


def test_flow_run_waits_without_a_process_on_postgresql(
    prefect_on_postgres: PrefectServer, langgraph_server: LangGraphServer, client: SyncLangGraphClient
) -> None:
    step = steps_on(prefect_on_postgres, langgraph_server)
    flow_run_id = step("begin", "waits", BLOCK)
    assert step("execute", flow_run_id) == "suspended"
    assert step("pass") == [1, 0]
    for thread_id in left_by(client, flow_run_id).threads:
        for run_id in active_runs(client, thread_id):
            client.runs.cancel(thread_id, run_id)
    assert step("resume") == [0, 1]
    assert step("execute", flow_run_id) == ["cancelled"] * 3
    assert not left_by(client, flow_run_id)


def test_person_answers_on_postgresql(
    prefect_on_postgres: PrefectServer, langgraph_server: LangGraphServer, client: SyncLangGraphClient
) -> None:
    step = steps_on(prefect_on_postgres, langgraph_server)
    api = Api(prefect_on_postgres.api_url)
    flow_run_id = step("begin", "asks", BLOCK)
    assert step("execute", flow_run_id) == "suspended"
    schema = api.form_of(api.flow_run(flow_run_id))
    fields = sorted(schema["properties"].items(), key=lambda field: int(field[1]["position"]))
    assert [name for name, _ in fields] == [
        "q1_decision",
        "q1_arguments",
        "q1_message",
        name_field(schema),
    ]
    form = {"q1_decision": "reject", "q1_message": "no", name_field(schema): "Ada"}
    answer = api.ask("POST", f"/flow_runs/{flow_run_id}/resume", {"run_input": form})
    assert answer["status"] == "ACCEPT"
    assert step("execute", flow_run_id) == ["not refunded: no"]
    assert not left_by(client, flow_run_id)


def test_forms_of_the_blocks_keep_their_order_on_postgresql(prefect_on_postgres: PrefectServer) -> None:
    # Of an object of JSON PostgreSQL does not keep the order.
    python(prefect_on_postgres, "-m", "prefect", "block", "register", "-m", "prefect_langgraph")
    api = Api(prefect_on_postgres.api_url)
    assert api.fields("langgraph-credentials") == list(LangGraphCredentials.model_fields)
    assert api.fields("langgraph-assistant") == list(LangGraphAssistant.model_fields)
