"""The form by which a person answers in Prefect's UI: flat fields, and what was put in them. Pure.

Prefect's two UIs render flat fields well. A choice has at least two values, since one alone cannot be
submitted; one field is required and has no default, since a webhook without a body would submit the
form otherwise. Names of fields say nothing about what is asked, so nothing that an agent says becomes a
name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pydantic
from prefect.input import RunInput

from prefect_langgraph.approvals.questions import flat_fields, title_of
from prefect_langgraph.approvals.replies import LEFT_OPEN, decided, filled, typed
from prefect_langgraph.models import Question

LEAVE = "leave open"
"""The choice of somebody who answers the others only."""

NAME = "answered_by"
NAME_CHARACTERS = 200

QUESTIONS_SHOWN = 5
"""How many questions one form asks; the others come in the next."""

ARGUMENT_CHARACTERS = 20_000
"""Arguments longer than that are not offered for editing, nor choices and schemas kept that are longer:
Prefect limits what a request holds."""

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
        choice = Field(
            f"{base}_decision", "decision", f"{head}: decision", choices=(*question.allowed, LEAVE)
        )
        return [choice, *_for_decision(base, head, question)]
    fields = flat_fields(question.response_schema)
    if fields is None:
        said = "As JSON, or as plain text. Empty: it is asked again later."
        return [Field(f"{base}_answer", "answer", f"{head}: answer", said)]
    return [
        _of_property(f"{base}_f{place}", head, name, field)
        for place, (name, field) in enumerate(fields.items(), start=1)
    ]


def _for_decision(base: str, head: str, question: Question) -> Iterator[Field]:
    if question.kind in ("value", "go on"):
        return
    if "edit" in question.allowed:
        yield Field(
            f"{base}_arguments",
            "arguments",
            f"{head}: arguments, for edit",
            "As JSON. Only an edit sends them.",
            default=json.dumps(question.arguments or {}, ensure_ascii=False),
        )
    if "reject" in question.allowed or "respond" in question.allowed:
        names = " and ".join(name for name in ("reject", "respond") if name in question.allowed)
        yield Field(f"{base}_message", "message", f"{head}: message, for {names}")


def _of_property(name: str, head: str, of: str, field: Mapping[str, Any]) -> Field:
    choices = tuple(str(one) for one in field.get("enum") or ())
    if field["type"] == "boolean":
        choices = ("yes", "no")
    kind = "" if field["type"] == "string" or choices else f" ({field['type']})"
    default = str(field["default"]) if isinstance(field.get("default"), str | int | float) else ""
    return Field(
        name,
        "property",
        f"{head}: {of[:60]}{kind}",
        choices=(*choices, LEAVE) if choices else (),
        default="" if choices else default,
        of=of,
    )


def form_of(questions: Sequence[Question], page: str) -> type[RunInput]:
    """The form as Prefect takes it, with the text above it."""
    found: dict[str, Any] = {}
    for number, question in enumerate(questions, start=1):
        for field in fields_of(number, question):
            found[field.name] = _as_pydantic(field, len(found))
    found[NAME] = (
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
    if field.choices:
        kind: Any = Literal.__getitem__(field.choices)
        return kind, pydantic.Field(title=field.title, description=said, json_schema_extra=extra)
    return str, pydantic.Field(
        default=field.default, title=field.title, description=said, json_schema_extra=extra
    )


def reply_in(values: Mapping[str, Any], number: int, question: Question) -> Any:
    """The reply to one question that is in the values of a submitted form, or `LEFT_OPEN`.

    Raises:
        WrongReply: It is one that the graph would not take.
    """
    held: dict[Holds, str] = {}
    properties: dict[str, str] = {}
    for field in fields_of(number, question):
        text = str(values.get(field.name, field.default))
        if field.holds == "property":
            properties[field.of] = "" if text == LEAVE else text
        else:
            held[field.holds] = text
    if properties:
        return filled(question, properties)
    if "answer" in held:
        return typed(question, held["answer"])
    if held["decision"] in (LEAVE, ""):
        return LEFT_OPEN
    return decided(
        question,
        held["decision"],
        arguments=held.get("arguments", ""),
        message=held.get("message", ""),
    )


def left_open(questions: Sequence[Question], name: str) -> dict[str, str]:
    """Values that submit a form without an answer to anything."""
    values = {NAME: name}
    for number, question in enumerate(questions, start=1):
        for field in fields_of(number, question):
            values[field.name] = LEAVE if field.choices else field.default
    return values


def shown(question: Question, *, show_arguments: bool) -> Question:
    """The question as it may be kept in Prefect.

    Args:
        question: As the agent asks it.
        show_arguments: False takes out what may hold arguments.
    """
    without_edit = tuple(name for name in question.allowed if name != "edit")
    update: dict[str, Any] = {}
    if not show_arguments:
        title = question.title if question.tool is not None else "A question"
        update = {"title": title, "text": "", "arguments": None, "allowed": without_edit}
    elif _is_long(question.arguments):
        update = {"arguments": None, "allowed": without_edit}
    if _is_long(question.response_schema):
        update["response_schema"] = None  # the graph alone decides
    if _is_long(question.allowed):
        update["allowed"] = ()
    update.setdefault("text", question.text[:ARGUMENT_CHARACTERS])
    return question.model_copy(update=update)


def _is_long(value: Any) -> bool:
    return len(json.dumps(value)) > ARGUMENT_CHARACTERS
