"""A person answers in Prefect, whatever happens meanwhile: once, checked, and without a process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import SetStateStatus
from prefect.events import Event
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.states import Cancelled, Cancelling, Crashed

from faults import suspending_flows as flows
from faults.attempts import attempt
from faults.suspended import OnceOf, Start, Suspended, entry_of, impatient_settings, one_pass
from faults.tally import RUN, Tally
from prefect_langgraph import (
    InvalidRequestError,
    LangGraphAssistant,
    LangGraphCredentials,
    ask_interrupts,
    fan_out,
    join_runs,
    run_assistant,
    start_runs,
    sweep,
)
from prefect_langgraph.approvals.asking import open_forms
from prefect_langgraph.approvals.record import Form
from prefect_langgraph.cli import main
from prefect_langgraph.reports.approvals import ANSWERED, REQUESTED
from prefect_langgraph.transport.loop import io_loop
from proxy import Answer, Fault, Hold, LoseResponse, Proxy
from support.waiting import PATIENCE, until

NEEDS_SCHEMA = pytest.mark.inmem_only(
    reason="that runtime does not tell the response_schema of an interrupt"
)


def case(tag: str, **more: Any) -> dict[str, Any]:
    return {"tag": tag, "asks": 1, **more}


def refunds(order: str, *amounts: int) -> dict[str, Any]:
    content = " ".join([order, *map(str, amounts)])
    return {"messages": [{"role": "user", "content": content}]}


class Asked:
    """The form that a flow run is suspended or paused for, as Prefect's UI sees it."""

    def __init__(self, run: Suspended) -> None:
        self._row = until(lambda: self._paused(run))
        keys = self._keys
        with get_client(sync_client=True) as client:
            schema = client.read_flow_run_input(run.id, keys["schema"])
            page = client.read_flow_run_input(run.id, keys["description"])
        self.fields: dict[str, Any] = json.loads(schema)["properties"]
        self.required: list[str] = json.loads(schema)["required"]
        (self.name_field,) = [name for name in self.required if name.startswith("answered_by_")]
        self.page: str = json.loads(page)

    @staticmethod
    def _paused(run: Suspended) -> FlowRun | None:
        row = run.row
        state = row.state
        if state is None or not state.is_paused() or not state.state_details.run_input_keyset:
            return None
        with get_client(sync_client=True) as client:
            found = client.filter_flow_run_input(
                row.id, state.state_details.run_input_keyset["schema"], 1, set()
            )
        return row if found else None

    @property
    def _keys(self) -> Mapping[Any, str]:
        state = self._row.state
        assert state is not None
        keys = state.state_details.run_input_keyset
        assert keys is not None
        return keys

    def submit(self, **values: Any) -> tuple[SetStateStatus, str]:
        """Press "Resume" with these values; what Prefect says."""
        with get_client(sync_client=True) as client:
            answer = client.resume_flow_run(self._row.id, run_input=values)
        return answer.status, str(getattr(answer.details, "reason", None))

    def by(self, name: str) -> dict[str, str]:
        """The value by which the form knows who answers."""
        return {self.name_field: name}

    def answer(self, **values: Any) -> None:
        """Answer so that Prefect takes it."""
        status, why = self.submit(**self.by("Ada"), **values)
        assert status is SetStateStatus.ACCEPT, why


def asking(start: Start, graph: str, *inputs: Any, **options: Any) -> Suspended:
    """A flow run that was executed until it asks."""
    run = start(flows.asks, graph=graph, inputs=[*inputs], options=options or None)
    run.suspends()
    return run


def forms_of(run: Suspended) -> list[Form]:
    async def ask() -> list[Form]:
        async with get_client() as client:
            return [form for row, form in await open_forms(client) if row.id == run.id]

    return io_loop().run(ask)


def table_of(run: Suspended) -> list[dict[str, Any]]:
    """The artifact of what was asked and answered."""
    with get_client(sync_client=True) as client:
        key = ArtifactFilter(key=ArtifactFilterKey(any_=["langgraph-approvals"]))
        mine = ArtifactFilterFlowRunId(any_=[run.id])
        (found,) = client.read_artifacts(artifact_filter=key.model_copy(update={"flow_run_id": mine}))
    rows: list[dict[str, Any]] = json.loads(str(found.data))
    return rows


def events(run: Suspended, name: str) -> list[Event]:
    """The flow run's events of this name."""
    wanted = EventFilter(event=EventNameFilter(name=[name]))
    with get_client(sync_client=True) as client:
        page = client.read_events(wanted, limit=50)
    mine = f"prefect.flow-run.{run.id}"
    return [event for event in page.events if mine in [one.id for one in event.related]]


