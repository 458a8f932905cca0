"""Flow runs that wait without a process, on a real worker: what stands open, and who wakes them."""

from __future__ import annotations

import json
import os
import signal
from typing import Any
from uuid import UUID, uuid4

import pytest
from langgraph_sdk.client import SyncLangGraphClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate, GlobalConcurrencyLimitUpdate
from prefect.deployments import run_deployment

from prefect_langgraph import LangGraphCredentials, resume_waiting, sweep
from prefect_langgraph.testing import LangGraphServer
from proxy import run_proxy
from support.leftovers import active_runs, left_by
from support.second_look import hold_second_look
from support.waiting import PATIENCE, until
from worker.api import Api, name_field
from worker.conftest import Worker
from worker.deployed import BLOCK


def begun(deployment: str, flow: str = "sleeper", **parameters: Any) -> UUID:
    """A flow run that a worker takes."""
    made: Any = run_deployment(
        f"{flow}/{deployment}", parameters=parameters, timeout=0, as_subflow=False
    )
    flow_run_id: UUID = made.id
    return flow_run_id


def suspended(api: Api, flow_run_id: UUID) -> dict[str, Any]:
    """The flow run, once it is suspended."""
    until(lambda: state_of(api, flow_run_id) == "Suspended")
    row = api.flow_run(str(flow_run_id))
    assert row["state_name"] == "Suspended", row["state"]
    return row


def state_of(api: Api, flow_run_id: UUID) -> str:
    """The name of the flow run's state."""
    return str(api.flow_run(str(flow_run_id))["state_name"])


def crashes(flow_run_id: UUID) -> int:
    """How often Prefect was told that the flow run crashed."""
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(flow_run_id)
    return sum(state.is_crashed() for state in states)


def resumed(flow_run_id: UUID) -> bool:
    """True when a pass has resumed the flow run."""
    return str(flow_run_id) in [entry.flow_run_id for entry in resume_waiting().resumed]


def end_its_runs(client: SyncLangGraphClient, flow_run_id: UUID) -> None:
    """Stop the flow run's runs once the server is at work on them."""

    def at_work() -> list[tuple[str, str]]:
        threads = left_by(client, flow_run_id).threads
        pairs = [(thread, run) for thread in threads for run in active_runs(client, thread)]
        return [(t, r) for t, r in pairs if client.runs.get(t, r)["status"] == "running"]

    for thread_id, run_id in until(at_work):
        client.runs.cancel(thread_id, run_id)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_suspended_flow_run_holds_no_process_and_goes_on_when_it_is_resumed(
    deployment: str, worker: Worker, prefect_api: Api, client: SyncLangGraphClient
) -> None:
    flow_run_id = begun(deployment)
    row = suspended(prefect_api, flow_run_id)
    pid = int(str(row["infrastructure_pid"]).rpartition(":")[2])
    assert until(lambda: is_gone(pid))
    report = resume_waiting()
    assert str(flow_run_id) in [entry.flow_run_id for entry in report.waiting]
    end_its_runs(client, flow_run_id)
    assert until(lambda: resumed(flow_run_id))
    prefect_api.completed(str(flow_run_id))
    assert until(lambda: not left_by(client, flow_run_id))


def test_webhook_of_the_server_resumes_without_a_resumer(
    deployment: str, worker: Worker, prefect_api: Api, client: SyncLangGraphClient
) -> None:
    flow_run_id = begun(deployment, webhook="resume")
    suspended(prefect_api, flow_run_id)
    end_its_runs(client, flow_run_id)
    prefect_api.completed(str(flow_run_id))
    assert until(lambda: not left_by(client, flow_run_id))


@pytest.mark.parametrize("dies_too", [False, True], ids=["its worker lives", "with its worker"])
def test_process_killed_before_its_second_look_is_resumed_all_the_same(
    deployment: str,
    worker: Worker,
    prefect_api: Api,
    client: SyncLangGraphClient,
    langgraph_server: LangGraphServer,
    dies_too: bool,
) -> None:
    with run_proxy(langgraph_server.url) as proxy:
        block = f"held-{uuid4().hex[:8]}"
        LangGraphCredentials(url=proxy.url).save(block)
        hold = hold_second_look(proxy)
        flow_run_id = begun(deployment, block=block)
        assert hold.reached.wait(PATIENCE)
        row = suspended(prefect_api, flow_run_id)
        pid = int(str(row["infrastructure_pid"]).rpartition(":")[2])
        if dies_too:
            worker.kill()
        os.kill(pid, signal.SIGKILL)
        assert until(lambda: is_gone(pid))
        hold.release()
        if dies_too:
            worker.start()
        else:
            # The worker calls it crashed, as the one who started its process and as its runner.
            until(lambda: crashes(flow_run_id) == 2)
        end_its_runs(client, flow_run_id)
        until(lambda: resume_waiting(block) and state_of(prefect_api, flow_run_id) == "Completed")
        assert until(lambda: not left_by(client, flow_run_id))


def test_flow_run_that_asks_holds_no_process_and_goes_on_when_a_person_has_answered(
    deployment: str, worker: Worker, prefect_api: Api, client: SyncLangGraphClient
) -> None:
    flow_run_id = begun(deployment, "reviewer")
    row = suspended(prefect_api, flow_run_id)
    pid = int(str(row["infrastructure_pid"]).rpartition(":")[2])
    assert until(lambda: is_gone(pid))
    form = {"q1_decision": "reject", "q1_message": "no", name_field(prefect_api.form_of(row)): "Ada"}
    resume = f"/flow_runs/{flow_run_id}/resume"
    assert prefect_api.ask("POST", resume, {"run_input": form})["status"] == "ACCEPT"
    prefect_api.completed(str(flow_run_id))
    said = prefect_api.artifacts(str(flow_run_id))
    assert [row["decision"] for row in json.loads(said[0]["data"])] == ["reject"]
    assert until(lambda: not left_by(client, flow_run_id))


def test_prefect_deployment_without_a_slot_keeps_what_was_resumed_until_there_is_one(
    deployment: str, worker: Worker, prefect_api: Api, client: SyncLangGraphClient
) -> None:
    flow_run_id = begun(deployment)
    deployment_id = UUID(suspended(prefect_api, flow_run_id)["deployment_id"])
    with get_client(sync_client=True) as prefect:
        prefect.update_deployment(deployment_id, DeploymentUpdate(concurrency_limit=1))
        limit = f"deployment:{deployment_id}"
        prefect.update_global_concurrency_limit(limit, GlobalConcurrencyLimitUpdate(limit=0))
        end_its_runs(client, flow_run_id)
        assert until(lambda: resumed(flow_run_id))
        resume_waiting(BLOCK)
        sweep(BLOCK, grace_seconds=0)
        assert state_of(prefect_api, flow_run_id) in ("Resuming", "AwaitingConcurrencySlot")
        assert left_by(client, flow_run_id).threads
        prefect.update_global_concurrency_limit(limit, GlobalConcurrencyLimitUpdate(limit=1))
    prefect_api.completed(str(flow_run_id))
    assert until(lambda: not left_by(client, flow_run_id))
