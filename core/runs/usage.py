"""Tokens that the messages of a state report, counted for one run and not for those before it. Pure.

A lower bound: a call counts whose message is in the state that the run left. A call whose message the
graph does not keep, or removed again, and the first attempt of one that was retried are not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from prefect_langgraph.canonical import canonical
from prefect_langgraph.results import Usage

Message = Mapping[str, Any]


def usage_of(values: Any, before: Any = None) -> Usage | None:
    """Tokens that the messages of a state report, added up; None when none does.

    Args:
        values: A state, or what a function returned: messages alone, in a list or in channels.
        before: The state before the run, whose messages do not count.
    """
    known = Counter(_identity(message) for message in _messages(before))
    total: Usage | None = None
    for message in _messages(values):
        identity = _identity(message)
        if known[identity]:
            known[identity] -= 1
        else:
            total = (total or Usage()) + _reported(message)
    return total


def _messages(values: Any) -> Iterator[Message]:
    """Messages that report tokens, each once, also when it is in several channels."""
    seen: set[str] = set()
    channels = [values]
    if isinstance(values, Mapping) and "usage_metadata" not in values:
        channels = list(values.values())
    for channel in channels:
        for message in channel if isinstance(channel, list) else [channel]:
            if not isinstance(message, Mapping):
                continue
            if not isinstance(message.get("usage_metadata"), Mapping):
                continue
            message_id = message.get("id")
            if isinstance(message_id, str):
                if message_id in seen:
                    continue
                seen.add(message_id)
            yield message


def _identity(message: Message) -> bytes:
    # A message that was replaced under its id is another.
    return canonical([message.get("id"), message["usage_metadata"], _model(message)])


def _reported(message: Message) -> Usage:
    counts = message["usage_metadata"]
    details = counts.get("input_token_details")
    cached = _count(details.get("cache_read")) if isinstance(details, Mapping) else 0
    given, said = _count(counts.get("input_tokens")), _count(counts.get("output_tokens"))
    total = _count(counts.get("total_tokens")) or given + said
    usage = Usage(input_tokens=given, output_tokens=said, cached_tokens=cached, total_tokens=total)
    model = _model(message)
    return usage if model is None else usage.model_copy(update={"by_model": {model: usage}})


def _model(message: Message) -> str | None:
    about = message.get("response_metadata")
    if not isinstance(about, Mapping):
        return None
    names = (about.get(name) for name in ("model_name", "model", "model_id"))
    return next((name for name in names if isinstance(name, str) and name), None)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