def test_answer_given_in_prefect_reaches_the_agent_once_and_without_a_process(
    start: Start, tally: Tally
) -> None:
    run = asking(start, "case", case("a"))
    entry = entry_of(one_pass(), run.id)
    assert entry is not None
    assert (entry.action, entry.reason) == ("wait", "1 question for a person")
    form = Asked(run)
    assert form.required == [form.name_field]
    assert "`case` asks: `Question 0 of a?`" in form.page
    form.answer(q1_answer="yes")
    result = run.ends()
    assert result["values"][0]["answers"] == ["yes"]
    assert result["answers"] == [["Question 0 of a?", "yes", "Ada"]]
    assert tally.executed == {"begin a": 1, "end a": 1}
    assert tally.made == 2
    tally.nothing_left()
    (row,) = table_of(run)
    assert (row["agent"], row["decision"], row["answered by"]) == ("case", "answered", "Ada")
    requested, answered = (until(partial(events, run, name)) for name in (REQUESTED, ANSWERED))
    assert requested[0].resource["langgraph.assistant"] == "case"
    assert answered[0].resource["langgraph.approval.decision"] == "answered"
    assert answered[0].payload["answered_by"] == "Ada"


@pytest.mark.parametrize("graph", ["batched", pytest.param("per_call", marks=NEEDS_SCHEMA)])
def test_every_decision_of_langchains_middleware(start: Start, tally: Tally, graph: str) -> None:
    run = asking(start, graph, refunds("o1", 1, 2, 3, 4))
    form = Asked(run)
    assert form.fields["q1_decision"]["enum"] == ["approve", "edit", "reject", "respond", "leave open"]
    assert json.loads(form.fields["q2_arguments"]["default"]) == {"order": "o1", "amount": 2}
    decisions = {"q1_decision": "approve", "q2_decision": "edit", "q3_decision": "reject"}
    edited = {"q2_arguments": json.dumps({"order": "o1", "amount": 7}), "q3_message": "too much"}
    form.answer(**decisions, **edited, q4_decision="respond", q4_message="paid in cash")
    result = run.ends()
    said = result["values"][0]["messages"][-1]["content"]
    assert result["statuses"] == ["success"]
    assert tally.executed == {"refund o1 1": 1, "refund o1 7": 1}
    assert "too much" in said
    assert "paid in cash" in said
    assert [reply["type"] for _, reply, _ in result["answers"]] == [
        "approve",
        "edit",
        "reject",
        "respond",
    ]


def test_many_runs_of_which_some_ask_come_five_to_a_form(start: Start, tally: Tally) -> None:
    quiet = [{"tag": f"quiet-{number}"} for number in range(43)]
    run = asking(start, "case", *quiet, *(case(f"asks-{number}") for number in range(7)))
    first = Asked(run)
    assert len(first.fields) == 5 + 1
    first.answer(**{f"q{number}_answer": f"{number}" for number in range(1, 6)})
    run.suspends()
    second = Asked(run)
    assert len(second.fields) == 2 + 1
    second.answer(q1_answer='"six"', q2_answer="seven")
    result = run.ends()
    assert [values["answers"] for values in result["values"][43:]] == [
        [1],
        [2],
        [3],
        [4],
        [5],
        ["six"],
        ["seven"],
    ]
    assert tally.made == 50 + 7
    tally.nothing_left()


def test_three_parallel_questions_are_answered_in_one_resume_and_two_in_a_row_in_two(
    start: Start, tally: Tally
) -> None:
    run = asking(start, "case", case("a", asks=3, in_turn=2))
    form = Asked(run)
    form.answer(q1_answer="x", q2_answer="leave", q3_answer="")  # the third is left for later
    run.suspends()
    assert tally.made == 1
    Asked(run).answer(q1_answer="z")
    run.suspends()
    assert tally.made == 2
    Asked(run).answer(q1_answer="first")
    run.suspends()
    Asked(run).answer(q1_answer="second")
    result = run.ends()
    assert sorted(map(str, result["values"][0]["answers"])) == ["first", "leave", "second", "x", "z"]
    assert len(result["answers"]) == 5
    assert tally.made == 4
    tally.nothing_left()


@NEEDS_SCHEMA
def test_wrong_and_empty_answers_are_asked_again_with_the_reason(start: Start, tally: Tally) -> None:
    run = asking(start, "case", case("a", schema=True))
    form = Asked(run)
    status, _ = form.submit(q1_f1="yes", q1_f2="7")
    assert status is SetStateStatus.REJECT  # nobody has said who it is
    form.answer(q1_f1="yes", q1_f2="seven")
    run.suspends()
    again = Asked(run)
    assert "An earlier answer did not do" in again.page
    assert "'amount' is a number" in again.page
    again.answer(q1_f1="yes", q1_f2="700")
    run.suspends()
    third = Asked(run)
    assert "maximum" in third.page
    third.answer(q1_f1="leave open")
    run.suspends()
    assert tally.made == 1
    Asked(run).answer(q1_f1="no", q1_f2="7", q1_f3="later")
    assert run.ends()["values"][0]["answers"] == [{"ok": False, "amount": 7, "why": "later"}]
    assert tally.made == 2


@NEEDS_SCHEMA
def test_arguments_that_a_tool_does_not_take_are_asked_for_again_and_named(
    start: Start, tally: Tally
) -> None:
    run = asking(start, "per_call", refunds("o1", 5))
    Asked(run).answer(q1_decision="edit", q1_arguments=json.dumps({"order": "o1"}))
    run.suspends()
    form = Asked(run)
    assert "An earlier answer did not do" in form.page
    assert "edited_action.args lacks 'amount'" in form.page
    form.answer(q1_decision="approve")
    assert run.ends()["statuses"] == ["success"]
    assert tally.executed == {"refund o1 5": 1}


