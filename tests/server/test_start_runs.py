"""Many runs started by one call: in order, within bounds, and each of them once."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from langgraph_sdk.client import SyncLangGraphClient
from prefect import flow

from prefect_langgraph import (
    DeploymentError,
    FanOutResult,
    InvalidRequestError,
    JoinTimeoutError,
    LangGraphCredentials,
    RunHandle,
    RunItem,
    RunStatus,
    astart_runs,
    join_run,
    join_runs,
    start_runs,
    with_finalizer,
)
from prefect_langgraph.many_runs.batch import CHUNK
from prefect_langgraph.ownership.claims import TakenOverError
from prefect_langgraph.runs.lookup import FETCH_BYTES
from proxy import Answer, Hold, LoseResponse, Proxy, Rewrite
from support.marked_runs import (
    BATCH,
    CREATE_RUN,
    PRUNE,
    SEARCH,
    THREAD,
    active,
    most_at_once,
    new_mark,
    threads_of,
)
from support.waiting import PATIENCE, until

pytestmark = pytest.mark.usefixtures("prefect_server")


def questions(count: int) -> list[dict[str, str]]:
    return [{"question": str(number)} for number in range(count)]


def answers(count: int) -> list[str]:
    return [f"You asked: {number}" for number in range(count)]


def resident(name: str) -> int:
    """Bytes of this process in memory: `VmRSS` now, `VmHWM` at most."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def answered(result: FanOutResult) -> list[str]:
    return [values["answer"] for values in result.values]


# -- order and contents ------------------------------------------------------------------------------


@pytest.mark.inmem_only(
    reason="that runtime takes longer for a batch of 1,000 than this block's patience"
)
def test_many_inputs_give_handles_and_results_in_their_order_for_few_requests(
    through_proxy: LangGraphCredentials, proxy: Proxy
) -> None:
    count = 2 * CHUNK + 20
    handles = start_runs("answer", questions(count), credentials=through_proxy)
    assert len({handle.run_id for handle in handles}) == count
    assert proxy.count("POST", BATCH) == proxy.count() == 3
    assert answered(join_runs(handles)) == answers(count)
    assert proxy.count("POST", PRUNE) == 1


