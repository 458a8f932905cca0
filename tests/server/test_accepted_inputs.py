"""What the SDK takes is taken, and what JSON cannot express is refused before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from langgraph.types import Command, Send
from pydantic import BaseModel

from prefect_langgraph import (
    InvalidRequestError,
    LangGraphCredentials,
    RunInterruptedError,
    create_thread,
    join_run,
    join_runs,
    join_stream,
    run_on_thread,
    run_stateless,
    start_run,
    start_runs,
)
from proxy import Proxy

pytestmark = pytest.mark.usefixtures("prefect_server")


class Modern(BaseModel):
    question: str


class Old:
    def __init__(self, question: str) -> None:
        self.question = question

    def dict(self) -> dict[str, Any]:
        return {"question": self.question}


@dataclass
class Plain:
    question: str


@pytest.mark.parametrize("kind", [Modern, Old, Plain])
def test_objects_that_the_sdk_takes_are_taken(kind: Any, credentials: LangGraphCredentials) -> None:
    values = run_stateless("answer", kind(question="a"), credentials=credentials)
    assert values["answer"] == "You asked: a"
    handle = start_run("answer", {"question": "b", "x": [kind(question="c")]}, credentials=credentials)
    assert join_run(handle)["answer"] == "You asked: b"
    found = join_runs(start_runs("answer", [kind(question="d")] * 2, credentials=credentials))
    assert [values["answer"] for values in found.values] == ["You asked: d"] * 2


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")], ids=str)
def test_a_number_that_json_does_not_have_is_refused(
    number: float, through_proxy: LangGraphCredentials, proxy: Proxy
) -> None:
    given = {"question": "a", "scores": [None, {"b": number}]}
    for call in (run_stateless, start_run):
        with pytest.raises(InvalidRequestError, match=r"input\.scores\[1\]\.b is (NaN|an infinity)"):
            call("answer", given, credentials=through_proxy)
    with pytest.raises(InvalidRequestError, match="input 1: "):
        start_runs("answer", [{}, given], credentials=through_proxy)
    config: Any = {"configurable": {"temperature": number}}
    with pytest.raises(InvalidRequestError, match=r"config\.configurable"):
        run_stateless("answer", {}, config=config, credentials=through_proxy)
    assert proxy.count("POST") == 0


def test_command_objects_of_langgraph_are_taken(odd_graphs: LangGraphCredentials) -> None:
    thread_id = create_thread(credentials=odd_graphs)
    with pytest.raises(RunInterruptedError):
        run_on_thread(thread_id, "private", {"ask": True}, credentials=odd_graphs)
    answer: Any = Command(resume="yes")
    values = run_on_thread(thread_id, "private", command=answer, credentials=odd_graphs)
    assert values["answer"] == "yes"
    jump: Any = Command(update={"question": "z"}, goto=Send("say", {"ask": False}))
    values = run_on_thread(thread_id, "private", command=jump, credentials=odd_graphs)
    assert values["answer"] == "42"


@pytest.mark.parametrize(
    "command", ["yes", ["resume"], {"answer": 1}, Command(graph="__parent__", goto="x")], ids=repr
)
def test_what_is_no_command_is_refused(command: Any, credentials: LangGraphCredentials) -> None:
    with pytest.raises(InvalidRequestError, match="command: "):
        run_stateless("answer", command=command, credentials=credentials)


@pytest.mark.parametrize("text", ["abc", "", "1-", "last", "12-3+x"])
def test_an_event_id_that_is_none_is_refused_before_any_request(
    text: str, through_proxy: LangGraphCredentials, proxy: Proxy
) -> None:
    handle = start_run(
        "worker", {"tag": "a"}, stream_resumable=True, credentials=through_proxy, once=False
    )
    before = proxy.count()
    with pytest.raises(InvalidRequestError, match="last_event_id"):
        list(join_stream(handle, last_event_id=text, credentials=through_proxy))
    assert proxy.count() == before
    join_run(handle, credentials=through_proxy)
