"""The form by which a person answers in Prefect's UI: flat fields, and what was put in them. Pure.

Prefect's two UIs render flat fields well. A choice has at least two values, since one alone cannot be
submitted; one field is required and has no default, since a webhook without a body would submit the
form otherwise. That field's name is the form's own: Prefect refuses what was put in another form, which
somebody may have open still. Names of fields say nothing about what is asked, so nothing that an agent
says becomes a name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pydantic
from prefect.input import RunInput

from prefect_langgraph.approvals.page import abbreviated
from prefect_langgraph.approvals.questions import DECIDED, PLAIN, flat_fields, title_of
from prefect_langgraph.approvals.replies import (
    LEAVE,
    LEFT_OPEN,
    WrongReply,
    choices_of,
    decided,
    filled,
    typed,
)
from prefect_langgraph.models import Question
from prefect_langgraph.texts import visible

ANSWER = "answer"
"""The choice of somebody who sends what stands in the fields of an answer."""

NAME = "answered_by"
"""Begins the name of the field for who answers; the form's id follows."""

NAME_CHARACTERS = 200

QUESTIONS_SHOWN = 5
"""How many questions one form asks; the others come in the next."""

ARGUMENT_CHARACTERS = 20_000
"""Longer arguments are shown in part and not offered for editing, nor are longer choices and schemas
kept: Prefect limits what a request holds."""

TOOL_CHARACTERS = 200
"""A longer name of a tool is shown in part, and its call not offered for editing."""

Holds = Literal["decision", "arguments", "message", "answer", "property"]


@dataclass(frozen=True)
class Field:
    """One field of a form.

    Attributes:
        name: In the form.
        holds: What is put in.
        title: Above it.
        description: Below it.
        choices: To choose from; empty for a text.
        default: What stands in it.
        of: The name in the answer's schema, of a property.
    """

    name: str
    holds: Holds
    title: str
    description: str = ""
    choices: tuple[str, ...] = ()
    default: str = ""
    of: str = ""


def fields_of(number: int, question: Question) -> list[Field]:
    """The fields of one question.

    Args:
        number: Its place in the form, from 1.
        question: The question.
    """
    base = f"q{number}"
    head = f"{number}. {title_of(question.title)}"
    if question.allowed:
        choices = (*choices_of(question.allowed), LEAVE)
        choice = Field(f"{base}_decision", "decision", f"{head}: decision", choices=choices)
        return [choice, *_for_decision(base, head, question)]
    if question.kind != "value":
        return []  # no decision is left that can be made here: its text says where
    fields = flat_fields(question.response_schema)
    if fields is None:
        said = "As JSON, or as plain text. Empty: it is asked again later."
        return [Field(f"{base}_answer", "answer", f"{head}: answer", said)]
    found = [
        _of_property(f"{base}_f{place}", head, name, field)
        for place, (name, field) in enumerate(fields.items(), start=1)
    ]
    if any(field.default for field in found):
        # Somebody must say so before what the agent proposes counts as that person's answer.
        choices = (ANSWER, LEAVE)
        found.insert(0, Field(f"{base}_decision", "decision", f"{head}: decision", choices=choices))
    return found


def _for_decision(base: str, head: str, question: Question) -> Iterator[Field]:
    if question.kind in ("value", "go on"):
        return
    if "edit" in question.allowed:
        yield Field(
            f"{base}_arguments",
            "arguments",
            f"{head}: arguments, for edit",
            "As JSON. Only an edit sends them.",
            default=_to_edit(question.arguments or {}),
        )
    if "reject" in question.allowed or "respond" in question.allowed:
        names = " and ".join(name for name in ("reject", "respond") if name in question.allowed)
        yield Field(f"{base}_message", "message", f"{head}: message, for {names}")


def _to_edit(arguments: Mapping[str, Any]) -> str:
    """Arguments as they stand in their field: in the person's own writing, where all of it is seen."""
    text = json.dumps(arguments, ensure_ascii=False)
    return text if visible(text) == text else json.dumps(arguments)


def _of_property(name: str, head: str, of: str, field: Mapping[str, Any]) -> Field:
    choices = tuple(choices_of(field["enum"])) if "enum" in field else ()
    if field["type"] == "boolean" and not choices:
        choices = ("yes", "no")
    kind = "" if field["type"] == "string" or choices else f" ({field['type']})"
    return Field(
        name,
        "property",
        f"{head}: {title_of(of)}{kind}",
        choices=(*choices, LEAVE) if choices else (),
        default=_default_of(field, choices),
        of=of,
    )


def _default_of(field: Mapping[str, Any], choices: Sequence[str]) -> str:
    """What the agent proposes for a field, as somebody would put it in; empty where that is nothing."""
    if "default" not in field:
        return ""
    given = field["default"]
    if "enum" in field:
        same = (text for text, value in choices_of(field["enum"]).items() if repr(value) == repr(given))
        return next(same, "")
    if isinstance(given, bool):
        return ("yes" if given else "no") if choices else ""
    if isinstance(given, str):
        return given if field["type"] == "string" else ""
    is_number = isinstance(given, int | float) and field["type"] in ("integer", "number")
    return json.dumps(given) if is_number else ""