@NEEDS_SCHEMA
def test_what_the_graph_refuses_is_asked_again_with_its_reason(start: Start, tally: Tally) -> None:
    """What no JSON Schema can say: only the graph knows it."""
    run = asking(start, "case", case("a", schema=True))
    Asked(run).answer(q1_f1="yes", q1_f2="7", q1_f3="because")
    run.suspends()
    form = Asked(run)
    assert "An earlier answer did not do" in form.page
    assert "because is no reason" in form.page
    form.answer(q1_f1="no", q1_f2="8", q1_f3="late")
    result = run.ends()
    assert result["values"][0]["answers"] == [{"ok": False, "amount": 8, "why": "late"}]
    assert tally.executed == {"begin a": 1, "end a": 1}
    assert tally.made == 4  # the first, the refused one, the one that asked again, and the last


@NEEDS_SCHEMA
def test_what_the_graph_refuses_of_several_answers_is_asked_again_and_twice(
    start: Start, tally: Tally
) -> None:
    run = asking(start, "case", case("a", asks=2, schema=True))
    refused = {"q1_f1": "yes", "q1_f2": "1", "q1_f3": "because"}
    other = {"q2_f1": "yes", "q2_f2": "2"}
    Asked(run).answer(**refused, **other)
    for again in (refused, {"q1_f1": "yes", "q1_f2": "3"}):
        run.suspends()
        form = Asked(run)
        assert "because is no reason" in form.page
        # Of what ran beside it LangGraph keeps what had ended by then.
        form.answer(**again, **(other if "q2_f1" in form.fields else {}))
    answers = run.ends()["values"][0]["answers"]
    assert sorted(answer["amount"] for answer in answers) == [2, 3]
    assert tally.executed == {"begin a": 1, "end a": 1}
    tally.nothing_left()


@NEEDS_SCHEMA
def test_default_reply_that_the_schema_refuses_in_the_graph_is_the_runs_error(
    start: Start, tally: Tally
) -> None:
    default = {"ok": True, "amount": 5, "why": "because"}
    options = {"max_wait_seconds": 20, "default_reply": default, "on_failure": "collect"}
    given = {"wait": "process", **options}
    run = start(flows.asks, graph="case", inputs=[case("a", schema=True)], options=given)
    result = run.ends()
    assert (result["statuses"], result["errors"]) == (["error"], ["ValidationError"])
    assert tally.made == 2


def test_failure_after_an_answer_asks_nobody_again(start: Start, tally: Tally) -> None:
    """LangGraph has kept the answer: another one would answer what comes next, unseen."""
    asked = [case("a", asks=0, in_turn=1, fail=True), case("b")]
    run = asking(start, "case", *asked, on_failure="collect")
    Asked(run).answer(q1_answer="yes", q2_answer="yes")
    result = run.ends()
    assert (result["statuses"], result["errors"]) == (["error", "success"], ["RuntimeError", None])
    assert len(result["answers"]) == 2
    assert tally.made == 4


@pytest.mark.parametrize("graph", ["batched", "per_call"])
def test_tool_that_fails_after_it_was_approved_asks_nobody_again(
    start: Start, tally: Tally, graph: str
) -> None:
    run = asking(start, graph, refunds("unknown", 5), on_failure="collect")
    Asked(run).answer(q1_decision="approve")
    result = run.ends()
    assert (result["statuses"], result["errors"]) == (["error"], ["LookupError"])
    assert tally.executed == {"refund unknown 5": 1}
    assert tally.made == 2


def test_form_that_is_open_still_does_not_answer_the_next(start: Start, tally: Tally) -> None:
    run = asking(start, "case", case("a", asks=0, in_turn=2))
    first, somebody_else = Asked(run), Asked(run)
    first.answer(q1_answer="first")
    run.suspends()
    second = Asked(run)
    status, _ = somebody_else.submit(q1_answer="first", **somebody_else.by("Bob"))
    assert status is SetStateStatus.REJECT
    assert run.state == "Suspended"
    second.answer(q1_answer="second")
    assert run.ends()["values"][0]["answers"] == ["first", "second"]
    assert tally.made == 3


def test_two_calls_ask_one_after_the_other(start: Start, tally: Tally) -> None:
    run = start(flows.asks_side_by_side, graph="case", inputs=[case("a"), case("b")])
    with run.executes() as running:
        first = Asked(run)
        first.answer(q1_answer="yes")
        second = until(lambda: (found := Asked(run)).name_field != first.name_field and found)
        second.answer(q1_answer="yes")
        assert running.result() == [["yes"], ["yes"]]
    assert tally.made == 4


def test_two_people_in_the_same_second_answer_once(start: Start, tally: Tally) -> None:
    run = asking(start, "case", case("a"))
    form = Asked(run)
    with ThreadPoolExecutor(2) as pool:
        said = [pool.submit(form.submit, q1_answer=word, **form.by(word)) for word in ("yes", "no")]
        statuses = [one.result()[0] for one in said]
    assert statuses.count(SetStateStatus.ACCEPT) == 1
    answers = run.ends()["answers"]
    assert len(answers) == 1
    assert answers[0][1] == answers[0][2]
    assert tally.made == 2


