"""Crons as they cross this package's boundary: frozen, JSON, without inputs and secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from langgraph_sdk.schema import All, Durability, MultitaskStrategy, StreamMode
from pydantic import AwareDatetime, ConfigDict, Field, field_validator, model_validator

from prefect_langgraph.models import Model, OneValue
from prefect_langgraph.schedules import to_deploy_cron

OnRunCompleted = Literal["delete", "keep"]

CronAction = Literal["create", "update", "replace", "delete", "leave"]

_DONE: dict[CronAction, str] = {
    "create": "created",
    "update": "updated",
    "replace": "replaced",
    "delete": "deleted",
    "leave": "as they are",
}


class CronHandle(OneValue, Model):  # type: ignore[misc]
    """Where a cron is and how it stood when it was asked for. Small, JSON, no input and no secret.

    Attributes:
        cron_id: The cron.
        assistant_id: The assistant, as it was asked for; the server's id when it was searched for.
        thread_id: The thread its runs go to, or None when each firing gets a thread of its own.
        schedule: The cron string.
        timezone: Its IANA name. None is UTC.
        next_run_date: When it fires next. None when it does not: paused, or past its end.
        end_time: When it stops firing, or None.
        enabled: False while it is paused.
        on_run_completed: What becomes of a firing's own thread; None for a cron on a thread.
        url: The deployment's address.
        credentials: The saved block's name, or None when the block was not saved.
        key: What this cron, its runs and their threads have as `prefect_key` in their metadata.
        owner: Who reconciles it, or None.
        name: Its name among that owner's crons, or None.
        flow_run_id: The flow run that it goes with, or None.
        created_at: When the server took it.

    Example:
        >>> handle = CronHandle(
        ...     cron_id="01a2", assistant_id="agent", schedule="0 9 * * *", url="http://localhost:2024"
        ... )
        >>> CronHandle.model_validate_json(handle.model_dump_json()) == handle
        True
    """

    cron_id: str
    assistant_id: str
    thread_id: str | None = None
    schedule: str
    timezone: str | None = None
    next_run_date: datetime | None = None
    end_time: datetime | None = None
    enabled: bool = True
    on_run_completed: OnRunCompleted | None = None
    url: str
    credentials: str | None = None
    key: str | None = None
    owner: str | None = None
    name: str | None = None
    flow_run_id: str | None = None
    created_at: datetime | None = None

    def __str__(self) -> str:
        where = f" on thread {self.thread_id}" if self.thread_id is not None else ""
        at = f"{self.schedule!r} {self.timezone or 'UTC'}"
        return f"cron {self.cron_id} of {self.assistant_id}{where} ({at})"


class CronSpec(OneValue, Model):  # type: ignore[misc]
    """A cron as it should be, for `reconcile_crons`.

    Attributes:
        name: Tells it from the owner's other crons.
        assistant_id: The assistant's id or the graph's name.
        schedule: A cron string; in Python also a Prefect schedule.
        timezone: An IANA name. None takes the schedule's own, and UTC without one.
        allow_seconds: Says that the sixth field means seconds, as the server reads it.
        thread_id: The thread its runs go to. None gives each firing a thread of its own.
        input: The graph's input.
        config: As in the SDK.
        context: As in the SDK.
        metadata: For the cron and its runs, beside this package's own tags.
        webhook: Called by the server when a run ends.
        interrupt_before: Nodes to stop before, or "*".
        interrupt_after: Nodes to stop after, or "*".
        multitask_strategy: On a thread that is busy: "reject" skips the firing.
        on_run_completed: "delete" drops a firing's thread and result with its end; "keep" leaves both
            to you.
        end_time: When it stops firing, with a timezone.
        enabled: False makes it paused.
        stream_mode: What the server keeps for those who stream its runs.
        stream_subgraphs: True streams subgraphs too.
        stream_resumable: True lets a stream be read again from its beginning.
        durability: "sync", "async" or "exit".

    Example:
        >>> from prefect.schedules import Cron
        >>> spec = CronSpec(
        ...     name="digest",
        ...     assistant_id="agent",
        ...     schedule=Cron("0 9 * * 1-5", timezone="Europe/Berlin"),
        ... )
        >>> spec.schedule, spec.timezone
        ('0 9 * * 1-5', 'Europe/Berlin')
    """

    # What pydantic refuses may be an input in the wrong field.
    model_config = ConfigDict(hide_input_in_errors=True)

    name: str = Field(min_length=1)
    assistant_id: str = Field(min_length=1)
    schedule: str = Field(min_length=1)
    timezone: str | None = None
    allow_seconds: bool = False
    thread_id: str | None = None
    input: Any = Field(default=None, repr=False)
    config: dict[str, Any] | None = Field(default=None, repr=False)
    context: dict[str, Any] | None = Field(default=None, repr=False)
    metadata: dict[str, Any] | None = Field(default=None, repr=False)
    webhook: str | None = Field(default=None, repr=False)
    interrupt_before: All | list[str] | None = None
    interrupt_after: All | list[str] | None = None
    multitask_strategy: MultitaskStrategy = "reject"
    on_run_completed: OnRunCompleted = "delete"
    end_time: AwareDatetime | None = None
    enabled: bool = True
    stream_mode: StreamMode | list[StreamMode] | None = None
    stream_subgraphs: bool | None = None
    stream_resumable: bool | None = None
    durability: Durability | None = None

    @model_validator(mode="before")
    @classmethod
    def _say_as_cron(cls, given: Any) -> Any:
        """A Prefect schedule, in the words of a cron."""
        if not isinstance(given, Mapping) or isinstance(given.get("schedule", ""), str):
            return given
        said = to_deploy_cron(
            given["schedule"],
            timezone=given.get("timezone"),
            allow_seconds=bool(given.get("allow_seconds")),
        )
        return {
            **given,
            "schedule": said.schedule,
            "timezone": said.timezone,
            # Asked above, where it was still known whether seconds were meant.
            "allow_seconds": True,
        }

    @field_validator("assistant_id", "thread_id", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, str) else str(value)

    def __str__(self) -> str:
        return f"cron {self.name!r} of {self.assistant_id} ({self.schedule!r} {self.timezone or 'UTC'})"


class CronChange(Model):
    """What becomes of one cron of the owner's.

    Attributes:
        action: create, update, replace (what no update can change: a new cron takes its place),
            delete, or leave.
        name: The cron's name.
        assistant_id: Its assistant.
        schedule: Its schedule, as it will be.
        timezone: Its timezone, as it will be. None is UTC.
        fields: The names of what differs, never the contents.
        cron_id: The cron's id: before, and of a created one afterwards.
        warnings: Where the server will not do what the schedule's author may expect.
    """

    action: CronAction
    name: str
    assistant_id: str
    schedule: str
    timezone: str | None = None
    fields: tuple[str, ...] = ()
    cron_id: str | None = None
    warnings: tuple[str, ...] = ()


class CronPlan(Model):
    """What `reconcile_crons` did, or with `dry_run` would do.

    Attributes:
        owner: Whose crons these are.
        url: The deployment's address.
        applied: False for a dry run.
        changes: One entry for each cron of the owner's, those that stay included, in order of name.
        unowned: Crons that belong to no owner and no flow run. They are never touched.

    Example:
        >>> CronPlan(owner="team", url="http://localhost:2024").has_changes
        False
    """

    owner: str
    url: str
    applied: bool = False
    changes: tuple[CronChange, ...] = ()
    unowned: tuple[CronHandle, ...] = ()

    def of(self, *actions: CronAction) -> list[CronChange]:
        """The entries with one of these actions."""
        return [change for change in self.changes if change.action in actions]

    @property
    def has_changes(self) -> bool:
        """True when something was, or would be, created, updated, replaced or deleted."""
        return any(change.action != "leave" for change in self.changes)

    @property
    def counts(self) -> dict[CronAction, int]:
        """How many entries have each action. An action that none has is absent."""
        found: dict[CronAction, int] = {}
        for change in self.changes:
            found[change.action] = found.get(change.action, 0) + 1
        return found

    def rows(self) -> list[dict[str, str]]:
        """The plan as a table: what changes first, then what stays, then what nobody owns."""
        ordered = sorted(self.changes, key=lambda change: change.action == "leave")
        table = [
            _row(change.action, change.name, change, change.cron_id, change.fields)
            for change in ordered
        ]
        return table + [_row("unowned", "", handle, handle.cron_id) for handle in self.unowned]

    def __str__(self) -> str:
        parts = [
            f"{count} {_DONE[action] if self.applied or action == 'leave' else f'to {action}'}"
            for action, count in self.counts.items()
        ]
        return f"crons of {self.owner!r}: {', '.join(parts) or 'none'}; {len(self.unowned)} unowned"


def _row(
    action: str,
    name: str,
    cron: CronChange | CronHandle,
    cron_id: str | None,
    fields: Sequence[str] = (),
) -> dict[str, str]:
    return {
        # Ids last: Prefect's pages cut off what is wide.
        "action": action,
        "name": name,
        "schedule": cron.schedule,
        "timezone": cron.timezone or "UTC",
        "differs": _joined(fields),
        "assistant": cron.assistant_id,
        "cron": cron_id or "",
    }


def _joined(parts: Iterable[str]) -> str:
    return ", ".join(parts)
