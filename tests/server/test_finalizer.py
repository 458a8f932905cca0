"""`with_finalizer` on real servers: what a flow run leaves when it ends in its own process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from langgraph_sdk.client import SyncLangGraphClient
from prefect import Flow, flow, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.runtime import flow_run
from prefect.states import Failed, Paused, Running

from prefect_langgraph import (
    InvalidRequestError,
    LangGraphCredentials,
    RunInterruptedError,
    create_cron,
    create_thread,
    join_run,
    run_stateless,
    start_run,
    with_finalizer,
)
from prefect_langgraph.testing import LangGraphServer, PrefectServer
from proxy import Answer, Proxy
from support.leftovers import FOREVER, YEARLY, active_runs, events_named, left_by, logs_of
from support.waiting import until

BLOCK = "finalizer-tests"


@pytest.fixture(scope="module", autouse=True)
def saved(prefect_server: PrefectServer, langgraph_server: LangGraphServer) -> str:
    """The name of a saved block for the shared server."""
    LangGraphCredentials(url=langgraph_server.url).save(BLOCK, overwrite=True)
    return BLOCK


def own_id() -> str:
    return str(flow_run.id)


def test_completed_flow_leaves_nothing(client: SyncLangGraphClient) -> None:
    seen = []

    @with_finalizer(BLOCK)
    @flow
    def work() -> str:
        run_stateless("worker", {"tag": "a"}, credentials=BLOCK)
        join_run(start_run("worker", {"tag": "b"}, credentials=BLOCK))
        seen.append(left_by(client, own_id()))
        return own_id()

    flow_run_id = work()
    assert len(seen[0].threads) >= 2
    assert not left_by(client, flow_run_id)


def test_completion_leaves_active_runs_and_names_them(
    client: SyncLangGraphClient, prefect_server: PrefectServer
) -> None:
    @with_finalizer(BLOCK)
    @flow
    def work() -> tuple[str, str]:
        run_stateless("worker", {"tag": "a"}, credentials=BLOCK)
        return own_id(), start_run("worker", FOREVER, credentials=BLOCK).run_id

    flow_run_id, run_id = work()
    left = left_by(client, flow_run_id)
    assert left.runs == [run_id]
    assert len(left.threads) == 1
    assert until(
        lambda: (
            f"1 active run left running: run {run_id}" in logs_of(prefect_server.api_url, flow_run_id)
        )
    )
    client.threads.delete(left.threads[0])


def test_completion_with_cancel_unfinished_cancels_active_runs(client: SyncLangGraphClient) -> None:
    @with_finalizer(BLOCK, cancel_unfinished=True)
    @flow
    def work() -> str:
        start_run("worker", FOREVER, credentials=BLOCK)
        return own_id()

    assert not left_by(client, work())


def failing(
    client: SyncLangGraphClient, ids: dict[str, str], credentials: str = BLOCK
) -> Flow[[], None]:
    """A flow that starts runs everywhere, makes a cron, and fails."""

    @with_finalizer(credentials, max_wait_seconds=20)
    @flow
    def work() -> None:
        ids["flow run"] = own_id()
        ids["own"] = start_run("worker", FOREVER, credentials=BLOCK).run_id
        ids["shared"] = start_run("worker", FOREVER, thread_id=ids["thread"], credentials=BLOCK).run_id
        create_cron("worker", YEARLY, credentials=BLOCK)
        raise RuntimeError("no luck")

    ids["thread"] = client.threads.create()["thread_id"]
    return work


def test_failed_flow_cancels_runs_and_deletes_crons_and_leaves_callers_threads(
    client: SyncLangGraphClient,
) -> None:
    ids: dict[str, str] = {}
    state = failing(client, ids)(return_state=True)
    assert state.is_failed()
    assert not left_by(client, ids["flow run"])
    assert client.runs.get(ids["thread"], ids["shared"])["status"] == "interrupted"
    assert client.threads.get(ids["thread"])["thread_id"] == ids["thread"]


def test_release_is_told_in_the_log_and_as_an_event(
    client: SyncLangGraphClient, prefect_server: PrefectServer
) -> None:
    ids: dict[str, str] = {}
    failing(client, ids)(return_state=True)
    done = "1 cron deleted, 2 runs cancelled, 3 threads deleted"  # run, claim, lease
    assert until(lambda: done in logs_of(prefect_server.api_url, ids["flow run"]))
    event = until(
        lambda: events_named(prefect_server.api_url, "langgraph.flow-run.released", ids["flow run"])
    )[0]
    assert event["resource"]["langgraph.release.outcome"] == "released"
    assert set(event["payload"]["runs_cancelled"]) == {ids["own"], ids["shared"]}


def test_detached_runs_and_other_flow_runs_things_stay(client: SyncLangGraphClient) -> None:
    @with_finalizer(BLOCK)
    @flow
    def work() -> tuple[str, Any]:
        handle = start_run("worker", FOREVER, credentials=BLOCK, detached=True)
        stranger = {"prefect_flow_run_id": str(uuid4()), "prefect_owns_thread": True}
        thread = client.threads.create(metadata=stranger)["thread_id"]
        return thread, handle

    stranger, handle = work()
    assert client.threads.get(stranger)
    assert active_runs(client, handle.thread_id) == [handle.run_id]
    for thread_id in (stranger, handle.thread_id):
        client.threads.delete(thread_id)


def test_thread_that_waits_for_a_person_stays_and_a_cancelled_one_goes(
    client: SyncLangGraphClient,
) -> None:
    @with_finalizer(BLOCK)
    @flow
    def work() -> None:
        ids.append(own_id())
        cancelled = start_run("worker", FOREVER, credentials=BLOCK)
        until(lambda: client.runs.list(cancelled.thread_id)[0]["status"] == "running")
        client.runs.cancel(cancelled.thread_id, cancelled.run_id, wait=True)
        handle = start_run("worker", {"interrupts": 1}, credentials=BLOCK)
        ids.append(handle.thread_id)
        join_run(handle)

    ids: list[str] = []
    with pytest.raises(RunInterruptedError):
        work()
    assert left_by(client, ids[0]).threads == [ids[1]]
    client.threads.delete(ids[1])


def test_thread_of_a_call_that_nobody_can_answer_goes(client: SyncLangGraphClient) -> None:
    @with_finalizer(BLOCK)
    @flow
    def work() -> str:
        with pytest.raises(RunInterruptedError):
            run_stateless("worker", {"interrupts": 1}, credentials=BLOCK)
        return own_id()

    assert not left_by(client, work())


def test_throw_away_thread_with_a_strangers_active_run_stays(client: SyncLangGraphClient) -> None:
    @with_finalizer(BLOCK, cancel_unfinished=True)
    @flow
    def work() -> tuple[str, str]:
        handle = start_run("worker", {"tag": "a"}, credentials=BLOCK)
        join_run(handle)
        stranger = client.runs.create(handle.thread_id, "worker", input=FOREVER)
        return handle.thread_id, stranger["run_id"]

    thread_id, run_id = work()
    assert active_runs(client, thread_id) == [run_id]
    client.threads.delete(thread_id)


def test_strangers_run_on_a_thread_that_the_flow_made_for_good_goes_on(
    client: SyncLangGraphClient,
) -> None:
    @with_finalizer(BLOCK, cancel_unfinished=True)
    @flow
    def work() -> tuple[str, str]:
        thread_id = create_thread(credentials=BLOCK)
        return thread_id, client.runs.create(thread_id, "worker", input=FOREVER)["run_id"]

    thread_id, run_id = work()
    assert active_runs(client, thread_id) == [run_id]
    client.threads.delete(thread_id)


def test_subflow_without_a_finalizer_is_released_with_its_parent(client: SyncLangGraphClient) -> None:
    @flow
    def below() -> None:
        start_run("worker", FOREVER, credentials=BLOCK)

    @with_finalizer(BLOCK, cancel_unfinished=True)
    @flow
    def above() -> tuple[str, int]:
        below()
        return own_id(), len(left_by(client, own_id()).runs)

    flow_run_id, active = above()
    assert active == 1
    assert not left_by(client, flow_run_id)


def test_retried_flow_keeps_its_runs_until_it_really_ends(client: SyncLangGraphClient) -> None:
    attempts = []

    @with_finalizer(BLOCK, cancel_unfinished=True)
    @flow(retries=2)
    def work() -> str:
        run = start_run("worker", FOREVER, credentials=BLOCK)
        values = run_stateless("worker", {"tag": "once"}, credentials=BLOCK)
        attempts.append((run.run_id, len(client.threads.search(metadata={"mark": own_id()}))))
        assert values["result"] == "once"
        if len(attempts) < 3:
            raise RuntimeError("again")
        # One thread each, and the lease: nothing was started twice.
        assert len(left_by(client, own_id()).threads) == 3
        return own_id()

    assert not left_by(client, work())
    assert len(attempts) == 3
    assert len({run_id for run_id, _ in attempts}) == 1


def test_subflows_finished_runs_stay_for_the_retry_of_its_parent(client: SyncLangGraphClient) -> None:
    origins = []

    @with_finalizer(BLOCK)
    @flow
    def below() -> None:
        handle = start_run("worker", {"tag": "once"}, credentials=BLOCK)
        join_run(handle)
        origins.append(handle.origin)

    @with_finalizer(BLOCK)
    @flow(retries=1)
    def above() -> str:
        below()
        if len(origins) < 2:
            raise RuntimeError("again")
        return own_id()

    flow_run_id = above()
    assert origins == ["started", "adopted"]
    assert not left_by(client, flow_run_id)


@pytest.mark.parametrize(
    "make_state",
    # Made in the test: the time-out counts from then on, and Prefect fails what it has passed for.
    [Running, lambda: Paused(timeout_seconds=3600)],
    ids=["running", "paused"],
)
def test_flow_run_that_goes_on_keeps_everything(
    client: SyncLangGraphClient, prefect_server: PrefectServer, make_state: Callable[[], State[Any]]
) -> None:
    @flow
    def work() -> None:
        """Its hook is called early, or late."""

    finalized = with_finalizer(BLOCK)(work)
    row, tags = _flow_run(finalized, make_state())
    thread_id = client.threads.create(metadata=tags)["thread_id"]
    _call_hook(finalized, row)
    assert client.threads.get(thread_id)
    assert until(lambda: "so it keeps what it owns" in logs_of(prefect_server.api_url, row.id))
    client.threads.delete(thread_id)


def _flow_run(of: Flow[..., Any], state: State[Any] | None) -> tuple[FlowRun, dict[str, Any]]:
    async def make() -> FlowRun:
        async with get_client() as prefect:
            made = await prefect.create_flow_run(of, state=Running())
            if state is not None:
                await prefect.set_flow_run_state(made.id, state, force=True)
            return await prefect.read_flow_run(made.id)

    row = asyncio.run(make())
    return row, {"prefect_flow_run_id": str(row.id), "prefect_owns_thread": True}


def _call_hook(of: Flow[..., Any], row: FlowRun, *, times: int = 1) -> None:
    hook = (of.on_failure_hooks or [])[-1]

    async def call() -> None:
        assert row.state is not None
        calls: list[Any] = [hook(of, row, row.state) for _ in range(times)]
        await asyncio.gather(*calls)

    asyncio.run(call())


@pytest.fixture
def ended(prefect_server: PrefectServer) -> tuple[Flow[..., Any], FlowRun, dict[str, Any]]:
    """A flow with a finalizer, an ended flow run that nobody released, and its tags."""

    @flow
    def work() -> None:
        raise RuntimeError("no luck")

    state = work(return_state=True)
    flow_run_id = state.state_details.flow_run_id
    assert isinstance(flow_run_id, UUID)

    async def read() -> FlowRun:
        async with get_client() as prefect:
            return await prefect.read_flow_run(flow_run_id)

    tags = {"prefect_flow_run_id": str(flow_run_id), "prefect_owns_thread": True}
    return with_finalizer(BLOCK)(work), asyncio.run(read()), tags


Ended = tuple[Flow[..., Any], FlowRun, dict[str, Any]]


def test_release_twice_and_beside_another_is_safe(client: SyncLangGraphClient, ended: Ended) -> None:
    work, row, tags = ended
    payload = {"assistant_id": "worker", "input": FOREVER, "metadata": tags, "on_completion": "keep"}
    client.runs.create_batch([payload] * 5)
    client.crons.create("worker", schedule=YEARLY, input={}, metadata=tags)
    _call_hook(work, row, times=3)
    assert not left_by(client, row.id)
    _call_hook(work, row)


def test_thousand_resources_are_released_with_few_requests(
    client: SyncLangGraphClient, proxy: Proxy, ended: Ended
) -> None:
    work, row, tags = ended
    LangGraphCredentials(url=proxy.url).save("finalizer-proxy", overwrite=True)
    batch: list[Any] = [
        {"assistant_id": "worker", "input": FOREVER, "metadata": tags, "on_completion": "keep"}
    ]
    client.runs.create_batch(batch * 100)
    for _ in range(50):
        client.crons.create("worker", schedule=YEARLY, input={}, metadata=tags)
    for _ in range(950):
        client.threads.create(metadata=tags)
    work.on_failure_hooks = []
    _call_hook(with_finalizer("finalizer-proxy")(work), row)
    assert not left_by(client, row.id)
    assert proxy.count("POST", "/cancel$") == 100
    assert proxy.count("DELETE", "/runs/crons/") == 50
    # Twice the four searches, the second page, a list per busy thread, prunes, and looks at them.
    assert proxy.count() - 150 < 100 + 30


def test_step_that_fails_does_not_stop_the_others(
    client: SyncLangGraphClient, proxy: Proxy, prefect_server: PrefectServer
) -> None:
    LangGraphCredentials(url=proxy.url, patience_seconds=0.5).save("finalizer-faults", overwrite=True)
    proxy.on("DELETE", "/runs/crons/", Answer(500), times=None)
    ids: dict[str, str] = {}
    failing(client, ids, "finalizer-faults")(return_state=True)
    left = left_by(client, ids["flow run"])
    assert (left.threads, left.runs, len(left.crons)) == ([], [], 1)
    said = f"Could not delete cron {left.crons[0]}"
    assert until(lambda: said in logs_of(prefect_server.api_url, ids["flow run"]))
    client.crons.delete(left.crons[0])


def test_server_that_is_gone_ends_the_release_at_its_deadline(
    proxy: Proxy, ended: Ended, caplog: pytest.LogCaptureFixture
) -> None:
    work, row, _ = ended
    LangGraphCredentials(url=proxy.url).save("finalizer-gone", overwrite=True)
    proxy.refuse()
    _call_hook(with_finalizer("finalizer-gone", max_wait_seconds=1)(work), row)
    assert "Could not look for" in caplog.text
    assert "The sweep tries again." in caplog.text


@pytest.mark.parametrize("status", [403, 404, 501])
def test_server_that_forbids_crons_is_released_of_the_rest(
    through_proxy: LangGraphCredentials,
    proxy: Proxy,
    ended: Ended,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    work, row, tags = ended
    block = f"no-crons-{status}"
    through_proxy.save(block, overwrite=True)  # type: ignore[unused-coroutine]
    proxy.on("*", "/runs/crons", Answer(status), times=None)
    with LangGraphCredentials(url=proxy.url).get_sync_client() as client:
        client.threads.create(metadata=tags)
        _call_hook(with_finalizer(block)(work), row)
        assert client.threads.search(metadata=tags) == []
    assert [record.message for record in caplog.records if record.levelname != "INFO"] == []
    assert "1 thread deleted" in caplog.text


def test_several_blocks_are_released_and_a_missing_one_is_told(
    client: SyncLangGraphClient, ended: Ended, prefect_server: PrefectServer
) -> None:
    work, row, tags = ended
    client.threads.create(metadata=tags)
    _call_hook(with_finalizer(["no-such-block", BLOCK])(work), row)
    assert not left_by(client, row.id)
    said = "There is no saved LangGraphCredentials block named 'no-such-block'"
    assert until(lambda: said in logs_of(prefect_server.api_url, row.id))


def test_block_named_by_the_flows_parameter_is_released(client: SyncLangGraphClient) -> None:
    @with_finalizer(parameter="credentials", cancel_unfinished=True)
    @flow
    def work(credentials: str) -> str:
        start_run("worker", FOREVER, credentials=credentials)
        return own_id()

    assert not left_by(client, work(BLOCK))


def test_block_object_that_was_not_saved_works_in_its_process_and_hides_its_secrets(
    client: SyncLangGraphClient, langgraph_server: LangGraphServer, prefect_server: PrefectServer
) -> None:
    block = LangGraphCredentials(url=langgraph_server.url, api_key="not-a-real-key")

    @with_finalizer(block, cancel_unfinished=True)
    @flow
    async def work() -> str:
        start_run("worker", FOREVER, credentials=block)
        return own_id()

    flow_run_id = asyncio.run(work())
    assert not left_by(client, flow_run_id)
    assert until(lambda: "1 run cancelled" in logs_of(prefect_server.api_url, flow_run_id))
    assert "not-a-real-key" not in logs_of(prefect_server.api_url, flow_run_id)


def test_lease_is_renewed_while_the_flow_runs_and_gone_with_it(client: SyncLangGraphClient) -> None:
    @with_finalizer(BLOCK, lease_seconds=1)
    @flow
    def work() -> str:
        run_stateless("worker", {"tag": "a"}, credentials=BLOCK)
        tags = {"prefect_flow_run_id": own_id(), "prefect_lease_attempt": 1}
        first = until(lambda: client.threads.search(metadata=tags))
        assert len(first) == 1
        assert until(lambda: _touched(client, tags) > first[0]["updated_at"])
        return own_id()

    assert not left_by(client, work())


def test_each_execution_shows_a_sign_of_life_before_its_first_call(client: SyncLangGraphClient) -> None:
    seen: list[str] = []

    @with_finalizer(BLOCK)
    @flow(retries=1)
    def work() -> str:
        tags = {"prefect_flow_run_id": own_id(), "prefect_lease_attempt": len(seen) + 1}
        assert until(lambda: client.threads.search(metadata=tags))
        seen.append(own_id())
        if len(seen) == 1:
            raise RuntimeError("again")
        return own_id()

    assert not left_by(client, work())


def _touched(client: SyncLangGraphClient, tags: dict[str, Any]) -> Any:
    return client.threads.search(metadata=tags)[0]["updated_at"]


def test_hooks_are_added_beside_those_already_there() -> None:
    def own(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
        """Somebody's own hook."""

    @with_finalizer
    @flow(on_completion=[own], on_failure=[own], on_cancellation=[own], on_crashed=[own])
    def work() -> None:
        """Nothing."""

    for hooks in (
        work.on_completion_hooks,
        work.on_failure_hooks,
        work.on_cancellation_hooks,
        work.on_crashed_hooks,
    ):
        assert hooks is not None
        assert hooks[0] is own
        assert len(hooks) == 2


