"""`fan_out`: the flow, its parameters, its bound, its task runs, and what Prefect shows of it."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, cast

import httpx
import pytest
from langgraph_sdk.client import SyncLangGraphClient
from prefect import flow
from prefect.context import FlowRunContext

from prefect_langgraph import (
    FanOutError,
    FanOutResult,
    InvalidRequestError,
    JoinTimeoutError,
    LangGraphCredentials,
    RunStatus,
    afan_out,
    fan_out,
    start_run,
)
from prefect_langgraph.reports.events import FAN_OUT_ENDED, FAN_OUT_STARTED, RUN_ENDED
from prefect_langgraph.testing import LangGraphServer, PrefectServer
from proxy import Proxy
from support.leftovers import events_named
from support.marked_runs import BATCH, CREATE_RUN, active, most_at_once, new_mark, threads_of
from support.waiting import until

Row = dict[str, Any]
pytestmark = pytest.mark.usefixtures("prefect_server")

both_ways = pytest.mark.parametrize("per_run_tasks", [False, True], ids=["together", "per_run"])


@pytest.fixture(scope="session")
def block(prefect_server: PrefectServer, credentials: LangGraphCredentials) -> str:
    """The name of a saved block for the shared server."""
    name = f"fan-out-{uuid.uuid4().hex[:8]}"
    LangGraphCredentials(url=credentials.url).save(name)
    return name


class Ids:
    """The flow runs of `fan_out` in a test, in order."""

    def __init__(self) -> None:
        self.all: list[str] = []

    @property
    def last(self) -> str:
        return self.all[-1]


@pytest.fixture
def ids() -> Iterator[Ids]:
    """Notes the flow run of each call of `fan_out`."""
    found = Ids()

    def note(flow: Any, flow_run: Any, state: Any) -> None:
        found.all.append(str(flow_run.id))

    fan_out.on_running(note)
    yield found
    fan_out.on_running_hooks.remove(note)


def filtered(server: PrefectServer, what: str, flow_run_id: str, **more: Any) -> list[Row]:
    """Prefect's rows of a flow run."""
    body = {"flow_runs": {"id": {"any_": [flow_run_id]}}, "limit": 200, **more}
    answer = httpx.post(f"{server.api_url}/{what}/filter", json=body).raise_for_status()
    return cast(list[Row], answer.json())


# -- parameters --------------------------------------------------------------------------------------


def test_deployment_takes_json_parameters(block: str) -> None:
    parameters = {
        "assistant_id": "answer",
        "inputs": [{"question": "a"}],
        "credentials": block,
        "on_failure": "collect",
        "max_failures": 0.1,
        "max_in_flight": 5,
        "per_run_tasks": True,
    }
    deployment = fan_out.to_deployment("nightly", parameters=parameters)
    assert deployment.parameters == json.loads(json.dumps(parameters))
    assert parameters.items() <= fan_out.validate_parameters(parameters).items()
    schema = deployment._parameter_openapi_schema.model_dump()
    assert json.loads(json.dumps(schema))["properties"].keys() == afan_out.parameters.properties.keys()
    assert deployment._parameter_openapi_schema.required == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"Give inputs, or input_path\."),
        ({"inputs": [1], "input_path": "x.jsonl"}, "one of inputs and input_path, not both"),
        ({"inputs": [1], "assistant_id": None}, "input 0 has no assistant_id"),
        ({"inputs": [{"inptu": 1}], "items": True}, r"input 0 is not a RunItem \(inptu\)"),
        ({"inputs": [1], "max_failures": -1}, "max_failures=-1"),
        ({"inputs": [1], "max_failures": 1.5}, r"max_failures=1\.5: a fraction is below 1"),
        ({"inputs": [1], "max_in_flight": 0}, "max_in_flight=0"),
        ({"inputs": [1], "max_wait_seconds": 0}, "max_wait_seconds=0"),
        ({"inputs": [1], "output_path": "s3://me:hunter2@bucket/x"}, "a user or a password"),
        ({"inputs": [1], "output_path": "results.jsonl.gz"}, "are not compressed"),
        ({"inputs": [1], "output_path": "nowhere://x/y"}, "nowhere://x/y cannot be written to"),
        ({"input_path": "/no/such/file.jsonl"}, "cannot be read: FileNotFoundError"),
    ],
)
def test_wrong_parameters_are_refused_before_any_request(
    through_proxy: LangGraphCredentials, proxy: Proxy, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message) as refused:
        fan_out(**{"assistant_id": "answer", **options}, credentials=through_proxy)
    assert "hunter2" not in str(refused.value)
    # The finalizer asks whether anything is there to be released.
    assert proxy.count("POST", BATCH) == proxy.count("POST", CREATE_RUN) == 0


