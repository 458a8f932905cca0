"""What a fan-out costs: the same runs of a no-op graph, five ways, one table.

    python benchmarks/fan_out.py                         1,000 runs by every way
    python benchmarks/fan_out.py --runs 100 --only b d   a quick look
    python benchmarks/fan_out.py --large 10000 --markdown
                                                         all of it, into docs/benchmarks.md

Each way is one Prefect flow run in a process of its own, so that its CPU seconds and its memory are its
own, against a LangGraph server that was just started. One Prefect server serves them all.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import platform
import pstats
import re
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import LangGraphClient
from prefect import flow, task
from prefect.client.orchestration import get_client as get_prefect_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterType
from prefect.client.schemas.sorting import ArtifactSort

from prefect_langgraph import LangGraphCredentials, fan_out
from prefect_langgraph.testing import run_langgraph_server, run_prefect_server

ROOT = Path(__file__).resolve().parent.parent
AGENT = ROOT / "examples" / "agent" / "langgraph.json"
PAGE = ROOT / "docs" / "benchmarks.md"
JOBS = 50
BLOCK = "benchmark"

WAYS = {
    "a": "`asyncio.gather` of create and `runs.join`, the SDK's defaults",
    "b": "the same, the pool limit lifted",
    "c": "`@task` and `.map`, a client per task",
    "d": "`fan_out`",
    "e": "`fan_out(per_run_tasks=True)`",
}


@dataclass
class Measured:
    """What one way cost, in the process that did it.

    Attributes:
        lost: Inputs without their result.
        doubled: Runs that the server worked on beyond one for each input.
        requests: To the LangGraph server.
        peak_mb: Resident memory at its highest, Python and Prefect included.
        why_lost: How often each error came.
        report: The length of the report artifact, where there is one.
    """

    way: str
    runs: int
    lost: int
    wall_seconds: float
    cpu_seconds: float
    requests: int
    peak_mb: float
    base_mb: float
    doubled: int | None = None
    why_lost: dict[str, int] = field(default_factory=dict)
    report: int | None = None


# -- the client: one way, in a process of its own -------------------------------------------------


class Workload:
    """The same runs for every way: what goes in, and what has to come out."""

    def __init__(self, url: str, runs: int, seconds_per_run: float) -> None:
        self.url = url
        self.slow = seconds_per_run > 0
        self.graph = "worker" if self.slow else "answer"
        self.inputs = [
            {"tag": str(number), "sleep": seconds_per_run} if self.slow else {"question": str(number)}
            for number in range(runs)
        ]

    def is_right(self, number: int, values: Any) -> bool:
        if not isinstance(values, dict):
            return False
        if self.slow:
            return values.get("result") == str(number)
        return values.get("answer") == f"You asked: {number}"


async def _gathered(work: Workload, client: Any) -> list[Any]:
    async def one(given: dict[str, Any]) -> Any:
        run = await client.runs.create(None, work.graph, input=given, on_completion="keep")
        return await client.runs.join(run["thread_id"], run["run_id"])

    return await asyncio.gather(*map(one, work.inputs), return_exceptions=True)


def way_a(work: Workload) -> list[Any]:
    @flow
    async def gather() -> list[Any]:
        return await _gathered(work, get_client(url=work.url, api_key=None))

    return asyncio.run(gather())


def way_b(work: Workload) -> list[Any]:
    @flow
    async def gather() -> list[Any]:
        # As many connections as there are calls, and as many kept as the SDK keeps.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        timeout = httpx.Timeout(connect=None, read=300, write=300, pool=None)
        http = httpx.AsyncClient(base_url=work.url, limits=limits, timeout=timeout)
        return await _gathered(work, LangGraphClient(http))

    return asyncio.run(gather())


def way_c(work: Workload) -> list[Any]:
    @task
    def one(given: dict[str, Any]) -> Any:
        client = get_sync_client(url=work.url, api_key=None)
        run = client.runs.create(None, work.graph, input=given, on_completion="keep")
        return client.runs.join(run["thread_id"], run["run_id"])

    @flow
    def mapped() -> list[Any]:
        futures = one.map(work.inputs)
        futures.wait()
        return [future.result(raise_on_failure=False) for future in futures]

    return mapped()


def _fanned_out(work: Workload, **options: Any) -> list[Any]:
    result = fan_out(work.graph, work.inputs, credentials=BLOCK, on_failure="collect", **options)
    return [item.values if item.status == "success" else item.error for item in result]


def way_d(work: Workload) -> list[Any]:
    return _fanned_out(work)


def way_e(work: Workload) -> list[Any]:
    return _fanned_out(work, per_run_tasks=True)


@contextmanager
def counted_requests(url: str) -> Iterator[Counter[str]]:
    """Count the requests of this process to one address, whatever client sends them."""
    port, seen = httpx.URL(url).port, Counter[str]()
    sync_handle = httpx.HTTPTransport.handle_request
    async_handle = httpx.AsyncHTTPTransport.handle_async_request

    def note(request: httpx.Request) -> None:
        if request.url.port == port:
            path = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "{id}", request.url.path)
            seen[f"{request.method} {path}"] += 1

    def handle(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        note(request)
        return sync_handle(self, request)

    async def ahandle(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        note(request)
        return await async_handle(self, request)

    httpx.HTTPTransport.handle_request = handle  # type: ignore[method-assign]
    httpx.AsyncHTTPTransport.handle_async_request = ahandle  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        httpx.HTTPTransport.handle_request = sync_handle  # type: ignore[method-assign]
        httpx.AsyncHTTPTransport.handle_async_request = async_handle  # type: ignore[method-assign]


def memory_mb(name: str) -> float:
    """`VmHWM`, the highest resident memory of this process, or `VmRSS`, what it has now."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found, status
    return int(found[1]) / 1024