def test_clicks_and_webhooks_without_an_answer_do_nothing(start: Start, tally: Tally) -> None:
    run = asking(start, "case", case("a"))
    form = Asked(run)
    for _ in range(20):
        assert form.submit()[0] is SetStateStatus.REJECT
    assert run.state == "Suspended"
    form.answer(q1_answer="yes")
    assert run.ends()["statuses"] == ["success"]
    assert tally.made == 2


@pytest.mark.parametrize("when", ["before the send", "after the send"])
def test_process_killed_around_the_send_sends_the_answer_once(
    start: Start, tally: Tally, when: str
) -> None:
    run = asking(start, "case", case("a"))
    Asked(run).answer(q1_answer="yes")
    hold = Hold(answer=when == "after the send")
    tally.proxy.on("POST", RUN, hold)
    with run.executes() as running:
        assert hold.reached.wait(PATIENCE), running.log()
        running.kill()
    hold.release()
    with run.executes() as running:
        result = running.result()
    assert result["values"][0]["answers"] == ["yes"]
    assert tally.executed == {"begin a": 1, "end a": 1}
    tally.nothing_left()


def test_form_whose_process_died_before_it_was_shown_is_shown_by_the_resumer(
    start: Start, tally: Tally, prefect_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(flows.asks, graph="case", inputs=[case("a")])
    hold = Hold()
    prefect_proxy.on("POST", "/input$", OnceOf(b"-schema", hold), times=None)
    settings = {setting.name: value for setting, value in impatient_settings(prefect_proxy).items()}
    with attempt(run.flow, run.id, run.folder, settings) as running:
        assert hold.reached.wait(PATIENCE), running.log()
        running.kill()
    assert run.state == "Suspended"
    monkeypatch.setattr("prefect_langgraph.approvals.asking.SHOWN_SECONDS", 0.0)
    one_pass()
    hold.release()
    Asked(run).answer(q1_answer="yes")
    assert run.ends()["statuses"] == ["success"]
    assert tally.made == 2


def test_answered_elsewhere_meanwhile_is_not_sent_and_wakes_the_flow_run(
    start: Start, tally: Tally
) -> None:
    run = asking(start, "case", case("a"))
    (form,) = forms_of(run)
    thread_id = form.questions[0].thread_id
    made = tally.client.runs.create(thread_id, "case", command={"resume": "from Studio"})
    until(lambda: tally.client.runs.get(thread_id, made["run_id"])["status"] == "success")
    entry = entry_of(one_pass(), run.id)
    assert entry is not None
    assert (entry.action, entry.reason) == ("resume", "what it asks was answered elsewhere")
    result = run.ends()
    assert result["values"][0]["answers"] == ["from Studio"]
    assert result["answers"] == []
    tally.nothing_left()


def test_answer_that_comes_after_one_from_elsewhere_is_not_sent(start: Start, tally: Tally) -> None:
    run = asking(start, "case", case("a"))
    (form,) = forms_of(run)
    thread_id = form.questions[0].thread_id
    made = tally.client.runs.create(thread_id, "case", command={"resume": "from Studio"})
    until(lambda: tally.client.runs.get(thread_id, made["run_id"])["status"] == "success")
    Asked(run).answer(q1_answer="yes")
    result = run.ends()
    assert result["values"][0]["answers"] == ["from Studio"]
    assert result["answers"] == []
    assert tally.executed == {"begin a": 1, "end a": 1}


def test_default_reply_answers_at_the_deadline_and_the_first_wins(start: Start, tally: Tally) -> None:
    run = asking(start, "case", case("a"), max_wait_seconds=8, default_reply="nobody came")
    form = Asked(run)
    until(lambda: (entry := entry_of(one_pass(), run.id)) and entry.action == "resume")
    status, _ = form.submit(q1_answer="yes", **form.by("Ada"))  # a person is too late
    assert status is SetStateStatus.ABORT
    result = run.ends()
    assert result["values"][0]["answers"] == ["nobody came"]
    assert result["answers"] == [["Question 0 of a?", "nobody came", "default_reply"]]
    assert tally.made == 2


@NEEDS_SCHEMA
def test_default_reply_answers_only_what_it_fits(start: Start, tally: Tally) -> None:
    asked = [case("a"), case("b", schema=True)]
    options = {"max_wait_seconds": 8, "default_reply": "nobody came", "on_failure": "collect"}
    run = asking(start, "case", *asked, **options)
    until(lambda: (entry := entry_of(one_pass(), run.id)) and entry.action == "resume")
    result = run.ends()
    assert result["statuses"] == ["success", "interrupted"]
    assert [answer[1] for answer in result["answers"]] == ["nobody came"]
    assert tally.made == 3


def test_deadline_without_a_default_fails_and_leaves_the_question(start: Start, tally: Tally) -> None:
    run = asking(start, "case", case("a"), max_wait_seconds=8)
    until(lambda: (entry := entry_of(one_pass(), run.id)) and entry.action == "resume")
    with run.executes() as running:
        kind, said = running.outcome()
    assert kind == "error"
    assert "JoinTimeoutError: Nobody answered 1 run of 1" in said
    assert run.state == "TimedOut"
    assert tally.made == 1
    assert [row["decision"] for row in table_of(run)] == ["left open"]


STEPS = {
    "when it looks for answers": ("POST", "/input/filter$", b""),
    "when it keeps the form": ("POST", "/input$", b"langgraph-form-"),
    "when it suspends": ("POST", "/set_state$", b'run_input_keyset":{'),
    "when it shows the form": ("POST", "/input$", b"-schema"),
}


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        ("when it looks for answers", Answer(503)),
        ("when it keeps the form", LoseResponse()),
        ("when it suspends", LoseResponse()),
        ("when it shows the form", LoseResponse()),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_failure_of_prefect_while_it_asks_is_waited_out(
    start: Start,
    tally: Tally,
    prefect_proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    fault: Fault,
) -> None:
    monkeypatch.setattr("prefect_langgraph.approvals.asking.SHOWN_SECONDS", 0.0)
    run = start(flows.asks, graph="case", inputs=[case("a")])
    method, path, word = STEPS[step]
    once = OnceOf(word, fault)
    prefect_proxy.on(method, path, once, times=None)
    settings = {setting.name: value for setting, value in impatient_settings(prefect_proxy).items()}
    with attempt(run.flow, run.id, run.folder, settings) as running:
        kind, said = running.outcome()
    assert (kind, said.partition(":")[0]) == ("error", "Pause"), said
    assert once.shown
    assert run.state == "Suspended"
    one_pass()  # which shows the form, where nobody else did
    Asked(run).answer(q1_answer="yes")
    assert run.ends()["values"][0]["answers"] == ["yes"]
    assert tally.executed == {"begin a": 1, "end a": 1}


def test_person_and_deadline_in_the_same_second_answer_once(start: Start, tally: Tally) -> None:
    run = asking(start, "case", case("a"), max_wait_seconds=8, default_reply="nobody came")
    (form,) = forms_of(run)
    shown = Asked(run)
    assert form.deadline is not None
    until(lambda: datetime.now(UTC) > form.deadline)
    with ThreadPoolExecutor(2) as pool:
        person = pool.submit(shown.submit, q1_answer="yes", **shown.by("Ada"))
        resumer = pool.submit(one_pass)
        status, resumed = person.result()[0], entry_of(resumer.result(), run.id)
    by_resumer = resumed is not None and resumed.action == "resume"
    assert (status is SetStateStatus.ACCEPT) != by_resumer
    answers = run.ends()["answers"]
    assert [answer[1] for answer in answers] == ["nobody came" if by_resumer else "yes"]
    assert tally.made == 2


def test_run_that_is_given_twice_is_asked_about_once(start: Start, tally: Tally) -> None:
    run = start(flows.asks_twice, graph="case", inputs=[case("a")])
    run.suspends()
    form = Asked(run)
    assert list(form.fields) == ["q1_answer", form.name_field]
    form.answer(q1_answer="yes")
    assert [values["answers"] for values in run.ends()["values"]] == [["yes"], ["yes"]]
    assert tally.made == 2


def test_cancel_at_the_deadline_gives_the_thread_up(start: Start, tally: Tally) -> None:
    run = asking(start, "case", case("a"), max_wait_seconds=8, on_timeout="cancel")
    until(lambda: (entry := entry_of(one_pass(), run.id)) and entry.action == "resume")
    with run.executes() as running:
        assert "They are given up" in running.outcome()[1]
    tally.nothing_left()


def test_what_an_agent_says_is_never_rendered(start: Start, tally: Tally) -> None:
    say = "```\n</code><img src=x onerror=alert(1)>\n````\n![](http://evil/p.png)" + "y" * 1_000
    run = asking(start, "case", case("a", say=say, times=1000))
    form = Asked(run)
    assert len(form.page) < 6000
    assert "`````text\n```\n</code><img" in form.page
    assert "[and more: see the thread]" in form.page
    form.answer(q1_answer='{"__prefect_kind": "json", "value": "{\\"a\\": 1}"}')
    reply = run.ends()["values"][0]["answers"][0]
    assert reply == {"__prefect_kind": "json", "value": '{"a": 1}'}


def test_arguments_that_are_not_to_be_shown_are_nowhere_in_prefect(start: Start, tally: Tally) -> None:
    run = asking(start, "batched", refunds("secret-order", 5), show_arguments=False)
    form = Asked(run)
    assert "`refund`" in form.page
    assert form.fields["q1_decision"]["enum"] == ["approve", "reject", "respond", "leave open"]
    with get_client(sync_client=True) as client:
        for prefix in ("langgraph", "suspended"):
            kept = client.filter_flow_run_input(run.id, prefix, 100, set())
            assert kept
            assert not any("secret-order" in row.value for row in kept)
    form.answer(q1_decision="approve")
    assert run.ends()["statuses"] == ["success"]
    assert tally.executed == {"refund secret-order 5": 1}


def test_cancelled_while_it_asks_leaves_the_thread_as_the_sweep_leaves_it(
    start: Start, tally: Tally
) -> None:
    run = asking(start, "case", case("a"))
    (form,) = forms_of(run)
    thread_id = form.questions[0].thread_id
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Cancelled(), force=True)
    one_pass(tally.block)
    sweep(tally.block, grace_seconds=0)
    assert tally.client.threads.get(thread_id)["status"] == "interrupted"
    tally.client.threads.delete(thread_id)


