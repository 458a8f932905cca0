"""Checks of arguments, made before any request is sent."""

from __future__ import annotations

import math
import sys
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect_langgraph.canonical import is_too_deep, plain
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.texts import cut

LONGEST = timedelta(days=3653)
"""The longest time that is accepted: a longer one is a mistake, or means "for ever"."""

ONE_PER_RUN = "inputs: give a list with one input, or one RunItem, per run."
"""What is said of inputs that are no list."""

_SHOWN_CHARACTERS = 101


def _shown(value: object) -> str:
    """A wrong value for a message."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more than 4,300 digits
        return f"a {type(value).__name__}"
    return cut(text, _SHOWN_CHARACTERS)


def check_positive(name: str, value: float | None) -> None:
    """Reject a limit that is not a number greater than zero. None: no limit."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InvalidRequestError(
            f"{name}={_shown(value)}: give a number greater than zero, or None for no limit."
        )
    if value > sys.float_info.max and value != math.inf:
        raise InvalidRequestError(f"{name} is too large a number: give None for no limit.")


def check_text(name: str, value: str) -> None:
    """Reject a text with half a character in it, which cannot be sent."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"{name}: half of a surrogate pair is in a text.") from None


def check_depth(value: Any) -> None:
    """Reject arguments that are nested deeper than JSON is written: Prefect's own walk would end."""
    if is_too_deep(value):
        raise InvalidRequestError(
            "The arguments are nested more than some 250 levels deep, or contain themselves."
        )


def check_grace(name: str, seconds: float | None) -> None:
    """Reject a grace period that is not from 0 seconds to ten years. None: for ever."""
    if seconds is None:
        return
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0 <= seconds <= LONGEST.total_seconds():
        raise InvalidRequestError(
            f"{name}={_shown(seconds)}: give seconds, from 0 to "
            f"{LONGEST.total_seconds():.0f} (ten years)."
        )


def check_count(name: str, value: int | None) -> None:
    """Reject a bound that is not a whole number of at least one. None: no limit."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidRequestError(
            f"{name}={_shown(value)}: give a whole number greater than zero, or None for no limit."
        )


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Reject a value that is not one of the choices."""
    if value not in choices:
        raise InvalidRequestError(
            f"{name}={_shown(value)}: choose one of {', '.join(map(repr, choices))}."
        )


def check_thread_id(thread_id: object) -> str:
    """A thread id as text. Reject what is not a UUID."""
    try:
        return str(uuid.UUID(str(thread_id)))
    except ValueError:
        raise InvalidRequestError(
            f"thread_id={_shown(thread_id)} is not a UUID. create_thread() makes a thread and returns "
            "its id."
        ) from None


def check_json(name: str, value: Any) -> Any:
    """Reject a value that is not JSON; return it as plain JSON, see `plain`."""
    try:
        return plain(value)
    except TypeError as error:
        said = str(error)
        where = f"{name}{said}" if said[:1] in (".", "[", " ") else f"{name} is not JSON: {said}"
        raise InvalidRequestError(f"{where}.") from None


def check_command(command: Any) -> dict[str, Any]:
    """A command as the server takes it, from a mapping or a `Command` of LangGraph.

    Raises:
        InvalidRequestError: It is neither, or has a field that the server does not know.
    """
    given = command
    if type(command).__name__ == "Command" and not isinstance(command, Mapping):
        if getattr(command, "graph", None) is not None:
            raise InvalidRequestError("command: a Command with graph= is for nodes, not for a run.")
        given = {name: getattr(command, name, None) for name in _COMMAND}
        given = {name: value for name, value in given.items() if value is not None and value != ()}
    if not isinstance(given, Mapping) or not set(given) <= set(_COMMAND):
        raise InvalidRequestError(
            "command: give a dictionary with resume, update or goto, as {'resume': answer}, or a "
            "Command of LangGraph with those."
        )
    found = dict(given)
    if "goto" in found:
        several = isinstance(found["goto"], list | tuple)
        sent = [_send(item) for item in (found["goto"] if several else [found["goto"]])]
        found["goto"] = sent if several else sent[0]
    return found


_COMMAND = ("resume", "update", "goto")


def _send(target: Any) -> Any:
    """The target of a command, with a `Send` of LangGraph as the server takes it."""
    if type(target).__name__ == "Send" and not isinstance(target, Mapping):
        return {"node": target.node, "input": target.arg}
    return target


def check_end(end_time: datetime | None) -> None:
    """Reject an end that has no timezone or has passed."""
    if end_time is None:
        return
    if not isinstance(end_time, datetime) or end_time.tzinfo is None:
        raise InvalidRequestError(
            "end_time has no timezone. Use one such as datetime.now(UTC) + timedelta(days=1)."
        )
    if end_time <= datetime.now(UTC):
        raise InvalidRequestError(f"end_time={end_time.isoformat()} has passed: it would never fire.")


def check_lease(lease: timedelta | None) -> None:
    """Reject a lease that is not longer than zero and at most ten years."""
    if lease is not None and (not isinstance(lease, timedelta) or not timedelta(0) < lease <= LONGEST):
        raise InvalidRequestError(
            f"lease={lease!r}: give a timedelta above zero, of ten years at most, or None for none."
        )
