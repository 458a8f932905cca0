"""The text above a form: what each question is about. Pure.

What an agent says is untrusted. It stands in a code fence that is longer than any fence in it, never as
markdown: Prefect's pages would render HTML, and fetch images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from prefect_langgraph.approvals.questions import flat_fields, title_of
from prefect_langgraph.links import STUDIO, filled
from prefect_langgraph.models import Question
from prefect_langgraph.texts import cut, visible

SHOWN_CHARACTERS = 4000
"""How much of what an agent says, and of arguments, is shown."""

ARGUMENTS_SHOWN = 20
"""How many arguments of a long call are shown, each in part."""

NAME_SHOWN = 60
"""How much of an argument's name is shown then."""

MORE = "[and more: see the thread]"

MEANINGS = {
    "approve": "the tool is called with these arguments",
    "edit": "it is called with the arguments that you put in their field",
    "reject": "it is not called, and the agent gets your message as the reason",
    "respond": "it is not called, and the agent takes your message for what the tool said",
}

HIDDEN = "Its arguments, texts and choices are not kept in Prefect: read them on the thread."

ELSEWHERE = "Too much of it is missing here for a decision: answer it on the thread."


def page_of(
    questions: Sequence[Question],
    *,
    url: str,
    studio_url: str | None = None,
    reasons: Mapping[int, str] | None = None,
    hidden: bool = False,
) -> str:
    """The markdown above a form.

    Args:
        questions: What is asked, in the order of the form.
        url: The deployment's address, for links to the threads.
        studio_url: Template of a thread's page; None is LangSmith's.
        reasons: Why an earlier answer did not do, by place.
        hidden: True where arguments and texts were taken out.
    """
    parts = [
        _section(
            number,
            question,
            filled(
                studio_url or STUDIO,
                run_id=question.run_id,
                thread_id=question.thread_id,
                assistant_id=question.assistant_id or "",
                url=url,
            ),
            (reasons or {}).get(number - 1),
            hidden,
        )
        for number, question in enumerate(questions, start=1)
    ]
    return "\n\n".join(parts)


def _section(
    number: int, question: Question, thread_page: str, reason: str | None, hidden: bool
) -> str:
    agent = title_of(question.assistant_id or "an agent")
    lines = [f"### {number}. `{agent}` asks: `{title_of(question.title)}`"]
    if reason:
        lines.append("An earlier answer did not do:")
        lines.append(fenced(reason))
    if hidden:
        lines.append(HIDDEN)
    if question.text:
        lines.append(fenced(question.text))
    if question.arguments is not None:
        lines.append("Arguments:")
        lines.append(fenced(_json(abbreviated(question.arguments))))
    if question.kind == "value":
        lines += _about_the_answer(question)
    elif not question.allowed:
        lines.append(ELSEWHERE)
    elif question.kind != "go on":
        lines.append("\n".join(_meaning(name) for name in question.allowed))
    else:
        lines.append("- **approve**: the run goes on")
    link = f"[The thread]({thread_page})"
    lines.append(f"{link} `{question.thread_id}`, run `{question.run_id}`")
    return "\n\n".join(lines)


def _meaning(decision: str) -> str:
    known = MEANINGS.get(decision)
    return f"- **{decision}**" + (f": {known}" if known else "")


def _about_the_answer(question: Question) -> list[str]:
    """What the agent says of the answer that it wants, beside the choices that it gives."""
    schema = question.response_schema or {}
    fields = flat_fields(schema)
    if fields is None:
        said = {key: value for key, value in schema.items() if key not in ("type", "enum", "$schema")}
        return ["The answer, as a JSON Schema:", fenced(_json(schema))] if said else []
    lines = [line for name, field in fields.items() if (line := _about_field(name, field))]
    return ["Its fields:", fenced("\n".join(lines))] if lines else []


def _about_field(name: str, field: Mapping[str, Any]) -> str:
    """What the agent says of one field, or nothing."""
    words = [str(field[key]) for key in ("title", "description") if key in field]
    known = ("type", "title", "description", "enum")
    words += [f"{key} {json.dumps(value)}" for key, value in field.items() if key not in known]
    return f"{title_of(name)}: {'; '.join(words)}" if words else ""


def abbreviated(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, each in part where they are too long to be shown: none hides another."""
    if len(_json(arguments)) <= SHOWN_CHARACTERS:
        return dict(arguments)
    found: dict[str, Any] = {}
    share = SHOWN_CHARACTERS // 2 // min(len(arguments), ARGUMENTS_SHOWN)
    for name, value in list(arguments.items())[:ARGUMENTS_SHOWN]:
        short = name if len(name) <= NAME_SHOWN else f"{name[:NAME_SHOWN]}…"
        while short in found:
            short += "…"
        found[short] = value if len(_json(value)) <= share else _part(value, share)
    if len(arguments) > len(found):
        found["…"] = f"[and {len(arguments) - len(found):,} more: see the thread]"
    return found


def _part(value: Any, characters: int) -> str:
    """The beginning of a value, in no more characters than that when it is shown as JSON."""
    text = (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))[:characters]
    if len(_json(text)) > characters:
        text = text[: characters // len("\\u0000")]
    return f"{text}… {MORE}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def fenced(text: str) -> str:
    """A text in a code fence that nothing in it can end, cut where it is long."""
    text = visible(text)
    shown = cut(text, SHOWN_CHARACTERS)
    if len(text) > SHOWN_CHARACTERS:
        shown += f"\n{MORE}"
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"