def noted(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Somebody's own hook."""


def test_flows_that_share_a_list_of_hooks_are_not_finalized_with_each_other() -> None:
    shared: list[Any] = [noted]

    @with_finalizer
    @flow(on_completion=shared, on_failure=shared, on_crashed=shared)
    def finalized() -> None:
        """Nothing."""

    @flow(on_completion=shared)
    def other() -> None:
        """Nothing."""

    assert shared == [noted]
    assert other.on_completion_hooks == [noted]
    for hooks in (
        finalized.on_completion_hooks,
        finalized.on_failure_hooks,
        finalized.on_crashed_hooks,
    ):
        assert hooks is not None
        assert len(hooks) == 2


def test_flow_whose_copy_is_finalized_is_not() -> None:
    @flow(on_completion=[noted])
    def work() -> None:
        """Nothing."""

    copy = with_finalizer(BLOCK)(work.with_options(name="copy"))
    assert work.on_completion_hooks == [noted]
    assert len(copy.on_completion_hooks or []) == 2
    again = copy.with_options(name="finalized as well")
    assert len(again.on_completion_hooks or []) == 2


@pytest.fixture
def _no_default_block(prefect_server: PrefectServer) -> Iterator[None]:
    """What other tests have saved under this name, put aside."""
    try:
        saved = LangGraphCredentials.load("default")
    except ValueError:
        yield
        return
    LangGraphCredentials.delete("default")
    yield
    saved.save("default")


@pytest.mark.usefixtures("_no_default_block")
@pytest.mark.parametrize("given", [{}, {"credentials": None}], ids=["left out", "None"])
def test_parameter_that_was_left_out_names_the_block_of_its_default(
    client: SyncLangGraphClient, given: dict[str, Any]
) -> None:
    @with_finalizer(parameter="credentials")
    @flow
    def work(credentials: str | None = BLOCK) -> None:
        """Deployed, and run without parameters."""

    row, tags = _flow_run(work, Failed())
    assert row.parameters == {}
    thread_id = client.threads.create(metadata=tags)["thread_id"]
    _call_hook(work, row.model_copy(update={"parameters": given}))
    left = left_by(client, row.id).threads
    if given:
        # None was given, and names the block called default.
        assert left == [thread_id]
        client.threads.delete(thread_id)
    else:
        assert left == []


def test_parameter_that_the_flow_does_not_have_is_refused() -> None:
    def work(credentials: str) -> None:
        """Nothing."""

    with pytest.raises(InvalidRequestError, match=r"'credential'.*credentials"):
        with_finalizer(parameter="credential")(flow(work))


@pytest.mark.parametrize("wrong", [3, [], [3], ""])
def test_what_names_no_block_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidRequestError, match="credentials"):
        with_finalizer(wrong)


def test_function_that_is_not_a_flow_is_refused() -> None:
    def work() -> None:
        """Nothing."""

    with pytest.raises(InvalidRequestError, match="above @flow"):
        with_finalizer("default")(work)  # type: ignore[type-var]
