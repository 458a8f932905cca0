"""Every outcome of a large fan-out is true: in each policy, and over a crash of the server."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
from langgraph_sdk.client import SyncLangGraphClient

from prefect_langgraph import (
    FanOutError,
    FanOutResult,
    LangGraphCredentials,
    RunResult,
    RunStatus,
    fan_out,
)
from prefect_langgraph.testing import LangGraphServer, run_langgraph_server
from server.conftest import AGENT
from server.test_fan_out import block
from support.marked_runs import active, new_mark, threads_of
from support.plain_sdk import sync_sdk
from support.waiting import until

__all__ = ["block"]

COUNT = 200
FAILS, INTERRUPTED, CANCELLED = 3, 7, 150
"""Of each ten one fails and one stops for a person; of all, one is cancelled by someone else."""

Policy = Literal["raise", "collect", "fail_fast"]
pytestmark = pytest.mark.usefixtures("prefect_server")


def mixed() -> list[dict[str, Any]]:
    inputs: list[dict[str, Any]] = [{"tag": str(number)} for number in range(COUNT)]
    for number, given in enumerate(inputs):
        if number % 10 == FAILS:
            given["fail"] = f"no luck {number}"
        elif number % 10 == INTERRUPTED:
            given["interrupts"] = 1
    inputs[CANCELLED]["sleep"] = 600
    return inputs


def expected(number: int) -> RunStatus:
    if number == CANCELLED:
        return RunStatus.CANCELLED
    kinds = {FAILS: RunStatus.ERROR, INTERRUPTED: RunStatus.INTERRUPTED}
    return kinds.get(number % 10, RunStatus.SUCCESS)


def is_its_own(number: int, result: RunResult) -> bool:
    """Whether a result is that of the run of this input, and complete."""
    if result.status is RunStatus.SUCCESS:
        return result.values["result"] == str(number)
    if result.status is RunStatus.ERROR:
        return result.error is not None and result.error.message == f"no luck {number}"
    if result.status is RunStatus.INTERRUPTED:
        return result.values["request"]["tag"] == str(number) and len(result.interrupts) == 1
    return result.status is RunStatus.CANCELLED


@contextmanager
def in_the_background(work: Callable[[], None]) -> Iterator[None]:
    """Do something meanwhile; what it raised is raised here."""
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert not failed


def cancel_the_long_one(client: SyncLangGraphClient, mark: dict[str, str]) -> None:
    """Be someone else who cancels the run that would last, once it is all that is left."""
    assert until(lambda: len(threads_of(client, mark)) >= COUNT)
    assert until(lambda: active(client, mark) == 1)
    (thread,) = client.threads.search(metadata=mark, status="busy")
    (run,) = client.runs.list(thread["thread_id"])
    client.runs.cancel(thread["thread_id"], run["run_id"], wait=True)


def fanned_out(
    client: SyncLangGraphClient, block: str, mark: dict[str, str], policy: Policy
) -> FanOutResult:
    def call() -> FanOutResult:
        return fan_out("worker", mixed(), credentials=block, metadata=mark, on_failure=policy)

    if policy == "fail_fast":
        with pytest.raises(FanOutError) as stopped:
            call()
        return stopped.value.result
    with in_the_background(lambda: cancel_the_long_one(client, mark)):
        if policy == "collect":
            return call()
        with pytest.raises(FanOutError) as failed:
            call()
        return failed.value.result


@pytest.mark.parametrize("policy", ["raise", "collect", "fail_fast"])
def test_every_one_of_200_mixed_outcomes_is_true_and_only_what_waits_for_a_person_stays(
    client: SyncLangGraphClient, block: str, policy: Policy
) -> None:
    mark = new_mark()
    result = fanned_out(client, block, mark, policy)
    assert len(result) == COUNT
    wrong = [
        (number, item)
        for number, item in enumerate(result)
        if not is_its_own(number, item)
        # Who stops at the first failure cancels what had not ended.
        or item.status
        not in ({expected(number)} | ({RunStatus.CANCELLED} if policy == "fail_fast" else set()))
    ]
    assert wrong == []
    if policy == "fail_fast":
        assert result.counts[RunStatus.ERROR] >= 1
    else:
        assert result.counts == {
            RunStatus.SUCCESS: COUNT - 2 * COUNT // 10 - 1,
            RunStatus.ERROR: COUNT // 10,
            RunStatus.INTERRUPTED: COUNT // 10,
            RunStatus.CANCELLED: 1,
        }
    waiting = {item.handle.thread_id for item in result if item.status is RunStatus.INTERRUPTED}
    kept = threads_of(client, mark)
    assert {thread["thread_id"] for thread in kept} == waiting
    assert {thread["status"] for thread in kept} <= {"interrupted"}
    client.threads.prune([*waiting] or [str(uuid.uuid4())])


@pytest.fixture
def crashing_server() -> Iterator[LangGraphServer]:
    """A server for a test that kills it."""
    with run_langgraph_server(AGENT, jobs=10) as server:
        yield server


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_server_that_goes_down_in_the_middle_costs_no_outcome_and_makes_no_run_twice(
    crashing_server: LangGraphServer, kill: bool
) -> None:
    name = f"crashing-{uuid.uuid4().hex[:8]}"
    LangGraphCredentials(url=crashing_server.url, patience_seconds=60).save(name)
    mark, count = new_mark(), 100
    seen: set[str] = set()

    with sync_sdk(crashing_server.url) as client:

        def restart() -> None:
            assert until(lambda: _ended(client, mark) >= count // 4)
            # The copy by which a graph's output is learned has no key.
            seen.update(
                thread["thread_id"]
                for thread in threads_of(client, mark)
                if thread["metadata"].get("prefect_key")
            )
            crashing_server.restart(kill=kill)

        with in_the_background(restart):
            result = fan_out(
                "worker",
                [{"tag": str(number), "sleep": 0.3} for number in range(count)],
                credentials=name,
                metadata=mark,
                max_in_flight=50,
                on_failure="collect",
                max_wait_seconds=120,
            )
        assert len({item.handle.run_id for item in result}) == count
        assert all(
            item.values["result"] == str(number)
            for number, item in enumerate(result)
            if item.status is RunStatus.SUCCESS
        )
        # What a server had not yet written down when it was killed it does not know any more.
        lost = {item.handle.thread_id for item in result if item.status is RunStatus.LOST}
        assert {item.status for item in result} <= {RunStatus.SUCCESS, RunStatus.LOST}
        assert not lost or kill
        # One run for each input, of those that were started before the crash and of those after it.
        assert seen <= {item.handle.thread_id for item in result}
        assert threads_of(client, mark) == []


def _ended(client: SyncLangGraphClient, mark: dict[str, str]) -> int:
    return client.threads.count(metadata=mark, status="idle")