def form_of(questions: Sequence[Question], page: str, name_field: str) -> type[RunInput]:
    """The form as Prefect takes it, with the text above it, and the field for who answers."""
    found: dict[str, Any] = {}
    for number, question in enumerate(questions, start=1):
        for field in fields_of(number, question):
            found[field.name] = _as_pydantic(field, len(found))
    found[name_field] = (
        str,
        pydantic.Field(
            title="Your name",
            description="Kept as stated.",
            min_length=1,
            max_length=NAME_CHARACTERS,
            json_schema_extra={"position": len(found)},
        ),
    )
    model: type[RunInput] = pydantic.create_model("Answers", __base__=RunInput, **found)
    return model.with_initial_data(description=page)


def _as_pydantic(field: Field, position: int) -> tuple[Any, Any]:
    extra: dict[str, Any] = {"position": position}
    said = field.description or None
    kind: Any = Literal.__getitem__(field.choices) if field.choices else str
    default: Any = ... if field.choices and not field.default else field.default
    return kind, pydantic.Field(
        default=default, title=field.title, description=said, json_schema_extra=extra
    )


def reply_in(
    values: Mapping[str, Any], number: int, question: Question, whole: Question | None = None
) -> Any:
    """The reply to one question that is in the values of a submitted form, or `LEFT_OPEN`.

    Args:
        values: Those of the form.
        number: The question's place in the form, from 1.
        question: As the form asks it.
        whole: As the agent asks it, where that is known: the reply is held against this.

    Raises:
        WrongReply: It is one that the graph would not take.
    """
    whole = whole or question
    held: dict[Holds, str] = {}
    properties: dict[str, str] = {}
    for field in fields_of(number, question):
        text = str(values.get(field.name, field.default))
        if field.holds == "property":
            properties[field.of] = "" if field.choices and text == LEAVE else text
        else:
            held[field.holds] = text
    decision = held.get("decision", LEAVE)
    if "decision" in held and decision in (LEAVE, ""):
        return LEFT_OPEN
    if properties:
        if "decision" in held and decision != ANSWER:
            raise WrongReply(f"{decision!r} is not one of {ANSWER}, {LEAVE}")
        is_empty = not any(text.strip() for text in properties.values())
        return LEFT_OPEN if is_empty and "decision" not in held else filled(whole, properties)
    if "answer" in held:
        return typed(whole, held["answer"])
    if "decision" not in held:
        return LEFT_OPEN  # nothing of it can be answered here
    return decided(
        whole,
        choices_of(question.allowed).get(decision, decision),
        arguments=held.get("arguments", ""),
        message=held.get("message", ""),
    )


def left_open(questions: Sequence[Question]) -> dict[str, str]:
    """The values of a form that answers nothing, beside who submits it."""
    values = {}
    for number, question in enumerate(questions, start=1):
        for field in fields_of(number, question):
            values[field.name] = LEAVE if field.choices else field.default
    return values


def shown(question: Question, *, show_arguments: bool, own_choices: bool = False) -> Question:
    """The question as it may be kept in Prefect.

    Args:
        question: As the agent asks it.
        show_arguments: False takes out what the agent says: arguments, texts, and the choices that it
            gives. The names of tools and of an answer's fields stay.
        own_choices: True where the caller gave the choices, so that they stay.
    """
    update: dict[str, Any] = {
        "title": title_of(question.title),
        "text": question.text[:ARGUMENT_CHARACTERS],
        "tool": question.tool and question.tool[:TOOL_CHARACTERS],
    }
    without_edit = tuple(name for name in question.allowed if name != "edit")
    is_cut = _is_long(question.arguments) or len(question.tool or "") > TOOL_CHARACTERS
    if question.kind in DECIDED and (is_cut or not show_arguments):
        update["allowed"] = without_edit
    if is_cut:
        update["arguments"] = abbreviated(question.arguments or {})
    if not show_arguments:
        update |= {"text": "", "arguments": None}
        update["response_schema"] = _outline(question.response_schema or {})
        if question.tool is None:
            update["title"] = "A question"
        if question.kind == "value" and not own_choices:
            update["allowed"] = ()
    if _is_long(question.response_schema):
        update["response_schema"] = None  # held against it where the thread is read
    if _is_long(question.allowed):
        update["allowed"] = ()
    return question.model_copy(update=update)


def _outline(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fields of an answer and their types, without a word that the agent may have put in."""
    fields = flat_fields(schema)
    if fields is not None:
        types = {name: {"type": field["type"]} for name, field in fields.items()}
        return {"type": "object", "properties": types}
    kind = schema.get("type")
    return {"type": kind} if kind in PLAIN else None


def _is_long(value: Any) -> bool:
    return len(json.dumps(value)) > ARGUMENT_CHARACTERS
