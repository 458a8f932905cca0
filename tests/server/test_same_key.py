"""One `idempotency_key` is for one call: another call with it is refused, by the names that differ."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from prefect_langgraph import (
    InvalidRequestError,
    LangGraphCredentials,
    RunItem,
    create_cron,
    create_thread,
    delete_cron,
    delete_thread,
    join_run,
    join_runs,
    run_on_thread,
    run_stateless,
    start_run,
    start_runs,
)

pytestmark = pytest.mark.usefixtures("prefect_server")

SECRET = "very secret words"


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


def refused(call: Any, *names: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        call()
    message = str(caught.value)
    assert "idempotency_key" in message
    assert SECRET not in message
    for name in names:
        assert name in message


def test_another_single_call_is_refused(credentials: LangGraphCredentials, key: str) -> None:
    options: Any = {"credentials": credentials, "idempotency_key": key}
    given = {"question": SECRET}
    handle = start_run("answer", given, config={"tags": ["a"]}, **options)
    again = start_run("answer", given, config={"tags": ["a"]}, **options)
    assert (again.run_id, again.origin) == (handle.run_id, "adopted")
    refused(lambda: start_run("chat", given, config={"tags": ["a"]}, **options), "assistant_id")
    refused(lambda: start_run("answer", {"question": "?"}, config={"tags": ["a"]}, **options), "input")
    refused(lambda: start_run("answer", given, config={"tags": ["b"]}, **options), "config")
    refused(lambda: start_run("answer", given, **options), "config")
    refused(
        lambda: start_run("answer", given, config={"tags": ["a"]}, metadata={"a": 1}, **options),
        "metadata",
    )
    refused(
        lambda: run_stateless("answer", given, config={"tags": ["a"]}, **options),
        "run_stateless",
        "start_run",
    )
    refused(lambda: start_runs("answer", [given], config={"tags": ["a"]}, **options), "start_runs")
    assert join_run(handle)["answer"] == f"You asked: {SECRET}"


def test_another_thread_is_refused(credentials: LangGraphCredentials, key: str) -> None:
    options: Any = {"credentials": credentials, "idempotency_key": key}
    one, two = (create_thread(credentials=credentials) for _ in range(2))
    handle = start_run("answer", {"question": "a"}, thread_id=one, **options)
    refused(lambda: start_run("answer", {"question": "a"}, thread_id=two, **options), "thread_id")
    refused(lambda: run_on_thread(one, "answer", {"question": "a"}, **options), "run_on_thread")
    refused(lambda: start_run("answer", {"question": "a"}, **options), "thread_id")
    join_run(handle)
    for thread_id in (one, two):
        delete_thread(thread_id, credentials=credentials)


def test_another_batch_is_refused(credentials: LangGraphCredentials, key: str) -> None:
    options: Any = {"credentials": credentials, "idempotency_key": key}
    inputs: list[Any] = [{"question": SECRET}, {"question": "b"}]
    handles = start_runs("answer", inputs, **options)
    again = start_runs("answer", inputs, **options)
    assert [handle.run_id for handle in again] == [handle.run_id for handle in handles]
    refused(lambda: start_runs("answer", [*inputs, {"question": "c"}], **options), "number of inputs")
    refused(lambda: start_runs("answer", inputs[:1], **options), "number of inputs")
    refused(lambda: start_runs("answer", inputs[::-1], **options), "input")
    refused(lambda: start_runs("chat", inputs, **options), "assistant_id")
    other = [RunItem(input=inputs[0], context={"a": 1}), inputs[1]]
    refused(lambda: start_runs("answer", other, **options), "context")
    refused(lambda: start_run("answer", inputs[0], **options), "start_runs")
    refused(lambda: run_stateless("answer", inputs[0], **options), "start_runs")
    assert join_runs(handles).values[1]["answer"] == "You asked: b"


def test_another_thread_to_make_is_refused(credentials: LangGraphCredentials, key: str) -> None:
    options: Any = {"credentials": credentials, "idempotency_key": key}
    thread_id = create_thread(metadata={"customer": SECRET}, **options)
    assert create_thread(metadata={"customer": SECRET}, **options) == thread_id
    refused(lambda: create_thread(metadata={"customer": "another"}, **options), "metadata")
    refused(lambda: start_run("answer", {"question": "a"}, **options), "create_thread", "start_run")
    delete_thread(thread_id, credentials=credentials)


def test_another_cron_is_refused_and_a_changed_one_updated(
    credentials: LangGraphCredentials, key: str
) -> None:
    options: Any = {"credentials": credentials, "idempotency_key": key}
    cron = create_cron("answer", "0 9 1 1 *", {"question": SECRET}, **options)
    again = create_cron("answer", "0 10 1 1 *", {"question": "b"}, **options)
    assert again.cron_id == cron.cron_id
    refused(lambda: create_cron("chat", "0 10 1 1 *", {"question": "b"}, **options), "assistant_id")
    delete_cron(cron, credentials=credentials)