def be_client(way: str, work: Workload, profile: Path | None) -> Measured:
    """Do the work one way and measure this process meanwhile."""
    run: Callable[[Workload], list[Any]] = globals()[f"way_{way}"]
    LangGraphCredentials(url=work.url).save(BLOCK, overwrite=True)
    # What Prefect imports and sets up for its first flow run with parameters is not in it, for any way.
    flow(lambda inputs: None, name="warm-up")([{"question": "none"}])
    base = memory_mb("VmRSS")
    profiler = begin_profile() if profile is not None else None
    with counted_requests(work.url) as requests:
        wall, cpu = time.perf_counter(), time.process_time()
        results = run(work)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = memory_mb("VmHWM")
    if profiler is not None and profile is not None:
        profiler(profile)
        print(requests, file=sys.stderr)
    wrong = [item for number, item in enumerate(results) if not work.is_right(number, item)]
    return Measured(
        way=way,
        runs=len(work.inputs),
        lost=len(wrong) + len(work.inputs) - len(results),
        wall_seconds=wall,
        cpu_seconds=cpu,
        requests=requests.total(),
        peak_mb=peak,
        base_mb=base,
        why_lost=dict(Counter(_kind(item) for item in wrong).most_common(5)),
        report=_report_length() if way in "de" else None,
    )


def _kind(item: Any) -> str:
    if isinstance(item, dict):
        return str(item.get("__error__", {}).get("error", "wrong values"))
    return type(item).__name__ if isinstance(item, BaseException) else str(item)[:80]


def _report_length() -> int:
    """How long the newest report is, as Prefect's API gives it to its pages."""
    with get_prefect_client(sync_client=True) as client:
        kind = ArtifactFilter(type=ArtifactFilterType(any_=["markdown"]))
        found = client.read_artifacts(artifact_filter=kind, sort=ArtifactSort.CREATED_DESC, limit=1)
    assert "data:image/svg+xml" in str(found[0].data)
    return len(str(found[0].data))


def begin_profile() -> Callable[[Path], None]:
    """Profile every OS thread; the numbers of a profiled run compare only with each other."""
    profiles: list[cProfile.Profile] = []

    def begin(*_: Any) -> None:
        sys.setprofile(None)
        profiles.append(cProfile.Profile(time.thread_time))
        profiles[-1].enable()

    threading.setprofile(begin)
    begin()

    def end(path: Path) -> None:
        threading.setprofile(None)
        for profile in profiles:
            profile.disable()
        stats = pstats.Stats(profiles[0])
        for profile in profiles[1:]:
            profile.create_stats()
            if profile.stats:
                stats.add(profile)
        stats.dump_stats(path)

    return end


# -- the measurement --------------------------------------------------------------------------------


def measure(
    way: str, runs: int, seconds_per_run: float, prefect_url: str, home: str, profile: Path | None
) -> Measured:
    """Do the work one way against a server that was just started."""
    with run_langgraph_server(AGENT, jobs=JOBS) as server:
        command = [sys.executable, __file__, "--client", way, "--url", server.url, "--runs", str(runs)]
        command += ["--seconds-per-run", str(seconds_per_run)]
        command += ["--profile", str(profile)] if profile is not None else []
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")},
            "DO_NOT_TRACK": "1",
            "PREFECT_API_URL": prefect_url,
            "PREFECT_HOME": home,
            "PREFECT_LOGGING_LEVEL": "ERROR",
        }
        answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if answer.returncode:
            raise SystemExit(f"({way}) ended with {answer.returncode}:\n{server.log_tail()}")
        measured = Measured(**json.loads(answer.stdout.splitlines()[-1]))
        measured.doubled = worked_on(server.log_file, runs)
    return measured


