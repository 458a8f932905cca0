"""`run_assistant`: a saved assistant as a flow to deploy; its caller gives only the input."""

# No annotations from __future__: `.serve()` pickles a flow without the names of its annotations.

import json
import time
from dataclasses import replace
from typing import Any

from prefect_langgraph.approvals.rounds import Policy, Rounds
from prefect_langgraph.arguments import check_choice
from prefect_langgraph.blocks.assistant import LangGraphAssistant
from prefect_langgraph.errors import LangGraphError
from prefect_langgraph.flows._sized import sized_flow
from prefect_langgraph.flows.approvals import Interrupts, check_asks, concluded, nobody_answered
from prefect_langgraph.flows.finalizer import finalized
from prefect_langgraph.flows.suspension import STAY_SECONDS, WaitBy, check_stay
from prefect_langgraph.many_runs import join
from prefect_langgraph.models import RunHandle
from prefect_langgraph.reports.artifacts import publish_table, table_key
from prefect_langgraph.runs import operations
from prefect_langgraph.runs.call import context_of
from prefect_langgraph.suspension.wait import Group, Wait
from prefect_langgraph.texts import cut
from prefect_langgraph.transport.connection import Connection
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.loop import io_loop

SHOWN_CHARACTERS = 5000
"""How much of each value the table shows: one with more is slow to open."""


async def _load(assistant: str) -> LangGraphAssistant:
    try:
        return await LangGraphAssistant.aload(assistant)
    except ValueError as error:
        raise LangGraphError(
            f"There is no saved LangGraphAssistant block named {assistant!r}. Create one on the Blocks "
            f"page, or with LangGraphAssistant(...).save({assistant!r})."
        ) from error


async def _connection(assistant: str) -> Connection:
    return (await _load(assistant)).credentials.connection()


async def _ask(
    handle: RunHandle, assistant: str, stay_seconds: float, deadline: Deadline, *, suspends: bool
) -> Any:
    """Have people answer what the run asks; its values after that.

    Raises:
        JoinTimeoutError: The deadline has passed; the run was cancelled, or its thread is given up.
        RunError: The run did not succeed.
    """
    context = await context_of(await _connection(assistant))
    contexts = {join.location_of(handle): context}
    policy = Policy(
        suspends=suspends, stay_seconds=stay_seconds, deadline=deadline, assistant=assistant
    )
    try:
        outcome = await Rounds(contexts, [handle], policy).run()
    except LangGraphError as error:
        raise await join.ended_by(error, contexts, [handle], "cancel") from error.__cause__
    result = await concluded(
        contexts, [handle], outcome, deadline, on_failure="collect", on_timeout="cancel"
    )
    if outcome.unanswered:
        raise nobody_answered(result, outcome.unanswered, deadline, "cancel")
    if outcome.late:
        raise join.deadline_passed(result, deadline, "cancel")
    return result[0].raise_for_failure().values


async def _suspend(handle: RunHandle, assistant: str, stay_seconds: float, deadline: Deadline) -> None:
    """Wait without a process until the run has ended.

    Raises:
        JoinTimeoutError: The deadline of the first execution has passed; the run was cancelled.
    """
    context = await context_of(await _connection(assistant))
    name = context.deployment.connection.name
    waiting = Wait(
        [Group(context.deployment, [handle], name, assistant if name is None else None)],
        context.owner,
        context.logger,
        stay_seconds=stay_seconds,
        deadline=deadline,
    )
    if await waiting.until_ended():
        passed = replace(deadline, end=time.monotonic())
        await operations.wait(
            context,
            handle,
            deadline=passed,
            on_timeout="cancel",
            cancel_with_caller=False,
            chosen=False,
        )


def table_rows(values: Any) -> list[dict[str, str]]:
    """A run's values as a table: one row per value."""
    named = values if isinstance(values, dict) else {"values": values}
    return [{"name": str(name), "value": _text(value)} for name, value in named.items()]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return cut(text, SHOWN_CHARACTERS)


@finalized([], "assistant", connect=_connection)
@sized_flow(
    advice="Use run_stateless or run_on_thread in a flow of your own.",
    name="langgraph-run-assistant",
    flow_run_name="run {assistant}",
)
def run_assistant(
    assistant: str,
    input: Any = None,
    *,
    thread_id: str | None = None,
    max_wait_seconds: float | None = None,
    show_values: bool = False,
    wait: WaitBy | None = None,
    stay_seconds: float = STAY_SECONDS,
    interrupts: Interrupts = "raise",
) -> Any:
    """Run a saved assistant and return the values of its run.

    For people who run an assistant from Prefect's UI, and for automations: the block holds the
    deployment, the assistant and its configuration. A flow run that is executed again adopts the run of
    the first execution, unless that failed. A cancelled flow run cancels its run, and one whose process
    was killed does so in its finalizer.

    Args:
        assistant: The name of a saved `LangGraphAssistant` block.
        input: The graph's input, as JSON.
        thread_id: The thread, a UUID, for an assistant that should remember earlier runs. None: a
            thread that exists only for this run.
        max_wait_seconds: Wall clock; when it has passed, the flow run fails and its run is cancelled.
            None: no limit.
        show_values: True makes the values a table artifact, for everyone who may see the flow run.
        wait: "suspend" frees the process while the run goes on; see `suspend_until_ended`. "process"
            stays. None: "process", and "suspend" where people are asked.
        stay_seconds: How long the flow run stays in its process before it suspends.
        interrupts: "ask" has people answer what the run asks: see `ask_interrupts`. "raise" fails.

    Returns:
        The graph's values, as JSON.

    Raises:
        RunError: The run did not succeed.
        JoinTimeoutError: `max_wait_seconds` passed.
        DeploymentError: The deployment refused the request or could not be asked.
        LangGraphError: There is no such block.

    Example:
        >>> from prefect_langgraph import LangGraphAssistant, LangGraphCredentials, run_assistant
        >>> credentials = LangGraphCredentials.load("default")
        >>> block = LangGraphAssistant(credentials=credentials, assistant_id="answer")
        >>> _ = block.save("calculator", overwrite=True)
        >>> run_assistant("calculator", {"question": "What is 6 x 7?"})["answer"]
        'You asked: What is 6 x 7?'
    """
    check_choice("interrupts", interrupts, ("raise", "ask"))
    asks = interrupts == "ask"
    wait = wait or ("suspend" if asks else "process")
    check_choice("wait", wait, ("process", "suspend"))
    check_stay(stay_seconds)
    if asks:
        check_asks("interrupts='ask'")
    deadline = Deadline.after(max_wait_seconds)
    run = io_loop().run(_load, assistant).trigger(input, thread_id)
    if asks:
        suspends = wait == "suspend"
        values = io_loop().run(_ask, run.handle, assistant, stay_seconds, deadline, suspends=suspends)
    else:
        if wait == "suspend":
            io_loop().run(_suspend, run.handle, assistant, stay_seconds, deadline)
            max_wait_seconds = None  # it has ended
        run.wait_for_completion(max_wait_seconds)
        values = run.fetch_result()
    if show_values:
        said = f"The values of a run of {run.handle.assistant_id}"
        key = table_key("langgraph-assistant", assistant)
        io_loop().run(publish_table, key, table_rows(values), said)
    return values
