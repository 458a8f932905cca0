"""Runs on a thread that lasts: its state, its turns, and what happens when two want it at once."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_langgraph import (
    LangGraphCredentials,
    NotFoundError,
    RunCancelledError,
    RunLostError,
    RunStatus,
    ThreadBusyError,
    cancel_run,
    create_thread,
    delete_thread,
    get_run,
    get_thread_state,
    join_run,
    run_on_thread,
    start_run,
    update_thread_state,
)

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def thread_id(credentials: LangGraphCredentials) -> Any:
    made = create_thread(credentials=credentials)
    yield made
    delete_thread(made, credentials=credentials)


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def test_assistants_on_one_thread_share_its_state(
    credentials: LangGraphCredentials, thread_id: str
) -> None:
    first = run_on_thread(thread_id, "chat", said("Hello"), credentials=credentials)
    second = run_on_thread(thread_id, "critic", said("And you?"), credentials=credentials)
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assert second["turns"] == first["turns"] + 1


def test_reject_on_a_busy_thread_is_an_error_and_starts_nothing(
    credentials: LangGraphCredentials, thread_id: str
) -> None:
    busy = start_run("worker", {"sleep": 30}, thread_id=thread_id, credentials=credentials)
    for call in (run_on_thread, start_on):
        with pytest.raises(ThreadBusyError) as caught:
            call(thread_id, "worker", {}, credentials=credentials, multitask_strategy="reject")
        assert thread_id in str(caught.value)
    assert get_run(busy).status in (RunStatus.PENDING, RunStatus.RUNNING)
    assert cancel_run(busy).status is RunStatus.CANCELLED


def start_on(thread_id: str, assistant_id: str, input: Any, **options: Any) -> Any:
    return start_run(assistant_id, input, thread_id=thread_id, **options)


def test_enqueue_runs_one_after_the_other(credentials: LangGraphCredentials, thread_id: str) -> None:
    first = start_run("worker", {"tag": "a", "sleep": 1}, thread_id=thread_id, credentials=credentials)
    second = run_on_thread(
        thread_id, "worker", {"tag": "b"}, credentials=credentials, multitask_strategy="enqueue"
    )
    assert second["result"] == "b"
    assert join_run(first)["result"] == "a"


def test_interrupt_strategy_cancels_the_run_that_is_there(
    credentials: LangGraphCredentials, thread_id: str
) -> None:
    first = start_run("worker", {"sleep": 30}, thread_id=thread_id, credentials=credentials)
    second = run_on_thread(
        thread_id, "worker", {"tag": "b"}, credentials=credentials, multitask_strategy="interrupt"
    )
    assert second["result"] == "b"
    with pytest.raises(RunCancelledError):
        join_run(first)


def test_rollback_strategy_undoes_the_run_that_is_there(
    credentials: LangGraphCredentials, thread_id: str
) -> None:
    run_on_thread(thread_id, "worker", {"tag": "before"}, credentials=credentials)
    first = start_run("worker", {"sleep": 30}, thread_id=thread_id, credentials=credentials)
    second = run_on_thread(
        thread_id, "worker", {"tag": "b"}, credentials=credentials, multitask_strategy="rollback"
    )
    assert second["result"] == "b"
    with pytest.raises((RunCancelledError, RunLostError)):
        join_run(first)


def test_state_is_read_and_written(credentials: LangGraphCredentials) -> None:
    thread_id = create_thread(credentials=credentials, graph_id="chat")
    update_thread_state(thread_id, {"turns": 4}, credentials=credentials)
    assert get_thread_state(thread_id, credentials=credentials)["values"]["turns"] == 4
    delete_thread(thread_id, credentials=credentials)
    delete_thread(thread_id, credentials=credentials)


@pytest.mark.inmem_only(reason="that runtime gives an empty state for a thread that there is not")
def test_state_of_no_thread_is_an_error(credentials: LangGraphCredentials) -> None:
    with pytest.raises(NotFoundError):
        get_thread_state("00000000-0000-4000-8000-00000000abce", credentials=credentials)


def test_missing_thread_is_refused_or_created(credentials: LangGraphCredentials) -> None:
    missing = "00000000-0000-4000-8000-00000000abcd"
    with pytest.raises(NotFoundError):
        run_on_thread(missing, "answer", {"question": "?"}, credentials=credentials)
    values = run_on_thread(
        missing, "answer", {"question": "?"}, credentials=credentials, if_not_exists="create"
    )
    assert values["answer"] == "You asked: ?"
    delete_thread(missing, credentials=credentials)