def worked_on(log: Path, runs: int) -> int:
    """How many runs the server worked on beyond `runs`, by its own log."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if "Starting background run" in line]
    found = {match[1] for line in lines if (match := re.search(r"run_id=([0-9a-f-]{36})", line))}
    return max(0, len(found) - runs)


def machine(jobs: int = JOBS) -> str:
    """What it ran on, in a line."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*:\s*(.+)", cpu)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [
        f"{os.cpu_count()} cores of {model[1].strip() if model else platform.machine()}",
        f"{memory:.0f} GB",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in ("prefect", "langgraph-sdk", "langgraph-api")),
    ]
    return ", ".join(parts) + f"; the server had {jobs} jobs. Load before: {os.getloadavg()[0]:.1f}."


def table(measured: Sequence[Measured]) -> str:
    """The measurements as a table in markdown."""
    rows = [
        "| | way | runs | lost | doubled | wall | client CPU | requests | peak memory |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in measured:
        rows.append(
            f"| {one.way} | {WAYS[one.way]} | {one.runs:,} | {one.lost:,} | {one.doubled:,} | "
            f"{one.wall_seconds:.1f} s | {one.cpu_seconds:.2f} s | {one.requests:,} | "
            f"{one.peak_mb:.0f} MB |"
        )
    return "\n".join(rows)


def notes(measured: Sequence[Measured]) -> str:
    """The ratios that this package is held to, and why runs were lost."""
    lines = []
    by_way = {(one.way, one.runs): one for one in reversed(measured)}
    for (way, runs), one in by_way.items():
        if way == "d" and (other := by_way.get(("b", runs))) is not None:
            cpu = one.cpu_seconds / other.cpu_seconds
            wall = one.wall_seconds / other.wall_seconds
            lines.append(
                f"(d) against (b), {runs:,} runs: {cpu:.2f} of the client CPU, "
                f"{wall:.2f} of the wall time."
            )
    for one in measured:
        if one.lost:
            why = ", ".join(f"{count} of {kind}" for kind, count in one.why_lost.items())
            lines.append(f"({one.way}) lost {one.lost:,} of {one.runs:,}: {why}.")
        if one.report is not None:
            lines.append(
                f"({one.way}) {one.runs:,} runs: the report is {one.report / 1000:.0f} kB; "
                f"{one.peak_mb - one.base_mb:.0f} MB above the {one.base_mb:.0f} MB of Python, "
                "Prefect and this package."
            )
    return "\n".join(f"- {line}" for line in lines)


def write_page(text: str, part: str = "measured") -> None:
    """Put the measurement into the page, between its marks."""
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    _, found, tail = rest.partition(end)
    assert found, f"{PAGE} has no {begin} ... {end}"
    PAGE.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000, help="how many runs (default: 1000)")
    parser.add_argument("--seconds-per-run", type=float, default=0, help="each sleeps so long")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), help="only these ways")
    parser.add_argument("--large", type=int, default=0, help="then so many runs by (d) alone")
    parser.add_argument("--markdown", action="store_true", help=f"write {PAGE.relative_to(ROOT)} too")
    parser.add_argument("--profile", type=Path, help="profile the clients into PROFILE.<way>")
    parser.add_argument("--client", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.client:
        work = Workload(chosen.url, chosen.runs, chosen.seconds_per_run)
        print(json.dumps(asdict(be_client(chosen.client, work, chosen.profile))))
        return
    where = machine()
    print(where, flush=True)
    tasks = [(way, chosen.runs) for way in chosen.only] + [("d", chosen.large)] * bool(chosen.large)
    measured: list[Measured] = []
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"bench-{uuid.uuid4().hex[:6]}"))
        prefect_url = stack.enter_context(run_prefect_server()).api_url
        for way, runs in tasks:
            profile = Path(f"{chosen.profile}.{way}") if chosen.profile else None
            one = measure(way, runs, chosen.seconds_per_run, prefect_url, home, profile)
            measured.append(one)
            print(table([one]).splitlines()[-1], flush=True)
    text = f"{table(measured)}\n\n{notes(measured)}\n\n{where}"
    print(f"\n{text}")
    if chosen.markdown:
        command = "python benchmarks/fan_out.py " + " ".join(arguments or sys.argv[1:])
        write_page(f"`{command.strip()}`\n\n{text}")


if __name__ == "__main__":
    main()
