"""Inputs and results of a fan-out as JSON Lines, on any file system that fsspec knows.

A line of results is `{"index", "fingerprint", "status", "values", "error", "run_id", "thread_id",
"seconds"}`; the fingerprint is a digest of the input, which itself is not written. On a local disk
lines are added as runs end, so a file that a crash cut short still says what succeeded; elsewhere,
and in the end everywhere, the file is written whole, in the order of the inputs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import fsspec  # type: ignore[import-untyped]
import orjson
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from prefect_langgraph.errors import InvalidRequestError
from prefect_langgraph.models import RunFailure, RunHandle, RunResult, RunStatus


def check_path(name: str, path: str) -> None:
    """Refuse a path or URL with a password in it: parameters are stored in plain text."""
    if "@" in urlsplit(path).netloc:
        raise InvalidRequestError(
            f"{name} holds a user or a password: give fsspec its secrets by its own configuration."
        )


def read_inputs(path: str) -> list[Any]:
    """The JSON values of a JSON Lines file, one per line; blank lines are passed over.

    Raises:
        InvalidRequestError: The file cannot be read, or a line is not JSON; it is named by number.
    """
    check_path("input_path", path)
    found: list[Any] = []
    try:
        with fsspec.open(path, "rb", compression="infer") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    found.append(orjson.loads(line))
                except orjson.JSONDecodeError:
                    raise InvalidRequestError(f"{path}: line {number} is not JSON.") from None
    except (OSError, ImportError) as error:
        raise InvalidRequestError(f"{path} cannot be read: {type(error).__name__}.") from error
    return found


class ResultFile:
    """The results of a fan-out on disk.

    Args:
        path: A path or URL.
        fingerprints: The digest of each input, in order.
    """

    def __init__(self, path: str, fingerprints: list[str]) -> None:
        check_path("output_path", path)
        self._path = path
        self._fingerprints = fingerprints
        self._fs, self._place = fsspec.core.url_to_fs(path)
        self._local = isinstance(self._fs, LocalFileSystem)
        self._waiting: list[bytes] = []

    def succeeded(self, handles: Mapping[str, Any]) -> dict[int, RunResult]:
        """The successes that the file has for the same inputs, by index.

        A last line that a crash cut short is passed over; any other that is no result is an error.

        Args:
            handles: The `RunHandle` fields that all runs share: assistant_id, url, credentials.
        """
        found: dict[int, RunResult] = {}
        if not self._fs.exists(self._place):
            return found
        with self._fs.open(self._place, "rb") as file:
            lines = file.read().splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                row = orjson.loads(line)
                index, status = row["index"], RunStatus(row["status"])
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                if number == len(lines):
                    break
                raise InvalidRequestError(
                    f"{self._path}: line {number} is no result of a fan-out. Give another output_path."
                ) from None
            same = index < len(self._fingerprints) and row["fingerprint"] == self._fingerprints[index]
            if not same or status is not RunStatus.SUCCESS:
                found.pop(index, None)
                continue
            handle = RunHandle(run_id=row["run_id"], thread_id=row["thread_id"], **handles)
            found[index] = RunResult(handle=handle, status=status, values=row["values"])
        return found

    def add(self, index: int, result: RunResult) -> None:
        """Note a result; `flush` writes what was noted."""
        if self._local:
            self._waiting.append(self._line(index, result))

    def flush(self) -> None:
        """Add the noted lines to a local file."""
        lines, self._waiting = self._waiting, []
        if lines:
            os.makedirs(os.path.dirname(self._place) or ".", exist_ok=True)
            with open(self._place, "ab") as file:
                file.writelines(lines)

    def finish(self, results: Iterable[RunResult]) -> None:
        """Write the file whole, in order; a reader never sees half of it on a local disk."""
        self._waiting.clear()
        if not self._local:
            with self._fs.open(self._place, "wb") as file:
                for index, result in enumerate(results):
                    file.write(self._line(index, result))
            return
        os.makedirs(os.path.dirname(self._place) or ".", exist_ok=True)
        beside = f"{self._place}.{os.getpid()}.new"
        with open(beside, "wb") as file:
            file.writelines(self._line(index, result) for index, result in enumerate(results))
        os.replace(beside, self._place)

    def _line(self, index: int, result: RunResult) -> bytes:
        failure: RunFailure | None = result.error
        row = {
            "index": index,
            "fingerprint": self._fingerprints[index],
            "status": result.status.value,
            "values": result.values,
            "error": failure.model_dump() if failure is not None else None,
            "run_id": result.handle.run_id,
            "thread_id": result.handle.thread_id,
            "seconds": result.seconds,
        }
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
