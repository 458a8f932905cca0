"""A cron as it should be, compared with the cron that the server has. Pure.

Invariants:
- Every cron created here has `prefect_key`. The key depends neither on schedule nor on input, so that a
  changed specification finds the cron it is to change.
- `prefect_cron_spec` is a digest of the whole specification. Servers may store a payload in a different
  form, so a payload counts as unchanged when the digests are equal. What a person may change by hand
  (time, pause, end, input, context, webhook) is compared directly.
- An update that enables a cron or moves its end beyond the present always contains the schedule:
  without it the server would fire at once for a date in the past.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect_langgraph.arguments import (
    check_choice,
    check_end,
    check_json,
    check_lease,
    check_thread_id,
)
from prefect_langgraph.canonical import canonical
from prefect_langgraph.crons.models import CronHandle, CronSpec, OnRunCompleted
from prefect_langgraph.errors import HeaderPolicyError, InvalidRequestError
from prefect_langgraph.ownership.tags import FLOW_RUN_ID, KEY, TAG_PREFIX
from prefect_langgraph.schedules import DeployCron, ScheduleLike, to_deploy_cron

CRON_OWNER = "prefect_cron_owner"

CRON_NAME = "prefect_cron_name"

CRON_SPEC = "prefect_cron_spec"

Row = Mapping[str, Any]

# An update can set each of these, and can clear none but the last two.
PAYLOAD = (
    "input",
    "webhook",
    "interrupt_before",
    "interrupt_after",
    "stream_mode",
    "stream_subgraphs",
    "stream_resumable",
    "durability",
    "config",
    "context",
)

_CLEARABLE = ("config", "context")

_AS_WRITTEN = ("input", "webhook", "context")

_LAST_FIRE_MARGIN = timedelta(minutes=1)


@dataclass(frozen=True)
class CronRequest:
    """A cron as it should be. Its repr shows neither its input nor the rest of its payload.

    Attributes:
        assistant_id: The assistant, or the graph's name.
        cron: When it fires.
        thread_id: The thread its runs go to, or None.
        multitask_strategy: For a cron on a thread.
        on_run_completed: For a cron without a thread.
        enabled: False pauses it.
        end_time: When it stops firing, or None.
        lease: How long it fires without a renewal, or None.
        payload: The SDK's keyword arguments named in `PAYLOAD`; none of them is None.
        metadata: The caller's own.
    """

    assistant_id: str
    cron: DeployCron
    thread_id: str | None = None
    multitask_strategy: str = "reject"
    on_run_completed: OnRunCompleted = "delete"
    enabled: bool = True
    end_time: datetime | None = None
    lease: timedelta | None = None
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def hidden(self) -> list[Any]:
        """Values that must never appear in a message."""
        return [dict(self.payload), dict(self.metadata)]

    @property
    def identity(self) -> dict[str, Any]:
        """What a key depends on: which cron of a flow run this is, and not what it does."""
        return {"assistant_id": self.assistant_id, "thread_id": self.thread_id}

    def ends(self, now: datetime) -> datetime | None:
        """The `end_time` to send now."""
        ends = [self.end_time] if self.end_time is not None else []
        if self.lease is not None:
            ends.append(now + self.lease)
        if self.cron.last_fire is not None:
            # Without an end, a server may fire it repeatedly after its last date.
            ends.append(self.cron.last_fire + _LAST_FIRE_MARGIN)
        return min(ends, default=None)

    def with_tags(self, tags: Mapping[str, Any]) -> dict[str, Any]:
        """The metadata to send."""
        return {**self.metadata, **tags, CRON_SPEC: self.digest}

    @property
    def digest(self) -> str:
        """Two digests: of what no update can change, and of the whole specification."""
        strategy = self.multitask_strategy if self.thread_id is not None else None
        fixed = [self.assistant_id, self.thread_id, strategy]
        rest = [self.cron.schedule, self.cron.timezone, self.enabled, self.on_run_completed]
        lease = self.lease.total_seconds() if self.lease is not None else None
        end = self.end_time.astimezone(UTC).isoformat() if self.end_time is not None else None
        whole = [fixed, rest, lease, end, self.payload, self.metadata]
        return f"{_short(fixed)}.{_short(whole)}"

    def create_arguments(self, tags: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        """Keyword arguments of the SDK's `crons.create`, or of `create_for_thread`."""
        own = (
            {"on_run_completed": self.on_run_completed}
            if self.thread_id is None
            else {"multitask_strategy": self.multitask_strategy}
        )
        return {
            **self.payload,
            **own,
            "schedule": self.cron.schedule,
            "timezone": self.cron.timezone,
            "enabled": self.enabled,
            "end_time": self.ends(now),
            "metadata": self.with_tags(tags),
        }


