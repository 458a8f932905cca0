"""What suspended flow runs cost: the price of a pass of the resumer, and slots of a worker.

    python benchmarks/suspension.py [--flow-runs 1 100 1000]
    python benchmarks/suspension.py --slots 200 --limit 4

A pass: so many flow runs are suspended, each waits for one run, and none is due. The first pass of a
process reads every record; later ones, as in `prefect-langgraph resume`, remember them. Requests are
those that leave the process, CPU is the process's own.

Slots: so many flow runs of a worker with a limit, each of which starts a run and waits for it. Without
suspending only as many as the limit would be waiting at once.

Starts fresh servers on free ports. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

_HOME = tempfile.mkdtemp(prefix="prefect-langgraph-benchmark-")
os.environ["PREFECT_HOME"] = _HOME
os.environ.setdefault("DO_NOT_TRACK", "1")

import httpx  # noqa: E402
from prefect import Flow, flow  # noqa: E402
from prefect.client.orchestration import get_client  # noqa: E402
from prefect.deployments import run_deployment  # noqa: E402
from prefect.exceptions import PrefectHTTPStatusError  # noqa: E402
from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: E402
from prefect.states import Pending, Running, Suspended  # noqa: E402

from prefect_langgraph import (  # noqa: E402
    LangGraphCredentials,
    join_runs,
    start_run,
    suspend_until_ended,
    with_finalizer,
)
from prefect_langgraph.flows.resume import resumer_of  # noqa: E402
from prefect_langgraph.suspension import storage  # noqa: E402
from prefect_langgraph.suspension.record import (  # noqa: E402
    Record,
    Target,
    identity_of,
    name_of,
    new_pause_key,
)
from prefect_langgraph.testing import run_langgraph_server, run_prefect_server  # noqa: E402
from prefect_langgraph.transport.loop import io_loop  # noqa: E402

AGENT = Path(__file__).resolve().parent.parent / "examples" / "agent" / "langgraph.json"
BLOCK = "benchmark"
FAR = 86_400

T = TypeVar("T")


@with_finalizer(BLOCK)
@flow
def waits(seconds: float) -> str:
    """Start a run, wait for it without a process, and join it."""
    handle = start_run("worker", {"sleep": seconds, "tag": "done"}, credentials=BLOCK)
    suspend_until_ended([handle], stay_seconds=0)
    result: str = join_runs([handle]).values[0]["result"]
    return result


# -- the price of a pass -----------------------------------------------------------------------------


async def suspend(url: str, count: int) -> None:
    """Make so many suspended flow runs, each with a run that ends in a day."""
    async with get_client() as client:
        flow_id = await client.create_flow(waits)
        deployment_id = await client.create_deployment(flow_id, f"pass-{uuid4().hex[:8]}")
        runs = await _busy_runs(url, count)
        slots = asyncio.Semaphore(2)

        async def one(thread_id: str, run_id: str) -> None:
            async with slots:
                row = await _served(
                    lambda: client.create_flow_run_from_deployment(deployment_id, state=Pending())
                )
                await _served(lambda: client.set_flow_run_state(row.id, Running()))
                targets = (Target(url, BLOCK, None, ((thread_id, run_id, True),)),)
                name = name_of(identity_of(targets), max_wait_seconds=None, attempt=1)
                record = Record(name, datetime.now(UTC), None, targets)
                await _served(lambda: storage.save(client, row.id, record))
                state = Suspended(pause_key=new_pause_key(record.name))
                await _served(lambda: client.set_flow_run_state(row.id, state))

        await asyncio.gather(*(one(*ids) for ids in runs))


async def _served(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until Prefect's server, on SQLite, is not too busy."""
    while True:
        try:
            return await ask()
        except PrefectHTTPStatusError as error:
            if error.response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                raise
            await asyncio.sleep(1)


async def _busy_runs(url: str, count: int) -> list[tuple[str, str]]:
    client = LangGraphCredentials(url=url).get_client()
    payload: dict[str, Any] = {"assistant_id": "worker", "input": {}, "after_seconds": FAR}
    rows: list[Any] = []
    while len(rows) < count:
        part = [{**payload, "on_completion": "keep"}] * min(250, count - len(rows))
        rows += await client.runs.create_batch(part)  # type: ignore[arg-type]
    return [(row["thread_id"], row["run_id"]) for row in rows]


