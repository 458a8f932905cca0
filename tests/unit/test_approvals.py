"""What agents ask, what is shown of it, and what is sent for an answer."""

from __future__ import annotations

import socketserver
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from prefect_langgraph import (
    InvalidRequestError,
    Question,
    RunHandle,
    RunResult,
    RunStatus,
)
from prefect_langgraph.approvals.form import (
    ANSWER,
    LEAVE,
    fields_of,
    form_of,
    left_open,
    reply_in,
    shown,
)
from prefect_langgraph.approvals.page import abbreviated, fenced, page_of
from prefect_langgraph.approvals.questions import questions_of
from prefect_langgraph.approvals.record import Form, Submitted, answers_of, new_form_name
from prefect_langgraph.approvals.replies import (
    LEFT_OPEN,
    WrongReply,
    checked,
    decided,
    default_for,
    refuses_answer,
    resume_of,
    typed,
)
from prefect_langgraph.models import AnswerKind
from prefect_langgraph.results import RunFailure

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
        (("yes", "", LEAVE, "because"), "it lacks 'sum'"),
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
    schema = form_of(questions, "page", "answered_by_1").model_json_schema()
    assert set(schema["required"]) >= {"answered_by_1"}
    for place, field in enumerate(schema["properties"].values()):
        assert field["type"] == "string"
        assert field["position"] == place
        assert len(field.get("enum", ["a", "b"])) > 1
    submitted = form_of(questions, "page", "answered_by_1")(**left_open(questions), answered_by_1="Ada")
    for number, question in enumerate(questions, start=1):
        assert reply_in(submitted.model_dump(), number, question) is LEFT_OPEN


def test_what_is_hidden_or_too_long_is_not_kept() -> None:
    (question,) = asked(review("pay"))
    hidden = shown(question, show_arguments=False)
    assert (hidden.title, hidden.text, hidden.arguments) == ("pay", "", None)
    assert "edit" not in hidden.allowed
    long = question.model_copy(update={"arguments": {"text": "x" * 50_000}, "text": "y" * 50_000})
    kept = shown(long, show_arguments=True)
    assert kept.arguments is not None
    assert str(kept.arguments["text"]).endswith("[and more: see the thread]")
    assert len(str(kept.arguments)) < 5_000
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


def by(name: str, asks: Form, values: dict[str, str]) -> Submitted:
    """A form that somebody submitted."""
    return Submitted(asks, {**values, asks.name_field: name}, NOW)


def test_no_two_forms_take_the_same_answer() -> None:
    questions = asked(review("pay"))
    one, other = (Form(**{**form(*questions).__dict__, "name": new_form_name()}) for _ in range(2))
    values = {"q1_decision": "approve", one.name_field: "Ada"}
    assert one.model(**values)
    with pytest.raises(ValidationError):
        other.model(**values)


UNION = "tagged-union[ApproveDecision,function-wrap[_as_sent()]]"


@pytest.mark.parametrize(
    ("schema", "kind", "error", "of", "refused"),
    [
        ({"title": "Payment"}, "value", "ValidationError", "Payment", True),
        ({"title": "Payment"}, "value", "ValidationError", "Invoice", False),
        ({"title": "Payment"}, "value", "ValueError", "Payment", False),
        ({"oneOf": []}, "decision", "ValidationError", UNION, True),
        ({"type": "integer"}, "value", "ValidationError", "int", True),
        ({"type": "integer"}, "value", "ValidationError", "Payment", False),
        (None, "decision", "ValidationError", UNION, True),
        (None, "value", "ValidationError", "list[int]", False),
        (None, "value", "ValidationError", "Payment", False),
    ],
)
def test_only_what_the_schema_of_a_question_refuses_is_asked_again(
    schema: dict[str, Any] | None, kind: str, error: str, of: str, refused: bool
) -> None:
    question = free(schema).model_copy(update={"kind": kind})
    failure = RunFailure(error=error, message=f"2 validation errors for {of}\na\n  Field required")
    ended = RunResult(handle=HANDLE, status=RunStatus.ERROR, error=failure)
    assert refuses_answer(ended, [question]) == refused
    assert not refuses_answer(ended.model_copy(update={"status": RunStatus.INTERRUPTED}), [question])
    assert not refuses_answer(ended, [])


