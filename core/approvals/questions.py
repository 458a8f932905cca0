"""What an interrupted run asks, in the words of whichever library asks. Pure.

Four ways of asking are known: langchain's middleware, with one interrupt for all tool calls or one for
each; Agent Inbox; a flat `response_schema`. Whatever else an interrupt holds is shown as it is, and
takes any answer. What stopped at a static breakpoint asks nothing but to go on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jsonschema
from jsonschema.protocols import Validator
from referencing import Registry

from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.models import AnswerKind, Question
from prefect_langgraph.results import RunResult
from prefect_langgraph.texts import cut, visible

DECISIONS = ("approve", "edit", "reject", "respond")

INBOX_DECISIONS = {
    "allow_accept": "approve",
    "allow_edit": "edit",
    "allow_ignore": "reject",
    "allow_respond": "respond",
}
"""What Agent Inbox calls the same decisions."""

DECIDED: tuple[AnswerKind, ...] = ("decisions", "decision", "inbox")
"""The kinds of question that a decision answers."""

TITLE_CHARACTERS = 80

PLAIN = ("string", "integer", "number", "boolean")

QuestionReader = Callable[[RunResult], Sequence[Question]]
"""Reads what an interrupted run asks; its thread and run are filled in."""


def questions_of(result: RunResult, reader: QuestionReader | None = None) -> list[Question]:
    """The questions of a run that stopped, in the order in which it asks them.

    Args:
        result: The run.
        reader: Reads them instead, where the caller gives one.

    Raises:
        InvalidRequestError: The caller's reader failed, or what it returned are no questions.
    """
    found = read_interrupts(result) if reader is None else _read_by(reader, result)
    handle = result.handle
    where = {
        "run_id": handle.run_id,
        "thread_id": handle.thread_id,
        "assistant_id": handle.assistant_id,
    }
    return [question.model_copy(update=where) for question in found]


def _read_by(reader: QuestionReader, result: RunResult) -> list[Question]:
    try:
        found = reader(result)
    except Exception as error:
        raise InvalidRequestError(f"questions= raised {type(error).__name__}.") from error
    return _checked(found, result)


def _checked(found: Any, result: RunResult) -> list[Question]:
    """What the caller's reader returned, where each answer will find its way."""
    is_list = isinstance(found, Sequence) and not isinstance(found, str | bytes)
    if not is_list or not all(isinstance(one, Question) for one in found):
        raise InvalidRequestError(
            f"questions= returned {type(found).__name__}: it returns a list of Question."
        )
    ids = (item.get("id") for item in result.interrupts)
    known: set[str | None] = {str(one) for one in ids if one is not None}
    if len(result.interrupts) <= 1:
        known.add(None)
    seen: set[tuple[str | None, int]] = set()
    for question in found:
        _check_is_reached(question, known, seen)
        _check_can_be_asked(question)
        seen.add((question.interrupt_id, question.index))
    return list(found)


def _check_is_reached(
    question: Question, known: set[str | None], seen: set[tuple[str | None, int]]
) -> None:
    name, place = question.interrupt_id, question.index
    if name not in known:
        raise InvalidRequestError(
            f"questions= returned a question for interrupt {name!r}, which the run does not have: "
            "give each the interrupt_id of the interrupt that it is about."
        )
    if (name, place) in seen or (place > 0 and question.kind not in ("decisions", "inbox")):
        raise InvalidRequestError(
            "questions= returned two questions for one answer: an interrupt has one question, or, of "
            'kind "decisions" and "inbox", some with index 0, 1, 2.'
        )