def measured_pass(resumer: Any, api_url: str) -> tuple[float, float, Counter[str]]:
    """Seconds, CPU seconds, and the requests to each server, of one pass."""
    sent: Counter[str] = Counter()
    original = httpx.AsyncClient.send

    async def counted(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> Any:
        sent["Prefect" if str(request.url).startswith(api_url) else "LangGraph"] += 1
        return await original(client, request, **options)

    httpx.AsyncClient.send = counted  # type: ignore[method-assign]
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        report = io_loop().run(resumer.one_pass)
    finally:
        httpx.AsyncClient.send = original  # type: ignore[method-assign]
    assert not report.failures, report.failures
    return time.perf_counter() - wall, time.process_time() - cpu, sent


def passes(url: str, api_url: str, sizes: list[int]) -> None:
    """Measure the first and a later pass over each number of suspended flow runs."""
    print("| suspended flow runs | pass | wall | CPU | requests to Prefect | to LangGraph |")
    print("|---:|---|---:|---:|---:|---:|")
    there = 0
    for size in sizes:
        io_loop().run(suspend, url, size - there)
        there = size
        resumer = resumer_of(BLOCK)
        for which in ("first", "later"):
            wall, cpu, sent = measured_pass(resumer, api_url)
            print(
                f"| {size:,} | {which} | {wall:.2f} s | {cpu:.2f} s | {sent['Prefect']:,} "
                f"| {sent['LangGraph']:,} |"
            )


# -- slots -------------------------------------------------------------------------------------------


def slots(count: int, limit: int, seconds: float) -> None:
    """Run flow runs on a worker with a limit, and count how many of them wait at once."""
    found = Flow.from_source(str(Path(__file__).parent), f"{Path(__file__).name}:waits")
    assert isinstance(found, Flow)
    subprocess.run(
        [sys.executable, "-m", "prefect", "work-pool", "create", "slots", "--type", "process"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    found.deploy("slots", work_pool_name="slots", build=False, push=False, print_next_steps=False)
    command = ["worker", "start", "--pool", "slots", "--limit", str(limit)]
    worker = subprocess.Popen([sys.executable, "-m", "prefect", *command], stdout=subprocess.DEVNULL)
    try:
        began = time.monotonic()
        for _ in range(count):
            run_deployment("waits/slots", parameters={"seconds": seconds}, timeout=0, as_subflow=False)
        resumer, most = resumer_of(BLOCK), 0
        while True:
            states = _states()
            most = max(most, states["Suspended"])
            if sum(states[name] for name in ("Completed", "Failed", "Crashed", "Cancelled")) == count:
                break
            io_loop().run(resumer.one_pass)
            time.sleep(2)
        took = time.monotonic() - began
        print(
            f"{count} flow runs of {seconds:g} s on a worker with a limit of {limit}: {dict(states)},"
        )
        print(f"at most {most} suspended at once, {took:.0f} s in all.")
    finally:
        worker.terminate()
        with suppress(subprocess.TimeoutExpired):
            worker.wait(60)


def _states() -> Counter[str]:
    with get_client(sync_client=True) as client:
        found: Counter[str] = Counter()
        while page := client.read_flow_runs(offset=found.total()):
            found.update(str(row.state_name) for row in page)
        return found


def main() -> None:
    """Start the servers and measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flow-runs", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--slots", type=int, default=0)
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--seconds-per-run", type=float, default=60.0)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with (
        run_prefect_server() as prefect,
        run_langgraph_server(AGENT, jobs=max(10, options.slots)) as graph,
    ):
        os.environ["PREFECT_API_URL"] = prefect.api_url
        with temporary_settings({PREFECT_API_URL: prefect.api_url}):
            LangGraphCredentials(url=graph.url).save(BLOCK, overwrite=True)
            if options.slots:
                slots(options.slots, options.limit, options.seconds_per_run)
            else:
                passes(graph.url, prefect.api_url, sorted(options.flow_runs))


if __name__ == "__main__":
    main()