def test_fan_out_asks_with_nothing_else_to_set(start: Start, tally: Tally) -> None:
    inputs = [{"tag": "quiet"}, case("a"), case("b")]
    run = start(fan_out, assistant_id="case", inputs=inputs, interrupts="ask", stay_seconds=60)
    run.suspends()
    Asked(run).answer(q1_answer="yes", q2_answer="no")
    result = run.ends()
    assert [values["answers"] for values in result.values] == [[], ["yes"], ["no"]]
    assert [answer.answered_by for answer in result.answers] == ["Ada", "Ada"]
    assert tally.made == 3 + 2
    tally.nothing_left()


def test_run_assistant_asks_with_nothing_else_to_set(start: Start, tally: Tally) -> None:
    block = LangGraphAssistant(credentials=LangGraphCredentials.load(tally.block), assistant_id="case")
    block.save(tally.block, overwrite=True)
    run = start(run_assistant, input=case("a"), interrupts="ask", stay_seconds=60)
    run.suspends()
    Asked(run).answer(q1_answer="yes")
    assert run.ends()["answers"] == ["yes"]
    assert tally.made == 2
    tally.nothing_left()


def test_agent_inbox_and_breakpoints_are_answered_in_their_own_words(
    start: Start, tally: Tally
) -> None:
    run = asking(start, "inbox", {})
    form = Asked(run)
    assert form.fields["q1_decision"]["enum"] == ["approve", "edit", "reject", "respond", "leave open"]
    form.answer(q1_decision="edit", q1_arguments='{"to": "b@example.org"}')
    said = {"action": "send_mail", "args": {"to": "b@example.org"}}
    assert run.ends()["values"][0]["said"] == {"type": "edit", "args": said}
    stopped = asking(start, "stops", {"tag": "b"})
    form = Asked(stopped)
    assert form.fields["q1_decision"]["enum"] == ["approve", "leave open"]
    form.answer(q1_decision="approve")
    assert stopped.ends()["statuses"] == ["success"]
    assert tally.executed == {"begin b": 1, "end b": 1}


