"""What agents ask, what is shown of it, and what is sent for an answer."""

from __future__ import annotations

import socketserver
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from prefect_langgraph import InvalidRequestError, Question, RunHandle, RunResult, RunStatus
from prefect_langgraph.approvals.form import LEAVE, fields_of, form_of, left_open, reply_in, shown
from prefect_langgraph.approvals.page import fenced, page_of
from prefect_langgraph.approvals.questions import questions_of
from prefect_langgraph.approvals.record import AT_DEADLINE, Form, Submitted, answers_of
from prefect_langgraph.approvals.replies import (
    LEFT_OPEN,
    WrongReply,
    decided,
    default_for,
    resume_of,
    typed,
)
from prefect_langgraph.models import AnswerKind

HANDLE = RunHandle(run_id="r", thread_id="t", assistant_id="agent", url="http://localhost:2024")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CALL = {"name": "pay", "args": {"sum": 3}, "description": "Pay it?"}
ALL = ["approve", "edit", "reject", "respond"]
PAYMENT = {
    "type": "object",
    "properties": {
        "ok": {"type": "boolean"},
        "sum": {"type": "integer", "maximum": 9},
        "currency": {"type": "string", "enum": ["EUR", "USD"]},
        "why": {"type": "string"},
    },
    "required": ["ok", "sum"],
}


def asked(*interrupts: dict[str, Any]) -> list[Question]:
    result = RunResult(handle=HANDLE, status=RunStatus.INTERRUPTED, interrupts=interrupts)
    return questions_of(result)


def interrupt(value: Any, **more: Any) -> dict[str, Any]:
    return {"id": "i", "value": value, **more}


def review(*names: str, allowed: Any = ALL) -> dict[str, Any]:
    return interrupt(
        {
            "action_requests": [{**CALL, "name": name} for name in names],
            "review_configs": [{"action_name": name, "allowed_decisions": allowed} for name in names],
        }
    )


def test_batched_requests_are_questions_in_their_order_with_what_is_allowed_for_each() -> None:
    first, second = asked(review("pay", "mail"))
    assert (first.tool, first.index, second.tool, second.index) == ("pay", 0, "mail", 1)
    assert first.arguments == {"sum": 3}
    assert (first.run_id, first.thread_id, first.interrupt_id) == ("r", "t", "i")
    assert asked(review("pay", allowed=["reject", "approve"]))[0].allowed == ("approve", "reject")


def test_decisions_of_a_call_of_its_own_come_from_the_schema_of_its_answer() -> None:
    value = {"type": "tool_approval", "tool_call_id": "c", **CALL}
    branches = [{"properties": {"type": {"const": name}}} for name in ("reject", "approve")]
    assert asked(interrupt(value, response_schema={"oneOf": branches}))[0].allowed == (
        "approve",
        "reject",
    )
    only = {"type": "object", "properties": {"type": {"const": "approve"}}}
    assert asked(interrupt(value, response_schema=only))[0].allowed == ("approve",)
    named = {"$defs": {"A": branches[0]}, "oneOf": [{"$ref": "#/$defs/A"}]}
    assert asked(interrupt(value, response_schema=named))[0].allowed == ("reject",)
    assert asked(interrupt(value))[0].allowed == ("approve", "reject")


@pytest.mark.parametrize(
    "value",
    [
        None,
        "May I?",
        42,
        [],
        {},
        {"action_requests": [], "review_configs": []},
        {"action_requests": "x", "review_configs": {}},
        {"action_requests": [{"name": "pay"}], "review_configs": []},
        {"action_requests": [CALL], "review_configs": [{"action_name": "other"}]},
        {"type": "tool_approval"},
        {"action_request": {"action": "pay"}, "config": "no"},
        [{"action_request": {"action": "pay"}, "config": {}}],
    ],
)
def test_what_is_not_known_is_one_question_that_takes_any_answer(value: Any) -> None:
    (question,) = asked(interrupt(value))
    assert (question.kind, question.allowed) == ("value", ())
    assert typed(question, "yes") == "yes"
    assert typed(question, '{"a": [1]}') == {"a": [1]}
    assert typed(question, "  ") is LEFT_OPEN


def test_static_breakpoint_takes_an_approval_and_no_answer() -> None:
    (question,) = asked()
    assert question.allowed == ("approve",)
    assert resume_of([(question, decided(question, "approve"))]) == {}
    assert [field.choices for field in fields_of(1, question)] == [("approve", LEAVE)]


