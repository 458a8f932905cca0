"""Fan-outs for a browser to look at: a small real one, and one of ten thousand runs that never were.

    python fan_outs.py ADDRESS_OF_THE_LANGGRAPH_SERVER

Runs in a process of its own, with PREFECT_API_URL in its environment, and prints the flow runs as JSON.
"""

from __future__ import annotations

import heapq
import json
import random
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect import flow
from prefect.runtime import flow_run

from prefect_langgraph import FanOutResult, LangGraphCredentials, RunHandle, RunStatus, Usage, fan_out
from prefect_langgraph.reports.fan_out_page import artifact_key, fan_out_report, publish_report
from prefect_langgraph.reports.progress import FanOutProgress
from prefect_langgraph.results import RunFailure, RunResult
from prefect_langgraph.transport.loop import io_loop

MANY, AT_ONCE, CHUNK = 10_000, 400, 100
LONG_ERROR = (
    "the upstream model refused the request because the prompt was too long: 250000 tokens | at most "
    "`200000`; shorten the conversation, or choose a model with a <b>larger</b> context window. " * 3
)
USAGE = {"input_tokens": 100, "output_tokens": 20}
FEW = [
    *({"tag": str(number), "sleep": number * 0.3, "usage": USAGE} for number in range(7)),
    {"fail": "no luck", "sleep": 0.5},
    {"fail": LONG_ERROR, "sleep": 1.2},
    {"interrupts": 1},
]


def chance(dice: random.Random) -> tuple[RunStatus, RunFailure | None]:
    """How one of many runs ends: almost always well."""
    number = dice.random()
    if number < 0.97:
        return RunStatus.SUCCESS, None
    if number < 0.99:
        message = LONG_ERROR if number < 0.98 else "rate limited"
        return RunStatus.ERROR, RunFailure(error="ValueError", message=message)
    return dice.choice([RunStatus.INTERRUPTED, RunStatus.TIMEOUT, RunStatus.LOST]), None


def report_of_many() -> str:
    """The report of a fan-out whose runs take their time on a clock of its own."""
    dice, now = random.Random(7), [0.0]  # noqa: S311 a picture, no secret
    began = datetime(2026, 1, 1, tzinfo=UTC)
    progress = FanOutProgress(MANY, label="fan-out-answer", clock=lambda: now[0])
    running: list[tuple[float, int, float]] = []
    results: dict[int, RunResult] = {}
    started = 0
    while len(results) < MANY:
        if started < MANY and len(running) + CHUNK <= AT_ONCE:
            for number in range(started, started + CHUNK):
                heapq.heappush(running, (now[0] + dice.lognormvariate(1, 0.6), number, now[0]))
            started += CHUNK
            progress.started(CHUNK)
            now[0] += 0.1
            continue
        end, number, begin = heapq.heappop(running)
        now[0] = max(now[0], end)
        status, error = chance(dice)
        results[number] = RunResult(
            handle=RunHandle(
                run_id=str(UUID(int=number)), thread_id="t", assistant_id="answer", url="http://x"
            ),
            status=status,
            error=error,
            created_at=began + timedelta(seconds=begin),
            ended_at=began + timedelta(seconds=end),
            usage=Usage(input_tokens=100, output_tokens=20, total_tokens=120),
        )
        progress.ended(results[number])
    return fan_out_report(
        FanOutResult(results=tuple(results[number] for number in range(MANY))),
        title=f"{MANY:,} runs of answer",
        samples=progress.samples,
        seconds=now[0],
        links=lambda item: f"https://example.com/runs/{item.handle.run_id}",
        rerun_hint="Run the flow again with the same `output_path`.",
    )


@flow(name="ten-thousand")
def many() -> str:
    markdown = report_of_many()

    async def publish() -> None:
        await publish_report(
            markdown, key=artifact_key("fan-out-answer"), description="Fan-out: 10,000 runs"
        )

    io_loop().run(publish)
    return str(flow_run.id)


@flow(name="ten")
def few() -> str:
    fan_out("worker", FEW, on_failure="collect")
    return str(flow_run.id)


def main() -> None:
    LangGraphCredentials(url=sys.argv[1]).save("default", overwrite=True)
    found: dict[str, object] = {"few": few(), "many": many()}
    print(json.dumps(found))  # noqa: T201 the answer to who started this


if __name__ == "__main__":
    main()