def test_answered_in_a_terminal(start: Start, tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    run = asking(start, "batched", refunds("o1", 1, 2))

    def call(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["approvals", *words])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    assert str(run.id) in call("list")[1]
    (listed,) = json.loads(call("list", "--json")[1])
    assert listed["questions"][0]["tool"] == "refund"
    form = listed["id"]
    for name in (form, str(run.id), run.id.hex.upper(), run.row.name):
        said = call("show", name)[1]
        assert "q2_arguments" in said
        assert f"approvals answer {form} --by" in said
    status, said = call("answer", str(run.id), "--by", "Ada", "--decision", "approve")
    assert (status, f"answer that: {form}" in said) == (2, True)
    for values, reason in (
        (["--set", "q9_decision=approve"], "q1_decision"),
        (["--set", "q1_decision=respond"], "needs a message"),
        (["--decision", "aprove"], "no question offers it"),
        ([], "nothing of it answers a question"),
        (["--set", "q1_message=no"], "without a decision"),
        (["--set", "answered_by=Eve"], "give FIELD=VALUE"),
    ):
        status, said = call("answer", form, "--by", "Ada", *values)
        assert (status, reason in said) == (2, True), said
    assert (call("answer", form, "--by", " ", "--decision", "approve")[0], run.state) == (
        2,
        "Suspended",
    )
    answer = ("answer", form, "--by", "Ada", "--decision", "approve", "--set", "q2_decision=reject")
    status, said = call(*answer)
    assert (status, "Answered" in said) == (0, True)
    assert run.ends()["statuses"] == ["success"]
    assert tally.executed == {"refund o1 1": 1}
    assert call("list")[1].startswith("0 waiting")
    assert call("show", str(run.id))[0] == 2
    assert call(*answer)[0] == 2


def test_name_that_two_flow_runs_have_names_no_form(
    start: Start, tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [asking(start, "case", case(tag)) for tag in ("a", "b")]
    with get_client(sync_client=True) as client:
        for run in runs:
            client.update_flow_run(run.id, name="twins")
    with pytest.raises(SystemExit):
        main(["approvals", "show", "twins"])
    said = capsys.readouterr().err
    forms = [form.id for run in runs for form in forms_of(run)]
    assert "2 flow runs have the name twins" in said
    assert all(form in said for form in forms)
    for run in runs:
        Asked(run).answer(q1_answer="yes")
        assert run.ends()["statuses"] == ["success"]


def test_process_killed_after_it_has_suspended_keeps_the_form(start: Start, tally: Tally) -> None:
    """A worker that sees it die calls the flow run crashed, before it is answered or after."""
    for answered in (False, True):
        run = asking(start, "case", case("a"))
        form = Asked(run)
        if answered:
            form.answer(q1_answer="yes")
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Crashed(), force=True)
        entry = entry_of(one_pass(tally.block), run.id)
        assert entry is not None
        assert entry.reason == ("it was answered" if answered else "1 question for a person")
        if not answered:
            Asked(run).answer(q1_answer="yes")
        assert run.ends()["values"][0]["answers"] == ["yes"]
    assert tally.made == 4
    tally.nothing_left()


def test_what_asks_for_nobody_is_refused_before_anything_is_sent(tally: Tally) -> None:
    handles = start_runs("case", [{"tag": "a"}], credentials=tally.block)
    with pytest.raises(InvalidRequestError, match="is for a flow"):
        ask_interrupts(handles)

    @flow
    def asks(**options: Any) -> None:
        ask_interrupts(handles, **options)

    wrong: list[tuple[str, dict[str, Any]]] = [
        ("on_failure", {"on_failure": "fail_fast"}),
        ("on_timeout", {"on_timeout": "never"}),
        ("wait", {"wait": "here"}),
        ("stay_seconds", {"stay_seconds": -1}),
        ("give both", {"default_reply": "no"}),
        ("default_reply", {"default_reply": object(), "max_wait_seconds": 9}),
    ]
    for said, options in wrong:
        with pytest.raises(InvalidRequestError, match=said):
            asks(**options)
    join_runs(handles)


def test_in_a_subflow_the_process_waits_for_the_form(start: Start, tally: Tally) -> None:
    run = start(flows.asks_in_subflow, graph="case", inputs=[case("a")])
    with run.executes() as running:
        running.wait_for_log("The flow run is paused for a form")
        child = until(lambda: paused_child(run))
        form = Asked(child)
        form.answer(q1_answer="yes")
        assert running.result()["values"][0]["answers"] == ["yes"]
    assert tally.made == 2
    tally.nothing_left()


def test_subflow_that_is_cancelled_while_it_asks_ends_and_so_does_its_parent(
    start: Start, tally: Tally
) -> None:
    run = start(flows.asks_in_subflow, graph="case", inputs=[case("a")])
    with run.executes() as running:
        running.wait_for_log("The flow run is paused for a form")
        child = until(lambda: paused_child(run))
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(child.id, Cancelled(), force=True)
        kind, said = running.outcome()
    assert kind == "error", said
    assert "Could not look whether the form was answered" not in running.log()
    assert child.row.state_name in ("Cancelled", "Failed")  # Prefect itself makes the latter of it
    assert tally.made == 1


def test_without_a_finalizer_nothing_is_left_and_a_second_call_gets_the_same(
    start: Start, tally: Tally
) -> None:
    run = start(flows.asks_twice_without_finalizer, graph="case", inputs=[case("a"), case("b")])
    with run.executes() as running:
        Asked(run).answer(q1_answer="yes", q2_answer="no")
        first, second, answered, again = running.result()
    assert [values["answers"] for values in first] == [["yes"], ["no"]]
    assert second == first
    assert (answered, again) == (2, 0)
    assert tally.made == 4
    tally.nothing_left()


def paused_child(run: Suspended) -> Any:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

    wanted = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id]))
    with get_client(sync_client=True) as client:
        rows = client.read_flow_runs(flow_run_filter=wanted)
    if not rows:
        return None

    class Child:
        id = rows[0].id

        @property
        def row(self) -> FlowRun:
            with get_client(sync_client=True) as client:
                return client.read_flow_run(self.id)

    return Child()


