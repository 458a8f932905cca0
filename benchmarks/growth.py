"""What a process that serves for months keeps: memory and sockets over 10,000 calls.

    python benchmarks/growth.py                10,000 calls, a new API key for every 30th of them
    python benchmarks/growth.py --calls 1000   a quick look

Every call is a `run_stateless` in this process, some at once, against a development server just
started. The first thousand warm up; what is above them afterwards is what calls leave behind.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import platform
from pathlib import Path

from prefect_langgraph import LangGraphCredentials, arun_stateless
from prefect_langgraph.testing import run_langgraph_server

AGENT = Path(__file__).resolve().parent.parent / "examples" / "agent" / "langgraph.json"
ROWS = 10
AT_ONCE = 20


def memory_mb() -> float:
    """The resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def sockets() -> int:
    """How many sockets this process has open."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found += str(descriptor.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue  # the one that lists them
    return found


async def calls(url: str, numbers: range, *, calls_per_key: int) -> None:
    """Make the calls with these numbers, a bounded number at once."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with slots:
            key = f"key-{number // calls_per_key}"
            block = LangGraphCredentials(url=url, api_key=key)
            await arun_stateless.fn("answer", {"question": str(number)}, credentials=block)

    await asyncio.gather(*(one(number) for number in numbers))


async def measure(url: str, count: int, calls_per_key: int) -> None:
    """Print a row for every tenth of the calls."""
    step = count // ROWS
    print("| calls | keys | memory | sockets |\n|---:|---:|---:|---:|")
    for done in range(0, count, step):
        await calls(url, range(done, done + step), calls_per_key=calls_per_key)
        gc.collect()
        keys = (done + step) // calls_per_key
        print(f"| {done + step:,} | {keys} | {memory_mb():.0f} MB | {sockets()} |", flush=True)


def main() -> None:
    """Start a server, make the calls, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--calls-per-key", type=int, default=30)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    with run_langgraph_server(AGENT, jobs=50) as server:
        asyncio.run(measure(server.url, options.calls, options.calls_per_key))
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
