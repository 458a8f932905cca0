"""`sweep` on real servers: what it releases, and what it leaves alone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from langgraph_sdk.client import SyncLangGraphClient
from prefect import flow, get_client
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Pending,
    Running,
    State,
    Suspended,
)

from prefect_langgraph import (
    InvalidRequestError,
    LangGraphCredentials,
    LangGraphError,
    SweepEntry,
    SweepReport,
    asweep,
    create_cron,
    create_thread,
    start_run,
    sweep,
)
from prefect_langgraph.cleanup.sweep import Policy, sweep_deployment
from prefect_langgraph.ownership.owner import prefect_api
from prefect_langgraph.testing import LangGraphServer, PrefectServer, run_prefect_server
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.deployment import deployment_for
from proxy import Answer, Proxy
from support.leftovers import FOREVER, YEARLY, active_runs, left_by
from support.plain_sdk import async_sdk
from support.waiting import until

BLOCK = "sweep-tests"


@flow
def work() -> None:
    """Has no finalizer."""


@pytest.fixture(scope="module", autouse=True)
def saved(prefect_server: PrefectServer, langgraph_server: LangGraphServer) -> str:
    """The name of a saved block for the shared server."""
    LangGraphCredentials(url=langgraph_server.url).save(BLOCK, overwrite=True)
    return BLOCK


Leave = Callable[..., str]


@pytest.fixture
def leave(client: SyncLangGraphClient) -> Iterator[Leave]:
    """Makes a flow run in a state, with a throw-away thread of its; gives its id."""
    made: list[str] = []

    def make(state: State[Any] | None, **tags: Any) -> str:
        flow_run_id = str(uuid4())
        if state is not None:
            with get_client(sync_client=True) as prefect:
                row = prefect.create_flow_run(work, state=Running())
                prefect.set_flow_run_state(row.id, state, force=True)
                flow_run_id = str(row.id)
        made.append(flow_run_id)
        client.threads.create(metadata={**tags_of(flow_run_id), **tags})
        return flow_run_id

    yield make
    for flow_run_id in made:
        for thread_id in left_by(client, flow_run_id).threads:
            client.threads.delete(thread_id)


def tags_of(flow_run_id: object) -> dict[str, Any]:
    return {
        "prefect_flow_run_id": str(flow_run_id),
        "prefect_api": prefect_api(),
        "prefect_owns_thread": True,
    }


def entry_of(report: SweepReport, flow_run_id: str) -> SweepEntry:
    return next(entry for entry in report.entries if entry.flow_run_id == flow_run_id)


def test_ended_and_gone_flow_runs_are_released_and_others_are_not(
    client: SyncLangGraphClient, leave: Leave
) -> None:
    over = [Completed(), Failed(), Cancelled(), Crashed(), None]
    on = [Running(), Pending(), Cancelling(), AwaitingRetry(), Suspended(timeout_seconds=60)]
    released = {leave(state): state for state in over}
    kept = {leave(state): state for state in on}
    report = sweep(BLOCK, grace_seconds=0)
    assert {entry_of(report, flow_run_id).action for flow_run_id in released} == {"release"}
    assert {entry_of(report, flow_run_id).action for flow_run_id in kept} == {"keep"}
    assert not any(left_by(client, flow_run_id) for flow_run_id in released)
    assert all(left_by(client, flow_run_id) for flow_run_id in kept)
    for flow_run_id, state in {**released, **kept}.items():
        assert entry_of(report, flow_run_id).state == (state.name if state is not None else None)


def test_crons_and_active_runs_of_an_ended_flow_run_are_released_and_callers_threads_stay(
    client: SyncLangGraphClient,
) -> None:
    @flow
    def leaves() -> tuple[str, str]:
        thread_id = create_thread(credentials=BLOCK)
        start_run("worker", FOREVER, credentials=BLOCK)
        start_run("worker", FOREVER, thread_id=thread_id, credentials=BLOCK)
        create_cron("worker", YEARLY, credentials=BLOCK)
        return str(flow_run.id), thread_id

    flow_run_id, thread_id = leaves()
    entry = entry_of(sweep(BLOCK, grace_seconds=0), flow_run_id)
    assert (len(entry.crons), len(entry.runs), len(entry.threads)) == (1, 2, 2)
    assert not left_by(client, flow_run_id)
    assert not active_runs(client, thread_id)
    client.threads.delete(thread_id)


def test_more_than_a_page_of_threads_and_crons_is_swept_in_one_go(
    langgraph_server: LangGraphServer, client: SyncLangGraphClient
) -> None:
    flow_runs = [str(uuid4()) for _ in range(5)]
    threads, crons = 1020, 1010  # the server answers with 1,000 at most

    async def make() -> None:
        slots = asyncio.Semaphore(20)
        async with async_sdk(langgraph_server.url) as langgraph:

            async def one(number: int) -> None:
                tags = tags_of(flow_runs[number % len(flow_runs)])
                async with slots:
                    if number < threads:
                        await langgraph.threads.create(metadata=tags)
                    if number < crons:
                        await langgraph.crons.create("worker", schedule=YEARLY, metadata=tags)

            await asyncio.gather(*map(one, range(max(threads, crons))))

    asyncio.run(make())
    report = sweep(BLOCK, grace_seconds=0)
    done = [entry_of(report, flow_run_id) for flow_run_id in flow_runs]
    assert sum(len(entry.threads) for entry in done) == threads
    assert sum(len(entry.crons) for entry in done) == crons
    assert not any(left_by(client, flow_run_id) for flow_run_id in flow_runs)


def test_flow_run_that_ended_within_the_grace_is_left_alone(
    client: SyncLangGraphClient, leave: Leave
) -> None:
    flow_run_id = leave(Completed())
    entry = entry_of(sweep(BLOCK), flow_run_id)
    assert entry.action == "keep"
    assert "within grace_seconds=300" in entry.reason
    assert left_by(client, flow_run_id)


def test_dry_run_says_what_it_would_do_and_why_and_touches_nothing(
    client: SyncLangGraphClient, leave: Leave
) -> None:
    flow_run_id = leave(Crashed())
    entry = entry_of(sweep(BLOCK, grace_seconds=0, dry_run=True), flow_run_id)
    assert entry.action == "release"
    assert entry.reason.startswith("is Crashed, ")
    assert list(entry.threads) == left_by(client, flow_run_id).threads
    assert len(entry.threads) == 1


def test_what_has_no_tags_or_is_detached_is_never_touched(client: SyncLangGraphClient) -> None:
    @flow
    def leaves() -> Any:
        cron = create_cron("worker", YEARLY, credentials=BLOCK, detached=True)
        return cron.cron_id, start_run("worker", FOREVER, credentials=BLOCK, detached=True)

    cron_id, handle = leaves()
    untagged = client.threads.create(metadata={"prefect_owns_thread": True})["thread_id"]
    sweep(BLOCK, grace_seconds=0)
    assert client.threads.get(untagged)
    assert active_runs(client, handle.thread_id) == [handle.run_id]
    client.crons.delete(cron_id)
    for thread_id in (untagged, handle.thread_id):
        client.threads.delete(thread_id)


OTHER_PREFECT = """
import sys
from prefect import flow
from prefect.runtime import flow_run
from prefect_langgraph import LangGraphCredentials, start_run, sweep

