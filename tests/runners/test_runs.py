"""The same flows on every task runner: handles, keys and the waiter work in every process."""

from __future__ import annotations

from typing import Any

from prefect.task_runners import TaskRunner

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


def test_runs_that_other_processes_join_leave_nothing_without_a_finalizer(
    books: Books, runner: TaskRunner[Any]
) -> None:
    assert flows.unowned.with_options(task_runner=runner)(books.block) == ["same"] * 5
    assert books.made == 5
    books.nothing_left()


def test_retried_task_that_submits_to_other_processes_starts_again_without_an_idempotency_key(
    books: Books, pool: TaskRunner[Any]
) -> None:
    flows.SUBMITTED.clear()
    flows.submits_and_retries.with_options(task_runner=pool)(books.block)
    derived, chosen = flows.SUBMITTED[None], flows.SUBMITTED["mine"]
    assert len(set(derived)) == 2
    assert len(set(chosen)) == 1
    assert books.made == 3
    books.nothing_left()
