"""Reading specifications of crons: from Python, from dictionaries, or from a JSON or YAML file."""

from __future__ import annotations

import re
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
_KEYS = ("owner", "crons")
# A value that YAML reads as something else, such as `schedule: */5 * * * *`.
_NEEDS_QUOTES = re.compile(r"[{,\s-]*(?P<key>\w+):\s+(?P<value>[*&@`%!|>][^,}#]*)")
_KINDS = {dict: "a mapping", list: "a list", str: "text", bool: "true or false"}
_KINDS |= {int: "a number", float: "a number", type(None): "empty"}


def read_specs(specs: Specs, owner: str | None) -> tuple[str, dict[str, CronRequest]]:
    """The owner, and its crons by name; everything is checked before anything is sent.

    Raises:
        ScheduleError: Schedules cannot be expressed as Deploy crons, and nothing else is wrong.
        InvalidRequestError: Names everything that is wrong, and in which cron.
    """
    if isinstance(specs, Mapping | bytes) or not isinstance(specs, Iterable | Path):
        given = "None" if specs is None else _kind(specs)
        raise InvalidRequestError(
            f"specs is {given}: give a list of CronSpec, or of their fields, or the path of a file "
            "that holds one."
        )
    entries: Iterable[Any] = specs if not isinstance(specs, str | Path) else []
    if isinstance(specs, str | Path):
        named, entries = _read_file(Path(specs))
        if owner is not None and named is not None and owner != named:
            raise InvalidRequestError(
                f"{specs} names the owner {named!r}, and owner={owner!r} was given."
            )
        owner = owner if owner is not None else named
    if not isinstance(owner, str) or not owner:
        raise InvalidRequestError(
            "owner: name the owner of these crons, by a string that is not empty."
        )
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
        # Only locations and messages: the values may be inputs.
        parts = [
            f"{'.'.join(map(str, part['loc'])) or 'it'}: {part['msg'].rstrip('.')}"
            for part in error.errors(include_input=False, include_url=False)
        ]
        raise InvalidRequestError(f"{called}: {'; '.join(parts)}.") from None


def _read_file(path: Path) -> tuple[str | None, list[Any]]:
    """The owner, if the file names one, and the entries."""
    import yaml  # type: ignore[import-untyped]

    try:
        text = path.read_text(encoding="utf-8")
        # YAML includes JSON.
        content: Any = yaml.safe_load(text)
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InvalidRequestError(f"{path} is not UTF-8 text.") from None
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: an impossible date, such as 2026-02-30.
        raise InvalidRequestError(f"{path} {_why_invalid(text, error)}.") from None
    return _owner_and_entries(path, content)


def _owner_and_entries(path: Path, content: Any) -> tuple[str | None, list[Any]]:
    owner: Any = None
    how = "Write a list, or `owner: NAME` and `crons:` with the list."
    if isinstance(content, dict):
        if {"assistant_id", "schedule"} <= content.keys():
            raise InvalidRequestError(
                f"{path} contains one cron instead of a list. Write it as `- name: ...`."
            )
        if further := [str(key) for key in content if key not in _KEYS]:
            raise InvalidRequestError(
                f"{path} has {', '.join(further)} at the top; only `owner` and `crons` are allowed."
            )
        if "crons" not in content:
            raise InvalidRequestError(f"{path} has no `crons`. {how}")
        owner, content = content.get("owner"), content["crons"]
        if not isinstance(content, list):
            raise InvalidRequestError(f"{path}: `crons` is {_kind(content)}, and must be a list.")
    elif not isinstance(content, list):
        what = "is empty" if content is None else f"contains {_kind(content)}, and no list of crons"
        raise InvalidRequestError(f"{path} {what}. {how}")
    if owner is not None and not isinstance(owner, str):
        quoted = "" if isinstance(owner, dict | list) else f': put it in quotes, owner: "{owner}"'
        raise InvalidRequestError(f"{path}: `owner` is {_kind(owner)}, and must be text{quoted}.")
    return owner, content


def _why_invalid(text: str, error: Exception) -> str:
    """What is wrong with a file, showing at most a schedule of its content."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return "is neither YAML nor JSON"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    for found in _NEEDS_QUOTES.finditer(line):
        key, value = found["key"], found["value"].strip()
        shown = f': {key}: "{value}"' if key == "schedule" else ""
        return (
            f"is not valid YAML at line {mark.line + 1}: a value that begins with {value[0]} has a "
            f"special meaning. Put the {key} in quotes{shown}"
        )
    return f"is neither YAML nor JSON at line {mark.line + 1}"


def _kind(value: object) -> str:
    """The type of a value, in the words of a file's author."""
    return _KINDS.get(type(value), f"a {type(value).__name__}")
