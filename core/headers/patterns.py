"""Header patterns as a LangGraph server reads them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

TRACE = "langsmith-trace"

NEVER_PASS = ("authorization", "x-api-key", "x-service-key", "x-tenant-id")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def is_name(text: str) -> bool:
    """True when HTTP allows this as a header's name."""
    return _TOKEN.fullmatch(text) is not None


def matches(pattern: str, name: str) -> bool:
    """True when the pattern, in which only * is special, matches the whole name."""
    # Not a regular expression, which could take very long for a pattern with many stars.
    head, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *middle, tail = rest
    at, end = len(head), len(name) - len(tail)
    if at > end or not name.startswith(head) or not name.endswith(tail):
        return False
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def first_match(patterns: Iterable[str], name: str) -> str | None:
    """Return the first pattern that matches the name."""
    return next((pattern for pattern in patterns if matches(pattern, name)), None)


def covers(wide: str, narrow: str) -> bool:
    """True when `wide` matches whatever `narrow` matches."""
    # NUL is in no pattern that can match, so only a star of `wide` can match a star of `narrow`.
    return matches(wide, narrow.replace("*", "\0"))


def lower(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns in lower case."""
    return tuple(pattern.lower() for pattern in patterns)


def obstacle(includes: tuple[str, ...], excludes: tuple[str, ...], name: str) -> str | None:
    """Return why a lower-cased name does not reach the graph, or None when it does."""
    if name == TRACE:
        return None
    if name in NEVER_PASS:
        return "no LangGraph server passes it on"
    if excluded := first_match(excludes, name):
        return f"{excluded!r} of excludes drops it"
    if first_match(includes, name):
        return None
    if not includes:
        return "includes is empty, so nothing passes"
    if written := first_match(lower(includes), name):
        return f"includes has it with capitals, which never match; write {written!r}"
    return f"it matches none of includes {list(includes)}"
