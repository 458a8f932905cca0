"""Handles, specifications and plans of crons: frozen, JSON, no secret. Only CronSpec has input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
    """A cron's location and its properties when the server was asked. Small JSON, no input, no secret.

    Attributes:
        cron_id: The cron.
        assistant_id: The assistant as the caller named it; the server's id when it comes from a search.
        thread_id: The thread its runs go to, or None when each firing gets a thread of its own.
        schedule: The cron string.
        timezone: Its IANA name. None: UTC.
        next_run_date: When it fires next. None when it does not: paused, or past its end.
        end_time: When it stops firing, or None.
        enabled: False while it is paused.
        on_run_completed: What happens to a firing's own thread; None for a cron on a thread.
        url: The deployment's address.
        credentials: The saved block's name, or None when the block was not saved.
        key: `prefect_key` in the metadata of this cron, its runs and their threads.
        owner: The owner that reconciles it, or None.
        name: Its name among that owner's crons, or None.
        flow_run_id: The flow run that owns it, or None.
        created_at: When the server created it.

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
        name: Its name, unique among the owner's crons.
        assistant_id: The assistant's id or the graph's name.
        schedule: A cron string; in Python also a Prefect schedule.
        timezone: An IANA name. None: the schedule's own, or UTC if it has none.
        allow_seconds: True if the sixth field of the cron string means seconds, as the server reads it.
        thread_id: The thread its runs go to. None gives each firing a thread of its own.
        input: The graph's input.
        config: What the graph reads as `config` in each of its runs.
        context: What the graph reads as `runtime.context` in each of its runs.
        metadata: For the cron and its runs, beside this package's own tags.
        webhook: Called by the server when a run ends.
        interrupt_before: Nodes to stop before, or "*".
        interrupt_after: Nodes to stop after, or "*".
        multitask_strategy: What a firing does while its thread is busy: "reject" skips the firing.
        on_run_completed: "delete" deletes a firing's thread and result when its run ends; "keep" leaves
            deleting both to you.
        end_time: When it stops firing, with a timezone.
        enabled: False pauses it.
        stream_mode: What the server keeps for readers of its runs' streams.
        stream_subgraphs: True streams subgraphs too.
        stream_resumable: True lets a stream be read again from its beginning.
        durability: When checkpoints are written: "sync", "async" or "exit".

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

    # A value that pydantic rejects may be an input in the wrong field.
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
    def _express_as_cron(cls, given: Any) -> Any:
        """Express a Prefect schedule as a cron string."""
        if not isinstance(given, Mapping) or isinstance(given.get("schedule", ""), str):
            return given
        cron = to_deploy_cron(
            given["schedule"],
            timezone=given.get("timezone"),
            allow_seconds=bool(given.get("allow_seconds")),
        )
        return {
            **given,
            "schedule": cron.schedule,
            "timezone": cron.timezone,
            # Checked above, while it was still known whether seconds were meant.
            "allow_seconds": True,
        }

    @field_validator("assistant_id", "thread_id", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, str) else str(value)

    def __str__(self) -> str:
        return f"cron {self.name!r} of {self.assistant_id} ({self.schedule!r} {self.timezone or 'UTC'})"


class CronChange(Model):
    """What a plan does with one of the owner's crons.

    Attributes:
        action: create, update, replace (delete it and create a new one, where no update can make the
            change), delete, or leave.
        name: The cron's name.
        assistant_id: Its assistant.
        schedule: Its schedule after the change.
        timezone: Its timezone after the change. None: UTC.
        fields: The names of what differs, never the contents.
        cron_id: The cron's id before the change; of a created cron, its id after it.
        warnings: Where the server's firings differ from what the schedule's author may expect.
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
        owner: The owner of the crons.
        url: The deployment's address.
        applied: False for a dry run.
        changes: One entry for each of the owner's crons, unchanged ones included, in order of name.
        unowned: Crons that belong to no owner and no flow run. They are never changed or deleted.

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
        """How many entries have each action. An action without entries is absent."""
        return dict(Counter(change.action for change in self.changes))

    def rows(self) -> list[dict[str, str]]:
        """The plan as a table: changes first, then unchanged crons, then unowned ones."""
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
        # Ids come last: Prefect's pages cut off wide tables.
        "action": action,
        "name": name,
        "schedule": cron.schedule,
        "timezone": cron.timezone or "UTC",
        "differs": ", ".join(fields),
        "assistant": cron.assistant_id,
        "cron": cron_id or "",
    }
