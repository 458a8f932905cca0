"""What one call costs, beside the SDK's own `runs.wait` of the same run.

    python benchmarks/one_call.py                          15 calls by every way, and a .map of 200
    python benchmarks/one_call.py --calls 5 --mapped 0     a quick look
    python benchmarks/one_call.py --only flow --kinds      which requests a way sends
    python benchmarks/one_call.py --markdown               all of it, into docs/benchmarks.md

Each way makes its calls in a process of its own, against a LangGraph server that was just started; one
Prefect server serves them all. The first calls of a process are not counted: they import, connect and
learn what the later ones know. CPU seconds are those of the process that calls.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fan_out import BLOCK, ROOT, begin_profile, counted_requests, machine, write_page
from langgraph_sdk import get_sync_client
from prefect import flow, task, unmapped
from prefect.settings import PREFECT_API_URL

from prefect_langgraph import LangGraphCredentials, run_stateless, with_finalizer
from prefect_langgraph.testing import run_langgraph_server, run_prefect_server

AGENT = ROOT / "examples" / "agent" / "langgraph.json"
JOBS = 200
WARM_UP = 3

WAYS = {
    "sdk": "the SDK's `runs.wait`",
    "sdk_task": "the same in a `@task` of a flow",
    "flow": "`run_stateless` in a flow",
    "finalizer": "the same under `with_finalizer`",
    "sdk_outside": "`runs.wait` in a `@task` outside a flow",
    "outside": "`run_stateless` outside a flow",
    "sdk_map": "`.map` of a `@task` with `runs.wait`",
    "map": "`run_stateless.map`",
}
HELD = [
    ("flow", "sdk_task"),
    ("finalizer", "sdk_task"),
    ("outside", "sdk_outside"),
    ("outside", "flow"),
    ("map", "sdk_map"),
]
"""Each way, and beside what it is held."""


@dataclass
class Measured:
    """What the calls of one way cost.

    Attributes:
        calls: How many were counted.
        wall_seconds: The median of calls made one after another; of mapped ones, that of all together.
        cpu_seconds: Of all calls.
        requests: To the LangGraph server, of all calls, by their kind.
        prefect_requests: To Prefect's API, the same.
    """

    way: str
    calls: int
    wall_seconds: float
    cpu_seconds: float
    requests: dict[str, int]
    prefect_requests: dict[str, int]

    @property
    def is_mapped(self) -> bool:
        return self.way.endswith("map")


# -- the client: one way, in a process of its own -------------------------------------------------


def calls_of(way: str, url: str, seconds: float) -> Callable[[int], list[float]]:
    """What makes a number of calls one way, and gives the wall seconds that each took."""
    client = get_sync_client(url=url, api_key=None)
    given = {"sleep": seconds, "tag": "right"}

    def wait(_: int = 0) -> Any:
        return client.runs.wait(None, "worker", input=given)

    def run(_: int = 0) -> Any:
        return run_stateless("worker", given, credentials=BLOCK)

    in_task = task(wait, name="wait")
    call = {"sdk": wait, "sdk_task": in_task, "sdk_outside": in_task}.get(way, run)

    def one_by_one(count: int) -> list[float]:
        walls = []
        for _ in range(count):
            began = time.perf_counter()
            values = call()
            walls.append(time.perf_counter() - began)
            assert values["result"] == "right", values
        return walls

    def mapped(count: int) -> list[float]:
        began = time.perf_counter()
        if way == "sdk_map":
            futures = in_task.map(range(count))
        else:
            futures = run_stateless.map(["worker"] * count, unmapped(given), credentials=BLOCK)
        results = futures.result()
        wall = time.perf_counter() - began
        assert [values["result"] for values in results] == ["right"] * count
        return [wall]

    return mapped if way.endswith("map") else one_by_one


def be_client(way: str, url: str, count: int, seconds: float, profile: Path | None) -> Measured:
    """Make the calls of one way and measure this process meanwhile."""
    LangGraphCredentials(url=url).save(BLOCK, overwrite=True)
    make = calls_of(way, url, seconds)
    found: list[Measured] = []

    def measured() -> None:
        make(WARM_UP)
        end = begin_profile() if profile is not None else None
        prefect_url = str(PREFECT_API_URL.value())
        with counted_requests(url) as requests, counted_requests(prefect_url) as to_prefect:
            cpu = time.process_time()
            walls = make(count)
            cpu = time.process_time() - cpu
        if end is not None and profile is not None:
            end(profile)
        wall = statistics.median(walls)
        found.append(Measured(way, count, wall, cpu, dict(requests), dict(to_prefect)))

    if way in ("sdk", "sdk_outside", "outside"):
        measured()
    elif way == "finalizer":
        with_finalizer(BLOCK)(flow(measured, name="calls"))()
    else:
        flow(measured, name="calls")()
    return found[0]


# -- the measurement --------------------------------------------------------------------------------


def measure(
    way: str, count: int, seconds: float, prefect_url: str, home: str, profile: Path | None
) -> Measured:
    """Make the calls of one way against a server that was just started."""
    with run_langgraph_server(AGENT, jobs=JOBS) as server:
        command = [sys.executable, __file__, "--client", way, "--url", server.url]
        command += ["--calls", str(count), "--seconds-per-run", str(seconds)]
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
            raise SystemExit(f"{way} ended with {answer.returncode}:\n{server.log_tail()}")
        return Measured(**json.loads(answer.stdout.splitlines()[-1]))


def table(measured: Sequence[Measured]) -> str:
    """The measurements as a table in markdown."""
    rows = [
        "| | calls | requests, each | to Prefect, each | client CPU, each | wall |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for one in measured:
        sent, to_prefect = (
            sum(kinds.values()) / one.calls for kinds in (one.requests, one.prefect_requests)
        )
        wall = f"{one.wall_seconds:.2f} s" + (" for all" if one.is_mapped else "")
        rows.append(
            f"| {WAYS[one.way]} | {one.calls} | {sent:.1f} | {to_prefect:.1f} | "
            f"{1000 * one.cpu_seconds / one.calls:.1f} ms | {wall} |"
        )
    return "\n".join(rows)


def notes(measured: Sequence[Measured]) -> str:
    """The ratios that this package is held to."""
    by_way = {one.way: one for one in measured}
    lines = []
    for way, base in HELD:
        if way in by_way and base in by_way:
            one, other = by_way[way], by_way[base]
            cpu = one.cpu_seconds / one.calls / (other.cpu_seconds / other.calls)
            wall = one.wall_seconds / other.wall_seconds
            lines.append(
                f"- {WAYS[way]}, against {WAYS[base]}: {cpu:.2f} of the client CPU, "
                f"{wall:.2f} of the wall time."
            )
    return "\n".join(lines)


def kinds(measured: Sequence[Measured]) -> str:
    """Which requests each way sent, for one call."""
    lines = []
    for one in measured:
        lines.append(f"{WAYS[one.way]}:")
        for name, sent in (("", one.requests), ("Prefect ", one.prefect_requests)):
            found = Counter(sent).most_common()
            lines += [f"  {count / one.calls:6.2f}  {name}{kind}" for kind, count in found]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=15, help="one after another (default: 15)")
    parser.add_argument("--mapped", type=int, default=200, help="by .map (default: 200; 0: none)")
    parser.add_argument("--seconds-per-run", type=float, default=1, help="each sleeps so long")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), help="only these ways")
    parser.add_argument("--kinds", action="store_true", help="also which requests were sent")
    parser.add_argument("--markdown", action="store_true", help="write docs/benchmarks.md too")
    parser.add_argument("--profile", type=Path, help="profile the clients into PROFILE.<way>")
    parser.add_argument("--client", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.client:
        one = be_client(chosen.client, chosen.url, chosen.calls, chosen.seconds_per_run, chosen.profile)
        print(json.dumps(asdict(one)))
        return
    where = machine(JOBS)
    print(where, flush=True)
    measured: list[Measured] = []
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        prefect_url = stack.enter_context(run_prefect_server()).api_url
        for way in chosen.only:
            count = chosen.mapped if way.endswith("map") else chosen.calls
            if count:
                profile = Path(f"{chosen.profile}.{way}") if chosen.profile else None
                one = measure(way, count, chosen.seconds_per_run, prefect_url, home, profile)
                measured.append(one)
                print(table([one]).splitlines()[-1], flush=True)
    text = f"{table(measured)}\n\n{notes(measured)}\n\n{where}"
    print(f"\n{text}")
    if chosen.kinds:
        print(f"\n{kinds(measured)}")
    if chosen.markdown:
        command = "python benchmarks/one_call.py " + " ".join(arguments or sys.argv[1:])
        write_page(f"`{command.strip()}`\n\n{text}", part="one call")


if __name__ == "__main__":
    main()