def test_reason_names_what_an_answer_lacks() -> None:
    call = {
        "properties": {"name": {"const": "pay"}, "args": {"$ref": "#/$defs/pay"}},
        "required": ["args"],
    }
    edit = {
        "properties": {"type": {"const": "edit"}, "edited_action": call},
        "required": ["edited_action"],
    }
    approve = {"properties": {"type": {"const": "approve"}}, "required": ["type"]}
    pay = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum", "to"]}
    question = free({"oneOf": [approve, edit], "$defs": {"pay": pay}})
    for args, reason in (
        ({"sum": 1}, "args lacks 'to'"),
        ({"sum": "a", "to": 1}, "args.sum does not fit"),
    ):
        reply = {"type": "edit", "edited_action": {"name": "pay", "args": args}}
        with pytest.raises(WrongReply, match=reason):
            checked(question, reply)


def test_first_usable_answer_counts_and_a_run_is_answered_when_all_are() -> None:
    first, second = asked(review("pay", "mail"))
    wrong = {"q1_decision": "respond", "q2_decision": "approve"}
    both = form(first, second)
    found = answers_of([by("Ada", both, wrong)])
    assert "needs a message" in str(found.refused)
    assert found.to_run("r") is None
    again = form(first, minute=1).model_copy(update={"totals": {"r": 2}})
    later = by("Bob", again, {"q1_decision": "reject"})
    third = form(first, minute=2).model_copy(update={"totals": {"r": 2}})
    late = by("Cy", third, {"q1_decision": "approve"})
    found = answers_of([late, by("Ada", both, wrong), later])
    assert [(given.reply["type"], given.answered_by) for _, given in found.to_run("r") or []] == [
        ("approve", "Ada"),
        ("reject", "Bob"),
    ]


def test_default_answers_only_what_it_fits() -> None:
    (question,) = asked(review("pay", allowed=["approve", "edit"]))
    rejected = form(question, has_default=True, default={"type": "reject"})
    at_deadline = rejected.without_person(rejected.by_deadline)
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
    form_of([question], "page", "answered_by_1")
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
    allowed = () if kind == "value" else ("approve",)
    return Question(title="Pay?", interrupt_id=name, index=index, kind=kind, allowed=allowed)


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


def free(schema: dict[str, Any] | None, value: Any = "What?") -> Question:
    (question,) = asked(interrupt(value, response_schema=schema))
    return question


PROPOSED = {
    "type": "object",
    "properties": {
        "sum": {"type": "integer", "default": 3, "description": "In cents"},
        "ok": {"type": "boolean", "default": False},
        "currency": {"type": "string", "enum": ["EUR", "USD"], "default": "USD"},
    },
}


def test_what_an_agent_proposes_is_nobodys_answer_until_somebody_says_so() -> None:
    question = free(PROPOSED)
    fields = {field.name: field for field in fields_of(1, question)}
    assert fields["q1_decision"].choices == (ANSWER, LEAVE)
    assert [field.default for field in fields.values()] == ["", "3", "no", "USD"]
    required = form_of([question], "page", "answered_by_1").model_json_schema()["required"]
    assert required == ["q1_decision", "answered_by_1"]
    assert reply_in({"answered_by": "Ada"}, 1, question) is LEFT_OPEN
    assert reply_in(left_open([question]), 1, question) is LEFT_OPEN
    assert reply_in({"q1_decision": LEAVE, "q1_f1": "4"}, 1, question) is LEFT_OPEN
    proposed = {"sum": 3, "ok": False, "currency": "USD"}
    assert reply_in({"q1_decision": ANSWER}, 1, question) == proposed
    assert reply_in({"q1_decision": ANSWER, "q1_f1": "4"}, 1, question) == proposed | {"sum": 4}
    with pytest.raises(WrongReply, match="not one of answer, leave open"):
        reply_in({"q1_decision": "approve"}, 1, question)


