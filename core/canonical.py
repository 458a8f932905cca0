"""Canonical JSON: equal values give equal bytes and equal digests."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import orjson


def canonical(value: Any) -> bytes:
    """Canonical JSON: equal values give equal bytes.

    Raises:
        TypeError: A value is not JSON.
    """
    return orjson.dumps(
        value, default=_taken_apart, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    )


def plain(value: Any) -> Any:
    """A value without objects: those that the SDK also accepts beside JSON are taken apart.

    What is JSON already is given back as it is.

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
