"""What is sent for an answer, checked before anything is sent. Pure.

A reply is what answers one question. What answers an interrupt is made of the replies to all its
questions, and what resumes a thread of the answers to all its interrupts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema
import orjson
from referencing.exceptions import Unresolvable

from prefect_langgraph.approvals.questions import PLAIN, flat_fields, validator_of
from prefect_langgraph.models import Question, RunStatus
from prefect_langgraph.results import RunResult
from prefect_langgraph.texts import visible

LEFT_OPEN: Any = object()
"""The reply of somebody who leaves a question for later."""

LEAVE = "leave open"
"""The choice of somebody who answers the others only."""

_INBOX = {"approve": "accept", "edit": "edit", "reject": "ignore", "respond": "response"}

_REASON_CHARACTERS = 300

_VALIDATION_OF = re.compile(r"\d+ validation errors? for (?P<title>.+)")


class WrongReply(ValueError):
    """A reply that the graph would not take. Its text says why, and holds nothing of the reply."""


def decided(question: Question, decision: str, *, arguments: str = "", message: str = "") -> Any:
    """The reply for a decision about a tool call.

    Args:
        question: The question.
        decision: One of its `allowed`.
        arguments: The edited arguments as JSON, for "edit".
        message: What the agent is told, for "reject" and "respond".

    Raises:
        WrongReply: The decision is not allowed, or lacks something.
    """
    if decision not in question.allowed:
        raise WrongReply(f"{decision!r} is not one of {', '.join(question.allowed)}")
    if question.kind == "go on":
        return None
    if question.kind == "value":
        return checked(question, decision)
    edited = _object_of(arguments) if decision == "edit" else {}
    if decision == "respond" and not message:
        raise WrongReply("'respond' needs a message: it is what the agent gets instead of the tool's")
    if question.kind == "inbox":
        given: Any = {"edit": {"action": question.tool, "args": edited}, "respond": message}
        return checked(question, {"type": _INBOX[decision], "args": given.get(decision)})
    reply: dict[str, Any] = {"type": decision}
    if decision == "edit":
        reply["edited_action"] = {"name": question.tool, "args": edited}
    elif message and decision in ("reject", "respond"):
        reply["message"] = message
    return checked(question, reply)


def typed(question: Question, text: str) -> Any:
    """The reply for what was typed in one field: JSON where that fits, else the text as it is.

    Raises:
        WrongReply: The schema of the answer refuses both.
    """
    if not text.strip():
        return LEFT_OPEN
    schema = question.response_schema or {}
    if schema.get("type") in PLAIN:
        return checked(question, _value("it", schema, text))
    try:
        reply = _loaded(text)
    except (ValueError, RecursionError):
        return checked(question, text)
    try:
        return checked(question, reply)
    except WrongReply as wrong:
        try:
            return checked(question, text)
        except WrongReply:
            raise wrong from None


def filled(question: Question, texts: Mapping[str, str]) -> Any:
    """The reply for what was typed in the fields of an answer, by the names of its schema.

    Raises:
        WrongReply: The schema of the answer refuses it.
    """
    given = {name: text for name, text in texts.items() if text.strip()}
    fields = flat_fields(question.response_schema) or {}
    return checked(question, {name: _value(name, fields[name], text) for name, text in given.items()})


def choices_of(values: Sequence[Any]) -> dict[str, Any]:
    """The texts by which these values are chosen: each its own where it can be, else as JSON."""
    found: dict[str, Any] = {}
    for value in values:
        plain = isinstance(value, str) and value.strip() == visible(value) != "" and value != LEAVE
        plain = plain and len(value.splitlines()) == 1
        text = value if plain else json.dumps(value)
        while text in found and found[text] != value:
            text = json.dumps(text)
        found.setdefault(text, value)
    return found


def _value(name: str, field: Mapping[str, Any], text: str) -> Any:
    if "enum" in field:
        choices = choices_of(field["enum"])
        if text not in choices:
            raise WrongReply(f"{name!r} is not one of {', '.join(choices)}"[:_REASON_CHARACTERS])
        return choices[text]
    if field["type"] == "string":
        return text
    if field["type"] == "boolean":
        if text.lower() not in ("yes", "no", "true", "false"):
            raise WrongReply(f"{name!r} is yes or no")
        return text.lower() in ("yes", "true")
    try:
        return _loaded(text)
    except (ValueError, RecursionError):
        raise WrongReply(f"{name!r} is a number") from None


def _loaded(text: str) -> Any:
    """What a text holds as JSON, in which Python would also read NaN and Infinity.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deeply.
    """

    def refuse(name: str) -> Any:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def default_for(question: Question, default: Any) -> Any:
    """The reply to a question that nobody answered in time.

    Raises:
        WrongReply: It does not fit this question.
    """
    if question.kind == "value":
        if question.allowed and default not in question.allowed:
            raise WrongReply("the default reply is none of its choices")
        return checked(question, default)
    decision = default.get("type") if isinstance(default, Mapping) else None
    named = {sent: name for name, sent in _INBOX.items()} if question.kind == "inbox" else {}
    decision = named.get(str(decision), decision)
    if decision not in question.allowed:
        raise WrongReply(f"the default reply is not one of {', '.join(question.allowed)}")
    if question.kind == "go on":
        return None
    if question.kind == "inbox":
        reply = {"args": None, **default, "type": _INBOX[str(decision)]}
        return _complete(reply, decision, reply["args"], "action")
    edited = default.get("edited_action") if decision == "edit" else default.get("message")
    return checked(question, _complete(dict(default), decision, edited, "name"))


def _complete(reply: dict[str, Any], decision: object, holds: Any, name: str) -> dict[str, Any]:
    """The reply, held against what its decision cannot do without."""
    call = holds if isinstance(holds, Mapping) else {}
    if decision == "edit" and not (
        isinstance(call.get(name), str) and isinstance(call.get("args"), Mapping)
    ):
        raise WrongReply("the default reply is an edit without the call to make instead")
    if decision == "respond" and not (isinstance(holds, str) and holds):
        raise WrongReply("the default reply is a response without its text")
    return reply


def checked(question: Question, reply: Any) -> Any:
    """The reply, held against the schema that the graph gives for it.

    Raises:
        WrongReply: The schema refuses it, or it would be sent as something else.
    """
    try:
        json.dumps(reply, allow_nan=False)
        orjson.dumps(reply)  # which sends it, and would round or refuse what is larger than 64 bits
    except (TypeError, ValueError, RecursionError):
        raise WrongReply("it holds what cannot be sent as it is, such as a very large number") from None
    if question.response_schema is None:
        return reply
    validator = validator_of(question.response_schema)
    if validator is None:
        return reply
    try:
        found = jsonschema.exceptions.best_match(validator.iter_errors(reply))
    except (Unresolvable, RecursionError):
        return reply  # a schema that leads nowhere, or to itself: the graph decides
    if found is not None:
        at = ".".join(str(part) for part in found.absolute_path)
        raise WrongReply(f"{f'{at} ' if at else 'it '}{_refusal(found)}"[:_REASON_CHARACTERS])
    return reply


def refuses_answer(result: RunResult, asked: Sequence[Question]) -> bool:
    """True of a run that failed since the schema of what it asked refused an answer.

    LangGraph has kept no answer then, and asks again. After any other failure it has kept them: whoever
    answers again would answer what comes next. The error is pydantic's for the schema, by its title.

    Args:
        result: What became of the run that was started with the answers.
        asked: What was answered.
    """
    error = result.error
    if result.status is not RunStatus.ERROR or error is None or error.error != "ValidationError":
        return False
    found = _VALIDATION_OF.match(error.message)
    return found is not None and any(_is_schema_of(question, found["title"]) for question in asked)


def _is_schema_of(question: Question, title: str) -> bool:
    """True of the title that pydantic gives a schema: a class's name, or how it spells a type."""
    if question.response_schema is None:
        # Some servers do not tell it; langchain's own is known all the same.
        return question.kind == "decision" and title.startswith("tagged-union[")
    named = question.response_schema.get("title")
    return title == named if named is not None else "[" in title or title.islower()