@pytest.mark.parametrize(
    ("field", "default"),
    [
        ({"type": "integer", "default": True}, ""),
        ({"type": "string", "default": 3}, ""),
        ({"type": "number", "default": 0.5}, "0.5"),
        ({"type": "boolean", "default": 1}, ""),
        ({"type": "string", "enum": ["", "a"], "default": ""}, '""'),
        ({"type": "string", "enum": ["a"], "default": "b"}, ""),
    ],
)
def test_default_that_is_none_of_its_field_is_not_proposed(field: dict[str, Any], default: str) -> None:
    (*_, found) = fields_of(1, free({"type": "object", "properties": {"a": field}}))
    assert found.default == default


def test_arguments_that_are_too_long_are_shown_in_part_and_none_hides_another() -> None:
    call = {"note": "x" * 50_000, "account": "DE12", "sum": 3}
    (question,) = asked(
        interrupt(
            {
                "action_requests": [{"name": "pay", "args": call}],
                "review_configs": [{"action_name": "pay", "allowed_decisions": ALL}],
            }
        )
    )
    kept = shown(question, show_arguments=True)
    assert kept.allowed == ("approve", "reject", "respond")
    page = page_of([kept], url=HANDLE.url)
    assert '"account": "DE12"' in page
    assert '"sum": 3' in page
    assert "xxx… [and more: see the thread]" in page
    # Neither do those that Prefect keeps whole, and only its page shortens.
    short = question.model_copy(update={"arguments": {"note": "x" * 5_000, "account": "DE12"}})
    assert '"account": "DE12"' in page_of([short], url=HANDLE.url)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"a": 1},
        {f"a{number}": "x" * 900 for number in range(30)},
        {"y" * 5_000 + str(number): number for number in range(10)},
        {"quotes": '"' * 50_000, "last": 1},
        {"control": "\x00" * 50_000, "last": 1},
        {"nested": {"deep": ["x" * 50_000]}, "last": 1},
    ],
)
def test_part_of_arguments_names_each_and_fits(arguments: dict[str, Any]) -> None:
    found = abbreviated(arguments)
    assert len(found) == min(len(arguments), 20) + (len(arguments) > 20)
    question = free(None).model_copy(update={"arguments": arguments})
    page = page_of([question], url=HANDLE.url)
    assert len(page) < 5_000
    assert "last" not in arguments or '"last": 1' in page
    assert len(arguments) < 21 or "[and 10 more: see the thread]" in page


def test_choices_of_a_plain_value_stay_whatever_is_hidden_but_what_the_agent_says() -> None:
    (question,) = asked(interrupt("Ship it?", response_schema={"enum": ["edit", "ship", "x" * 9]}))
    long = question.model_copy(update={"arguments": {"text": "x" * 50_000}})
    assert shown(long, show_arguments=True).allowed == question.allowed
    assert shown(question, show_arguments=False).allowed == ()
    assert shown(question, show_arguments=False, own_choices=True).allowed == question.allowed


def test_nothing_that_an_agent_says_of_the_answer_is_kept_where_it_is_hidden() -> None:
    secret = "account 4711"
    schema = {
        "type": "object",
        "title": secret,
        "properties": {
            "sum": {"type": "integer", "description": secret, "maximum": 4711, "default": 4711},
            "to": {"type": "string", "enum": [secret, "other"], "title": secret},
        },
        "$defs": {"a": {"description": secret}},
    }
    for one in (schema, {"enum": [secret]}, {"const": secret}, {"type": "string", "pattern": secret}):
        kept = shown(free(one, {"message": secret}), show_arguments=False)
        page = page_of([kept], url=HANDLE.url, hidden=True)
        assert "4711" not in kept.model_dump_json() + page + str(
            form_of([kept], page, "answered_by_1").__dict__
        )
    whole = free(schema)
    kept = shown(whole, show_arguments=False)
    given = {"q1_f1": "5000", "q1_f2": "other"}
    assert reply_in(given, 1, kept) == {"sum": 5000, "to": "other"}
    with pytest.raises(WrongReply, match="maximum"):
        reply_in(given, 1, kept, whole)
    assert reply_in(given | {"q1_f1": "5"}, 1, kept, whole) == {"sum": 5, "to": "other"}
    chosen = free({"enum": ["yes", "no"]})
    kept = shown(chosen, show_arguments=False)
    assert reply_in({"q1_answer": "yes"}, 1, kept, chosen) == "yes"
    with pytest.raises(WrongReply):
        reply_in({"q1_answer": "maybe"}, 1, kept, chosen)