def cron_key(text: str) -> str:
    """A cron's key, from the key of the call that creates it.

    The two differ because a cron's metadata is copied to its runs: with the call's key, a call that
    starts a run with the same `idempotency_key` would adopt one of them.
    """
    return hashlib.sha256(b"cron\0" + text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Difference:
    """How a cron differs from its request.

    Attributes:
        fields: The names of what differs.
        patch: Keyword arguments of the SDK's `crons.update`.
        replace: True when no update can make the difference.
    """

    fields: tuple[str, ...]
    patch: Mapping[str, Any] = field(default_factory=dict, repr=False)
    replace: bool = False


def difference(
    row: Row, request: CronRequest, tags: Mapping[str, Any], now: datetime
) -> Difference | None:
    """How a cron differs from its request, or None if it does not."""
    metadata = request.with_tags(tags)
    have: Row = row.get("metadata") or {}
    same_spec = have.get(CRON_SPEC) == metadata[CRON_SPEC]
    patch: dict[str, Any] = dict(_columns(row, request, now))
    replace = _fixed(have.get(CRON_SPEC)) != _fixed(metadata[CRON_SPEC])
    replace = replace or str(row.get("thread_id") or "") != (request.thread_id or "")
    payload: Row = row.get("payload") or {}
    for name in PAYLOAD if not same_spec else _AS_WRITTEN:
        want = _own_part(name, request.payload.get(name))
        if canonical(want) == canonical(_own_part(name, payload.get(name))):
            continue
        clears = want is None and name in _CLEARABLE
        replace = replace or (want is None and not clears)
        patch[name] = {} if clears else request.payload.get(name)
    fields = [*patch]
    gone = [name for name in have if name not in metadata and have[name] is not None]
    dropped = not same_spec and any(not name.startswith(TAG_PREFIX) for name in gone)
    if dropped or any(have.get(name) != value for name, value in request.metadata.items()):
        fields.append("metadata")
    stale = {name: None for name in gone if name.startswith(TAG_PREFIX)}
    tagged = {name: value for name, value in tags.items() if have.get(name) != value}
    if stale or tagged:
        fields.append("tags")
    if not fields and same_spec:
        return None
    if not same_spec:
        # An update cannot remove what somebody else wrote into the metadata, only make it None.
        stale |= {name: None for name in gone if not name.startswith(TAG_PREFIX)}
    patch["metadata"] = {**metadata, **stale}
    if "enabled" in patch or ("end_time" in patch and _ended(row, now)):
        patch.setdefault("schedule", request.cron.schedule)
    return Difference(tuple(fields) or ("specification",), patch, replace)


def _columns(row: Row, request: CronRequest, now: datetime) -> Iterable[tuple[str, Any]]:
    if row["schedule"] != request.cron.schedule:
        yield "schedule", request.cron.schedule
    if (row.get("timezone") or "UTC") != (request.cron.timezone or "UTC"):
        yield "timezone", request.cron.timezone or "UTC"
    if bool(row.get("enabled", True)) != request.enabled:
        yield "enabled", request.enabled
    end = request.ends(now)
    if request.lease is not None or moment(row.get("end_time")) != end:
        yield "end_time", end
    if request.thread_id is None and row.get("on_run_completed") != request.on_run_completed:
        yield "on_run_completed", request.on_run_completed


def _own_part(name: str, value: Any) -> Any:
    """A part of a payload without what the server added to it; None for an empty part."""
    if name != "config" or not isinstance(value, Mapping):
        return value if value != {} or name != "context" else None
    configurable = {
        key: item
        for key, item in (value.get("configurable") or {}).items()
        if key != "cron_id" and not key.startswith(("langgraph_", "__"))
    }
    rest = {key: item for key, item in value.items() if key != "configurable"}
    return {**rest, **({"configurable": configurable} if configurable else {})} or None


def _ended(row: Row, now: datetime) -> bool:
    end = moment(row.get("end_time"))
    return end is not None and end <= now


def _fixed(digest: object) -> str:
    return str(digest or "").partition(".")[0]


def outdated(digest: object) -> str:
    """The digest of a cron that was changed without its specification."""
    return f"{_fixed(digest)}.changed"


def _short(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()[:16]


def moment(value: Any) -> datetime | None:
    """A date of the server's as a datetime with a timezone; None stays None."""
    if value is None:
        return None
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def oldest(rows: Iterable[Row]) -> Row:
    """The one to keep of several crons with one key; every caller chooses the same."""
    first = datetime.min.replace(tzinfo=UTC)
    return min(rows, key=lambda row: (moment(row.get("created_at")) or first, row["cron_id"]))


def handle_of(row: Row, *, url: str, name: str | None, assistant_id: str | None = None) -> CronHandle:
    """The handle for a cron that the server returned.

    Args:
        row: The server's answer.
        url: The deployment's address.
        name: The saved block's name, or None.
        assistant_id: The assistant as the caller named it, or None for the server's id.
    """
    metadata: Row = row.get("metadata") or {}
    enabled = bool(row.get("enabled", True))
    end, fires = moment(row.get("end_time")), moment(row.get("next_run_date"))
    if not enabled or (end is not None and fires is not None and end < fires):
        fires = None
    thread_id = row.get("thread_id")
    return CronHandle(
        cron_id=str(row["cron_id"]),
        assistant_id=assistant_id or str(row["assistant_id"]),
        thread_id=str(thread_id) if thread_id is not None else None,
        schedule=row["schedule"],
        timezone=row.get("timezone"),
        next_run_date=fires,
        end_time=end,
        enabled=enabled,
        on_run_completed=row.get("on_run_completed") if thread_id is None else None,
        url=url,
        credentials=name,
        key=metadata.get(KEY),
        owner=metadata.get(CRON_OWNER),
        name=metadata.get(CRON_NAME),
        flow_run_id=metadata.get(FLOW_RUN_ID),
        created_at=moment(row.get("created_at")),
    )


STRATEGIES = ("reject", "enqueue", "interrupt", "rollback")


def build(
    assistant_id: str | UUID,
    schedule: ScheduleLike,
    *,
    thread_id: str | UUID | None = None,
    timezone: str | None = None,
    allow_seconds: bool = False,
    end_time: datetime | None = None,
    lease: timedelta | None = None,
    enabled: bool = True,
    on_run_completed: Any = "delete",
    multitask_strategy: str = "reject",
    metadata: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **payload: Any,
) -> CronRequest:
    """The request for a cron.

    Raises:
        ScheduleError: The schedule cannot be expressed as a Deploy cron.
        HeaderPolicyError: Headers were given.
        InvalidRequestError: Another argument is invalid.
    """
    reject_headers(headers)
    assistant = str(assistant_id) if isinstance(assistant_id, UUID) else assistant_id
    if not isinstance(assistant, str) or not assistant:
        raise InvalidRequestError("assistant_id: give the assistant's id or the graph's name.")
    check_choice("on_run_completed", on_run_completed, ("delete", "keep"))
    check_choice("multitask_strategy", multitask_strategy, STRATEGIES)
    check_end(end_time)
    check_lease(lease)
    given = check_payload(payload)
    check_json("metadata", metadata)
    return CronRequest(
        assistant_id=assistant,
        cron=to_deploy_cron(schedule, timezone=timezone, allow_seconds=allow_seconds),
        thread_id=check_thread_id(thread_id) if thread_id is not None else None,
        multitask_strategy=multitask_strategy,
        on_run_completed=on_run_completed,
        enabled=enabled,
        end_time=end_time,
        lease=lease,
        payload=given,
        metadata=dict(metadata or {}),
    )


def of_spec(spec: CronSpec) -> CronRequest:
    """The request for a cron of `reconcile_crons`."""
    # An end in the past is allowed here: a specification outlives the firings of its cron.
    arguments = {name: getattr(spec, name) for name in CronSpec.model_fields}
    end_time = arguments.pop("end_time")
    del arguments["name"]
    request = build(**arguments)
    return CronRequest(**{**vars(request), "end_time": end_time})


def check_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Reject unknown parts of a payload, and return the parts that are not None."""
    unknown = [name for name in payload if name not in PAYLOAD]
    if unknown:
        raise InvalidRequestError(f"A cron has no {', '.join(unknown)}.")
    for name, value in payload.items():
        check_json(name, value)
    return {name: value for name, value in payload.items() if value is not None}


def reject_headers(headers: Mapping[str, str] | None) -> None:
    """Reject headers for a cron: none would reach its runs."""
    if headers:
        raise HeaderPolicyError(
            "A cron takes no headers: the server starts its runs by itself, later, and they see no "
            "headers of any request. Use config= or context=, which every run gets, and the "
            "credentials block's headers for what a gateway requires."
        )
