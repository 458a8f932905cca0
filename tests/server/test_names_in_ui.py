"""What Prefect shows of a call by its name: what ran, also where that comes from a future."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.runtime import flow_run

from prefect_langgraph import (
    InvalidRequestError,
    LangGraphCredentials,
    cancel_run,
    cancel_runs,
    create_cron,
    delete_cron,
    get_run,
    join_run,
    join_runs,
    join_stream,
    reconcile_crons_flow,
    start_run,
    start_runs,
    update_cron,
)
from prefect_langgraph.testing import PrefectServer
from support.waiting import until


@pytest.fixture
def block(prefect_server: PrefectServer, credentials: LangGraphCredentials) -> str:
    LangGraphCredentials(url=credentials.url).save("names", overwrite=True)
    return "names"


def names_in(server: PrefectServer, flow_run_id: str, count: int) -> list[str]:
    """The names of a flow run's task runs, once Prefect knows so many that have ended."""
    wanted = {"flow_runs": {"id": {"any_": [flow_run_id]}}}
    rows: list[dict[str, Any]] = []

    def all_ended() -> bool:
        answer = httpx.post(f"{server.api_url}/task_runs/filter", json=wanted)
        rows[:] = answer.raise_for_status().json()
        return sum(row["state_type"] in ("COMPLETED", "FAILED") for row in rows) == count

    assert until(all_ended), f"{flow_run_id}: {rows}"
    return sorted(row["name"] for row in rows)


def test_task_runs_are_named_after_what_came_of_the_futures_they_are_given(
    prefect_server: PrefectServer, block: str
) -> None:
    @flow
    def calls() -> str:
        one = start_run.submit("worker", {"tag": "a"}, credentials=block)
        joined = join_run.submit(one)
        seen = get_run.submit(one, wait_for=[joined])
        stopped = cancel_run.submit(one, wait_for=[joined])
        many = start_runs.submit("worker", [{"tag": "b"}, {"tag": "c"}], credentials=block)
        all_of_them = join_runs.submit(many)
        none_of_them = cancel_runs.submit(many, wait_for=[all_of_them])
        cron = create_cron.submit("answer", "@yearly", credentials=block)
        paused = update_cron.submit(cron, enabled=False)
        gone = delete_cron.submit(cron, wait_for=[paused])
        for future in (seen, stopped, none_of_them, gone):
            future.result()
        return str(flow_run.id)

    assert names_in(prefect_server, calls(), 10) == [
        "cancel 2 runs",
        "cancel worker",
        "create cron of answer",
        "delete cron of answer",
        "join 2 runs",
        "join worker",
        "look at worker",
        "start 2 runs of worker",
        "start worker",
        "update cron of answer",
    ]


@pytest.mark.parametrize("task", [join_run, get_run, cancel_run])
def test_what_is_no_handle_is_refused_by_a_task_run_that_fails(
    prefect_server: PrefectServer, block: str, task: Any
) -> None:
    @flow
    def calls() -> str:
        with pytest.raises(InvalidRequestError, match="give a RunHandle"):
            task(["no handle"])
        return str(flow_run.id)

    # Prefect leaves a task run pending for good when its name cannot be made.
    [name] = names_in(prefect_server, calls(), 1)
    assert name.endswith(" run")


def test_stream_of_what_is_no_handle_is_refused(prefect_server: PrefectServer) -> None:
    with pytest.raises(InvalidRequestError, match="give a RunHandle"):
        list(join_stream("no handle"))  # type: ignore[arg-type]


def test_reconciling_is_named_after_the_file_that_says_whose_crons_they_are(
    prefect_server: PrefectServer, block: str, tmp_path: Path
) -> None:
    file = tmp_path / "crons.yaml"
    file.write_text("owner: names\ncrons: []\n")
    state = reconcile_crons_flow(str(file), credentials=block, return_state=True)
    api, found = prefect_server.api_url, state.state_details.flow_run_id
    row = httpx.get(f"{api}/flow_runs/{found}").raise_for_status().json()
    assert row["name"] == f"reconcile crons of {file}"
    assert names_in(prefect_server, str(found), 1) == [f"reconcile crons of {file}"]