def _refusal(error: jsonschema.ValidationError) -> str:
    """Why a schema refuses, in words of the schema: those of the error quote the answer."""
    wanted: Any = error.validator_value
    if error.validator == "required" and isinstance(error.instance, Mapping):
        missing = [name for name in wanted if name not in error.instance]
        return f"lacks {', '.join(map(repr, missing))}"
    said = json.dumps(wanted, ensure_ascii=False, default=str)
    return f"does not fit {error.validator!s}: {said}"


def _object_of(text: str) -> dict[str, Any]:
    try:
        found = _loaded(text)
    except (ValueError, RecursionError):
        raise WrongReply("the arguments are not JSON") from None
    if not isinstance(found, dict):
        raise WrongReply("the arguments are not a JSON object")
    return found


def resume_of(replies: Sequence[tuple[Question, Any]]) -> dict[str, Any]:
    """What starts a run that goes on with these replies to all questions of one thread.

    Args:
        replies: Each question of the run that asks, with its reply.

    Returns:
        The payload: a command that answers each interrupt by its id, or nothing at a breakpoint.
    """
    by_interrupt: dict[str | None, list[tuple[Question, Any]]] = {}
    for question, reply in sorted(replies, key=lambda pair: pair[0].index):
        by_interrupt.setdefault(question.interrupt_id, []).append((question, reply))
    if all(question.kind == "go on" for question, _ in replies):
        return {}
    answers = {name: _answer(part) for name, part in by_interrupt.items()}
    if None in answers:  # of a server that gives interrupts no ids
        return {"command": {"resume": answers[None]}}
    return {"command": {"resume": answers}}


def _answer(part: Sequence[tuple[Question, Any]]) -> Any:
    replies = [reply for _, reply in part]
    kind = part[0][0].kind
    if kind == "decisions":
        return {"decisions": replies}
    return replies if kind == "inbox" else replies[0]
