"""Files of inputs and results: what is read, taken over and written, on a local disk and elsewhere."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest

from prefect_langgraph.errors import InvalidRequestError, LangGraphError
from prefect_langgraph.many_runs.result_file import ResultFile, read_inputs
from prefect_langgraph.models import RunHandle, RunStatus
from prefect_langgraph.results import RunFailure, RunResult
from prefect_langgraph.runs.request import RunRequest

URL = "http://agents.example.com"


def requests(*inputs: Any) -> list[RunRequest]:
    return [RunRequest("answer", {"input": given}) for given in inputs]


def ended(name: str, status: RunStatus = RunStatus.SUCCESS) -> RunResult:
    handle = RunHandle(run_id=f"run-{name}", thread_id=f"thread-{name}", assistant_id="answer", url=URL)
    failure = RunFailure(error="ValueError", message="no luck")
    good = status is RunStatus.SUCCESS
    return RunResult(
        handle=handle,
        status=status,
        values={"answer": name} if good else None,
        error=None if good else failure,
        created_at="2026-01-01T00:00:00+00:00",
        ended_at="2026-01-01T00:00:02+00:00",
    )


def rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def taken_over(path: Path | str, asked: Sequence[RunRequest]) -> dict[int, str]:
    """Of which run each input gets its result."""
    found = ResultFile(str(path), asked).open(URL, "production")
    return {index: result.handle.run_id for index, result in found.items()}


def written(path: Path | str, asked: Sequence[RunRequest], results: Sequence[RunResult]) -> None:
    file = ResultFile(str(path), asked)
    file.open(URL, None)
    file.finish(results)


# -- inputs ------------------------------------------------------------------------------------------


def test_inputs_are_one_per_line_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "inputs.jsonl"
    path.write_text('{"question": "a"}\n\n"b"\n  \n3', encoding="utf-8")
    assert read_inputs(str(path)) == [{"question": "a"}, "b", 3]
    assert read_inputs(path.as_uri()) == [{"question": "a"}, "b", 3]


def test_compressed_inputs_are_read_by_the_name_of_their_file(tmp_path: Path) -> None:
    path = tmp_path / "inputs.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"question": "a"}\n'))
    assert read_inputs(str(path)) == [{"question": "a"}]


def test_line_that_is_no_json_is_named_by_its_number_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "inputs.jsonl"
    path.write_text('{"question": "a"}\n\n{"password": hunter2}\n', encoding="utf-8")
    with pytest.raises(InvalidRequestError, match="line 3 is not JSON") as refused:
        read_inputs(str(path))
    assert "hunter2" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("path", ["/no/such/file", "nowhere://x/y", "s3://me:hunter2@bucket/x"])
def test_inputs_that_cannot_be_read_are_a_wrong_parameter(path: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        read_inputs(path)
    assert "hunter2" not in str(refused.value)


def test_url_whose_file_system_is_not_installed_names_the_package_to_install() -> None:
    with pytest.raises(InvalidRequestError, match="smbprotocol"):
        read_inputs("smb://server/share/inputs.jsonl")


# -- what is written ---------------------------------------------------------------------------------


def test_results_are_written_in_the_order_of_their_inputs_without_the_inputs(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    asked = requests("secret-a", "secret-b")
    file = ResultFile(str(path), asked)
    assert file.open(URL, None) == {}
    failed = ended("a", RunStatus.ERROR)
    file.add(1, ended("b"))
    file.add(0, failed)
    file.flush()
    assert [row["index"] for row in rows_of(path.read_text())] == [1, 0]
    file.finish([failed, ended("b")])
    first, second = rows_of(path.read_text())
    assert first | {"fingerprint": ""} == {
        "index": 0,
        "key": None,
        "fingerprint": "",
        "status": "error",
        "values": None,
        "error": {"error": "ValueError", "message": "no luck"},
        "usage": None,
        "run_id": "run-a",
        "thread_id": "thread-a",
        "seconds": 2.0,
        "created_at": "2026-01-01T00:00:00Z",
        "ended_at": "2026-01-01T00:00:02Z",
    } | {key: first[key] for key in ("created_at", "ended_at")}
    assert (second["index"], second["values"]) == (1, {"answer": "b"})
    assert "secret" not in path.read_text()
    assert [*tmp_path.rglob("*.new")] == []


def test_file_elsewhere_than_on_a_disk_is_written_at_the_end() -> None:
    url = f"memory://{uuid.uuid4().hex}/results.jsonl"
    asked = requests("a", "b")
    file = ResultFile(url, asked)
    file.open(URL, None)
    file.add(0, ended("a"))
    file.flush()
    file.finish([ended("a"), ended("b", RunStatus.ERROR)])
    with fsspec.open(url, "rt") as written_file:
        assert [row["status"] for row in rows_of(written_file.read())] == ["success", "error"]
    assert taken_over(url, asked) == {0: "run-a"}


def test_what_a_link_leads_to_is_written_and_the_link_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "there" / "results.jsonl", tmp_path / "results.jsonl"
    target.parent.mkdir()
    target.touch()
    link.symlink_to(target)
    written(link, requests("a"), [ended("a")])
    assert link.is_symlink()
    assert rows_of(target.read_text())[0]["run_id"] == "run-a"


def test_results_that_cannot_be_written_are_kept_in_a_file_that_the_error_names(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    file = ResultFile(str(path), requests("a"))
    file.open(URL, None)
    path.unlink()
    path.mkdir()
    with pytest.raises(LangGraphError, match=r"IsADirectoryError\)\. They are in ") as failed:
        file.finish([ended("a")])
    kept = Path(str(failed.value).partition("They are in ")[2].partition(" on this machine")[0])
    try:
        assert rows_of(kept.read_text())[0]["values"] == {"answer": "a"}
    finally:
        kept.unlink()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://me:hunter2@bucket/results.jsonl", "a user or a password"),
        ("results.jsonl.gz", "are not compressed"),
        ("nowhere://x/results.jsonl", "cannot be written to"),
    ],
)
def test_path_that_will_not_do_is_refused_at_once(path: str, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as refused:
        ResultFile(path, requests("a"))
    assert "hunter2" not in str(refused.value)


# -- what is taken over ------------------------------------------------------------------------------


def test_successes_are_taken_over_and_the_rest_is_not(tmp_path: Path) -> None:
    path, asked = tmp_path / "results.jsonl", requests("a", "b", "c")
    written(path, asked, [ended("a"), ended("b", RunStatus.ERROR), ended("c")])
    found = ResultFile(str(path), asked).open(URL, "production")
    assert {index: result.values for index, result in found.items()} == {
        0: {"answer": "a"},
        2: {"answer": "c"},
    }
    assert found[0].handle.credentials == "production"
    assert found[0].seconds == 2.0


def test_results_follow_their_inputs_to_another_place(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    written(path, requests("a", "b"), [ended("a"), ended("b")])
    assert taken_over(path, requests("new", "b", "a")) == {1: "run-b", 2: "run-a"}


def test_success_is_taken_over_for_one_of_identical_inputs_only(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    written(
        path,
        requests("same", "same", "same"),
        [ended("1"), ended("2", RunStatus.ERROR), ended("3")],
    )
    assert taken_over(path, requests("same", "same", "same")) == {0: "run-1", 2: "run-3"}
    assert taken_over(path, requests("same", "same")) == {0: "run-1", 1: "run-3"}


def test_another_assistant_or_other_options_are_another_input(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    written(path, requests("a"), [ended("a")])
    assert taken_over(path, [RunRequest("critic", {"input": "a"})]) == {}
    assert taken_over(path, [RunRequest("answer", {"input": "a", "config": {"tags": ["x"]}})]) == {}


@pytest.mark.parametrize("bytes_left", [1, 5, 30, -1])
def test_line_that_a_crash_cut_short_is_cut_off_and_the_rest_counts(
    tmp_path: Path, bytes_left: int
) -> None:
    path, asked = tmp_path / "results.jsonl", requests("a", "b")
    written(path, asked, [ended("a"), ended("b")])
    whole = path.read_bytes()
    end = whole.index(b"\n") + 1
    path.write_bytes(whole[:end] + whole[end:][:bytes_left])
    file = ResultFile(str(path), asked)
    assert [*file.open(URL, None)] == [0]
    assert path.read_bytes() == whole[:end]
    file.add(1, ended("b"))
    file.flush()
    assert [*taken_over(path, asked)] == [0, 1]


@pytest.mark.parametrize(
    "text",
    [
        "notes of mine\n",
        '{"index": 0}\n',
        "[1]\n",
        '{"status": "success", "fingerprint": "x"}\n',
        "no newline",
    ],
)
def test_file_of_somebody_else_is_refused_and_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(InvalidRequestError, match="line 1 is no result of a fan-out"):
        ResultFile(str(path), requests("a")).open(URL, None)
    assert path.read_text() == text


def test_place_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequestError, match=r"cannot be written to: (File|NotADirectory)"):
        ResultFile(str(tmp_path / "file" / "results.jsonl"), requests("a")).open(URL, None)
