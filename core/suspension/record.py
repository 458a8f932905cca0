"""What a suspended flow run waits for. Pure.

A record has a name, which follows from what the call is for, its limit and the attempt: a second
execution of the flow run makes the same name and finds the record of the first. A Retry is a new
attempt, with a new record and a new deadline.

The text of a record is one flow run input, its head, which is written last: a record whose head is
there is whole. Tens of thousands of runs go into further inputs, the parts, since servers and proxies
limit the size of a request. The head names its parts by what is in them, so parts that a killed process
left behind are never mistaken for those of another. The head may get more fields; a version that is not
known is never guessed at.
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prefect_langgraph.errors import LangGraphError
from prefect_langgraph.models import RunHandle

VERSION = 1
PREFIX = "langgraph-wait"
"""Begins the keys of inputs and of pauses. Inputs allow lower-case letters, digits and dashes."""

PART_CHARACTERS = 250_000
"""How long a text of one request is at most; Prefect limits a flow run's parameters to 512 KB."""

Ids = tuple[str, str, bool]
"""Thread, run, and whether the thread exists for this run only."""


class UnknownRecordError(LangGraphError):
    """A record that this version of the package cannot read."""


@dataclass(frozen=True)
class Target:
    """Runs on one deployment, and how another process reaches it.

    Attributes:
        url: The deployment's address.
        credentials: The saved block's name, or None.
        assistant: The saved `LangGraphAssistant` block whose credentials lead there, or None.
        runs: What is waited for there.
    """

    url: str
    credentials: str | None
    assistant: str | None
    runs: tuple[Ids, ...]

    @property
    def handles(self) -> list[RunHandle]:
        """The runs, as they are asked for."""
        return [
            RunHandle(
                run_id=run_id,
                thread_id=thread_id,
                assistant_id="",
                url=self.url,
                credentials=self.credentials,
                owns_thread=owns_thread,
            )
            for thread_id, run_id, owns_thread in self.runs
        ]


@dataclass(frozen=True)
class Record:
    """One wait of a flow run.

    Attributes:
        name: The key of its head among the flow run's inputs.
        recorded_at: When it was made.
        deadline: Until when is waited; None is unlimited.
        targets: What is waited for.
    """

    name: str
    recorded_at: datetime
    deadline: datetime | None
    targets: tuple[Target, ...]

    @property
    def runs(self) -> int:
        """How many runs are waited for."""
        return sum(len(target.runs) for target in self.targets)

    def owns(self, pause_key: str | None) -> bool:
        """True of the pause keys of this record."""
        return record_name(pause_key) == self.name


def record_name(pause_key: str | None) -> str | None:
    """The name of the record behind a pause key; None when the pause is not ours."""
    name, dot, _ = (pause_key or "").partition(".")
    return name if dot and name.startswith(f"{PREFIX}-") else None


def new_pause_key(name: str) -> str:
    """A pause key that leads to a record and was never used: Prefect ignores a used one."""
    return f"{name}.{uuid.uuid4().hex}"


def name_of(identity: Any, *, max_wait_seconds: float | None, attempt: int) -> str:
    """The name of the record of a call.

    Args:
        identity: What is the same at each execution of the call, as JSON.
        max_wait_seconds: The call's own.
        attempt: Which execution of the flow run makes the call; being resumed is not another one.
    """
    return f"{PREFIX}-{_digest(json.dumps([identity, max_wait_seconds, attempt]))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def inputs_of(record: Record) -> list[tuple[str, str]]:
    """Key and value of each input that the record is stored as, the head last."""
    head: dict[str, Any] = {
        "version": VERSION,
        "recorded_at": record.recorded_at.isoformat(),
        "deadline": record.deadline.isoformat() if record.deadline is not None else None,
        "runs": record.runs,
    }
    targets = identity_of(record.targets)
    whole = json.dumps({**head, "targets": targets})
    if len(whole) <= PART_CHARACTERS:
        return [(record.name, whole)]
    text = json.dumps(targets)
    keys = [
        f"{record.name}-{_digest(text)}-{number}"
        for number in range(math.ceil(len(text) / PART_CHARACTERS))
    ]
    cut = (text[start : start + PART_CHARACTERS] for start in range(0, len(text), PART_CHARACTERS))
    return [
        *zip(keys, cut, strict=True),
        (record.name, json.dumps({**head, "parts": keys})),
    ]


def parts_of(head: str) -> list[str]:
    """The keys of the parts that belong to a head.

    Raises:
        UnknownRecordError: A later version of the package wrote it.
    """
    return list(_checked(head).get("parts", ()))


def record_of(name: str, head: str, parts: Sequence[str]) -> Record:
    """The record that was stored as these inputs.

    Raises:
        UnknownRecordError: A later version of the package wrote it, or it is damaged.
    """
    try:
        return _parsed(name, head, parts)
    except (ValueError, KeyError, TypeError) as error:
        raise UnknownRecordError(
            f"The record {name} cannot be read ({type(error).__name__})."
        ) from error


def _parsed(name: str, head: str, parts: Sequence[str]) -> Record:
    fields = _checked(head)
    targets = fields.get("targets")
    if targets is None:
        targets = json.loads("".join(parts))
    deadline = fields["deadline"]
    return Record(
        name=name,
        recorded_at=datetime.fromisoformat(fields["recorded_at"]),
        deadline=datetime.fromisoformat(deadline) if deadline is not None else None,
        targets=tuple(
            Target(
                url=target["url"],
                credentials=target["credentials"],
                assistant=target["assistant"],
                runs=tuple((thread, run, bool(owns)) for thread, run, owns in target["runs"]),
            )
            for target in targets
        ),
    )


def identity_of(targets: Iterable[Target]) -> list[dict[str, Any]]:
    """The same for the same runs, in whatever order they were given."""
    return sorted(
        (
            {
                "url": target.url,
                "credentials": target.credentials,
                "assistant": target.assistant,
                "runs": sorted([thread, run, int(owns)] for thread, run, owns in target.runs),
            }
            for target in targets
        ),
        key=json.dumps,
    )


def _checked(head: str) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(head)
        version = fields.get("version")
    except (ValueError, AttributeError) as error:
        raise UnknownRecordError("A suspended flow run has a record that is not JSON.") from error
    if version != VERSION:
        raise UnknownRecordError(
            f"A suspended flow run has a record of version {version!r}, and this prefect-langgraph "
            f"knows version {VERSION}: update it where the resumer runs."
        )
    return fields
