"""A run that did nothing is no success: it says what the thread waits for, or that nothing waited."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph_sdk.client import SyncLangGraphClient

from prefect_langgraph import (
    InvalidRequestError,
    LangGraphCredentials,
    RunFailedError,
    RunInterruptedError,
    RunStatus,
    ThreadBusyError,
    create_thread,
    get_run,
    join_run,
    join_runs,
    run_on_thread,
    run_stateless,
    start_run,
    stream_run,
)

pytestmark = pytest.mark.usefixtures("prefect_server")

STRANGE = {"f" * 32: "an answer to nothing"}


@pytest.fixture
def waiting(odd_graphs: LangGraphCredentials) -> tuple[str, str]:
    """A thread that waits for one answer, and the id of its interrupt."""
    thread_id = create_thread(credentials=odd_graphs)
    with pytest.raises(RunInterruptedError) as caught:
        run_on_thread(thread_id, "private", {"ask": True}, credentials=odd_graphs)
    return thread_id, caught.value.interrupts[0]["id"]


def interrupted_at(error: RunInterruptedError) -> list[str]:
    return [item["id"] for item in error.interrupts]


@pytest.mark.parametrize("call", [{"command": {"resume": STRANGE}}, {"input": None}], ids=str)
def test_a_run_that_answered_nothing_reports_what_the_thread_waits_for(
    call: dict[str, Any], waiting: tuple[str, str], odd_graphs: LangGraphCredentials
) -> None:
    thread_id, interrupt_id = waiting
    with pytest.raises(RunInterruptedError, match="did nothing") as caught:
        run_on_thread(thread_id, "private", credentials=odd_graphs, **call)
    assert interrupted_at(caught.value) == [interrupt_id]
    assert caught.value.values == {"total": 1}
    handle = start_run("private", thread_id=thread_id, credentials=odd_graphs, **call)
    with pytest.raises(RunInterruptedError):
        join_run(handle)
    (result,) = join_runs([handle], on_failure="collect")
    assert result.status is RunStatus.INTERRUPTED
    assert [item["id"] for item in result.interrupts] == [interrupt_id]
    with pytest.raises(RunInterruptedError):
        list(
            stream_run(
                "private",
                call.get("input"),
                thread_id=thread_id,
                command=call.get("command"),
                credentials=odd_graphs,
            )
        )
    # It still waits, and the right answer works.
    answer: Any = {"resume": {interrupt_id: "yes"}}
    values = run_on_thread(thread_id, "private", command=answer, credentials=odd_graphs)
    assert values["answer"] == "yes"
    # What the earlier run found is still told, though its thread has gone on.
    late = get_run(handle)
    assert late.status is RunStatus.INTERRUPTED
    assert late.values == {"total": 1}


def test_a_second_answer_to_one_question_is_refused(
    waiting: tuple[str, str], odd_graphs: LangGraphCredentials
) -> None:
    thread_id, interrupt_id = waiting
    answer: Any = {"resume": {interrupt_id: "yes"}}
    first = start_run("private", thread_id=thread_id, command=answer, credentials=odd_graphs)
    second = start_run("private", thread_id=thread_id, command=answer, credentials=odd_graphs)
    assert join_run(first)["answer"] == "yes"
    with pytest.raises(RunFailedError, match="nothing on the thread waited") as caught:
        join_run(second)
    assert caught.value.error == "UnknownInterruptError"
    assert join_runs([second], on_failure="collect").counts == {RunStatus.ERROR: 1}


def test_a_call_without_input_on_an_idle_thread_returns_its_values(
    odd_graphs: LangGraphCredentials, odd_client: SyncLangGraphClient
) -> None:
    thread_id = create_thread(credentials=odd_graphs)
    run_on_thread(thread_id, "private", {"question": "q"}, credentials=odd_graphs)
    expected = odd_client.runs.wait(thread_id, "private", input=None)
    assert run_on_thread(thread_id, "private", credentials=odd_graphs) == expected
    handle = start_run("private", thread_id=thread_id, credentials=odd_graphs)
    assert join_runs([handle]).values == [expected]


def test_strict_resume_is_kept_where_the_server_does_not_know_it(
    waiting: tuple[str, str], odd_graphs: LangGraphCredentials, odd_client: SyncLangGraphClient
) -> None:
    thread_id, interrupt_id = waiting
    runs = len(odd_client.runs.list(thread_id))
    strange: Any = {"resume": STRANGE}
    with pytest.raises(InvalidRequestError, match="f" * 32):
        run_on_thread(thread_id, "private", command=strange, strict_resume=True, credentials=odd_graphs)
    with pytest.raises(InvalidRequestError):
        start_run(
            "private",
            thread_id=thread_id,
            command=strange,
            strict_resume=True,
            credentials=odd_graphs,
        )
    assert len(odd_client.runs.list(thread_id)) == runs
    answer: Any = {"resume": {interrupt_id: "yes"}}
    values = run_on_thread(
        thread_id, "private", command=answer, strict_resume=True, credentials=odd_graphs
    )
    assert values["answer"] == "yes"
    for late in (answer, {"resume": "yes"}):
        with pytest.raises(InvalidRequestError, match="waits"):
            run_on_thread(
                thread_id, "private", command=late, strict_resume=True, credentials=odd_graphs
            )


def test_of_two_strict_answers_at_once_only_one_is_taken(
    waiting: tuple[str, str], odd_graphs: LangGraphCredentials
) -> None:
    thread_id, interrupt_id = waiting
    answer: Any = {"resume": {interrupt_id: "yes"}}
    strict: Any = {"command": answer, "strict_resume": True, "thread_id": thread_id}
    first = start_run("private", credentials=odd_graphs, **strict)
    with pytest.raises((InvalidRequestError, ThreadBusyError)):
        start_run("private", credentials=odd_graphs, **strict)
    assert join_run(first)["answer"] == "yes"


def test_several_interrupts_say_that_the_answer_goes_by_ids(odd_graphs: LangGraphCredentials) -> None:
    thread_id = create_thread(credentials=odd_graphs)
    with pytest.raises(RunInterruptedError) as caught:
        run_on_thread(thread_id, "asks", {"at_once": 2}, credentials=odd_graphs)
    ids = interrupted_at(caught.value)
    assert len(ids) == 2
    assert all(f"'{interrupt_id}': " in str(caught.value) for interrupt_id in ids)
    answers: Any = {"resume": {interrupt_id: number for number, interrupt_id in enumerate(ids)}}
    values = run_on_thread(thread_id, "asks", command=answers, credentials=odd_graphs)
    assert sorted(values["answers"]) == [0, 1]
    ambiguous = create_thread(credentials=odd_graphs)
    with pytest.raises(RunInterruptedError):
        run_on_thread(ambiguous, "asks", {"at_once": 2}, credentials=odd_graphs)
    with pytest.raises(InvalidRequestError, match="by id"):
        run_on_thread(
            ambiguous, "asks", command={"resume": 1}, strict_resume=True, credentials=odd_graphs
        )


def test_an_own_thread_that_was_answered_keeps_the_outcomes_of_its_runs_apart(
    odd_graphs: LangGraphCredentials,
) -> None:
    """Together with others, whose threads are asked about by their ids alone."""
    others = [start_run("private", {}, credentials=odd_graphs) for _ in range(10)]
    asking = start_run("private", {"ask": True}, credentials=odd_graphs)
    with pytest.raises(RunInterruptedError):
        join_run(asking)
    values = run_on_thread(
        asking.thread_id, "private", command={"resume": "yes"}, credentials=odd_graphs
    )
    assert values["answer"] == "yes"
    results = join_runs([*others, asking], on_failure="collect")
    assert results[-1].status is RunStatus.INTERRUPTED
    assert results[-1].values == {"total": 1}


def test_a_run_that_was_answered_before_its_join_keeps_its_own_outcome(
    odd_graphs: LangGraphCredentials,
) -> None:
    others = [start_run("private", {}, credentials=odd_graphs) for _ in range(10)]
    asking = start_run("private", {"ask": True}, credentials=odd_graphs)
    while (seen := get_run(asking)).status is not RunStatus.INTERRUPTED:
        assert not seen.status.ended
    values = run_on_thread(
        asking.thread_id, "private", command={"resume": "yes"}, credentials=odd_graphs
    )
    assert values["answer"] == "yes"
    results = join_runs([*others, asking], on_failure="collect")
    assert [result.status for result in results] == [*[RunStatus.SUCCESS] * 10, RunStatus.INTERRUPTED]
    assert results[-1].values == {"total": 1}


def test_a_question_that_was_expected_is_returned_as_the_sdk_returns_it(
    odd_graphs: LangGraphCredentials, odd_client: SyncLangGraphClient
) -> None:
    asked = odd_client.runs.wait(None, "private", input={"ask": True})
    thread_id = create_thread(credentials=odd_graphs)
    given: dict[str, Any] = {"credentials": odd_graphs, "on_interrupt": "return"}
    on_thread = run_on_thread(thread_id, "private", {"ask": True}, **given)
    stateless = run_stateless("private", {"ask": True}, **given)
    handle = start_run("private", {"ask": True}, credentials=odd_graphs)
    joined = join_run(handle, **given)
    for values in (on_thread, stateless, joined):
        assert [one["value"] for one in values["__interrupt__"]] == ["May I?"]
        assert {**values, "__interrupt__": ()} == {**asked, "__interrupt__": ()}
    with pytest.raises(InvalidRequestError, match="on_interrupt"):
        run_on_thread(thread_id, "private", credentials=odd_graphs, on_interrupt="ask")