@pytest.mark.parametrize("run", [fan_out, afan_out, fan_out.with_options(name="mine")])
def test_inputs_that_prefect_would_refuse_are_refused_before_it_is_asked(
    block: str, prefect_server: PrefectServer, caplog: pytest.LogCaptureFixture, run: Any
) -> None:
    def flow_runs() -> int:
        answer = httpx.post(f"{prefect_server.api_url}/flow_runs/count", json={})
        return int(answer.raise_for_status().text)

    before = flow_runs()
    inputs = [{"question": f"hush{number}" + 1000 * "x"} for number in range(600)]

    async def call() -> None:
        called = run("answer", inputs, credentials=block)
        if inspect.iscoroutine(called):
            await called

    with pytest.raises(InvalidRequestError, match=r"512 KB.*input_path=.*start_runs") as refused:
        asyncio.run(call())
    assert "hush" not in str(refused.value) + caplog.text
    assert flow_runs() == before


def test_failed_runs_lead_to_their_traces(
    langgraph_server: LangGraphServer, ids: Ids, prefect_server: PrefectServer, caplog: Any
) -> None:
    trace = "https://traces.example.com/r/{run_id}"
    LangGraphCredentials(url=langgraph_server.url, trace_url=trace).save("traced", overwrite=True)
    result = fan_out("worker", [{"fail": "no luck"}], credentials="traced", on_failure="collect")
    page = trace.format(run_id=result[0].handle.run_id)
    assert (result[0].trace_url, result.to_rows()[0]["trace_url"]) == (page, page)
    assert str(result[0].as_error()).endswith(f"Trace: {page}")
    shown = [row["data"] for row in filtered(prefect_server, "artifacts", ids.last) if row["key"]]
    assert any(f"]({page})" in str(data) for data in shown)
    handle = start_run("worker", {}, credentials="traced")
    assert trace.format(run_id=handle.run_id) in caplog.text


# -- results -----------------------------------------------------------------------------------------


@both_ways
def test_results_are_in_the_order_of_the_inputs(block: str, per_run_tasks: bool) -> None:
    result = fan_out(
        "worker",
        [{"tag": str(number), "sleep": 0.3 * (number % 2)} for number in range(12)],
        credentials=block,
        per_run_tasks=per_run_tasks,
    )
    assert isinstance(result, FanOutResult)
    assert [values["result"] for values in result.values] == [str(number) for number in range(12)]


def test_items_name_their_own_assistant_and_metadata(block: str) -> None:
    result = fan_out(
        None,
        [
            {"input": {"question": "a"}, "assistant_id": "answer"},
            {"input": {"tag": "b"}, "assistant_id": "worker", "metadata": {"number": 1}},
        ],
        credentials=block,
        items=True,
    )
    assert [item.handle.assistant_id for item in result] == ["answer", "worker"]
    assert (result.values[0]["answer"], result.values[1]["result"]) == ("You asked: a", "b")


def test_no_inputs_give_an_empty_result_and_a_report(
    block: str, ids: Ids, prefect_server: PrefectServer
) -> None:
    assert list(fan_out("answer", [], credentials=block)) == []
    shown = [row["data"] for row in filtered(prefect_server, "artifacts", ids.last) if row["key"]]
    assert any("There was nothing to run" in str(data) for data in shown)


def test_asynchronous_twin_gives_the_same(block: str) -> None:
    result = asyncio.run(afan_out("answer", [{"question": "a"}], credentials=block))
    assert [values["answer"] for values in result.values] == ["You asked: a"]


