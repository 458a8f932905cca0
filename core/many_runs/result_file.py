"""Inputs and results of a fan-out as JSON Lines, on any file system that fsspec knows.

A line of results is `{"index", "key", "fingerprint", "status", "values", "error", "run_id",
"thread_id", "seconds", "created_at", "ended_at", "usage"}`; the fingerprint is a digest of the input,
which itself is not written. On a local disk lines are added as runs end, so a file that a crash cut
short still says what succeeded; elsewhere, and in the end everywhere, the file is written whole: in the
order of the inputs, and then what it held of others.

Invariants:
- A file that is not of a fan-out is never written to.
- A success is taken over for one input only, and only for one that is identical to its own.
- Successes of other inputs, and of other assistants, stay in the file; their failures do not.
- What a crash left of a line is cut off before anything is added.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any
from urllib.parse import urlsplit

import fsspec  # type: ignore[import-untyped]
import orjson
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
from fsspec.utils import infer_compression  # type: ignore[import-untyped]

from prefect_langgraph.canonical import digest
from prefect_langgraph.errors import InvalidRequestError, LangGraphError
from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.results import RunFailure, RunResult
from prefect_langgraph.runs.request import RunRequest
from prefect_langgraph.runs.usage import usage_of

_LINE = b'{"index":'
_SPOOL_BYTES = 8_000_000


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
    except ImportError as error:
        # It says which package this kind of URL needs.
        raise InvalidRequestError(f"{path} cannot be read: {error}.") from error
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidRequestError):
            raise
        raise InvalidRequestError(f"{path} cannot be read: {type(error).__name__}.") from error
    return found


class ResultFile:
    """The results of a fan-out on disk.

    Args:
        path: A path or URL.
        requests: The runs, in order.

    Attributes:
        path: As it was given.
    """

    def __init__(self, path: str, requests: Sequence[RunRequest]) -> None:
        check_path("output_path", path)
        if infer_compression(path) is not None:
            raise InvalidRequestError(
                f"output_path={path!r}: results are not compressed; give a name that says so."
            )
        self.path = path
        self._requests = requests
        self._fingerprints = [digest("fan_out", request.arguments)[:32] for request in requests]
        try:
            self._fs, self._place = fsspec.core.url_to_fs(path)
        except (ImportError, ValueError) as error:
            raise InvalidRequestError(f"{path} cannot be written to: {error}") from error
        self._local = isinstance(self._fs, LocalFileSystem)
        if self._local:
            # What a link leads to is replaced, and not the link.
            self._place = os.path.realpath(self._place)
        # The earlier results of these inputs, as fingerprint and run, which theirs will replace.
        self._replaced: set[tuple[str, str]] = set()
        self._waiting: list[bytes] = []
        # A flush that nobody waits for any more may still be under way on its OS thread.
        self._writes = threading.Lock()

    def open(self, url: str, credentials: str | None, *, rerun: bool = False) -> dict[int, RunResult]:
        """The successes that the file has for these inputs, by index; the file is ready for more.

        Args:
            url: The deployment's address, for the handles.
            credentials: The saved block's name.
            rerun: True takes none of them over; new results replace them.

        Raises:
            InvalidRequestError: The file is none of a fan-out, or cannot be written to.
        """
        try:
            rows, good = self._read() if self._fs.exists(self._place) else ({}, 0)
            if self._local:
                os.makedirs(os.path.dirname(self._place), exist_ok=True)
                with open(self._place, "ab") as file:
                    file.truncate(good)
        except OSError as error:
            raise InvalidRequestError(
                f"{self.path} cannot be written to: {type(error).__name__}."
            ) from error
        found: dict[int, RunResult] = {}
        # Of identical inputs each keeps its own result where it has one.
        for own in (True, False):
            for index, fingerprint in enumerate(self._fingerprints):
                known = rows.get(fingerprint, {})
                chosen = [run_id for run_id, row in known.items() if not own or row["index"] == index]
                if index not in found and chosen:
                    # The newest: a fan-out that ran all again may have been cut short by a crash.
                    older = chosen[:-1] if own else []
                    self._replaced |= {(fingerprint, run_id) for run_id in (*older, chosen[-1])}
                    found[index] = self._result(index, known.pop(chosen[-1]), url, credentials)
                    for run_id in older:
                        del known[run_id]
        return {} if rerun else found

    def _read(self) -> tuple[dict[str, dict[str, dict[str, Any]]], int]:
        """Successes by fingerprint and run, and how many bytes of the file are whole lines."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        good = 0
        with self._fs.open(self._place, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n") and line[: len(_LINE)] == _LINE[: len(line)]:
                    break  # cut short by a crash
                try:
                    row = orjson.loads(line)
                    status, fingerprint = RunStatus(row["status"]), str(row["fingerprint"])
                    ours = {"index", "values", "run_id", "thread_id"} <= row.keys()
                except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
                    ours = False
                if not ours:
                    raise InvalidRequestError(
                        f"{self.path}: line {number} is no result of a fan-out. "
                        "Give another output_path."
                    )
                good += len(line)
                if status is RunStatus.SUCCESS:
                    found.setdefault(fingerprint, {})[row["run_id"]] = row
        return found, good

    def _result(self, index: int, row: dict[str, Any], url: str, credentials: str | None) -> RunResult:
        handle = RunHandle(
            run_id=row["run_id"],
            thread_id=row["thread_id"],
            assistant_id=self._requests[index].assistant_id,
            url=url,
            credentials=credentials,
            item_key=self._requests[index].item_key,
        )
        return RunResult(
            handle=handle,
            status=RunStatus.SUCCESS,
            values=row["values"],
            created_at=row.get("created_at"),
            ended_at=row.get("ended_at"),
            # A file of an earlier version has only what the values tell.
            usage=row["usage"] if "usage" in row else usage_of(row["values"]),
        )

    def add(self, index: int, result: RunResult) -> None:
        """Note a result; `flush` writes what was noted."""
        if self._local:
            self._waiting.append(self._line(index, result))

    def flush(self) -> None:
        """Add the noted lines to a local file."""
        with self._writes:
            lines, self._waiting = self._waiting, []
            if lines:
                self._append(lines)

    def _append(self, lines: list[bytes]) -> None:
        with open(self._place, "ab") as file:
            whole = file.tell()
            try:
                file.writelines(lines)
                file.flush()
            except OSError:
                # A full disk leaves half a line, to which nothing may be added.
                file.truncate(whole)
                self._waiting = lines + self._waiting
                raise

    def finish(self, results: Sequence[RunResult]) -> None:
        """Write the file whole; a reader never sees half of it on a local disk.

        These results come first, in order, and after them those of other inputs as they were.

        Raises:
            LangGraphError: It could not be written; the message says where the results are instead.
        """
        self._waiting.clear()
        ours = {result.handle.run_id for result in results if result.handle.run_id}
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as others:
            try:
                with self._writes:
                    self._copy_others(others, ours)
                    self._write(self._lines(results, others))
            except Exception as error:
                # Of every kind: each file system raises its own.
                with tempfile.NamedTemporaryFile("wb", suffix=".jsonl", delete=False) as file:
                    file.writelines(self._lines(results, others))
                raise LangGraphError(
                    f"The results could not be written to {self.path} ({type(error).__name__}). They "
                    f"are in {file.name} on this machine: move that file to where the results belong."
                ) from error

    def _lines(self, results: Sequence[RunResult], others: IO[bytes]) -> Iterator[bytes]:
        for index, result in enumerate(results):
            yield self._line(index, result)
        others.seek(0)
        yield from others

    def _copy_others(self, others: IO[bytes], ours: set[str]) -> None:
        """Set aside the successes of other inputs: what is written now replaces the file."""
        if not self._fs.exists(self._place):
            return
        with self._fs.open(self._place, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return  # cut short by a crash
                row = orjson.loads(line)
                mark = (row["fingerprint"], row["run_id"])
                if (
                    row["status"] == RunStatus.SUCCESS
                    and mark not in self._replaced
                    and row["run_id"] not in ours
                ):
                    others.write(line)

    def _write(self, lines: Iterable[bytes]) -> None:
        if not self._local:
            with self._fs.open(self._place, "wb") as file:
                for line in lines:
                    file.write(line)
            return
        beside = f"{self._place}.{os.getpid()}.new"
        with open(beside, "wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self._place)

    def _line(self, index: int, result: RunResult) -> bytes:
        failure: RunFailure | None = result.error
        row = {
            "index": index,
            "key": result.key,
            "fingerprint": self._fingerprints[index],
            "status": result.status.value,
            "values": result.values,
            "error": failure.model_dump() if failure is not None else None,
            "run_id": result.handle.run_id,
            "thread_id": result.handle.thread_id,
            "seconds": result.seconds,
            "created_at": result.created_at,
            "ended_at": result.ended_at,
            "usage": result.usage.model_dump() if result.usage is not None else None,
        }
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