def test_answers_of_an_interrupt_are_one_in_the_order_in_which_it_asks() -> None:
    first, second = asked(review("pay", "mail"))
    replies = [
        (second, decided(second, "reject", message="no")),
        (first, decided(first, "edit", arguments='{"sum": 4}')),
    ]
    edited = {"type": "edit", "edited_action": {"name": "pay", "args": {"sum": 4}}}
    assert resume_of(replies) == {
        "command": {"resume": {"i": {"decisions": [edited, {"type": "reject", "message": "no"}]}}}
    }


def test_agent_inbox_is_answered_in_its_own_words() -> None:
    request = {
        "action_request": {"action": "mail", "args": {"to": "a"}},
        "config": {"allow_accept": True, "allow_edit": True, "allow_ignore": True},
    }
    (question,) = asked(interrupt(request))
    assert question.allowed == ("approve", "edit", "reject")
    accepted = {"type": "accept", "args": None}
    assert decided(question, "approve") == accepted
    assert resume_of([(question, accepted)]) == {"command": {"resume": {"i": [accepted]}}}
    assert default_for(question, {"type": "reject"}) == {"type": "ignore", "args": None}
    assert default_for(question, {"type": "ignore"}) == {"type": "ignore", "args": None}


def test_flat_schema_is_a_field_for_each_value_and_holds_the_answer() -> None:
    (question,) = asked(interrupt("How much?", response_schema=PAYMENT))
    fields = fields_of(1, question)
    assert [field.of for field in fields] == ["ok", "sum", "currency", "why"]
    assert fields[0].choices == ("yes", "no", LEAVE)
    assert fields[2].choices == ("EUR", "USD", LEAVE)

    def reply(*texts: str) -> Any:
        values = dict(zip([field.name for field in fields], texts, strict=True))
        return reply_in(values, 1, question)

    assert reply("yes", "7", "EUR", "") == {"ok": True, "sum": 7, "currency": "EUR"}
    assert reply(LEAVE, "", LEAVE, "") is LEFT_OPEN
    for texts, why in [
        (("yes", "10", LEAVE, ""), "sum does not fit maximum: 9"),
        (("yes", "7.5", LEAVE, ""), "sum does not fit type"),
        (("yes", "NaN", LEAVE, ""), "'sum' is a number"),
        (("yes", "", LEAVE, "because"), "required"),
    ]:
        with pytest.raises(WrongReply, match=why):
            reply(*texts)


@pytest.mark.parametrize(
    ("decision", "more", "why"),
    [
        ("explode", {}, "not one of"),
        ("respond", {}, "needs a message"),
        ("edit", {"arguments": "{"}, "not JSON"),
        ("edit", {"arguments": "[1]"}, "not a JSON object"),
    ],
)
def test_decision_that_lacks_something_is_refused(decision: str, more: Any, why: str) -> None:
    with pytest.raises(WrongReply, match=why):
        decided(asked(review("pay"))[0], decision, **more)


def test_reason_of_a_refusal_does_not_quote_the_answer() -> None:
    schema = {"type": "object", "properties": {"key": {"type": "string", "maxLength": 3}}}
    (question,) = asked(interrupt("?", response_schema=schema))
    with pytest.raises(WrongReply) as refused:
        reply_in({"q1_f1": "a secret"}, 1, question)
    assert "secret" not in str(refused.value)


def test_schema_that_is_none_leaves_the_decision_to_the_graph() -> None:
    for schema in ({"type": "nonsense"}, {"$ref": "http://nowhere.invalid/schema"}):
        (question,) = asked(interrupt("?", response_schema=schema))
        assert typed(question, "yes") == "yes"


@pytest.mark.parametrize(
    "text", ["plain", "```", "`````\n</code>", "~~~", "a\n````text\n![](http://x)"]
)
def test_nothing_ends_the_fence_around_what_an_agent_says(text: str) -> None:
    first, *inside, last = fenced(text).split("\n")
    assert first.removesuffix("text") == last
    assert set(last) == {"`"}
    assert last not in "\n".join(inside)


def test_page_names_agent_tool_and_arguments_and_says_what_each_decision_does() -> None:
    questions = asked(review("pay"))
    page = page_of(questions, url=HANDLE.url, reasons={0: "too much"})
    for said in ("`agent` asks: `pay`", '"sum": 3', "**approve**", "**respond**", "threadId=t"):
        assert said in page
    assert "too much" in page
    title = asked(interrupt("`a` **b**\n# c"))[0].title
    assert title == "'a' **b** # c"


def test_form_has_flat_fields_no_single_choice_and_one_required_name() -> None:
    questions = [*asked(review("pay", "mail")), *asked(), *asked(interrupt("?"))]
    schema = form_of(questions, "page").model_json_schema()
    assert set(schema["required"]) >= {"answered_by"}
    for place, field in enumerate(schema["properties"].values()):
        assert field["type"] == "string"
        assert field["position"] == place
        assert len(field.get("enum", ["a", "b"])) > 1
    submitted = form_of(questions, "page")(**left_open(questions, "Ada"))
    for number, question in enumerate(questions, start=1):
        assert reply_in(submitted.model_dump(), number, question) is LEFT_OPEN