def test_question_of_which_no_decision_is_left_says_where_it_is_answered() -> None:
    (question,) = asked(review("pay", allowed=["edit"]))
    kept = shown(question, show_arguments=False)
    assert (kept.allowed, fields_of(1, kept)) == ((), [])
    assert reply_in({"answered_by": "Ada"}, 1, kept) is LEFT_OPEN
    assert "answer it on the thread" in page_of([kept], url=HANDLE.url)
    assert form_of([kept], "page", "answered_by_1").model_json_schema()["required"] == ["answered_by_1"]


@pytest.mark.parametrize(
    ("schema", "text", "reply"),
    [
        ({"type": "integer"}, "18446744073709551615", 18446744073709551615),
        (None, "123456789012345678901234567890", "123456789012345678901234567890"),
        (None, "NaN", "NaN"),
        (None, "1e999", "1e999"),
        (None, "[" * 100_000, "[" * 100_000),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "42", "42"),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": ["string", "null"]}, "[1]", "[1]"),
        ({"enum": ["1", 2]}, "1", "1"),
        ({"enum": ["1", 2]}, "2", 2),
    ],
)
def test_what_was_typed_is_sent_as_it_is_or_not_at_all(schema: Any, text: str, reply: Any) -> None:
    found = typed(free(schema), text)
    assert (found, type(found)) == (reply, type(reply))


@pytest.mark.parametrize("text", ["123456789012345678901234567890", "NaN", "1e999", "9" * 5_000])
def test_number_that_cannot_be_sent_as_it_is_is_refused(text: str) -> None:
    with pytest.raises(WrongReply):
        typed(free({"type": "integer"}), text)
    with pytest.raises(WrongReply):
        reply_in({"q1_f1": text}, 1, free({"type": "object", "properties": {"a": {"type": "number"}}}))
    with pytest.raises(WrongReply):
        decided(asked(review("pay"))[0], "edit", arguments=f'{{"a": {text}}}')


def test_every_choice_can_be_made_and_is_sent_as_the_agent_gave_it() -> None:
    values = ["", "leave open", '"leave open"', " padded", "plain", "two\nlines"]
    question = free({"enum": values})
    (field,) = fields_of(1, question)
    assert not any("\n" in text for text in field.choices)
    assert field.choices[-1] == LEAVE
    chosen = [reply_in({"q1_decision": text}, 1, question) for text in field.choices[:-1]]
    assert chosen == values
    mixed = [None, 1, "1", "null", True]
    question = free({"type": "object", "properties": {"a": {"type": "string", "enum": mixed}}})
    (field,) = fields_of(1, question)
    texts = field.choices[:-1]
    assert len(set(texts)) == len(mixed)
    assert "null" in texts
    assert "None" not in texts


def test_what_the_agent_says_of_the_answer_is_shown_in_a_fence() -> None:
    flat = {"type": "object", "properties": {"sum": {"type": "integer", "description": "In ![x](y)"}}}
    assert "```text\nsum: In ![x](y)\n```" in page_of([free(flat)], url=HANDLE.url)
    nested = {"type": "array", "items": {"enum": ["a", "b"]}, "description": "``` ends"}
    page = page_of([free(nested)], url=HANDLE.url)
    assert "The answer, as a JSON Schema:\n\n````text" in page
    assert '"items"' in page
    assert "JSON Schema" not in page_of([free({"type": "string"})], url=HANDLE.url)


