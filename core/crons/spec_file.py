"""Desired crons as they are given: from Python, from dictionaries, or from a JSON or YAML file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prefect_langgraph.crons.models import CronSpec
from prefect_langgraph.crons.request import CronRequest, of_spec
from prefect_langgraph.errors import InvalidRequestError, LangGraphError, ScheduleError

Specs = str | Path | Sequence[CronSpec | Mapping[str, Any]]
"""A path, or specifications; a mapping in place of a `CronSpec` has its fields."""

_SHOWN = 10


def read_specs(specs: Specs, owner: str | None) -> tuple[str, dict[str, CronRequest]]:
    """The owner and its crons by name, all of them checked before anything is sent.

    Raises:
        ScheduleError: Schedules that no Deploy cron says, and nothing else is wrong.
        InvalidRequestError: What is wrong with which of them.
    """
    entries: Iterable[Any] = specs if not isinstance(specs, str | Path) else []
    if isinstance(specs, str | Path):
        told, entries = _read_file(Path(specs))
        if owner is not None and told is not None and owner != told:
            raise InvalidRequestError(
                f"{specs} names the owner {told!r}, and owner={owner!r} was given."
            )
        owner = owner if owner is not None else told
    if not isinstance(owner, str) or not owner:
        raise InvalidRequestError("owner: say whose crons these are, by a text that is not empty.")
    found: dict[str, CronRequest] = {}
    wrong: list[LangGraphError] = []
    for index, entry in enumerate(entries):
        try:
            spec = _spec(index, entry)
            if spec.name in found:
                raise InvalidRequestError(f"There are two crons named {spec.name!r}.")
            found[spec.name] = _request(spec)
        except (InvalidRequestError, ScheduleError) as error:
            wrong.append(error)
    if wrong:
        kind = ScheduleError if all(isinstance(e, ScheduleError) for e in wrong) else None
        more = f" And {len(wrong) - _SHOWN} more." if len(wrong) > _SHOWN else ""
        message = " ".join(str(error) for error in wrong[:_SHOWN]) + more
        raise (kind or InvalidRequestError)(message)
    return owner, found


def _request(spec: CronSpec) -> CronRequest:
    try:
        return of_spec(spec)
    except ScheduleError as error:
        raise ScheduleError(f"Cron {spec.name!r}: {error}") from None
    except LangGraphError as error:
        raise InvalidRequestError(f"Cron {spec.name!r}: {error}") from None


def _spec(index: int, entry: Any) -> CronSpec:
    if isinstance(entry, CronSpec):
        return entry
    if not isinstance(entry, Mapping):
        raise InvalidRequestError(
            f"Cron {index} is a {type(entry).__name__}: give a CronSpec, or its fields."
        )
    named = entry.get("name")
    called = f"Cron {named!r}" if isinstance(named, str) else f"Cron {index}"
    try:
        return CronSpec.model_validate(dict(entry))
    except ValidationError as error:
        # Only where and what: the values may be inputs.
        parts = [
            f"{'.'.join(map(str, part['loc'])) or 'it'}: {part['msg'].rstrip('.')}"
            for part in error.errors(include_input=False, include_url=False)
        ]
        raise InvalidRequestError(f"{called}: {'; '.join(parts)}.") from None


def _read_file(path: Path) -> tuple[str | None, list[Any]]:
    """The owner, where the file names one, and the entries."""
    import yaml  # type: ignore[import-untyped]

    try:
        # JSON is YAML too.
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark is not None else ""
        raise InvalidRequestError(f"{path} is neither YAML nor JSON{line}.") from None
    owner: Any = None
    if isinstance(content, dict) and content.keys() <= {"owner", "crons"}:
        owner, content = content.get("owner"), content.get("crons")
    if not isinstance(content, list) or not (owner is None or isinstance(owner, str)):
        raise InvalidRequestError(
            f"{path} holds no list of crons. Write a list, or `owner: NAME` and `crons:` with the list."
        )
    return owner, content
