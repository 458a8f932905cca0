"""What a caller said about a cron, checked before any request and made a `CronRequest`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect_langgraph._cron_request import PAYLOAD, CronRequest
from prefect_langgraph._runs import check_choice, check_thread_id
from prefect_langgraph.cron_models import CronSpec
from prefect_langgraph.errors import HeaderPolicyError, InvalidRequestError
from prefect_langgraph.ownership import canonical
from prefect_langgraph.schedules import ScheduleLike, to_deploy_cron

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
        ScheduleError: No Deploy cron says the schedule.
        HeaderPolicyError: Headers were given.
        InvalidRequestError: Something else is wrong with it.
    """
    refuse_headers(headers)
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
    # An end in the past is fine here: a specification is kept for longer than its cron fires.
    arguments = {name: getattr(spec, name) for name in CronSpec.model_fields}
    end_time = arguments.pop("end_time")
    del arguments["name"]
    request = build(**arguments)
    return CronRequest(**{**vars(request), "end_time": end_time})


def check_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a payload that were given."""
    unknown = [name for name in payload if name not in PAYLOAD]
    if unknown:
        raise InvalidRequestError(f"A cron has no {', '.join(unknown)}.")
    for name, value in payload.items():
        check_json(name, value)
    return {name: value for name, value in payload.items() if value is not None}


def check_json(name: str, value: object) -> None:
    """Refuse what is not JSON."""
    try:
        canonical(value)
    except TypeError as error:
        raise InvalidRequestError(f"{name} is not JSON: {error}.") from None


def refuse_headers(headers: Mapping[str, str] | None) -> None:
    """Refuse headers for a cron: none would reach its runs."""
    if headers:
        raise HeaderPolicyError(
            "A cron takes no headers: the server starts its runs by itself, later, and they see no "
            "header of any request. Say it with config= or context=, which every run gets, and use "
            "the credentials block's headers for what a gateway asks for."
        )


def check_end(end_time: datetime | None) -> None:
    """Refuse an end that has no timezone, or has passed."""
    if end_time is None:
        return
    if not isinstance(end_time, datetime) or end_time.tzinfo is None:
        raise InvalidRequestError(
            "end_time has no timezone. Use one such as datetime.now(UTC) + timedelta(days=1)."
        )
    if end_time <= datetime.now(UTC):
        raise InvalidRequestError(f"end_time={end_time.isoformat()} has passed: it would never fire.")


def check_lease(lease: timedelta | None) -> None:
    """Refuse a lease that is over as it begins."""
    if lease is not None and (not isinstance(lease, timedelta) or lease <= timedelta(0)):
        raise InvalidRequestError(f"lease={lease!r}: give a timedelta above zero, or None for none.")
