"""A form as it is kept in Prefect, and what was answered on the forms of a flow run. Pure.

An answer is found by run and interrupt, never by its place in a form: a later execution of the flow run
asks about whatever is open then.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from prefect.input import RunInput
from pydantic import Field

from prefect_langgraph.approvals.form import NAME, fields_of, form_of, left_open, reply_in
from prefect_langgraph.approvals.form import Field as FormField
from prefect_langgraph.approvals.page import page_of
from prefect_langgraph.approvals.replies import LEFT_OPEN, WrongReply, default_for
from prefect_langgraph.models import Model, Question
from prefect_langgraph.suspension.record import Target
from prefect_langgraph.suspension.suspended import FORM_PREFIX

ELSEWHERE = "nobody: answered elsewhere"
"""In the name's field of a form that is submitted since nothing is left to answer."""

DEFAULT_TRIES = 3
"""So often the default reply answers a thread that asks in the same words, before it is given up."""

ID_CHARACTERS = 8

QuestionKey = tuple[str, str | None, int]
"""Run, interrupt, and which of its questions."""


def key_of(question: Question) -> QuestionKey:
    """What an answer to the question is found by."""
    return question.run_id, question.interrupt_id, question.index


class Form(Model):
    """One form of a flow run.

    Attributes:
        name: Its key among the flow run's inputs, and the pause key of its pause.
        asked_at: When it was made.
        deadline: When it is submitted without a person; None is never.
        questions: What it asks, as it may be kept in Prefect.
        totals: How many questions each run asks in all.
        reasons: Why an earlier answer did not do, by place.
        has_default: True when `default` answers what nobody answers until the deadline.
        default: The reply.
        suspends: True when the flow run suspends for it, False when its process waits.
        hidden: True when arguments, texts and choices were taken out.
        is_partial: True when an answer has to be held against more than is kept of its question.
        url: The deployment's address.
        studio_url: Template of a thread's page in Studio; None is LangSmith's.
        credentials: The saved block by which another process reaches it, or None.
        assistant: The saved `LangGraphAssistant` block that leads there instead, or None.
    """

    version: int = 1
    name: str
    asked_at: datetime
    deadline: datetime | None = None
    questions: tuple[Question, ...]
    totals: dict[str, int]
    reasons: dict[int, str] = Field(default_factory=dict)
    has_default: bool = False
    default: Any = None
    suspends: bool = True
    hidden: bool = False
    is_partial: bool = False
    url: str
    studio_url: str | None = None
    credentials: str | None = None
    assistant: str | None = None

    @property
    def id(self) -> str:
        """What a person names it by."""
        return self.name[-ID_CHARACTERS:]

    @property
    def name_field(self) -> str:
        """The required field for who answers, which no other form has."""
        return f"{NAME}_{self.id}"

    @property
    def keyset_base(self) -> str:
        """Begins the keys under which Prefect keeps the form and its response."""
        return f"{'suspended' if self.suspends else 'paused'}-{self.name}"

    @property
    def page(self) -> str:
        """The markdown above the fields."""
        return page_of(
            self.questions,
            url=self.url,
            studio_url=self.studio_url,
            reasons=self.reasons,
            hidden=self.hidden,
        )

    @property
    def model(self) -> type[RunInput]:
        """The form as Prefect takes it."""
        return form_of(self.questions, self.page, self.name_field)

    @property
    def fields(self) -> list[FormField]:
        """The fields of all its questions."""
        numbered = enumerate(self.questions, start=1)
        return [field for number, question in numbered for field in fields_of(number, question)]

    @property
    def target(self) -> Target:
        """How another process reaches the deployment."""
        return Target(url=self.url, credentials=self.credentials, assistant=self.assistant, runs=())

    @property
    def by_deadline(self) -> str:
        """In the name's field of this form when its deadline submits it: no person would type it."""
        return f"nobody until the deadline of {self.name}"

    def without_person(self, name: str) -> dict[str, str]:
        """Values that submit the form in a person's place."""
        return {**left_open(self.questions), self.name_field: name}


