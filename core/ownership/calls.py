"""What a chosen key was given for, so that another call with the same key is refused.

A derived key contains the call's arguments; an `idempotency_key` is only a name. So whatever a call
creates under such a key records what the call was: its operation, and a digest of each argument. The
record contains no value. Headers are not part of it: tokens are renewed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from prefect_langgraph.canonical import canonical
from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.ownership.tags import CALL

_DIGITS = 12
_NUMBER = "number-of-inputs"


def record_of(operation: str, arguments: Mapping[str, Any]) -> str:
    """The record of a call: its operation and a digest of each argument that is not None."""
    parts = (f"{name}:{_digest(value)}" for name, value in arguments.items() if value is not None)
    return " ".join([operation, *sorted(parts)])


def record_of_many(operation: str, calls: Sequence[Mapping[str, Any]]) -> str:
    """The record of a call that starts several runs, from the arguments of each."""
    names = {name for arguments in calls for name, value in arguments.items() if value is not None}
    whole = {name: [arguments.get(name) for arguments in calls] for name in names}
    return record_of(operation, {**whole, _NUMBER: len(calls)})


def check_same_call(record: str | None, metadata: Mapping[str, Any] | None) -> None:
    """Refuse a call whose key was given for another one.

    Args:
        record: The call's own, or None when its key was not chosen.
        metadata: Of what was found under the key. Without a record, nothing is known and all is well.

    Raises:
        InvalidRequestError: The calls differ. The message names in what, and contains no value.
    """
    found = (metadata or {}).get(CALL)
    if record is None or not isinstance(found, str) or found == record:
        return
    operation, *mine = record.split(" ")
    earlier, *theirs = found.split(" ")
    if operation != earlier:
        what = f"that call was {earlier}, and this is {operation}"
    else:
        names = sorted({part.partition(":")[0] for part in {*mine} ^ {*theirs}})
        # Of batches of different sizes every argument differs.
        names = ["number of inputs"] if _NUMBER in names else names
        what = f"this {operation} differs from it in {', '.join(names)}"
    raise InvalidRequestError(
        f"idempotency_key: this key was given for another call: {what}. Nothing was started. A key is "
        "for one call: choose another key, or repeat the first call unchanged."
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()[:_DIGITS]
