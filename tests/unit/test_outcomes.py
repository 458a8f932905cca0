"""What the server said, turned into what happened: the table of FACTS, case by case, without one."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph_sdk import schema

from prefect_langgraph import errors
from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.results import RunFailure, RunResult, Usage, error_of
from prefect_langgraph.runs.outcomes import (
    RUN_STATUSES,
    THREAD_STATUSES,
    from_run,
    from_thread,
    lost,
    rolled_back,
)
from prefect_langgraph.runs.usage import usage_of

HANDLE = RunHandle(run_id="1f0c", thread_id="9b2e", assistant_id="agent", url="http://localhost:2024")
VALUES = {"result": "partial"}
ASKED = {"id": "i1", "value": {"question": "May I?"}}
ASKED_TOO = {"id": "i2", "value": {"question": "And this?"}}


def thread(status: str, values: Any = None, **fields: Any) -> dict[str, Any]:
    return {"thread_id": HANDLE.thread_id, "status": status, "values": values, **fields}


def run(status: str) -> dict[str, Any]:
    return {"run_id": HANDLE.run_id, "status": status}


def state(values: Any, next: tuple[str, ...] = (), *tasks: dict[str, Any]) -> dict[str, Any]:
    return {"values": values, "next": list(next), "tasks": list(tasks)}


# Every word of the server's is known


def test_every_run_status_of_the_sdk_has_a_meaning() -> None:
    assert RUN_STATUSES.keys() == set(get_args(schema.RunStatus))


def test_every_thread_status_of_the_sdk_has_a_meaning() -> None:
    assert set(get_args(schema.ThreadStatus)) == THREAD_STATUSES


@pytest.mark.parametrize("status", sorted(THREAD_STATUSES))
def test_every_thread_status_is_decided_or_asked_about_again(status: str) -> None:
    found = from_thread(HANDLE, thread(status, VALUES))
    assert found is None or found.status.ended


@pytest.mark.parametrize("status", RUN_STATUSES)
def test_every_run_status_is_decided(status: str) -> None:
    found = from_run(HANDLE, run(status), state(VALUES))
    assert found.status is RUN_STATUSES[status]


# A thread that has seen one run only

THREADS: dict[str, tuple[dict[str, Any], RunStatus | None]] = {
    "success": (thread("idle", VALUES), RunStatus.SUCCESS),
    "success, empty state": (thread("idle", {}), RunStatus.SUCCESS),
    "one interrupt": (thread("interrupted", VALUES, interrupts={"t": [ASKED]}), RunStatus.INTERRUPTED),
    "static breakpoint": (thread("interrupted", VALUES, interrupts={}), RunStatus.INTERRUPTED),
    "failed": (
        thread("error", VALUES, error={"error": "RuntimeError", "message": "boo"}),
        RunStatus.ERROR,
    ),
    "failed with a name that begins like a timeout": (
        thread("error", VALUES, error={"error": "TimeoutErrorOfMine", "message": ""}),
        RunStatus.ERROR,
    ),
    "server job timeout, or the graph's own": (
        thread("error", VALUES, error={"error": "TimeoutError", "message": ""}),
        None,
    ),
    "failed without a reason": (thread("error", VALUES), None),
    "cancelled while running": (
        thread("interrupted", VALUES, error={"error": "UserInterrupt", "message": ""}),
        RunStatus.CANCELLED,
    ),
    "cancelled while running, as an error": (
        thread("error", VALUES, error={"error": "UserInterrupt", "message": ""}),
        RunStatus.CANCELLED,
    ),
    "rolled back": (
        thread("error", VALUES, error={"error": "UserRollback", "message": ""}),
        RunStatus.CANCELLED,
    ),
    "cancelled while pending, or a graph without state": (thread("idle"), None),
    "pending or running": (thread("busy", VALUES), None),
}


@pytest.mark.parametrize("case", THREADS)
def test_threads_row_tells_what_became_of_its_only_run(case: str) -> None:
    row, expected = THREADS[case]
    found = from_thread(HANDLE, row)
    assert (found.status if found is not None else None) is expected
    if found is not None:
        assert found.handle == HANDLE
        assert found.values == row["values"]


def test_several_interrupts_of_a_thread_are_given_as_one_list() -> None:
    row = thread("interrupted", VALUES, interrupts={"t1": [ASKED], "t2": [ASKED_TOO]})
    found = from_thread(HANDLE, row)
    assert found is not None
    assert found.interrupts == (ASKED, ASKED_TOO)


def test_interrupts_of_a_cancelled_run_are_nobodys_to_answer() -> None:
    error = {"error": "UserInterrupt", "message": ""}
    row = thread("interrupted", VALUES, error=error, interrupts={"t": [ASKED]})
    found = from_thread(HANDLE, row)
    assert found is not None
    assert found.interrupts == ()
    assert found.error is None


def test_error_of_a_failed_thread_is_the_graphs() -> None:
    row = thread("error", VALUES, error={"error": "RuntimeError", "message": "boo"})
    found = from_thread(HANDLE, row)
    assert found is not None
    assert found.error == RunFailure(error="RuntimeError", message="boo")


names = st.sampled_from(["UserInterrupt", "UserRollback", "TimeoutError", "ValueError", ""])
rows = st.fixed_dictionaries(
    {
        "status": st.sampled_from(sorted(THREAD_STATUSES)),
        "values": st.none() | st.dictionaries(st.sampled_from("ab"), st.integers()),
        "error": st.none()
        | names
        | st.fixed_dictionaries({"error": names, "message": st.just("")})
        | st.fixed_dictionaries({"error": names}),
        "interrupts": st.none()
        | st.dictionaries(st.sampled_from("tu"), st.lists(st.just(ASKED), max_size=2)),
    }
)


@given(rows)
def test_no_thread_but_an_idle_one_with_values_is_a_success(row: dict[str, Any]) -> None:
    found = from_thread(HANDLE, row)
    succeeded = found is not None and found.status is RunStatus.SUCCESS
    assert succeeded is (row["status"] == "idle" and row["values"] is not None)


@given(rows)
def test_outcome_says_why_it_failed_only_when_it_failed(row: dict[str, Any]) -> None:
    found = from_thread(HANDLE, row)
    if found is not None:
        assert found.status.ended
        assert (found.error is not None) is (found.status is RunStatus.ERROR)
        assert not found.interrupts or found.status is RunStatus.INTERRUPTED


# A run by its own row and its own newest checkpoint

RUNS: dict[str, tuple[dict[str, Any], dict[str, Any] | None, RunStatus]] = {
    "success": (run("success"), state(VALUES), RunStatus.SUCCESS),
    "success, no checkpoint": (run("success"), None, RunStatus.SUCCESS),
    "one interrupt": (
        run("success"),
        state(VALUES, ("ask",), {"interrupts": [ASKED]}),
        RunStatus.INTERRUPTED,
    ),
    "static breakpoint": (
        run("success"),
        state(VALUES, ("work",), {"interrupts": []}),
        RunStatus.INTERRUPTED,
    ),
    "failed": (
        run("error"),
        state(VALUES, ("work",), {"error": "RuntimeError('boo')"}),
        RunStatus.ERROR,
    ),
    "failed before its first checkpoint": (run("error"), None, RunStatus.ERROR),
    "server job timeout": (run("timeout"), state(VALUES, ("work",)), RunStatus.TIMEOUT),
    "cancelled while running": (run("interrupted"), state(VALUES, ("work",)), RunStatus.CANCELLED),
    "cancelled while pending": (run("interrupted"), None, RunStatus.CANCELLED),
    "pending": (run("pending"), None, RunStatus.PENDING),
    "running": (run("running"), state(VALUES), RunStatus.RUNNING),
}


@pytest.mark.parametrize("case", RUNS)
def test_runs_row_and_checkpoint_tell_what_became_of_it(case: str) -> None:
    row, checkpoint, expected = RUNS[case]
    found = from_run(HANDLE, row, checkpoint)
    assert found.status is expected
    if expected.ended:
        assert found.values == (VALUES if checkpoint is not None else None)


def test_run_on_its_way_shows_no_values() -> None:
    # They would be those of the run before, or partial.
    for status in ("pending", "running"):
        assert from_run(HANDLE, run(status), state(VALUES)).values is None


def test_run_cancelled_while_pending_shows_no_values_of_the_run_before() -> None:
    # The thread is idle and holds the state of the run before: it looks like a success.
    found = from_run(HANDLE, run("interrupted"), None, thread=thread("idle", VALUES))
    assert found.status is RunStatus.CANCELLED
    assert found.values is None


def test_parallel_interrupts_of_a_run_are_given_as_one_list() -> None:
    checkpoint = state(VALUES, ("ask", "ask"), {"interrupts": [ASKED]}, {"interrupts": [ASKED_TOO]})
    found = from_run(HANDLE, run("success"), checkpoint)
    assert found.interrupts == (ASKED, ASKED_TOO)
    assert found.values == VALUES


def test_thread_of_a_failed_run_names_its_error_in_full() -> None:
    row = thread("error", VALUES, error={"error": "ValueError", "message": "said (it's) 'so'"})
    found = from_run(HANDLE, run("error"), state(VALUES, (), {"error": "ValueError(…)"}), thread=row)
    assert found.error == RunFailure(error="ValueError", message="said (it's) 'so'")


def test_error_of_a_later_run_on_the_thread_is_not_this_runs() -> None:
    row = thread("idle", VALUES)
    found = from_run(HANDLE, run("error"), state(VALUES, (), {"error": "KeyError('x')"}), thread=row)
    assert found.error == RunFailure(error="KeyError", message="x")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("ValueError('boo')", "ValueError", "boo"),
        ('ValueError("it\'s")', "ValueError", "it's"),
        ("my.module.Odd(1, 'two')", "my.module.Odd", "1, 'two'"),
        ("RuntimeError('two\nlines')", "RuntimeError", "two\nlines"),
        ("CancelledError()", "CancelledError", ""),
        ("no such form", "Error", "no such form"),
    ],
)
def test_error_of_a_checkpoint_is_taken_apart(text: str, name: str, message: str) -> None:
    found = from_run(HANDLE, run("error"), state(None, (), {"error": None}, {"error": text}))
    assert found.error == RunFailure(error=name, message=message)


def test_error_that_nobody_names_is_still_an_error() -> None:
    assert from_run(HANDLE, run("error"), None).error == RunFailure(error="Error")


@given(st.sampled_from(sorted(RUN_STATUSES)), st.booleans(), st.booleans())
def test_no_run_is_a_success_unless_the_server_says_so_and_nothing_is_left_to_do(
    status: str, checkpointed: bool, waits: bool
) -> None:
    checkpoint = state(VALUES, ("ask",) if waits else ()) if checkpointed else None
    found = from_run(HANDLE, run(status), checkpoint)
    assert (found.status is RunStatus.SUCCESS) is (status == "success" and not (checkpointed and waits))


def test_run_that_vanished_is_lost_or_rolled_back() -> None:
    assert lost(HANDLE).status is RunStatus.LOST
    assert rolled_back(HANDLE).status is RunStatus.CANCELLED
    assert lost(HANDLE).values is rolled_back(HANDLE).values is None


def test_times_are_the_servers() -> None:
    row = {
        **run("success"),
        "created_at": "2026-03-01T12:00:00+00:00",
        "updated_at": "2026-03-01T12:00:02.5+00:00",
    }
    found = from_run(HANDLE, row, state(VALUES))
    assert found.created_at == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert found.seconds == 2.5
    assert from_run(HANDLE, {**row, "status": "running"}, None).seconds is None


# Errors

ERRORS: dict[RunStatus, type[errors.RunError] | None] = {
    RunStatus.PENDING: None,
    RunStatus.RUNNING: None,
    RunStatus.SUCCESS: None,
    RunStatus.ERROR: errors.RunFailedError,
    RunStatus.TIMEOUT: errors.RunTimeoutError,
    RunStatus.CANCELLED: errors.RunCancelledError,
    RunStatus.INTERRUPTED: errors.RunInterruptedError,
    RunStatus.LOST: errors.RunLostError,
}


def test_every_status_has_its_error_or_none() -> None:
    assert set(ERRORS) == set(RunStatus)


@pytest.mark.parametrize("status", list(RunStatus))
def test_result_becomes_the_error_of_its_status(status: RunStatus) -> None:
    error = error_of(RunResult(handle=HANDLE, status=status, values=VALUES))
    expected = ERRORS[status]
    assert type(error) is (expected or type(None))
    if error is not None:
        assert (error.handle, error.status, error.values) == (HANDLE, status, VALUES)
        for text in (HANDLE.run_id, HANDLE.thread_id, HANDLE.assistant_id):
            assert text in error.message
        assert "partial" not in error.message


def test_failed_run_names_the_graphs_error() -> None:
    failure = RunFailure(error="ValueError", message="boo")
    error = error_of(RunResult(handle=HANDLE, status=RunStatus.ERROR, error=failure))
    assert isinstance(error, errors.RunFailedError)
    assert (error.error, error.detail) == ("ValueError", "boo")
    assert "ValueError: boo" in error.message


@pytest.mark.parametrize(
    ("interrupts", "said"),
    [((), "a static breakpoint"), ((ASKED,), "1 interrupt "), ((ASKED, ASKED_TOO), "2 interrupts ")],
)
def test_interrupted_run_says_how_often_and_does_not_quote(
    interrupts: tuple[dict[str, Any], ...], said: str
) -> None:
    result = RunResult(handle=HANDLE, status=RunStatus.INTERRUPTED, interrupts=interrupts)
    error = error_of(result)
    assert isinstance(error, errors.RunInterruptedError)
    assert error.interrupts == list(interrupts)
    assert said in error.message
    assert "May I?" not in error.message


# Tokens


def message(**counts: Any) -> dict[str, Any]:
    return {"type": "ai", "content": "x", "usage_metadata": counts}


def test_tokens_of_all_messages_are_added_up() -> None:
    values = {
        "messages": [message(input_tokens=1, output_tokens=2, total_tokens=3), {"type": "human"}],
        "notes": [message(input_tokens=10, output_tokens=20, total_tokens=30)],
        "other": 7,
    }
    assert usage_of(values) == Usage(input_tokens=11, output_tokens=22, total_tokens=33)


@pytest.mark.parametrize("values", [None, "text", [], {}, {"messages": [{"type": "ai"}]}])
def test_state_without_reported_tokens_has_no_usage(values: Any) -> None:
    assert usage_of(values) is None


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "usage_metadata", "input_tokens", "a"]), inner, max_size=3
        )
    ),
    max_leaves=10,
)


@given(json)
def test_any_state_is_read_without_an_error(values: Any) -> None:
    found = usage_of(values)
    assert found is None or isinstance(found, Usage)


def test_message_of_an_error_moves_no_cursor() -> None:
    failure = RunFailure(error="ValueError", message="\x1b[2J\x07red\nand more")
    error = RunResult(handle=HANDLE, status=RunStatus.ERROR, error=failure).as_error()
    assert "\\x1b[2J\\x07red\nand more" in str(error)
    assert "\\x1b" in str(pickle.loads(pickle.dumps(error)))  # noqa: S301 - of our own


def test_text_of_an_error_has_the_beginning_of_what_the_graph_said_and_its_detail_all() -> None:
    message = "x" * 5_000_000
    result = RunResult(
        handle=HANDLE, status=RunStatus.ERROR, error=RunFailure(error="ValueError", message=message)
    )
    error = error_of(result)
    assert isinstance(error, errors.RunFailedError)
    assert "ValueError: xxx" in str(error)
    assert "5,000,012 characters" in str(error)
    assert len(str(error)) < 2500
    assert error.detail == message