def test_what_is_hidden_or_too_long_is_not_kept() -> None:
    (question,) = asked(review("pay"))
    hidden = shown(question, show_arguments=False)
    assert (hidden.title, hidden.text, hidden.arguments) == ("pay", "", None)
    assert "edit" not in hidden.allowed
    long = question.model_copy(update={"arguments": {"text": "x" * 50_000}, "text": "y" * 50_000})
    kept = shown(long, show_arguments=True)
    assert kept.arguments is None
    assert len(kept.text) < 50_000
    assert "edit" not in kept.allowed
    assert shown(asked(interrupt("My secret?"))[0], show_arguments=False).title == "A question"


def form(*questions: Question, minute: int = 0, **more: Any) -> Form:
    return Form(
        name=f"langgraph-form-{minute}",
        asked_at=NOW + timedelta(minutes=minute),
        questions=questions,
        totals={"r": len(questions)},
        url=HANDLE.url,
        **more,
    )


def test_first_usable_answer_counts_and_a_run_is_answered_when_all_are() -> None:
    first, second = asked(review("pay", "mail"))
    wrong = {"answered_by": "Ada", "q1_decision": "respond", "q2_decision": "approve"}
    found = answers_of([Submitted(form(first, second), wrong, NOW)])
    assert "needs a message" in str(found.refused)
    assert found.to_run("r") is None
    again = form(first, minute=1).model_copy(update={"totals": {"r": 2}})
    later = Submitted(again, {"answered_by": "Bob", "q1_decision": "reject"}, NOW)
    third = form(first, minute=2).model_copy(update={"totals": {"r": 2}})
    late = Submitted(third, {"answered_by": "Cy", "q1_decision": "approve"}, NOW)
    found = answers_of([late, Submitted(form(first, second), wrong, NOW), later])
    assert [(given.reply["type"], given.answered_by) for _, given in found.to_run("r") or []] == [
        ("approve", "Ada"),
        ("reject", "Bob"),
    ]


def test_default_answers_only_what_it_fits() -> None:
    (question,) = asked(review("pay", allowed=["approve", "edit"]))
    at_deadline = {"answered_by": AT_DEADLINE}
    rejected = form(question, has_default=True, default={"type": "reject"})
    assert not answers_of([Submitted(rejected, at_deadline, NOW)]).given
    approved = form(question, has_default=True, default={"type": "approve"})
    (given,) = answers_of([Submitted(approved, at_deadline, NOW)]).given.values()
    assert (given.reply, given.answered_by) == ({"type": "approve"}, "default_reply")
    assert not answers_of([Submitted(form(question), at_deadline, NOW)]).given


CALL_ALONE = {"type": "tool_approval", **CALL}


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        # No JSON Schemas.
        (CALL_ALONE, {"$defs": [], "properties": []}),
        (CALL_ALONE, {"oneOf": {"a": 1}}),
        (CALL_ALONE, {"properties": {"type": {"enum": 3}}}),
        ("Pay?", {"enum": 3}),
        ("Pay?", {"type": {}}),
        ("Pay?", {"type": "string", "pattern": "("}),
        ("Pay?", {"type": "object", "properties": {"a": {"type": "string", "enum": 3}}}),
        ("Pay?", {"$schema": {}}),
        ("Pay?", {"$schema": ["x"]}),
        # Schemas, of a kind that nobody writes for people.
        (CALL_ALONE, {"oneOf": [True, {"properties": {"type": True}}]}),
        ("Pay?", {"type": "object", "properties": {"a": True}}),
        ("Pay?", {"$ref": "#"}),
        ("Pay?", {"$ref": "#/nowhere"}),
        ("Pay?", {"type": ["string", "null"]}),
    ],
    ids=str,
)
def test_odd_schema_is_asked_about_all_the_same(value: Any, schema: dict[str, Any]) -> None:
    """One agent's schema must not end the call, which asks for others too."""
    (question,) = asked(interrupt(value, response_schema=schema))
    names = [field.name for field in fields_of(1, question)]
    form_of([question], "page")
    decision = question.allowed[0] if question.allowed else ""
    submitted = {name: decision if name == "q1_decision" else "" for name in names}
    with suppress(WrongReply):  # a schema may refuse: that is said in the next form
        assert reply_in(submitted, 1, question) in (LEFT_OPEN, {"type": decision})


def test_decisions_that_are_no_list_are_not_taken_for_a_known_way_of_asking() -> None:
    (question,) = asked(review("pay", allowed=True))
    assert (question.kind, question.allowed) == ("value", ())


