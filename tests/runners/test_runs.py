"""The same flows on every task runner: handles, keys and the waiter work in every process."""

from __future__ import annotations

from typing import Any

from distributed import LocalCluster
from prefect.task_runners import TaskRunner
from prefect_dask import DaskTaskRunner

from faults._books import Books
from runners import _flows as flows


def test_every_call_makes_one_run_which_the_second_execution_adopts(
    books: Books, runner: TaskRunner[Any]
) -> None:
    flows.ATTEMPTS.clear()
    results = flows.everything.with_options(task_runner=runner)(books.block)
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
    assert books.executed == flows.MADE
    assert books.made == sum(flows.MADE.values())
    books.nothing_left()


def test_retried_task_that_submits_to_other_processes_starts_again_without_an_idempotency_key(
    books: Books, cluster: LocalCluster
) -> None:
    flows.SUBMITTED.clear()
    on_dask = DaskTaskRunner(address=cluster.scheduler_address)
    flows.submits_and_retries.with_options(task_runner=on_dask)(books.block)
    derived, chosen = flows.SUBMITTED[None], flows.SUBMITTED["mine"]
    assert len(set(derived)) == 2
    assert len(set(chosen)) == 1
    assert books.made == 3
    books.nothing_left()