UNSEEN = "\x1b\x07\r\u202e\u200b"


def test_nothing_that_an_agent_says_hides_or_turns_what_stands_beside_it() -> None:
    call = {"name": f"pay{UNSEEN}", "args": {"to": f"a{UNSEEN}b"}, "description": f"Pay{UNSEEN}\ud83d?"}
    (question,) = asked(
        interrupt(
            {
                "action_requests": [call],
                "review_configs": [{"action_name": call["name"], "allowed_decisions": ALL}],
            }
        )
    )
    values = [f"yes{UNSEEN}", "no"]
    chosen = free({"enum": values}, f"Go{UNSEEN}?")
    field = {"type": "integer", "description": f"In{UNSEEN}"}
    flat = free({"type": "object", "properties": {f"sum{UNSEEN}": field}})
    questions = [question, chosen, flat]
    page = page_of(questions, url=HANDLE.url)
    fields = [field for place, one in enumerate(questions) for field in fields_of(place, one)]
    said = [page, *(f"{one.title}{one.description}{one.choices}{one.default}" for one in fields)]
    assert not {*UNSEEN, "\ud83d"} & {*"".join(said)}
    assert "\\u202e" in page
    edited = reply_in({"q1_decision": "edit"}, 1, question)
    assert edited["edited_action"] == {"name": call["name"], "args": call["args"]}
    (choice,) = fields_of(1, chosen)
    assert reply_in({"q1_decision": choice.choices[0]}, 1, chosen) == values[0]


def test_name_that_somebody_types_is_no_deadline() -> None:
    (question,) = asked(review("pay"))
    asks = form(question, has_default=True, default={"type": "approve"})
    for name in ("nobody until the deadline", "nobody until the deadline of langgraph-form-1"):
        left = by(name, asks, {"q1_decision": LEAVE})
        assert not answers_of([left]).given


def test_default_of_a_value_is_one_of_its_choices() -> None:
    question = free(None).model_copy(update={"allowed": ("yes", "no")})
    assert default_for(question, "no") == "no"
    for default in ("maybe", True, ["yes"], None):
        with pytest.raises(WrongReply, match="none of its choices"):
            default_for(question, default)


def test_default_reply_is_given_to_one_question_once_or_in_the_same_words_three_times() -> None:
    (question,) = asked(review("pay"))
    forms: list[Submitted] = []
    for run in range(3):
        again = question.model_copy(update={"run_id": f"r{run}"})
        asks = form(again, minute=run, has_default=True, default={"type": "approve"})
        forms.append(Submitted(asks, asks.without_person(asks.by_deadline), NOW))
        found = answers_of(forms)
        assert found.had_default(again, failed=True)
        assert found.had_default(again, failed=False) == (run == 2)
    assert not found.had_default(question.model_copy(update={"index": 1}), failed=True)
    assert not found.had_default(question.model_copy(update={"text": "Another?"}), failed=False)
    assert not found.had_default(question.model_copy(update={"thread_id": "other"}), failed=False)


def _raises(_: RunResult) -> list[Question]:
    raise RuntimeError("token-4711")


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        (_raises, "questions= raised RuntimeError"),
        (lambda _: [Question(title="a", interrupt_id="i", arguments={"a": object()})], "arguments"),
        (
            lambda _: [Question(title="a", interrupt_id="i", response_schema={"a": float("nan")})],
            "schema",
        ),
        (lambda _: [Question(title="a", interrupt_id="i", kind="decision")], "one or more of approve"),
        (
            lambda _: [Question(title="a", interrupt_id="i", kind="inbox", allowed=("escalate",))],
            "one or more of approve",
        ),
    ],
)
def test_question_of_a_reader_that_cannot_be_asked_is_refused(reader: Any, said: str) -> None:
    result = RunResult(handle=HANDLE, status=RunStatus.INTERRUPTED, interrupts=(interrupt("Go?"),))
    with pytest.raises(InvalidRequestError, match=said) as caught:
        questions_of(result, reader)
    assert "4711" not in str(caught.value)