def test_no_schema_makes_this_process_ask_somebody_for_something() -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as listener:
        listener.timeout = 0.2
        asked_for: list[object] = []
        listener.process_request = lambda *given: asked_for.append(given)  # type: ignore[method-assign]
        answering = threading.Thread(target=listener.handle_request)
        answering.start()
        schema = {"$ref": f"http://127.0.0.1:{listener.server_address[1]}/schema.json"}
        (question,) = asked(interrupt("Pay?", response_schema=schema))
        assert typed(question, "yes") == "yes"
        answering.join()
    assert not asked_for


@pytest.mark.parametrize(
    ("way", "default"),
    [
        ("decisions", {"type": "edit"}),
        ("decisions", {"type": "edit", "edited_action": {"name": "pay"}}),
        ("decisions", {"type": "edit", "edited_action": "pay"}),
        ("decisions", {"type": "respond"}),
        ("decisions", {"type": "respond", "message": 3}),
        ("inbox", {"type": "edit"}),
        ("inbox", {"type": "edit", "args": {"action": "pay", "args": []}}),
        ("inbox", {"type": "response", "args": None}),
    ],
    ids=str,
)
def test_default_reply_that_lacks_something_fits_no_question(
    way: AnswerKind, default: dict[str, Any]
) -> None:
    question = Question(title="Pay?", tool="pay", allowed=tuple(ALL), kind=way)
    with pytest.raises(WrongReply, match="without"):
        default_for(question, default)


def test_default_reply_that_is_whole_is_sent_as_it_is() -> None:
    question = Question(title="Pay?", tool="pay", allowed=tuple(ALL), kind="decisions")
    edit = {"type": "edit", "edited_action": {"name": "pay", "args": {"sum": 2}}}
    assert default_for(question, edit) == edit
    assert default_for(question, {"type": "respond", "message": "m"}) == {
        "type": "respond",
        "message": "m",
    }


@pytest.mark.parametrize(
    "returned", [None, "Pay?", Question(title="Pay?"), [None], [{"title": "Pay?"}]]
)
def test_reader_that_returns_no_questions_is_refused_by_name(returned: Any) -> None:
    result = RunResult(handle=HANDLE, status=RunStatus.INTERRUPTED, interrupts=())
    with pytest.raises(InvalidRequestError, match="questions= returned"):
        questions_of(result, lambda _: returned)


def test_title_of_a_readers_question_draws_nothing() -> None:
    question = Question(title="x`\n\n![](http://elsewhere/x.png) `", allowed=("yes",), kind="decision")
    (head, *rest) = page_of([question], url="http://localhost:2024").splitlines()
    assert head == "### 1. `an agent` asks: `x' ![](http://elsewhere/x.png) '`"
    assert "- **yes**" in rest
    assert "\n" not in fields_of(1, question)[0].title


def read_as(*found: Question, ids: tuple[str, ...]) -> list[Question]:
    interrupts = [{"id": name, "value": "Pay?"} for name in ids]
    result = RunResult(handle=HANDLE, status=RunStatus.INTERRUPTED, interrupts=interrupts)
    return questions_of(result, lambda _: found)


def of(name: str | None, index: int = 0, kind: AnswerKind = "value") -> Question:
    return Question(title="Pay?", interrupt_id=name, index=index, kind=kind)


def test_question_of_a_reader_that_no_answer_would_reach_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="interrupt 'c'"):
        read_as(of("c"), ids=("a",))
    with pytest.raises(InvalidRequestError, match="interrupt None"):
        read_as(of(None), ids=("a", "b"))
    for second in (of("a"), of("a", 1)):
        with pytest.raises(InvalidRequestError, match="two questions"):
            read_as(of("a"), second, ids=("a",))


def test_questions_of_a_reader_that_answers_reach_are_taken() -> None:
    assert len(read_as(of(None), ids=("a",))) == 1
    assert len(read_as(of(None), ids=())) == 1
    assert len(read_as(of("a"), of("b"), ids=("a", "b"))) == 2
    assert len(read_as(of("a", 0, "decisions"), of("a", 1, "decisions"), ids=("a",))) == 2
    assert not read_as(ids=("a",))


def test_schema_and_choices_of_a_megabyte_are_not_kept() -> None:
    names = [f"choice {number}" for number in range(100_000)]
    question = Question(title="Which?", allowed=tuple(names), response_schema={"enum": names})
    for show_arguments in (True, False):
        kept = shown(question, show_arguments=show_arguments)
        assert (kept.allowed, kept.response_schema) == ((), None)
        assert [field.name for field in fields_of(1, kept)] == ["q1_answer"]