LangGraphCredentials(url=sys.argv[1]).save("default")

@flow
def leaves() -> str:
    start_run("worker", {"sleep": 600})
    return str(flow_run.id)

print(leaves(), flush=True)
sys.stdin.readline()
print(sweep(grace_seconds=0).model_dump_json(), flush=True)
"""


def test_other_workspaces_things_on_the_same_deployment_are_never_touched(
    client: SyncLangGraphClient, langgraph_server: LangGraphServer, leave: Leave
) -> None:
    ours = leave(Running())
    with run_prefect_server() as other:
        there = subprocess.Popen(
            [sys.executable, "-c", OTHER_PREFECT, langgraph_server.url],
            env={**os.environ, "PREFECT_API_URL": other.api_url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert there.stdin is not None
        assert there.stdout is not None
        with there:
            theirs = there.stdout.readline().strip()
            report = sweep(BLOCK, grace_seconds=0)
            assert theirs not in {entry.flow_run_id for entry in report.entries}
            assert left_by(client, theirs).runs
            there.stdin.write("\n")
            there.stdin.flush()
            swept = json.loads(there.stdout.readline())
    assert [entry["flow_run_id"] for entry in swept["entries"]] == [theirs]
    assert not left_by(client, theirs)
    assert left_by(client, ours)


def test_thread_that_waits_for_a_person_stays_unless_asked_for(
    client: SyncLangGraphClient,
) -> None:
    @flow
    def leaves() -> tuple[str, str]:
        handle = start_run("worker", {"interrupts": 1}, credentials=BLOCK)
        assert until(lambda: client.threads.get(handle.thread_id)["status"] == "interrupted")
        return str(flow_run.id), handle.thread_id

    flow_run_id, thread_id = leaves()
    assert entry_of(sweep(BLOCK, grace_seconds=0), flow_run_id).waiting == (thread_id,)
    assert client.threads.get(thread_id)
    entry = entry_of(sweep(BLOCK, grace_seconds=0, waiting_grace_seconds=0), flow_run_id)
    assert entry.threads == (thread_id,)
    assert not left_by(client, flow_run_id)


def test_subflows_things_wait_for_the_flow_run_around_it(
    client: SyncLangGraphClient, leave: Leave
) -> None:
    around = leave(Running())
    inner = leave(Completed(), prefect_root_flow_run_id=around)
    assert entry_of(sweep(BLOCK, grace_seconds=0), inner).action == "keep"
    with get_client(sync_client=True) as prefect:
        prefect.set_flow_run_state(around, Failed(), force=True)  # type: ignore[arg-type]
    assert entry_of(sweep(BLOCK, grace_seconds=0), inner).action == "release"
    assert not left_by(client, inner)


def test_running_flow_run_without_a_sign_of_life_is_released(
    client: SyncLangGraphClient, leave: Leave
) -> None:
    dead, alive = leave(Running()), leave(Running())
    for flow_run_id, seconds in ((dead, 0.001), (alive, 600)):
        with get_client(sync_client=True) as prefect:
            attempt = prefect.read_flow_run(flow_run_id).run_count  # type: ignore[arg-type]
        lease = {"prefect_lease_attempt": attempt, "prefect_lease_seconds": seconds}
        client.threads.create(metadata={**tags_of(flow_run_id), **lease})
    report = sweep(BLOCK, grace_seconds=0)
    assert entry_of(report, alive).action == "keep"
    assert "gave no sign of life" in entry_of(report, dead).reason
    assert not left_by(client, dead)


@pytest.mark.parametrize("again", [Running(), Cancelling()], ids=lambda state: state.name)
def test_sign_of_life_from_before_a_suspension_says_nothing(
    client: SyncLangGraphClient, leave: Leave, again: State[Any]
) -> None:
    flow_run_id = leave(Running())
    with get_client(sync_client=True) as prefect:
        after = (Suspended(timeout_seconds=60), Running(), again)
        # A state that is forced counts as an attempt; a resumed flow run's does not.
        forced = sum(state.is_running() for state in after)
        attempt = prefect.read_flow_run(UUID(flow_run_id)).run_count + forced
        lease = {"prefect_lease_attempt": attempt, "prefect_lease_seconds": 0.001}
        old = client.threads.create(metadata={**tags_of(flow_run_id), **lease})["thread_id"]
        for state in after:
            prefect.set_flow_run_state(UUID(flow_run_id), state, force=True)
        assert prefect.read_flow_run(UUID(flow_run_id)).run_count == attempt
    entry = entry_of(sweep(BLOCK, grace_seconds=0), flow_run_id)
    assert (entry.action, entry.reason) == ("keep", f"is {again.name}")
    # The new process has shown that it lives, and then no more.
    client.threads.update(old, metadata=lease)
    assert "gave no sign of life" in entry_of(sweep(BLOCK, grace_seconds=0), flow_run_id).reason
    assert not left_by(client, flow_run_id)


def test_nothing_is_released_when_prefect_cannot_be_asked(
    credentials: LangGraphCredentials, client: SyncLangGraphClient, leave: Leave
) -> None:
    flow_run_id, policy = leave(Completed()), Policy(prefect_api(), 0, None, dry_run=False)

    async def unasked() -> None:
        deployment = deployment_for(credentials.connection())
        with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
            await sweep_deployment(deployment, policy, deadline=Deadline())

    with pytest.raises((PrefectException, httpx.HTTPError, RuntimeError)):
        asyncio.run(unasked())
    assert left_by(client, flow_run_id)


def test_deployment_that_is_away_does_not_keep_others_from_being_swept(
    client: SyncLangGraphClient, leave: Leave, proxy: Proxy
) -> None:
    LangGraphCredentials(url=proxy.url, patience_seconds=0.3).save("sweep-away", overwrite=True)
    flow_run_id = leave(Completed())
    proxy.refuse()
    with pytest.raises(LangGraphError, match="1 step failed"):
        sweep(["sweep-away", BLOCK], grace_seconds=0)
    assert not left_by(client, flow_run_id)


@pytest.mark.parametrize("status", [403, 404, 501])
def test_server_that_forbids_crons_is_swept_of_the_rest(
    client: SyncLangGraphClient, leave: Leave, proxy: Proxy, status: int
) -> None:
    block = f"sweep-no-crons-{status}"
    LangGraphCredentials(url=proxy.url, patience_seconds=5).save(block, overwrite=True)
    flow_run_id = leave(Completed())
    proxy.on("*", "/runs/crons", Answer(status), times=None)
    report = sweep(block, grace_seconds=0)
    assert report.failures == ()
    assert not left_by(client, flow_run_id)
    assert proxy.count("POST", "/runs/crons") == 1


def test_sweep_is_told_as_an_artifact_and_as_an_event(
    prefect_server: PrefectServer, leave: Leave
) -> None:
    flow_run_id = leave(Completed())

    @flow
    async def around() -> None:
        await asweep(BLOCK, grace_seconds=0)

    asyncio.run(around())
    api = prefect_server.api_url
    artifact = httpx.get(f"{api}/artifacts/langgraph-sweep/latest").raise_for_status().json()
    row = next(row for row in json.loads(artifact["data"]) if row["id"] == flow_run_id)
    assert (row["action"], row["threads"]) == ("release", 1)
    wanted = {"event": {"name": ["langgraph.sweep.ended"]}}

    def told() -> list[Any]:
        answer = httpx.post(f"{api}/events/filter", json={"filter": wanted}).raise_for_status()
        return [e for e in answer.json()["events"] if flow_run_id in e["payload"]["flow_runs"]]

    assert until(told)[0]["resource"]["langgraph.sweep.outcome"] == "released"


@pytest.mark.parametrize("wrong", [{"grace_seconds": -1}, {"credentials": []}])
def test_wrong_argument_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=next(iter(wrong))):
        sweep(**wrong)
