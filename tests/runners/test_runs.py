"""The same flows on every task runner: handles, keys and the waiter work in every process."""

from __future__ import annotations

from typing import Any

from distributed import LocalCluster
from prefect.task_runners import TaskRunner
from prefect_dask import DaskTaskRunner

from faults.tally import Tally
from runners import flows


def test_every_call_makes_one_run_which_the_second_execution_adopts(
    tally: Tally, runner: TaskRunner[Any]
) -> None:
    flows.ATTEMPTS.clear()
    results = flows.everything.with_options(task_runner=runner)(tally.block)
    assert results == [
        ["same"] * 6,
        ["within"] * 4,
        ["nested"] * 2,
        [work["tag"] for work in flows.MAPPED],
        [work["tag"] for work in flows.BATCH] * 2,
    ]
    first, second = flows.ATTEMPTS
    assert {handle.run_id for handle in first} == {handle.run_id for handle in second}
    assert len({handle.run_id for handle in first}) == len(first)
    assert {handle.origin for handle in first} == {"started"}
    assert {handle.origin for handle in second} == {"adopted"}
    assert tally.executed == flows.MADE
    assert tally.made == sum(flows.MADE.values())
    tally.nothing_left()


def test_retried_task_that_submits_to_other_processes_starts_again_without_an_idempotency_key(
    tally: Tally, cluster: LocalCluster
) -> None:
    flows.SUBMITTED.clear()
    on_dask = DaskTaskRunner(address=cluster.scheduler_address)
    flows.submits_and_retries.with_options(task_runner=on_dask)(tally.block)
    derived, chosen = flows.SUBMITTED[None], flows.SUBMITTED["mine"]
    assert len(set(derived)) == 2
    assert len(set(chosen)) == 1
    assert tally.made == 3
    tally.nothing_left()
