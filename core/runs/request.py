"""One run to start, as the caller described it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prefect.settings import PREFECT_API_URL

from prefect_langgraph.arguments import check_command, check_json
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.ownership.owner import Owner


@dataclass(frozen=True)
class RunRequest:
    """One run to start. Its input, its options and its headers stay out of its repr.

    Attributes:
        assistant_id: The assistant, or the graph's name.
        payload: Keyword arguments of the SDK's `runs.create`: input, command, config, ...
        headers: Sent with the request that starts the run.
        metadata: The caller's own.
        item_key: The caller's own name for the run, which is not sent.
    """

    assistant_id: str
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    item_key: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What makes two requests identical."""
        return {**self.payload, "assistant_id": self.assistant_id, "metadata": dict(self.metadata)}

    @property
    def hidden(self) -> list[Any]:
        """What may not come into a message."""
        return [dict(self.payload), dict(self.metadata), list((self.headers or {}).values())]


def check_request(request: RunRequest) -> RunRequest:
    """Reject a wrong request; return it as it is to be sent, with objects turned into JSON."""
    if not isinstance(request.assistant_id, str) or not request.assistant_id:
        raise InvalidRequestError("assistant_id: give the assistant's id or the graph's name.")
    payload = dict(request.payload)
    if "command" in payload:
        payload["command"] = check_command(payload["command"])
    return replace(
        request,
        payload={name: check_json(name, value) for name, value in payload.items()},
        metadata=check_json("metadata", dict(request.metadata)),
    )


RESUME = "resume"
"""The webhook by which the LangGraph server calls Prefect's own endpoint when a run ends.

The word stays in the arguments by which a second attempt finds its run; it becomes an address only when
the request is sent, so another address of Prefect's does not make another run.
"""


def with_webhook(payload: Mapping[str, Any], owner: Owner) -> dict[str, Any]:
    """The payload of a run with the address that `webhook="resume"` stands for.

    Args:
        payload: As the caller gave it.
        owner: The caller, with its root looked up: the flow run at the top is the one that suspends.

    Raises:
        InvalidRequestError: There is no flow run to resume, or no address of Prefect's.
    """
    if payload.get("webhook") != RESUME:
        return dict(payload)
    if owner.root is None:
        raise InvalidRequestError(
            "webhook='resume' resumes the flow run that starts the run, and this is no flow run."
        )
    api = PREFECT_API_URL.value()
    if not api:
        raise InvalidRequestError(
            "webhook='resume' needs PREFECT_API_URL: a server that LangGraph can reach, which Prefect's"
            " temporary one is not."
        )
    return {**payload, "webhook": f"{api.rstrip('/')}/flow_runs/{owner.root[0]}/resume"}


# LangGraph takes an answer to nothing for a run that has nothing to do, and ends it as a success. Not
# every server knows `strict_resume`, so the answer is compared here before the run is created.

_INTERRUPT_ID = re.compile(r"[0-9a-f]{32}")


def is_strict(payload: Mapping[str, Any]) -> bool:
    """True of a run that is an answer, and is to be refused when nothing waits for it."""
    return bool(payload.get("strict_resume")) and "resume" in (payload.get("command") or {})


def open_interrupts(state: Mapping[str, Any] | None) -> list[str]:
    """The ids of the interrupts that a thread's state waits at; none without a state."""
    tasks = (state or {}).get("tasks") or []
    return [str(item.get("id")) for task in tasks for item in task.get("interrupts") or []]


def check_answer(answer: Any, waiting: list[str], thread_id: str) -> None:
    """Refuse an answer that the thread does not wait for.

    Args:
        answer: The `resume` of a command: one answer, or answers by interrupt id.
        waiting: The ids of the interrupts that are open.
        thread_id: For the message, which contains ids and no answer.

    Raises:
        InvalidRequestError: Nothing waits for it, or it does not say which interrupt it answers.
    """
    by_id = isinstance(answer, Mapping) and bool(answer) and all(map(_is_id, answer))
    unknown = sorted(set(answer) - set(waiting)) if by_id else []
    if not waiting:
        asked = f" for {', '.join(unknown)}, nor" if unknown else ""
        why = f"nothing on it waits{asked} for any answer"
    elif unknown:
        why = f"no interrupt {', '.join(unknown)} is open; it waits at {', '.join(waiting)}"
    elif not by_id and len(waiting) > 1:
        why = f"several interrupts are open, which are answered by id: {', '.join(waiting)}"
    else:
        return
    raise InvalidRequestError(
        f"strict_resume: the answer does not fit thread {thread_id}: {why}. Nothing was started. "
        "get_thread_state shows what the thread waits for."
    )


def _is_id(name: Any) -> bool:
    return isinstance(name, str) and _INTERRUPT_ID.fullmatch(name) is not None
