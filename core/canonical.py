"""Canonical JSON: equal values give equal bytes and equal digests."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import orjson

T = TypeVar("T")

_MOST_INLINE = 2000
"""A value of so many parts is looked through within a millisecond or so."""

_TEXT_PART = 100  # letters that weigh as much as one part


def canonical(value: Any) -> bytes:
    """Canonical JSON: equal values give equal bytes.

    Raises:
        TypeError: A value is not JSON.
    """
    return orjson.dumps(
        value, default=_taken_apart, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    )


def plain(value: Any) -> Any:
    """A value as plain JSON: objects that the SDK accepts beside JSON are converted.

    What is JSON already is returned as it is.

    Raises:
        TypeError: A value is not JSON, NaN and infinities among them; the message names where it is.
    """
    try:
        text = orjson.dumps(value, option=_BUILTINS_ONLY)
    except TypeError:
        text = canonical(value)
        made: Any = orjson.loads(text)
    else:
        made = value
    # orjson makes null of them.
    if b"null" in text and (found := _not_a_number(value)) is not None:
        path, number = found
        said = "NaN" if math.isnan(number) else "an infinity"
        raise TypeError(f"{path} is {said}, which JSON does not have: give None or a text")
    return made


_BUILTINS_ONLY = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS


def is_too_deep(value: Any) -> bool:
    """True of what is nested deeper than JSON is written, or contains itself."""
    try:
        orjson.dumps(value, default=_nothing, option=_BUILTINS_ONLY)
    except TypeError as error:
        return "Recursion limit" in str(error)
    return False


def _nothing(_: object) -> None:
    """What stands for an object that is not looked into."""


def _not_a_number(value: Any, path: str = "") -> tuple[str, float] | None:
    """Where the first number is that JSON does not have, and which it is."""
    if isinstance(value, float):
        return None if math.isfinite(value) else (path, value)
    if isinstance(value, str | int | None):
        return None
    if isinstance(value, Mapping):
        parts = [(f"{path}.{key}", part) for key, part in value.items()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = [(f"{path}[{index}]", part) for index, part in enumerate(value)]
    elif is_dataclass(value):
        parts = [(f"{path}.{field.name}", getattr(value, field.name)) for field in fields(value)]
    else:
        try:
            return _not_a_number(_taken_apart(value), path)
        except TypeError:
            return None  # a date, a UUID: orjson's own
    return next((found for where, part in parts if (found := _not_a_number(part, where))), None)


def _taken_apart(value: Any) -> Any:
    """What the SDK also accepts beside JSON: models, objects with `dict()`, and sets."""
    if not isinstance(value, type):
        for name in ("model_dump", "dict"):
            if callable(method := getattr(value, name, None)):
                return method()
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    raise TypeError(f"Type is not JSON serializable: {type(value).__name__}")


def digest(operation: str, arguments: Mapping[str, Any]) -> str:
    """Equal for identical calls."""
    return hashlib.sha256(operation.encode() + b"\0" + canonical(arguments)).hexdigest()


def is_small(value: Any) -> bool:
    """True of a value that takes next to no time, whatever is done with it; found out in no more."""
    left = _MOST_INLINE
    inside: list[Any] = [value]
    while inside:
        item = inside.pop()
        left -= 1
        if isinstance(item, str | bytes):
            left -= len(item) // _TEXT_PART
        elif isinstance(item, Mapping | list | tuple | set | frozenset):
            if len(item) > left:
                return False
            inside.extend(item.values() if isinstance(item, Mapping) else item)
        elif not isinstance(item, int | float | None):
            return False  # an object: who knows what is in it
        if left < 0:
            return False
    return True


async def off_loop(work: Callable[[], T], *, weigh: Any) -> T:
    """Do what takes as long as a value is large: of a large one on an OS thread of its own.

    Args:
        work: What is done.
        weigh: The value.
    """
    return work() if is_small(weigh) else await asyncio.to_thread(work)
