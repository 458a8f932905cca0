"""Events and a table of what people were asked and answered. They hold no argument and no text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prefect.events import emit_event

from prefect_langgraph.models import Answer, Question

REQUESTED = "langgraph.approval.requested"
ANSWERED = "langgraph.approval.answered"

ARTIFACT_KEY = "langgraph-approvals"


def emit_requested(questions: Iterable[Question], url: str) -> None:
    """Emit an event for each question of a form."""
    for question in questions:
        emit_event(REQUESTED, resource={**_resource(question), "langgraph.deployment": url})


def emit_answered(answer: Answer) -> None:
    """Emit the event that a run goes on with an answer."""
    emit_event(
        ANSWERED,
        resource={**_resource(answer.question), "langgraph.approval.decision": decision_of(answer)},
        payload={
            "answered_by": answer.answered_by,
            "answered_at": answer.answered_at.isoformat(),
            "run_id": answer.run_id,
        },
    )


def _resource(question: Question) -> dict[str, str]:
    interrupt = question.interrupt_id or "breakpoint"
    return {
        "prefect.resource.id": f"langgraph.question.{question.run_id}.{interrupt}.{question.index}",
        "prefect.resource.name": question.tool or "question",
        "langgraph.assistant": question.assistant_id,
        "langgraph.thread": question.thread_id,
        "langgraph.run": question.run_id,
    }


def decision_of(answer: Answer) -> str:
    """What was decided, in one word."""
    if answer.question.kind == "go on":
        return "approve"
    if answer.question.kind != "value" and isinstance(answer.reply, Mapping):
        return str(answer.reply.get("type"))
    return "answered"


def rows_of_questions(answers: Sequence[Answer], left_open: Sequence[Question]) -> list[dict[str, Any]]:
    """What was answered and what was not, one question a row."""
    answered = [
        {
            **_asked(answer.question),
            "decision": decision_of(answer),
            "answered by": answer.answered_by,
            "answered at": f"{answer.answered_at:%Y-%m-%d %H:%M:%S} UTC",
            "thread": answer.question.thread_id,
            "run": answer.run_id,
        }
        for answer in answers
    ]
    waiting = [
        {
            **_asked(question),
            "decision": "left open",
            "answered by": "",
            "answered at": "",
            "thread": question.thread_id,
            "run": question.run_id,
        }
        for question in left_open
    ]
    return [*answered, *waiting]


def _asked(question: Question) -> dict[str, str]:
    return {"agent": question.assistant_id, "asked": question.tool or question.title}