def _check_can_be_asked(question: Question) -> None:
    """Refuse a reader's question that no form can show, or that no decision would answer."""
    names = (*DECISIONS,) if question.kind in DECIDED else ("approve",)
    if question.kind != "value" and (not question.allowed or set(question.allowed) - set(names)):
        raise InvalidRequestError(
            f"questions= returned a question of kind {question.kind!r} with allowed="
            f"{list(question.allowed)}: it is answered by one or more of {', '.join(names)}."
        )
    for name in ("arguments", "response_schema"):
        try:
            json.dumps(getattr(question, name), allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise InvalidRequestError(
                f"questions= returned a question whose {name} are not JSON."
            ) from None


def read_interrupts(result: RunResult) -> list[Question]:
    """The questions of each interrupt, without the run that they belong to."""
    if not result.interrupts:
        return [
            Question(
                title="Go on?",
                text="The run stopped at a breakpoint.",
                allowed=("approve",),
                kind="go on",
            )
        ]
    return [question for item in result.interrupts for question in _of_interrupt(item)]


def _of_interrupt(item: Mapping[str, Any]) -> list[Question]:
    value, schema = item.get("value"), item.get("response_schema")
    schema = schema if isinstance(schema, dict) and validator_of(schema) is not None else None
    found = _batched(value) or _per_call(value, schema) or _inbox(value) or [_other(value, schema)]
    interrupt_id = str(item["id"]) if item.get("id") is not None else None
    return [
        question.model_copy(update={"interrupt_id": interrupt_id, "index": index})
        for index, question in enumerate(found)
    ]


def _batched(value: Any) -> list[Question]:
    """langchain's middleware, one interrupt for all tool calls of a turn."""
    if not isinstance(value, Mapping):
        return []
    requests, configs = value.get("action_requests"), value.get("review_configs")
    if requests is None or configs is None or not _are_calls(requests) or not _are_mappings(configs):
        return []
    by_name = {str(config.get("action_name")): config for config in configs}
    found = []
    for request in requests:
        given = by_name.get(request["name"], {}).get("allowed_decisions")
        allowed = tuple(name for name in DECISIONS if isinstance(given, list) and name in given)
        if not allowed:
            return []  # of a version that says it in other words
        found.append(
            Question(
                title=title_of(request["name"]),
                tool=request["name"],
                text=_text(request.get("description")),
                arguments=request["args"],
                allowed=allowed,
                kind="decisions",
            )
        )
    return found


def _per_call(value: Any, schema: dict[str, Any] | None) -> list[Question]:
    """langchain's middleware, an interrupt for each tool call."""
    if (
        not isinstance(value, Mapping)
        or value.get("type") != "tool_approval"
        or not _are_calls([value])
    ):
        return []
    given = _types_of(schema or {})
    allowed = tuple(name for name in DECISIONS if name in given) or ("approve", "reject")
    return [
        Question(
            title=title_of(value["name"]),
            tool=value["name"],
            text=_text(value.get("description")),
            arguments=value["args"],
            allowed=allowed,
            kind="decision",
            response_schema=schema,
        )
    ]


def _types_of(schema: Mapping[str, Any]) -> set[str]:
    """The values of `type` in a union of objects, or in one."""
    definitions = schema.get("$defs", {})
    found: set[str] = set()
    for branch in schema.get("oneOf") or schema.get("anyOf") or [schema]:
        name = str(_mapping(branch).get("$ref", "")).rpartition("/")[2]
        properties = _mapping(definitions.get(name, branch)).get("properties", {})
        decided = _mapping(properties.get("type"))
        found |= {str(one) for one in (decided.get("const"), *decided.get("enum", ())) if one}
    return found


def _mapping(schema: Any) -> Mapping[str, Any]:
    """A schema that says something: True and False, which are schemas too, say nothing."""
    return schema if isinstance(schema, Mapping) else {}


def _inbox(value: Any) -> list[Question]:
    """Agent Inbox: one request, or a list of them."""
    requests = value if isinstance(value, list) else [value]
    found = []
    for request in requests:
        if not isinstance(request, Mapping) or not isinstance(request.get("action_request"), Mapping):
            return []
        action, config = request["action_request"], request.get("config")
        if not isinstance(config, Mapping) or not isinstance(action.get("action"), str):
            return []
        allowed = tuple(name for key, name in INBOX_DECISIONS.items() if config.get(key))
        arguments = action.get("args")
        found.append(
            Question(
                title=title_of(action["action"]),
                tool=action["action"],
                text=_text(request.get("description")),
                arguments=dict(arguments) if isinstance(arguments, Mapping) else None,
                allowed=tuple(name for name in DECISIONS if name in allowed),
                kind="inbox",
            )
        )
    return found if all(question.allowed for question in found) else []


def _other(value: Any, schema: dict[str, Any] | None) -> Question:
    text = _text(value)
    asked = value.get("question") or value.get("message") if isinstance(value, Mapping) else value
    choices = (schema or {}).get("enum") or []
    return Question(
        title=title_of(asked if isinstance(asked, str) else "A question"),
        text=text,
        allowed=tuple(dict.fromkeys(choices)) if all(isinstance(one, str) for one in choices) else (),
        response_schema=schema,
    )


def validator_of(schema: dict[str, Any]) -> Validator | None:
    """What holds an answer against a schema; None for what is no JSON Schema.

    It fetches nothing: whoever writes the schema would choose what this process asks for.
    """
    named = schema.get("$schema")
    kind: type[Validator] = jsonschema.Draft202012Validator
    if isinstance(named, str):
        kind = jsonschema.validators.validator_for(schema, default=kind)
    try:
        kind.check_schema(schema)
    except (jsonschema.SchemaError, RecursionError):
        return None
    return kind(schema, registry=Registry())


def flat_fields(schema: Mapping[str, Any] | None) -> dict[str, dict[str, Any]] | None:
    """The fields of an answer whose schema is an object of plain values; None for any other."""
    if (
        not schema
        or schema.get("type") != "object"
        or not isinstance(schema.get("properties"), Mapping)
    ):
        return None
    fields = {name: dict(_mapping(field)) for name, field in schema["properties"].items()}
    flat = all(field.get("type") in PLAIN for field in fields.values())
    return fields if fields and flat else None


def title_of(text: str) -> str:
    """A title on one line, of bounded length, of whatever an agent says."""
    line = visible(" ".join(text.replace("`", "'").split())) or "A question"
    return cut(line, TITLE_CHARACTERS)


def _are_calls(requests: Any) -> bool:
    return (
        _are_mappings(requests)
        and bool(requests)
        and all(
            isinstance(one.get("name"), str) and isinstance(one.get("args"), dict) for one in requests
        )
    )


def _are_mappings(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(one, Mapping) for one in values)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
