"""Canonical JSON: equal values give equal bytes and equal digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson


def canonical(value: Any) -> bytes:
    """Canonical JSON: equal values give equal bytes.

    Raises:
        TypeError: A value is not JSON.
    """
    return orjson.dumps(value, default=_plain, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def _plain(value: Any) -> Any:
    """What the SDK also accepts beside JSON: pydantic models and sets."""
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return value.model_dump()
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    raise TypeError(f"Type is not JSON serializable: {type(value).__name__}")


def digest(operation: str, arguments: Mapping[str, Any]) -> str:
    """Equal for identical calls."""
    return hashlib.sha256(operation.encode() + b"\0" + canonical(arguments)).hexdigest()
