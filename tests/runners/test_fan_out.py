"""`fan_out` shows a task run for each run, whatever task runner the flow has."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.task_runners import TaskRunner

from faults.tally import Tally
from prefect_langgraph import FanOutResult, LangGraphCredentials, fan_out
from support.waiting import until


def task_runs_of(flow_run_id: UUID, count: int) -> Counter[tuple[str, str]]:
    """Name and state of each task run, once so many have ended; Prefect hears of them by and by."""
    of_flow_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:

        def ended() -> Counter[tuple[str, str]] | None:
            found = client.read_task_runs(flow_run_filter=of_flow_run)
            final = [run for run in found if run.state is not None and run.state.is_final()]
            names = Counter((run.name, str(run.state_name)) for run in final)
            return names if len(final) >= count else None

        return until(ended) or Counter()


def test_fan_out_shows_each_run_as_a_task_run_on_every_task_runner(
    tally: Tally, runner: TaskRunner[Any]
) -> None:
    inputs = [{"tag": "a"}, {"tag": "b", "fail_first": 1}, {"tag": "c"}]
    state = fan_out.with_options(task_runner=runner)(
        "counted",
        inputs,
        credentials=tally.block,
        on_failure="collect",
        per_run_tasks=True,
        return_state=True,
    )
    result = state.result()
    assert isinstance(result, FanOutResult)
    assert state.state_details.flow_run_id is not None
    assert [item.status.value for item in result] == ["success", "error", "success"]
    assert task_runs_of(state.state_details.flow_run_id, len(inputs)) == {
        ("run counted 0", "Completed"): 1,
        ("run counted 1", "Failed"): 1,
        ("run counted 2", "Completed"): 1,
    }
    assert tally.made == 3
    tally.nothing_left()


def test_fan_out_with_a_saved_block_itself_is_released_by_its_finalizer(tally: Tally) -> None:
    saved = LangGraphCredentials.load(tally.block)
    assert fan_out("counted", [{"tag": "a"}], credentials=saved).values[0]["result"] == "a"
    tally.nothing_left()
