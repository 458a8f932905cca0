"""How soon the end of a single run is noticed, beside the SDK's own `runs.join`.

    python benchmarks/latency.py [--runs 15] [--seconds-per-run 1]

Each run sleeps; when the call returns, the server's own time of its end is taken from the clock, which
both share. Starts a fresh development server on a free port.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from datetime import datetime
from pathlib import Path

from prefect_langgraph import LangGraphCredentials, join_runs, start_run
from prefect_langgraph.testing import run_langgraph_server

AGENT = Path(__file__).resolve().parent.parent / "examples" / "agent" / "langgraph.json"


def ours(credentials: LangGraphCredentials, seconds: float) -> float:
    """Seconds from a run's end to our knowing it."""
    handle = start_run.fn("worker", {"sleep": seconds}, credentials=credentials)
    result = join_runs.fn([handle])[0]
    returned = time.time()
    assert result.ended_at is not None
    return returned - result.ended_at.timestamp()


def sdks(credentials: LangGraphCredentials, seconds: float) -> float:
    """The same by `runs.join` of the SDK."""
    with credentials.get_sync_client() as client:
        thread = client.threads.create()
        run = client.runs.create(thread["thread_id"], "worker", input={"sleep": seconds})
        client.runs.join(thread["thread_id"], run["run_id"])
        returned = time.time()
        row = client.runs.get(thread["thread_id"], run["run_id"])
    return returned - datetime.fromisoformat(str(row["updated_at"])).timestamp()


def main() -> None:
    """Measure both, in turn, and print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--seconds-per-run", type=float, default=1.0)
    options = parser.parse_args()
    with run_langgraph_server(AGENT, jobs=10) as server:
        credentials = LangGraphCredentials(url=server.url)
        ours(credentials, 0.1)
        pairs = [
            (ours(credentials, options.seconds_per_run), sdks(credentials, options.seconds_per_run))
            for _ in range(options.runs)
        ]
    mine, theirs = (statistics.median(values) * 1000 for values in zip(*pairs, strict=True))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(
        f"{options.runs} runs of {options.seconds_per_run:g} s, from a run's end to the call's return:"
    )
    print(f"  join_runs        median {mine:6.0f} ms")
    print(f"  SDK's runs.join  median {theirs:6.0f} ms")
    print(f"  ratio            {mine / theirs:6.2f}")


if __name__ == "__main__":
    main()
