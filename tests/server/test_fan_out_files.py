"""`fan_out` with its inputs and its results in files: read, written, and continued by a later run."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
from langgraph_sdk.client import SyncLangGraphClient

from prefect_langgraph import (
    FanOutError,
    InvalidRequestError,
    LangGraphCredentials,
    RunStatus,
    afan_out,
    fan_out,
)
from proxy import Proxy
from support.marked_runs import BATCH, active, new_mark, threads_of
from support.waiting import until

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def counted_block(through_proxy: LangGraphCredentials) -> str:
    """The name of a saved block that leads through the proxy."""
    name = f"fan-out-files-{uuid.uuid4().hex[:8]}"
    through_proxy.save(name)
    return name


def sent(proxy: Proxy) -> list[str]:
    """The tags of the runs that were asked for, since the proxy was last cleared."""
    return [run["input"]["tag"] for request in proxy.seen("POST", BATCH) for run in request.json]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    path = tmp_path / "inputs.jsonl"
    lines = [{"tag": "a"}, {"tag": "b", "fail": "no luck"}, {"tag": "c", "interrupts": 1}, {"tag": "d"}]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def test_later_run_with_the_same_output_runs_only_what_has_not_succeeded(
    counted_block: str, proxy: Proxy, inputs: Path, client: SyncLangGraphClient
) -> None:
    results, mark = inputs.with_name("results.jsonl"), new_mark()
    files = {"input_path": inputs.as_uri(), "output_path": str(results), "metadata": mark}
    with pytest.raises(FanOutError):
        fan_out("worker", credentials=counted_block, **files)
    rows = rows_of(results)
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    assert [row["status"] for row in rows] == ["success", "error", "interrupted", "success"]
    assert rows[0]["values"]["result"] == "a"
    assert rows[1]["error"] == {"error": "RuntimeError", "message": "no luck"}
    assert all(row["run_id"] and row["thread_id"] and row["seconds"] >= 0 for row in rows)
    assert sent(proxy) == ["a", "b", "c", "d"]

    proxy.clear()
    mended = [{"tag": "a"}, {"tag": "b"}, {"tag": "c"}, {"tag": "d"}]
    again = fan_out(
        "worker", mended, credentials=counted_block, output_path=str(results), metadata=mark
    )
    assert sent(proxy) == ["b", "c"]
    assert [values["result"] for values in again.values] == ["a", "b", "c", "d"]
    assert [row["status"] for row in rows_of(results)] == ["success"] * 4
    assert rows_of(results)[0] == rows[0]

    proxy.clear()
    whole = fan_out(
        "worker", mended, credentials=counted_block, output_path=str(results), metadata=mark
    )
    assert sent(proxy) == []
    assert [values["result"] for values in whole.values] == ["a", "b", "c", "d"]
    client.threads.prune([thread["thread_id"] for thread in threads_of(client, mark)])


def test_inputs_and_results_are_on_any_file_system_that_fsspec_knows(
    counted_block: str, inputs: Path, proxy: Proxy
) -> None:
    folder = f"memory://{uuid.uuid4().hex}"
    with fsspec.open(f"{folder}/inputs.jsonl", "wb") as file:
        file.write(inputs.read_bytes())
    urls = {"input_path": f"{folder}/inputs.jsonl", "output_path": f"{folder}/results.jsonl"}
    result = fan_out("worker", credentials=counted_block, **urls, on_failure="collect")
    assert [item.status.value for item in result] == ["success", "error", "interrupted", "success"]
    assert sent(proxy) == ["a", "b", "c", "d"]
    proxy.clear()
    fan_out("worker", credentials=counted_block, **urls, on_failure="collect")
    assert sent(proxy) == ["b", "c"]


def test_lines_of_a_cancelled_fan_out_say_what_succeeded(
    counted_block: str, tmp_path: Path, client: SyncLangGraphClient, proxy: Proxy
) -> None:
    results, mark = tmp_path / "results.jsonl", new_mark()
    inputs = [{"tag": "a"}, {"tag": "b", "sleep": 600}]
    options = {"credentials": counted_block, "output_path": str(results), "metadata": mark}

    async def give_up() -> None:
        call = asyncio.create_task(afan_out("worker", inputs, **options))
        assert await asyncio.to_thread(until, lambda: results.exists() and rows_of(results))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(give_up())
    assert active(client, mark) == 0
    statuses = {row["index"]: row["status"] for row in rows_of(results)}
    assert statuses in ({0: "success"}, {0: "success", 1: "cancelled"})
    proxy.clear()
    late = fan_out("worker", inputs, **options, on_failure="collect", max_wait_seconds=2)
    assert [item.status for item in late] == [RunStatus.SUCCESS, RunStatus.CANCELLED]
    assert sent(proxy) == ["b"]


def test_file_that_is_none_of_a_fan_out_is_refused_before_any_run(
    counted_block: str, tmp_path: Path, proxy: Proxy
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine\n")
    with pytest.raises(InvalidRequestError, match="is no result of a fan-out"):
        fan_out("worker", [{"tag": "a"}], credentials=counted_block, output_path=str(notes))
    assert sent(proxy) == []
    assert notes.read_text() == "mine\n"


def test_items_carry_their_own_config_and_context(counted_block: str, proxy: Proxy) -> None:
    items: list[dict[str, Any]] = [
        {"input": {"tag": "a"}, "config": {"tags": ["own"]}},
        {"input": {"tag": "b"}, "context": {"tone": "kind"}, "metadata": {"kind": "own"}},
        {"input": {"tag": "c"}},
    ]
    fan_out(
        "worker",
        items,
        credentials=counted_block,
        items=True,
        config={"tags": ["shared"]},
        metadata={"kind": "shared", "more": 1},
    )
    runs = [run for request in proxy.seen("POST", BATCH) for run in request.json]
    assert [run["config"]["tags"] for run in runs] == [["own"], ["shared"], ["shared"]]
    assert [run.get("context") for run in runs] == [None, {"tone": "kind"}, None]
    kinds = [(run["metadata"]["kind"], run["metadata"]["more"]) for run in runs]
    assert kinds == [("shared", 1), ("own", 1), ("shared", 1)]


def test_results_of_other_inputs_and_assistants_stay_in_the_file(
    counted_block: str, proxy: Proxy, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    options = {"credentials": counted_block, "output_path": str(results)}
    fan_out("worker", [{"tag": str(number)} for number in range(20)], **options)
    earlier = rows_of(results)
    fan_out("worker", [{"tag": "new"}], **options)
    fan_out("answer", [{"question": "why?"}], **options)
    rows = rows_of(results)
    assert [row["index"] for row in rows] == [0, 0, *range(20)]
    assert rows[2:] == earlier
    assert rows[0]["values"]["answer"]
    assert rows[1]["values"]["result"] == "new"

    proxy.clear()
    again = fan_out("worker", [{"tag": "7"}, {"tag": "new"}], **options)
    assert sent(proxy) == []
    assert [values["result"] for values in again.values] == ["7", "new"]
    assert len(rows_of(results)) == len(rows)


def test_rerun_runs_all_again_and_replaces_their_results_alone(
    counted_block: str, proxy: Proxy, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    options = {"credentials": counted_block, "output_path": str(results)}
    inputs = [{"tag": "a"}, {"tag": "b"}]
    fan_out("worker", [{"tag": "other"}, *inputs], **options)
    other = rows_of(results)[0]
    proxy.clear()
    again = fan_out("worker", inputs, **options, rerun=True)
    assert sent(proxy) == ["a", "b"]
    rows = rows_of(results)
    assert [row["run_id"] for row in rows[:2]] == [item.handle.run_id for item in again]
    assert rows[2:] == [other]


def test_results_elsewhere_than_on_a_disk_keep_those_of_other_inputs(counted_block: str) -> None:
    path = f"memory://{uuid.uuid4().hex}/results.jsonl"
    for tag in ("a", "b"):
        fan_out("worker", [{"tag": tag}], credentials=counted_block, output_path=path)
    with fsspec.open(path, "rt", encoding="utf-8") as file:
        assert [json.loads(line)["values"]["result"] for line in file] == ["b", "a"]


def test_cancelled_fan_out_leaves_the_results_of_other_inputs(
    counted_block: str, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    options: dict[str, Any] = {"credentials": counted_block, "output_path": str(results)}
    fan_out("worker", [{"tag": "first"}], **options)
    late = fan_out(
        "worker", [{"sleep": 600}], **options, on_failure="collect", max_wait_seconds=1, rerun=True
    )
    assert [item.status for item in late] == [RunStatus.CANCELLED]
    assert [row["status"] for row in rows_of(results)] == ["cancelled", "success"]