def test_retry_goes_on_from_what_failed_and_asks_nobody_again(start: Start, tally: Tally) -> None:
    inputs = [case("good"), case("bad", fail=True)]
    run = start(flows.asks_with_retry, graph="case", inputs=inputs)
    run.suspends()
    Asked(run).answer(q1_answer="yes", q2_answer="no")
    result = run.ends()  # in its second attempt
    assert [values["answers"] for values in result["values"]] == [["yes"], ["no"]]
    assert tally.executed == {"begin good": 1, "end good": 1, "begin bad": 1, "end bad": 2}
    assert tally.made == 2 + 3
    tally.nothing_left()


@pytest.mark.parametrize(
    ("fail", "status", "error", "times"),
    [(True, "error", "ValueError", 1), (False, "interrupted", "NothingDone", 3)],
)
def test_default_reply_that_the_graph_refuses_is_sent_no_more(
    start: Start, tally: Tally, fail: bool, status: str, error: str | None, times: int
) -> None:
    options = {
        "max_wait_seconds": 25,
        "default_reply": "no",
        "on_failure": "collect",
        "wait": "process",
    }
    inputs = [case("a", fail=fail)]
    run = start(flows.asks, graph="stubborn", inputs=inputs, options=options)
    result = run.ends()
    assert (result["statuses"], result["errors"]) == ([status], [error])
    assert [answer[1] for answer in result["answers"]] == ["no"] * times
    assert tally.made == 1 + times


