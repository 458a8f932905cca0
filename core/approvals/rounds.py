"""Waiting, asking, answering, and waiting again, until nothing is interrupted.

    FOLLOW     what was answered is sent, once, and its run takes the place of the one that asked
    WAIT       until all have ended, without a process where that is possible
    LOOK       what is interrupted asks; a thread on which another run has begun is followed
    ASK        one form for the first open questions

Each execution of the flow run begins at the top and comes to the same place: an answer is in Prefect
before the process that sends it exists, and a run that was started with it is found on its thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import CancelledRun, PrefectException

from prefect_langgraph.approvals import asking, present, storage
from prefect_langgraph.approvals.form import QUESTIONS_SHOWN, shown
from prefect_langgraph.approvals.questions import QuestionReader, questions_of
from prefect_langgraph.approvals.record import (
    Answers,
    Form,
    QuestionKey,
    Submitted,
    answers_of,
    key_of,
    new_form_name,
    still_to_ask,
)
from prefect_langgraph.approvals.replies import WrongReply, default_for, refuses_answer
from prefect_langgraph.canonical import digest
from prefect_langgraph.errors import DeploymentError, LangGraphError
from prefect_langgraph.logs import counted
from prefect_langgraph.many_runs import join
from prefect_langgraph.models import Answer, Question, RunHandle, RunStatus
from prefect_langgraph.reports.approvals import emit_answered, emit_requested
from prefect_langgraph.results import RunResult
from prefect_langgraph.runs.call import Context
from prefect_langgraph.suspension.look import unfinished
from prefect_langgraph.suspension.obstacles import obstacle
from prefect_langgraph.suspension.wait import TRY_AGAIN_SECONDS, Group, Wait
from prefect_langgraph.transport.deadline import NO_DEADLINE, Deadline
from prefect_langgraph.transport.paging import each

_DEADLINE = "langgraph-ask-"
"""Begins the keys of inputs that hold a deadline."""

_REASON_CHARACTERS = 500

_REFUSED_BEFORE = "The agent refused it: see the thread."

_HIDDEN_REASON = "It does not fit what the agent asks: see the thread."

PREFECT_TRIES = 30
"""So often Prefect is asked for what was answered, with a pause in between, before that fails."""

READ_SECONDS = 30.0
"""How long the deployment may take to tell what became of runs that had ended in time."""


Asks = Mapping[int, tuple[RunResult, list[Question]]]
"""What asks, with its questions, by place."""


@dataclass(frozen=True)
class Policy:
    """How a caller wants people to be asked.

    Attributes:
        suspends: True waits without a process where that is possible.
        stay_seconds: How long the process stays before it suspends while runs go on.
        deadline: The caller's.
        has_default: True when `default` answers what nobody answers until the deadline.
        default: The reply.
        reader: Reads questions in the place of this package, or None.
        show_arguments: False keeps arguments and texts out of Prefect.
        assistant: The saved `LangGraphAssistant` block that leads to the deployment, or None.
    """

    suspends: bool
    stay_seconds: float
    deadline: Deadline
    has_default: bool = False
    default: Any = None
    reader: QuestionReader | None = None
    show_arguments: bool = True
    assistant: str | None = None


@dataclass
class Outcome:
    """What rounds came to.

    Attributes:
        handles: The run of each thread that is the newest.
        found: What became of each; None of those that had not ended at the deadline.
        errors: Of runs that the server would not tell about or go on with, why, by place.
        answers: What was answered.
        sent: The runs that were started with answers.
        unanswered: The places of runs that nobody answered until the deadline.
        open: What they ask.
        late: True when the deadline passed.
    """

    handles: list[RunHandle]
    found: list[RunResult | None]
    errors: dict[int, DeploymentError] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    sent: list[RunHandle] = field(default_factory=list)
    unanswered: list[int] = field(default_factory=list)
    open: list[Question] = field(default_factory=list)
    late: bool = False


def _interrupt_of(question: Question) -> tuple[str, str | None]:
    """What a question that is asked again is known by, whichever run asks it."""
    return question.thread_id, question.interrupt_id


class Rounds:
    """The rounds of one call, in a flow run. Await `run` in the flow run's own context.

    Args:
        contexts: Of the handles.
        handles: The runs; at least one.
        policy: The caller's.
        known: What is known of them already, by place, as the poller tells it.
    """

    def __init__(
        self,
        contexts: join.Contexts,
        handles: Sequence[RunHandle],
        policy: Policy,
        *,
        known: Mapping[int, RunResult] | None = None,
    ) -> None:
        self._contexts = contexts
        first = next(iter(contexts.values()))
        self._owner, self._logger = first.owner, first.logger
        self._policy = policy
        self._known = dict(known or {})
        self._out = Outcome(handles=list(handles), found=[None] * len(handles))
        self._asked: dict[str, list[Question]] = {}
        self._refused: dict[tuple[str, str | None], str] = {}
        self._answered: dict[str, list[Answer]] = {}
        self._forms: list[Submitted] = []
        self._whole: dict[QuestionKey, Question] = {}
        self._totals: dict[str, int] = {}
        self._deadline: datetime | None = None
        self._late_since: float | None = None
        names = [
            context.deployment.connection.name or policy.assistant for context in contexts.values()
        ]
        self._obstacle = obstacle(self._owner, names) if policy.suspends else None
        self._suspends = policy.suspends and self._obstacle is None

    async def run(self) -> Outcome:
        """Go on until nothing is interrupted, or the deadline has passed.

        Raises:
            Pause: Prefect's signal that ends the process of a flow run that has suspended.
            DeploymentError: The deployment refused what it was asked.
            Abort: Prefect's signal that ends the process of a flow run that was cancelled.
            LangGraphError: The flow run cannot ask a person.
        """
        await self._find_deadline()
        out = self._out
        while True:
            self._forms = await self._read_forms()
            await each(self._open, lambda place: self._alone(place, self._follow(place)))
            answers, open_ = self._answers, self._open
            asks = await self._look(open_, await self._wait(open_, self._time_left(answers)))
            left = [place for place in open_ if out.found[place] is None and place not in asks]
            out.late = self._time_left(answers).passed
            if not asks and (not left or out.late):
                break
            if left and not out.late:
                continue  # another run has begun on its thread
            if out.late or not await self._ask(asks, answers):
                self._give_up(asks, answers)
                break
        out.late = bool(out.unanswered or self._open)
        if len(out.errors) == len(out.handles):
            raise out.errors[0]  # nothing came of any
        out.answers = [answer for answers in self._answered.values() for answer in answers]
        return out

    # -- the deadline ------------------------------------------------------------------------------

    async def _find_deadline(self) -> None:
        """Take the deadline of the first execution, where there is one."""
        remaining = self._policy.deadline.remaining()
        if remaining is None:
            return
        self._deadline = datetime.now(UTC) + timedelta(seconds=remaining)
        runs = sorted(f"{handle.thread_id}:{handle.run_id}" for handle in self._out.handles)
        asked = {"runs": runs, "seconds": self._policy.deadline.max_wait_seconds}
        name = digest(f"ask {self._owner.attempt}", asked)[:32]
        async with get_client() as client:
            self._deadline = await storage.deadline_of(
                client, self._flow_run_id, f"{_DEADLINE}{name}", self._deadline
            )

    @property
    def _flow_run_id(self) -> UUID:
        return UUID(self._owner.flow_run_id)

    @property
    def _is_late(self) -> bool:
        """True when people have no time left."""
        return self._deadline is not None and self._deadline <= datetime.now(UTC)

    def _time_left(self, answers: Answers) -> Deadline:
        """The time that runs have.

        As long again where answers are certain by the deadline: those that came in the last moment, and
        the default, would be for nothing otherwise.
        """
        if self._deadline is None:
            return Deadline()
        seconds = (self._deadline - datetime.now(UTC)).total_seconds()
        end = time.monotonic() + max(seconds, 0.0)
        if seconds <= 0 and self._policy.has_default and answers.given:
            # Of a suspension the record holds it, so a later execution does not begin anew.
            self._late_since = self._late_since or time.monotonic()
            end = self._late_since + (self._policy.deadline.max_wait_seconds or 0.0)
        return replace(self._policy.deadline, end=end)

    def _context(self, place: int) -> Context:
        return self._contexts[join.location_of(self._out.handles[place])]

    @property
    def _open(self) -> list[int]:
        """The places of which it is not known yet what came of them."""
        return [place for place, result in enumerate(self._out.found) if result is None]

    async def _alone(self, place: int, step: Awaitable[None], known: RunResult | None = None) -> None:
        """Take a step for one run: what the deployment refuses of it ends it, and no other."""
        try:
            await step
        except DeploymentError as error:
            self._logger.warning("%s: %s", self._out.handles[place], error)
            self._out.errors[place] = error
            self._out.found[place] = known or self._unknown(place, RunStatus.INTERRUPTED)

    # -- follow ------------------------------------------------------------------------------------

    @property
    def _answers(self) -> Answers:
        """What was answered so far."""
        return answers_of(self._forms, self._whole)

    async def _read_forms(self) -> list[Submitted]:
        """The forms so far, with what was put in; Prefect may be away for a while."""
        tries = 0
        while True:
            try:
                async with get_client() as client:
                    return await storage.forms_of(client, self._flow_run_id)
            except (httpx.HTTPError, PrefectException) as error:
                tries += 1
                if tries == PREFECT_TRIES:
                    raise
                said = type(error).__name__
                self._logger.warning("Prefect could not be asked for answers (%s); trying again", said)
            await asyncio.sleep(TRY_AGAIN_SECONDS)

    async def _follow(self, place: int) -> None:
        """Send what was answered, and go on with the run that goes on."""
        handle = self._out.handles[place]
        seen = {handle.run_id}
        await self._know(place)
        while (replies := self._answers.to_run(handle.run_id)) is not None:
            self._known.pop(place, None)
            pairs = [(question, given.reply) for question, given in replies]
            context = self._context(place)
            sent = await present.send(context, handle, pairs, NO_DEADLINE)
            newest = sent.handle
            if sent.has_answers:
                self._note(newest, replies, is_new=newest.origin != "adopted")
                self._out.sent.append(newest)
                asked = [self._whole.get(key_of(question), question) for question, _ in replies]
                if sent.goes_on:
                    self._refused |= dict.fromkeys(map(_interrupt_of, asked), _REFUSED_BEFORE)
                else:
                    self._asked[newest.run_id] = asked
            elif newest.run_id != handle.run_id:
                self._logger.warning(
                    "%s was answered elsewhere: what was answered here is not sent", handle
                )
            handle = self._out.handles[place] = newest
            if handle.run_id in seen:
                break
            seen.add(handle.run_id)
            await self._know(place)

    async def _know(self, place: int) -> None:
        """Learn what a run asks where Prefect keeps less of it: an answer is held against the whole."""
        handle, context = self._out.handles[place], self._context(place)
        partial = {one.form.name: one.form for one in self._forms if one.form.is_partial}
        asked = {question.run_id for form in partial.values() for question in form.questions}
        known = {key[0] for key in self._whole}
        if handle.run_id not in asked - known:
            return
        newest = await present.latest(context.deployment, handle, NO_DEADLINE)
        if newest.run_id != handle.run_id:
            return  # it was answered
        result = (await self._read([place], Deadline.after(READ_SECONDS), {})).get(place)
        if result is not None and result.status is RunStatus.INTERRUPTED:
            questions = questions_of(result, self._policy.reader)
            self._whole |= {key_of(question): question for question in questions}

    def _note(
        self, handle: RunHandle, replies: Sequence[tuple[Question, Any]], *, is_new: bool
    ) -> None:
        found = [
            Answer(
                question=question,
                reply=given.reply,
                answered_by=given.answered_by,
                answered_at=given.answered_at,
                run_id=handle.run_id,
            )
            for question, given in replies
        ]
        if is_new:
            for answer in found:
                emit_answered(answer)
        self._answered[handle.run_id] = found

    # -- wait and look -----------------------------------------------------------------------------

    async def _wait(self, places: Sequence[int], deadline: Deadline) -> list[RunResult | None]:
        """What became of these runs; None of those that had not ended at the deadline."""
        unknown = [place for place in places if place not in self._known]
        found: dict[int, RunResult | None] = dict(self._known)
        self._known.clear()
        if unknown:
            left = await self._until_ended([self._out.handles[place] for place in unknown], deadline)
            ended = [place for place in unknown if self._out.handles[place].run_id not in left]
            found |= await self._read(ended, deadline, self._out.errors)
        return [found.get(place) for place in places]

    async def _until_ended(self, handles: Sequence[RunHandle], deadline: Deadline) -> set[str]:
        """Wait without a process where that is possible; the runs that have not ended in time."""
        if self._suspends:
            wait = Wait(
                self._groups(handles),
                self._owner,
                self._logger,
                stay_seconds=self._policy.stay_seconds,
                deadline=deadline,
            )
            return {handle.run_id for handle in await wait.until_ended()}
        if not deadline.passed:
            return set()  # the reading waits for them
        left = await asyncio.gather(
            *(unfinished(group.deployment, group.handles) for group in self._groups(handles))
        )
        return {handle.run_id for part in left for handle in part}

    async def _read(
        self, places: Sequence[int], deadline: Deadline, errors: dict[int, DeploymentError]
    ) -> dict[int, RunResult | None]:
        """What became of runs, also of those that have ended when the time is over."""
        if not places:
            return {}
        left = deadline.remaining()
        if left is not None and left < READ_SECONDS and (self._suspends or deadline.passed):
            deadline = Deadline.after(READ_SECONDS)
        handles = [self._out.handles[place] for place in places]
        refused: dict[int, DeploymentError] = {}
        found = await join.wait_all(self._contexts, handles, "collect", deadline, None, refused)
        errors |= {places[index]: error for index, error in refused.items()}
        return dict(zip(places, found, strict=True))

    def _groups(self, handles: Sequence[RunHandle]) -> list[Group]:
        groups = []
        for location, context in self._contexts.items():
            here = [handle for handle in handles if join.location_of(handle) == location]
            name = context.deployment.connection.name
            assistant = self._policy.assistant if name is None else None
            if here:
                groups.append(Group(context.deployment, here, name, assistant))
        return groups

    async def _look(
        self, places: Sequence[int], results: Sequence[RunResult | None]
    ) -> dict[int, tuple[RunResult, list[Question]]]:
        """Note what has ended; what asks, with its questions, by place."""
        asks: dict[int, tuple[RunResult, list[Question]]] = {}

        async def one(place: int, result: RunResult) -> None:
            questions = await self._questions(place, result)
            if questions is None:
                return
            if questions:
                asks[place] = (result, questions)
                self._totals[result.handle.run_id] = len(questions)
                self._whole |= {key_of(question): question for question in questions}
            else:
                self._out.found[place] = result

        async def look(pair: tuple[int, RunResult | None]) -> None:
            place, result = pair
            if place in self._out.errors:
                self._out.found[place] = result or self._unknown(place, RunStatus.RUNNING)
            elif result is not None:
                await self._alone(place, one(place, result), result)

        await each(list(zip(places, results, strict=True)), look)
        return dict(sorted(asks.items()))

    def _unknown(self, place: int, status: RunStatus) -> RunResult:
        error = join.failure_of(self._out.errors[place])
        return RunResult(handle=self._out.handles[place], status=status, error=error)

    async def _questions(self, place: int, result: RunResult) -> list[Question] | None:
        """What a run asks; None when another run has begun on its thread, which is followed."""
        handle, context = self._out.handles[place], self._context(place)
        if result.status is RunStatus.LOST and handle.run_id in self._answers.totals:
            self._logger.warning("%s was asked about, and its thread is gone", handle)
        asked = self._asked.pop(handle.run_id, [])
        if refuses_answer(result, asked) and not self._had_default(asked):
            self._refused |= dict.fromkeys(map(_interrupt_of, asked), self._reason_in(result))
            self._logger.warning("%s refused an answer: it is asked again", handle)
            self._out.handles[place] = await present.ask_again(context, handle, NO_DEADLINE)
            return None
        if result.status is not RunStatus.INTERRUPTED:
            return []
        newest = await present.latest(context.deployment, handle, NO_DEADLINE)
        if newest.run_id != handle.run_id:
            self._out.handles[place] = newest
            return None
        return questions_of(result, self._policy.reader)

    def _give_up(self, asks: Asks, answers: Answers) -> None:
        """Note what nobody answered."""
        for place, (_, questions) in asks.items():
            self._out.unanswered.append(place)
            self._out.open += [self._shown(one) for one in still_to_ask(questions, answers)]

    # -- ask ---------------------------------------------------------------------------------------

    async def _ask(self, asks: Asks, answers: Answers) -> bool:
        """Show a form for the first open questions. False when time is over, without a default."""
        if self._is_late:
            asks = self._with_default(asks, answers)
            if not asks:
                return False
        context, form = self._form(asks, answers)
        if self._is_late:
            async with get_client() as client:
                await storage.save(client, self._flow_run_id, form)
                await storage.submit_by_deadline(client, self._flow_run_id, form)
            return True
        emit_requested(form.questions, form.url)
        self._logger.info(
            "%s for a person, of %s",
            counted(len(form.questions), "question"),
            counted(len(asks), "run"),
        )
        try:
            if self._suspends:
                self._obstacle = await asking.suspend_for(
                    form, self._owner, context.deployment, self._logger
                )
                self._suspends = self._obstacle is None
                return True
            if self._obstacle is not None:
                self._logger.info("Asking in the process, without suspending: %s", self._obstacle)
            await asking.pause_for(form, self._owner, context.deployment, self._logger)
        except CancelledRun:
            raise
        except (httpx.HTTPError, PrefectException) as error:
            self._logger.warning(
                "Prefect could not be asked to show a form (%s); trying again", type(error).__name__
            )
            await asyncio.sleep(TRY_AGAIN_SECONDS)
        return True

    def _form(self, asks: Asks, answers: Answers) -> tuple[Context, Form]:
        """The form for the first open questions, and the context of their deployment."""
        to_ask: list[Question] = []
        totals: dict[str, int] = {}
        reasons: dict[int, str] = {}
        context: Context | None = None
        for place, (result, questions) in asks.items():
            here = self._context(place)
            if context is not None and here is not context:
                continue  # one form leads to one deployment; the others come in the next
            missing = still_to_ask(questions, answers)[: QUESTIONS_SHOWN - len(to_ask)]
            if not missing or result.handle.run_id in totals:
                continue
            context = here
            for question in missing:
                if reason := self._reason(question, answers):
                    reasons[len(to_ask)] = reason
                to_ask.append(question)
            totals[result.handle.run_id] = self._totals[result.handle.run_id]
        if context is None:
            raise LangGraphError("What was answered could not be sent: no question is left to ask.")
        connection = context.deployment.connection
        kept = tuple(self._shown(question) for question in to_ask)
        is_partial = any(
            (one.allowed, one.response_schema) != (whole.allowed, whole.response_schema)
            for one, whole in zip(kept, to_ask, strict=True)
        )
        return context, Form(
            name=new_form_name(),
            asked_at=datetime.now(UTC),
            deadline=self._deadline,
            questions=kept,
            totals=totals,
            reasons=reasons,
            has_default=self._policy.has_default,
            default=self._policy.default,
            suspends=self._suspends,
            hidden=not self._policy.show_arguments,
            is_partial=is_partial,
            url=connection.url,
            studio_url=connection.studio_url,
            credentials=connection.name,
            assistant=self._policy.assistant if connection.name is None else None,
        )

    def _shown(self, question: Question) -> Question:
        return shown(
            question,
            show_arguments=self._policy.show_arguments,
            own_choices=self._policy.reader is not None,
        )

    def _reason_in(self, result: RunResult) -> str:
        """Why the graph refused an answer."""
        error = result.error
        if error is None:
            return _REFUSED_BEFORE
        return (str(error) if self._policy.show_arguments else error.error)[:_REASON_CHARACTERS]

    def _reason(self, question: Question, answers: Answers) -> str | None:
        """Why an earlier answer to the question did not do, or None."""
        if (by_graph := self._refused.get(_interrupt_of(question))) is not None:
            return by_graph
        refused = answers.refused.get(key_of(question))
        # It may name what the agent allows, which is not to be kept.
        return refused if self._policy.show_arguments or refused is None else _HIDDEN_REASON

    def _with_default(self, asks: Asks, answers: Answers) -> Asks:
        """Those of the questions that have no answer, and that the default reply fits."""
        if not self._policy.has_default:
            return {}
        found: dict[int, tuple[RunResult, list[Question]]] = {}
        for place, (result, questions) in asks.items():
            fitting = [
                question
                for question in still_to_ask(questions, answers)
                if self._default_fits(question)
                and not answers.had_default(
                    self._shown(question), failed=_interrupt_of(question) in self._refused
                )
            ]
            if fitting:
                found[place] = (result, fitting)
        return found

    def _had_default(self, questions: Sequence[Question]) -> bool:
        """True when the default reply answered one of these already."""
        answers = self._answers
        return any(answers.had_default(self._shown(one), failed=True) for one in questions)

    def _default_fits(self, question: Question) -> bool:
        try:
            default_for(question, self._policy.default)
        except WrongReply as wrong:
            self._logger.warning("The default reply does not fit %r: %s", question.title, wrong)
            return False
        return True