@both_ways
def test_refused_input_is_one_failed_result_and_takes_no_other_with_it(
    block: str, client: SyncLangGraphClient, per_run_tasks: bool
) -> None:
    mark = new_mark()
    items: list[Row] = [{"input": {"question": str(number)}} for number in range(6)]
    items[2] = {"assistant_id": "nobody"}
    with pytest.raises(FanOutError) as failed:
        fan_out(
            "answer",
            items,
            credentials=block,
            items=True,
            metadata=mark,
            per_run_tasks=per_run_tasks,
        )
    result = failed.value.result
    assert [item.status.value for item in result] == ["success"] * 2 + ["error"] + ["success"] * 3
    assert result[2].error is not None
    assert "nobody" in result[2].error.message
    assert threads_of(client, mark) == []


# -- the bound ---------------------------------------------------------------------------------------


def test_thousand_runs_with_fifty_in_flight_are_never_more_at_once(
    block: str, client: SyncLangGraphClient
) -> None:
    mark, seen, over = new_mark(), [0], threading.Event()

    def count() -> None:
        while not over.wait(0.1):
            seen.append(active(client, mark))

    counting = threading.Thread(target=count)
    counting.start()
    try:
        result = fan_out(
            "answer",
            [{"question": str(number)} for number in range(1000)],
            credentials=block,
            metadata=mark,
            max_in_flight=50,
        )
    finally:
        over.set()
        counting.join()
    assert [values["answer"] for values in result.values] == [f"You asked: {n}" for n in range(1000)]
    assert len({item.handle.run_id for item in result}) == 1000
    # By an independent client that counts now and then, and by the server's clock for each run.
    assert 1 < max(seen) <= 50
    assert 1 < most_at_once([(item.created_at, item.ended_at) for item in result]) <= 50
    assert threads_of(client, mark) == []


# -- stopping ----------------------------------------------------------------------------------------


@both_ways
def test_deadline_cancels_what_has_not_ended_and_says_so(
    block: str, client: SyncLangGraphClient, per_run_tasks: bool
) -> None:
    mark = new_mark()
    inputs = [{"tag": "a"}, {"sleep": 60}, {"sleep": 60}, {"tag": "d"}]
    with pytest.raises(JoinTimeoutError, match=r"2 of 4 runs passed max_wait_seconds=4") as late:
        fan_out(
            "worker",
            inputs,
            credentials=block,
            metadata=mark,
            max_wait_seconds=4,
            per_run_tasks=per_run_tasks,
        )
    assert late.value.result is not None
    assert [item.status.value for item in late.value.result] == [
        "success",
        "cancelled",
        "cancelled",
        "success",
    ]
    assert threads_of(client, mark) == []


@both_ways
def test_cancelled_fan_out_leaves_no_run(
    block: str, client: SyncLangGraphClient, per_run_tasks: bool
) -> None:
    mark = new_mark()

    async def give_up() -> None:
        call = asyncio.create_task(
            afan_out(
                "worker",
                [{"sleep": 60}] * 8,
                credentials=block,
                metadata=mark,
                max_in_flight=4,
                per_run_tasks=per_run_tasks,
            )
        )
        assert await asyncio.to_thread(until, lambda: active(client, mark) == 4)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(give_up())
    assert active(client, mark) == 0


@both_ways
def test_second_execution_adopts_what_succeeded_and_restarts_what_failed(
    block: str, client: SyncLangGraphClient, per_run_tasks: bool
) -> None:
    mark, results = new_mark(), []
    inputs = [{"tag": "a"}, {"tag": "b", "fail": "no luck"}, {"tag": "a"}]

    @flow(retries=1)
    def attempted() -> None:
        result = fan_out(
            "worker",
            inputs,
            credentials=block,
            metadata=mark,
            on_failure="collect",
            per_run_tasks=per_run_tasks,
        )
        results.append(result)
        if len(results) == 1:
            raise RuntimeError("the first attempt ends here")

    attempted()
    origins = [[item.origin for item in result] for result in results]
    assert origins == [["started"] * 3, ["adopted", "restarted", "adopted"]]
    first, second = ([item.handle.run_id for item in result] for result in results)
    assert (first[0], first[2]) == (second[0], second[2])
    assert len({*first, *second}) == 4