def test_thread_that_cannot_be_read_after_an_answer_ends_its_own_run_only(
    start: Start, tally: Tally
) -> None:
    run = asking(start, "case", case("a"), case("b"), on_failure="collect")
    threads = [question.thread_id for question in forms_of(run)[0].questions]
    Asked(run).answer(q1_answer="no", q2_answer="yes")
    tally.proxy.on("GET", f"/threads/{threads[0]}/runs$", Answer(400), times=None, after=1)
    result = run.ends()
    assert result["statuses"] == ["interrupted", "success"]
    assert result["errors"] == ["InvalidRequestError", None]
    assert tally.made == 3


def test_form_is_shown_when_another_was_answered_just_after_prefect_refused_it(
    start: Start, tally: Tally, prefect_proxy: Proxy
) -> None:
    run = start(flows.asks, graph="case", inputs=[case("a")], options={"wait": "process"})
    details = {"type": "reject_details", "reason": "Cannot pause flows that are not running."}
    refused = Answer(201, {"state": None, "status": "REJECT", "details": details})
    once = OnceOf(b'run_input_keyset":{', refused)
    prefect_proxy.on("POST", "/set_state$", once, times=None)
    settings = {setting.name: value for setting, value in impatient_settings(prefect_proxy).items()}
    with attempt(run.flow, run.id, run.folder, settings) as running:
        Asked(run).answer(q1_answer="yes")
        assert running.result()["values"][0]["answers"] == ["yes"]
    assert once.shown


def test_answer_that_the_server_refuses_ends_its_own_run_only(start: Start, tally: Tally) -> None:
    run = asking(start, "case", case("a"), case("b"), on_failure="collect")
    threads = [question.thread_id for question in forms_of(run)[0].questions]
    tally.proxy.on("POST", f"/threads/{threads[0]}/runs$", Answer(422, {"detail": "not this"}))
    Asked(run).answer(q1_answer="no", q2_answer="yes")
    result = run.ends()
    assert result["statuses"] == ["interrupted", "success"]
    assert result["errors"] == ["InvalidRequestError", None]


def test_run_that_goes_on_has_the_options_of_the_one_that_asked(start: Start, tally: Tally) -> None:
    thread_id = tally.client.threads.create()["thread_id"]
    options = {
        "config": {"recursion_limit": 77, "tags": ["red", "blue"]},
        "metadata": {"team": "refunds"},
        "interrupt_before": ["begin"],
        "durability": "exit",
    }
    run = start(flows.asks_with_options, graph="configured", thread_id=thread_id, options=options)
    with run.executes() as running:
        Asked(run).answer(q1_answer="yes")
        form = until(lambda: (found := Asked(run)).page.count("breakpoint") and found)
        form.answer(q1_decision="approve")
        assert running.result()["answers"] == [77, "blue", "red"]
    for row in tally.client.runs.list(thread_id):
        assert row["kwargs"]["config"]["recursion_limit"] == 77  # type: ignore[typeddict-item]
        assert row["kwargs"]["durability"] == "exit"  # type: ignore[typeddict-item]
        assert row["metadata"]["team"] == "refunds"  # type: ignore[index]
    tally.client.threads.delete(thread_id)


def test_answer_is_found_on_a_thread_that_has_gone_on_for_long(start: Start, tally: Tally) -> None:
    thread_id = tally.client.threads.create()["thread_id"]
    run = start(flows.asks_again_later, graph="case", work=case("a"), thread_id=thread_id)
    with run.executes() as running:
        Asked(run).answer(q1_answer="yes")
        assert running.result() == [1, 1]
        assert "answered elsewhere" not in running.log()
    tally.client.threads.delete(thread_id)


def test_cancelled_while_its_process_waits_is_cancelled(start: Start, tally: Tally) -> None:
    run = start(flows.asks, graph="case", inputs=[case("a")], options={"wait": "process"})
    with run.executes() as running:
        Asked(run)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Cancelling(), force=True)
            assert running.process.is_alive()
            client.set_flow_run_state(run.id, Cancelled(), force=True)
        kind, said = running.outcome()
    assert (kind, said.partition(":")[0]) == ("error", "Abort"), said
    assert run.state == "Cancelled"
    (thread,) = tally.client.threads.search(status="interrupted")
    tally.client.threads.delete(thread["thread_id"])


@pytest.mark.parametrize("wait", ["suspend", "process"])
def test_waiting_for_a_person_uses_up_no_retry(
    start: Start, tally: Tally, tmp_path: Path, wait: str
) -> None:
    path = tmp_path / "attempts"
    given = {"graph": "case", "inputs": [case("a")], "path": str(path), "wait": wait}
    run = start(flows.asks_and_fails, **given)
    if wait == "suspend":
        run.suspends()
        Asked(run).answer(q1_answer="yes")
        with run.executes() as running:
            kind, said = running.outcome()
    else:
        with run.executes() as running:
            Asked(run).answer(q1_answer="yes")
            kind, said = running.outcome()
    assert (kind, said) == ("error", "RuntimeError: after the answer")
    # Of a suspension one execution more is an attempt that went on.
    assert len(path.read_text().splitlines()) == (3 if wait == "suspend" else 2)
    assert run.state == "Failed"
    assert tally.made == 2