def new_form_name() -> str:
    """A name that was never used. Inputs allow lower-case letters, digits and dashes."""
    return f"{FORM_PREFIX}{uuid.uuid4().hex}"


@dataclass(frozen=True)
class Given:
    """An answer that was given."""

    reply: Any
    answered_by: str
    answered_at: datetime


@dataclass
class Answers:
    """What was asked and answered on the forms of one flow run.

    Attributes:
        given: The answers that can be sent.
        refused: Why the last answer to a question cannot be sent.
        questions: What was asked.
        totals: How many questions each run asks.
        defaulted: The questions that the default reply was the answer to.
    """

    given: dict[QuestionKey, Given] = field(default_factory=dict)
    refused: dict[QuestionKey, str] = field(default_factory=dict)
    questions: dict[QuestionKey, Question] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    defaulted: list[Question] = field(default_factory=list)

    def to_run(self, run_id: str) -> list[tuple[Question, Given]] | None:
        """The answers to all questions of a run; None while one of them is open."""
        found = [(self.questions[key], given) for key, given in self.given.items() if key[0] == run_id]
        return found if found and len(found) == self.totals.get(run_id) else None

    def had_default(self, question: Question, *, failed: bool) -> bool:
        """True when the default reply has been the answer to this question as often as it may be.

        Once where the graph failed on it; a graph that asks again in the same words, which may be about
        another thing, gets it `DEFAULT_TRIES` times.

        Args:
            question: As it may be kept.
            failed: True when it is asked again since the graph failed on an answer.
        """

        def same(one: Question) -> bool:
            if failed:
                return (one.interrupt_id, one.index) == (question.interrupt_id, question.index)
            return (one.title, one.text, one.arguments) == (
                question.title,
                question.text,
                question.arguments,
            )

        mine = [one for one in self.defaulted if one.thread_id == question.thread_id and same(one)]
        return len(mine) >= (1 if failed else DEFAULT_TRIES)


@dataclass(frozen=True)
class Submitted:
    """The values that a form was submitted with."""

    form: Form
    values: Mapping[str, Any] | None
    at: datetime | None

    @property
    def by_deadline(self) -> bool:
        """True when nobody answered until the deadline."""
        return (self.values or {}).get(self.form.name_field) == self.form.by_deadline


def answers_of(
    forms: Iterable[Submitted], whole: Mapping[QuestionKey, Question] | None = None
) -> Answers:
    """What was answered; of two usable answers to one question the first counts.

    Args:
        forms: Those of the flow run.
        whole: Questions as their agents ask them, where Prefect keeps less.
    """
    found = Answers()
    for one in sorted(forms, key=lambda one: one.form.asked_at):
        found.totals |= one.form.totals
        for number, question in enumerate(one.form.questions, start=1):
            key = key_of(question)
            found.questions.setdefault(key, question)
            if one.values is None or one.at is None or key in found.given:
                continue
            try:
                reply = _reply(one, number, question, (whole or {}).get(key, question))
            except WrongReply as wrong:
                found.refused[key] = str(wrong)
                continue
            if reply is not LEFT_OPEN:
                found.given[key] = Given(reply, _name(one), one.at)
                if one.by_deadline:
                    found.defaulted.append(question)
    return found


def _reply(one: Submitted, number: int, question: Question, whole: Question) -> Any:
    if one.by_deadline:
        return default_for(whole, one.form.default) if one.form.has_default else LEFT_OPEN
    return reply_in(one.values or {}, number, question, whole)


def _name(one: Submitted) -> str:
    return "default_reply" if one.by_deadline else str((one.values or {}).get(one.form.name_field, ""))


def still_to_ask(questions: Sequence[Question], answers: Answers) -> list[Question]:
    """Those of these questions that have no answer."""
    return [question for question in questions if key_of(question) not in answers.given]
