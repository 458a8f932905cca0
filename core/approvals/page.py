"""The text above a form: what each question is about. Pure.

What an agent says is untrusted. It stands in a code fence that is longer than any fence in it, never as
markdown: Prefect's pages would render HTML, and fetch images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from prefect_langgraph.approvals.questions import title_of
from prefect_langgraph.models import Question

SHOWN_CHARACTERS = 4000
"""How much of what an agent says, and of arguments, is shown."""

MEANINGS = {
    "approve": "the tool is called with these arguments",
    "edit": "it is called with the arguments that you put in their field",
    "reject": "it is not called, and the agent gets your message as the reason",
    "respond": "it is not called, and the agent takes your message for what the tool said",
}

HIDDEN = "Its arguments and texts are not kept in Prefect: read them on the thread."


def page_of(
    questions: Sequence[Question],
    *,
    url: str,
    reasons: Mapping[int, str] | None = None,
    hidden: bool = False,
) -> str:
    """The markdown above a form.

    Args:
        questions: What is asked, in the order of the form.
        url: The deployment's address, for links to the threads.
        reasons: Why an earlier answer did not do, by place.
        hidden: True where arguments and texts were taken out.
    """
    parts = [
        _section(number, question, url, (reasons or {}).get(number - 1), hidden)
        for number, question in enumerate(questions, start=1)
    ]
    return "\n\n".join(parts)


def _section(number: int, question: Question, url: str, reason: str | None, hidden: bool) -> str:
    agent = question.assistant_id.replace("`", "'") or "an agent"
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
        lines.append(fenced(json.dumps(question.arguments, ensure_ascii=False, indent=2)))
    if question.kind not in ("value", "go on"):
        lines.append("\n".join(_meaning(name) for name in question.allowed))
    elif question.kind == "go on":
        lines.append("- **approve**: the run goes on")
    link = f"[The thread]({thread_link(url, question.thread_id)})"
    lines.append(f"{link} `{question.thread_id}`, run `{question.run_id}`")
    return "\n\n".join(lines)


def _meaning(decision: str) -> str:
    known = MEANINGS.get(decision)
    return f"- **{decision}**" + (f": {known}" if known else "")


def thread_link(url: str, thread_id: str) -> str:
    """The page of a thread in LangGraph Studio."""
    asked = urlencode({"baseUrl": url, "threadId": thread_id})
    return f"https://smith.langchain.com/studio/?{asked}"


def fenced(text: str) -> str:
    """A text in a code fence that nothing in it can end, cut where it is long."""
    shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
    if len(text) > SHOWN_CHARACTERS:
        shown += "\n[and more: see the thread]"
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"
