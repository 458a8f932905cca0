"""What became of a run is told exactly, by every task, whenever and from wherever it is asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prefect import flow

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
from server.case_runner import CaseRunner, Seen
from server.outcome_cases import OutcomeCase, outcome_cases
from support.plain_sdk import async_sdk

AGENT = Path(__file__).resolve().parents[2] / "examples" / "agent" / "langgraph.json"
CASES = outcome_cases()


async def run_cases(url: str, chosen: list[OutcomeCase]) -> dict[OutcomeCase, Seen | BaseException]:
    async with async_sdk(url) as client:
        return await CaseRunner(url, client).run(chosen)


@flow
async def run_all(url: str, strict_url: str) -> dict[str, Seen | BaseException]:
    timed_out = [item for item in CASES if item.outcome.name == "timed out"]
    others = [item for item in CASES if item not in timed_out]
    first, second = await asyncio.gather(run_cases(url, others), run_cases(strict_url, timed_out))
    return {str(case): seen for case, seen in (first | second).items()}


@pytest.fixture(scope="module")
def seen(prefect_server: PrefectServer) -> dict[str, Seen | BaseException]:
    # Enough jobs that no run waits for another; on the second server each has four seconds:
    # for a run that does not sleep that is long, also on a busy machine.
    strict = {"BG_JOB_TIMEOUT_SECS": "4"}
    with (
        run_langgraph_server(AGENT, jobs=60) as server,
        run_langgraph_server(AGENT, jobs=30, env=strict) as strict_server,
    ):
        return asyncio.run(run_all(server.url, strict_server.url))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outcome_is_the_runs_own(case: OutcomeCase, seen: dict[str, Seen | BaseException]) -> None:
    outcome = seen[str(case)]
    if isinstance(outcome, BaseException):
        raise outcome
    assert outcome.status is case.expected_status
    assert outcome.values == case.expected_values
    assert type(outcome.error) is (case.expected_error or type(None))
    asked = sorted(item["value"]["question"] for item in outcome.interrupts)
    numbers = range(1, case.outcome.interrupts + 1)
    assert asked == [f"Question {number}: may I go on?" for number in numbers]
    if (error := outcome.error) is not None:
        assert outcome.run_id in (error.handle.run_id, None)
        assert (error.status, error.values) == (outcome.status, outcome.values)
    if isinstance(error, RunFailedError):
        assert (error.error, error.detail) == ("RuntimeError", "no luck")
    if isinstance(error, RunInterruptedError):
        assert len({item["id"] for item in error.interrupts}) == case.outcome.interrupts
    if outcome.result is not None and case.outcome.leaves_row:
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