# -- task runs ---------------------------------------------------------------------------------------


def test_task_run_for_every_run_ends_as_its_run_does(
    block: str, ids: Ids, prefect_server: PrefectServer
) -> None:
    inputs = [{"tag": "a"}, {"fail": "no luck"}, {"tag": "c"}, {"interrupts": 1}]
    result = fan_out("worker", inputs, credentials=block, on_failure="collect", per_run_tasks=True)
    assert [item.status.value for item in result] == ["success", "error", "success", "interrupted"]
    rows = filtered(prefect_server, "task_runs", ids.last)
    states = {row["name"]: row["state"] for row in rows}
    assert {name: state["type"] for name, state in states.items()} == {
        "run worker 0": "COMPLETED",
        "run worker 1": "FAILED",
        "run worker 2": "COMPLETED",
        "run worker 3": "FAILED",
    }
    assert "no luck" in states["run worker 1"]["message"]
    assert "waits for a person" in states["run worker 3"]["message"]
    # What a task run was called with is the number of its input, and nothing of it.
    assert {name for row in rows for name in row["task_inputs"]} == {"part", "index"}


def test_both_ways_start_alike_and_adopt_from_each_other(
    through_proxy: LangGraphCredentials, proxy: Proxy
) -> None:
    results: list[FanOutResult] = []

    @flow(retries=1)
    def attempted() -> None:
        results.append(
            fan_out(
                "answer",
                [{"question": str(number)} for number in range(5)],
                credentials=through_proxy,
                per_run_tasks=not results,
            )
        )
        if len(results) == 1:
            raise RuntimeError("the first attempt ends here")

    name = f"fan-out-{uuid.uuid4().hex[:8]}"
    through_proxy.save(name)
    attempted()
    assert (proxy.count("POST", BATCH), proxy.count("POST", CREATE_RUN)) == (1, 0)
    assert {item.origin for item in results[1]} <= {"adopted", "started"}


# -- what Prefect shows ------------------------------------------------------------------------------


def test_progress_report_and_events_are_in_prefect(
    block: str, ids: Ids, prefect_server: PrefectServer
) -> None:
    inputs = [{"tag": "a", "usage": {"input_tokens": 3, "output_tokens": 4}}, {"fail": "no luck"}]
    fan_out("worker", inputs, credentials=block, on_failure="collect")
    artifacts = [row for row in filtered(prefect_server, "artifacts", ids.last) if row["key"]]
    assert Counter(row["type"] for row in artifacts) == {"progress": 1, "markdown": 1}
    progress = next(row for row in artifacts if row["type"] == "progress")
    assert progress["data"] == 100
    report = next(row["data"] for row in artifacts if row["type"] == "markdown")
    for part in ("1 of 2 runs did not succeed", "data:image/svg+xml", "no luck", "Tokens", "output"):
        assert part in report
    names = (FAN_OUT_STARTED, RUN_ENDED, FAN_OUT_ENDED)
    told: Callable[[str], list[Row]] = lambda name: events_named(  # noqa: E731
        prefect_server.api_url, name, ids.last
    )
    assert until(lambda: [len(told(name)) for name in names] == [1, 2, 1])
    assert told(FAN_OUT_ENDED)[0]["payload"]["counts"] == {"error": 1, "success": 1}


def test_flow_run_is_named_for_what_it_does(
    block: str, ids: Ids, prefect_server: PrefectServer
) -> None:
    fan_out("answer", [{"question": "a"}] * 3, credentials=block)
    row = httpx.get(f"{prefect_server.api_url}/flow_runs/{ids.last}").raise_for_status().json()
    assert row["name"] == "fan out 3 runs of answer"


def test_result_of_a_fan_out_in_a_flow_is_handed_on_as_one_value(block: str) -> None:
    @flow
    def outer() -> FanOutResult:
        assert FlowRunContext.get() is not None
        return fan_out("answer", [{"question": "a"}, {"question": "b"}], credentials=block)

    result = outer()
    assert [item.status for item in result] == [RunStatus.SUCCESS] * 2