def test_no_inputs_give_no_handles(credentials: LangGraphCredentials) -> None:
    assert start_runs("answer", [], credentials=credentials) == []
    assert list(join_runs([])) == []


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ({"question": "a"}, {}, "inputs: give a list"),
        ("question", {}, "inputs: give a list"),
        ([1, {1, object()}], {}, "input 1: input is not JSON"),
        ([1], {"max_in_flight": 0}, "max_in_flight=0"),
        ([1], {"max_in_flight": 1.5}, "max_in_flight=1.5"),
        ([1], {"max_wait_seconds": -1}, "max_wait_seconds=-1"),
        ([1], {"idempotency_key": "k", "once": False}, "exclude each other"),
    ],
)
def test_wrong_call_is_refused_before_any_request(
    through_proxy: LangGraphCredentials, proxy: Proxy, inputs: object, options: dict, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        start_runs("answer", inputs, credentials=through_proxy, **options)
    assert proxy.count() == 0


# -- the bound ---------------------------------------------------------------------------------------


def test_bound_holds_on_the_server_and_the_call_returns_when_the_last_is_started(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    mark = new_mark()
    handles = start_runs(
        "worker",
        [{"tag": str(number), "sleep": 0.1} for number in range(60)],
        credentials=credentials,
        metadata=mark,
        max_in_flight=10,
    )
    result = join_runs(handles, credentials=credentials, on_failure="collect", max_wait_seconds=60)
    assert [values["result"] for values in result.values] == [str(number) for number in range(60)]
    spans = [(item.created_at, item.ended_at) for item in result]
    assert 1 < most_at_once(spans) <= 10


def test_deadline_before_all_are_started_cancels_those_that_were(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    mark = new_mark()
    with pytest.raises(JoinTimeoutError, match="2 of 3 runs were not started"):
        start_runs(
            "worker",
            [{"sleep": 60}] * 3,
            credentials=credentials,
            metadata=mark,
            max_in_flight=1,
            max_wait_seconds=1,
        )
    assert threads_of(client, mark) == []


def test_cancelled_caller_leaves_none(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    mark = new_mark()

    async def give_up() -> None:
        call = asyncio.create_task(
            astart_runs(
                "worker",
                [{"sleep": 60}] * 9,
                credentials=credentials,
                metadata=mark,
                max_in_flight=3,
            )
        )
        assert await asyncio.to_thread(until, lambda: active(client, mark) == 3)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(give_up())
    assert threads_of(client, mark) == []


# -- refusals ----------------------------------------------------------------------------------------


def test_refused_input_is_named_and_leaves_none_of_the_others(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    mark = new_mark()
    items = [RunItem(input=given) for given in questions(20)]
    items[7] = RunItem(assistant_id="nobody")
    with pytest.raises(DeploymentError, match="nobody") as refused:
        start_runs("worker", items, credentials=credentials, metadata=mark)
    assert refused.value.__notes__ == ["input 7 of 20; the others were cancelled"]
    assert active(client, mark) == 0


def test_blocked_webhook_is_refused_and_starts_nothing(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    mark = new_mark()
    with pytest.raises(InvalidRequestError, match="Webhook host blocked") as refused:
        start_runs(
            "answer",
            questions(5),
            credentials=credentials,
            metadata=mark,
            webhook="ftp://localhost/hidden-path",
        )
    assert "hidden-path" not in str(refused.value)
    assert threads_of(client, mark) == []


# -- once --------------------------------------------------------------------------------------------


def test_lost_response_of_a_batch_starts_no_run_twice(
    through_proxy: LangGraphCredentials, proxy: Proxy, client: SyncLangGraphClient
) -> None:
    rule = proxy.on("POST", BATCH, LoseResponse(), after=1)
    mark, count = new_mark(), CHUNK + 50
    handles = start_runs("answer", questions(count), credentials=through_proxy, metadata=mark)
    assert rule.hits == 1
    assert {row["thread_id"] for row in threads_of(client, mark)} == {
        handle.thread_id for handle in handles
    }
    assert answered(join_runs(handles)) == answers(count)


def test_answer_about_too_few_runs_starts_no_run_twice(
    through_proxy: LangGraphCredentials, proxy: Proxy, client: SyncLangGraphClient
) -> None:
    proxy.on("POST", BATCH, Rewrite(response=lambda rows: rows[:-2]))
    mark = new_mark()
    handles = start_runs("answer", questions(9), credentials=through_proxy, metadata=mark)
    assert len(threads_of(client, mark)) == 9
    assert answered(join_runs(handles)) == answers(9)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_server_without_batches_gets_one_request_per_run_from_then_on(
    through_proxy: LangGraphCredentials, proxy: Proxy, status: int
) -> None:
    proxy.on("POST", BATCH, Answer(status), times=None)
    handles = start_runs("answer", questions(30), credentials=through_proxy)
    assert answered(join_runs(handles)) == answers(30)
    asked = proxy.count("POST", BATCH)
    assert asked <= 2
    join_runs(start_runs("answer", questions(3), credentials=through_proxy))
    assert proxy.count("POST", BATCH) == asked
    assert proxy.count("POST", CREATE_RUN) == 33


def test_runs_that_were_started_one_by_one_are_adopted_where_batches_work(
    through_proxy: LangGraphCredentials, proxy: Proxy, credentials: LangGraphCredentials
) -> None:
    proxy.on("POST", BATCH, Answer(404), times=None)
    key = uuid.uuid4().hex
    first = start_runs("answer", questions(5), credentials=through_proxy, idempotency_key=key)
    second = start_runs("answer", questions(5), credentials=credentials, idempotency_key=key)
    assert [handle.run_id for handle in second] == [handle.run_id for handle in first]
    assert {handle.origin for handle in second} == {"adopted"}
    join_runs(second, credentials=credentials)


def test_second_attempt_adopts_what_lives_and_restarts_what_failed(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    mark, attempts = new_mark(), []
    inputs = [{"tag": "a"}, {"tag": "b", "fail": "no luck"}, {"tag": "c", "sleep": 1}, {"tag": "a"}]

    @flow(retries=1)
    def attempted() -> list[RunHandle]:
        handles = start_runs("worker", inputs, credentials=credentials, metadata=mark)
        attempts.append(handles)
        if len(attempts) == 1:
            assert until(lambda: active(client, mark) <= 1)
            raise RuntimeError("the first attempt ends here")
        result = join_runs(handles, on_failure="collect")
        assert [item.status.value for item in result] == ["success", "error", "success", "success"]
        return handles

    attempted()
    first, second = ([handle.run_id for handle in handles] for handles in attempts)
    assert [handle.origin for handle in attempts[1]] == ["adopted", "restarted", "adopted", "adopted"]
    assert [mine == theirs for mine, theirs in zip(first, second, strict=True)] == [
        True,
        False,
        True,
        True,
    ]


def test_second_attempt_adopts_although_the_first_gave_some_back(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    mark, attempts = new_mark(), []
    inputs = [{"tag": str(number), "sleep": 2 * min(number, 1)} for number in range(4)]

    @flow(retries=1)
    def attempted() -> None:
        handles = start_runs("worker", inputs, credentials=credentials, metadata=mark)
        attempts.append(handles)
        join_run(handles[0])
        if len(attempts) == 1:
            raise RuntimeError("the first attempt ends here")
        join_runs(handles[1:])

    attempted()
    assert [handle.origin for handle in attempts[1]] == ["started", "adopted", "adopted", "adopted"]
    assert threads_of(client, mark) == []


def test_zombie_stops_and_leaves_the_runs_to_its_successor(
    proxy: Proxy,
    credentials: LangGraphCredentials,
    client: SyncLangGraphClient,
) -> None:
    # However long it is held, it goes on and does not give up: that would be a retry of its task.
    held = LangGraphCredentials(url=proxy.url, patience_seconds=300, timeout_seconds=300)
    hold = Hold()
    proxy.on("GET", THREAD, hold)
    mark, key, count = new_mark(), uuid.uuid4().hex, CHUNK + 30

    def start(block: LangGraphCredentials) -> list[RunHandle]:
        return start_runs(
            "answer", questions(count), credentials=block, metadata=mark, idempotency_key=key
        )

    with ThreadPoolExecutor() as pool:
        zombie = pool.submit(start, held)
        assert hold.reached.wait(PATIENCE)
        handles = start(credentials)
        hold.release()
        with pytest.raises(TakenOverError, match="This one starts no more"):
            zombie.result(PATIENCE)
    origins = Counter(handle.origin for handle in handles)
    assert origins == {"adopted": CHUNK, "started": 30}
    assert len(threads_of(client, mark)) == count
    assert answered(join_runs(handles, credentials=credentials)) == answers(count)


def test_request_of_a_zombie_that_arrives_late_leaves_no_second_run(
    proxy: Proxy,
    credentials: LangGraphCredentials,
    client: SyncLangGraphClient,
) -> None:
    # However long it is held, it goes on and does not give up: that would be a retry of its task.
    held = LangGraphCredentials(url=proxy.url, patience_seconds=300, timeout_seconds=300)
    hold = Hold()
    proxy.on("POST", BATCH, hold)
    mark, key, count = new_mark(), uuid.uuid4().hex, 20

    def start(block: LangGraphCredentials) -> list[RunHandle]:
        inputs = [{"tag": str(number), "sleep": 5} for number in range(count)]
        return start_runs("worker", inputs, credentials=block, metadata=mark, idempotency_key=key)

    with ThreadPoolExecutor() as pool:
        zombie = pool.submit(start, held)
        assert hold.reached.wait(PATIENCE)
        handles = start(credentials)
        hold.release()
        with pytest.raises(TakenOverError):
            zombie.result(PATIENCE)
    assert {handle.origin for handle in handles} == {"started"}
    # The server took the late ones too, which are cancelled and deleted; nobody waits for them.
    assert {thread["thread_id"] for thread in threads_of(client, mark)} == {
        handle.thread_id for handle in handles
    }
    result = join_runs(handles, credentials=credentials)
    assert [values["result"] for values in result.values] == [str(number) for number in range(count)]
    assert threads_of(client, mark) == []


# -- joining -----------------------------------------------------------------------------------------


def test_waiting_for_many_costs_one_request_per_thousand_and_interval(
    through_proxy: LangGraphCredentials, proxy: Proxy, client: SyncLangGraphClient
) -> None:
    mark = new_mark()
    handles = start_runs(
        "answer", questions(1100), credentials=through_proxy, metadata=mark, after_seconds=3600
    )
    proxy.clear()
    result = join_runs(handles, on_failure="collect", max_wait_seconds=3, on_timeout="leave")
    assert result.counts == {RunStatus.RUNNING: 1100}
    asked = [request.json for request in proxy.seen("POST", SEARCH)]
    assert proxy.count() - len(asked) <= 6  # a single busy run is looked into now and then
    assert {tuple(body["select"]) for body in asked} == {("thread_id", "status")}
    assert {thread_id for body in asked for thread_id in body["ids"]} == {
        handle.thread_id for handle in handles
    }
    # Intervals begin at 30 ms and grow by a tenth of the wait: 3 s hold no more than 40 of them, and
    # 1,100 runs are two questions each time.
    assert len(asked) <= 2 * 40
    ids = [handle.thread_id for handle in handles]
    client.threads.prune(ids)


def test_values_of_all_sizes_come_over_in_bounded_answers_and_are_held_once(
    credentials: LangGraphCredentials,
) -> None:
    size, large = 1_000_000, 60
    # Small ones end first: by their size, one answer could hold all the others.
    inputs = [{"tag": str(number)} for number in range(100)]
    inputs += [{"tag": "large", "size": size, "sleep": 3.0}] * large
    handles = start_runs("worker", inputs, credentials=credentials)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far begins anew
    result = join_runs(handles)
    peak = resident("VmHWM")
    assert sum(len(values["payload"]) for values in result.values) == size * large
    # Beside the results there is one answer, as bytes and being read.
    assert peak - before < size * large + 5 * FETCH_BYTES < 2 * size * large


def test_handles_of_results_are_json_and_small(credentials: LangGraphCredentials) -> None:
    handles = start_runs("answer", questions(2), credentials=credentials)
    told = [RunHandle.model_validate_json(handle.model_dump_json()) for handle in handles]
    assert len(json.dumps([handle.model_dump() for handle in told])) < 1000
    assert answered(join_runs(told, credentials=credentials)) == answers(2)


def test_runs_under_a_finalizer_stay_until_the_flow_run_ends(
    credentials: LangGraphCredentials, client: SyncLangGraphClient
) -> None:
    mark = new_mark()

    @with_finalizer(credentials)
    @flow
    def counted() -> int:
        handles = start_runs("answer", questions(20), credentials=credentials, metadata=mark)
        join_runs(handles)
        return len(threads_of(client, mark))

    assert counted() == 20
    assert threads_of(client, mark) == []
