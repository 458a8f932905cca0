"""What became of a run is told exactly, by every task, whenever and from wherever it is asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prefect import flow

from plain_sdk import async_sdk
from prefect_langgraph import (
    LangGraphCredentials,
    RunCancelledError,
    RunFailedError,
    RunInterruptedError,
    ajoin_run,
)
from prefect_langgraph.models import RunHandle
from prefect_langgraph.testing import PrefectServer, run_langgraph_server
from proxy import Proxy
from scenarios import Scenario, scenarios
from stage import Seen, Stage

AGENT = Path(__file__).resolve().parents[2] / "examples" / "agent" / "langgraph.json"
SCENARIOS = scenarios()


async def play(url: str, chosen: list[Scenario]) -> dict[Scenario, Seen | BaseException]:
    async with async_sdk(url) as client:
        return await Stage(url, client).play(chosen)


@flow
async def play_all(url: str, strict_url: str) -> dict[str, Seen | BaseException]:
    timed_out = [item for item in SCENARIOS if item.case.name == "timed out"]
    others = [item for item in SCENARIOS if item not in timed_out]
    first, second = await asyncio.gather(play(url, others), play(strict_url, timed_out))
    return {str(scenario): seen for scenario, seen in (first | second).items()}


@pytest.fixture(scope="module")
def seen(prefect_server: PrefectServer) -> dict[str, Seen | BaseException]:
    # Enough jobs that no run waits for another; in the second server each has a second.
    strict = {"BG_JOB_TIMEOUT_SECS": "1"}
    with (
        run_langgraph_server(AGENT, jobs=60) as server,
        run_langgraph_server(AGENT, jobs=30, env=strict) as strict_server,
    ):
        return asyncio.run(play_all(server.url, strict_server.url))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_outcome_is_the_runs_own(scenario: Scenario, seen: dict[str, Seen | BaseException]) -> None:
    outcome = seen[str(scenario)]
    if isinstance(outcome, BaseException):
        raise outcome
    assert outcome.status is scenario.expected_status
    assert outcome.values == scenario.expected_values
    assert type(outcome.error) is (scenario.expected_error or type(None))
    asked = sorted(item["value"]["question"] for item in outcome.interrupts)
    numbers = range(1, scenario.case.interrupts + 1)
    assert asked == [f"Question {number}: may I go on?" for number in numbers]
    if (error := outcome.error) is not None:
        assert outcome.run_id in (error.handle.run_id, None)
        assert (error.status, error.values) == (outcome.status, outcome.values)
    if isinstance(error, RunFailedError):
        assert (error.error, error.detail) == ("RuntimeError", "no luck")
    if isinstance(error, RunInterruptedError):
        assert len({item["id"] for item in error.interrupts}) == scenario.case.interrupts
    if outcome.result is not None and scenario.case.leaves_row:
        assert outcome.result.seconds is not None
        assert outcome.result.seconds >= 0


def test_rolled_back_run_that_was_seen_alive_is_cancelled(
    proxy: Proxy, prefect_server: PrefectServer
) -> None:
    """Seen from a process that did not start it."""
    credentials = LangGraphCredentials(url=proxy.url)

    async def main() -> None:
        async with async_sdk(credentials.url) as client:
            thread_id = (await client.threads.create())["thread_id"]
            run_id = (await client.runs.create(thread_id, "worker", input={"sleep": 60}))["run_id"]
            handle = RunHandle(run_id=run_id, thread_id=thread_id, assistant_id="worker", url=proxy.url)
            before = proxy.count("GET", f"/threads/{thread_id}/runs$")
            joining = asyncio.ensure_future(ajoin_run(handle, credentials=credentials))
            while proxy.count("GET", f"/threads/{thread_id}/runs$") < before + 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            await client.runs.cancel(thread_id, run_id, action="rollback")
            with pytest.raises(RunCancelledError):
                await joining

    asyncio.run(main())
