"""Flow runs that wait without a process, on a real worker: what stands open, and who wakes them."""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID

from langgraph_sdk.client import SyncLangGraphClient
from prefect.deployments import run_deployment

from prefect_langgraph import resume_waiting
from support.leftovers import active_runs, left_by
from support.waiting import until
from worker.api import Api
from worker.conftest import Worker


def begun(deployment: str, **parameters: Any) -> UUID:
    """A flow run that a worker takes."""
    made: Any = run_deployment(
        f"sleeper/{deployment}", parameters=parameters, timeout=0, as_subflow=False
    )
    flow_run_id: UUID = made.id
    return flow_run_id


def suspended(api: Api, flow_run_id: UUID) -> dict[str, Any]:
    """The flow run, once it is suspended."""
    until(lambda: api.flow_run(str(flow_run_id))["state_name"] == "Suspended")
    row = api.flow_run(str(flow_run_id))
    assert row["state_name"] == "Suspended", row["state"]
    return row


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
    done = until(lambda: resume_waiting().resumed)
    assert str(flow_run_id) in [entry.flow_run_id for entry in done]
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
