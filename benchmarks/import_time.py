"""What importing this package costs beyond Prefect, which is imported anyway.

    python benchmarks/import_time.py             the median of 15 processes
    python benchmarks/import_time.py --runs 51

Each process imports Prefect with its flows and tasks, then the package, then every public name of it:
a server that only finds the package installed pays the first, a flow the part that it uses. The share
is of what `import prefect` and its flows cost in the same process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile

MEASURE = """
import json, time
start = time.perf_counter()
from prefect import flow, task
prefect = time.perf_counter()
import prefect_langgraph
package = time.perf_counter()
for name in prefect_langgraph.__all__:
    getattr(prefect_langgraph, name)
everything = time.perf_counter()
print(json.dumps([prefect - start, package - prefect, everything - package]))
"""
NAMES = ("Prefect: flow and task", "prefect_langgraph", "then each of its public names")


def measure(home: str) -> list[float]:
    """Seconds of each step, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", MEASURE]
    answer = subprocess.run(command, env={"PREFECT_HOME": home}, capture_output=True, check=True)
    found: list[float] = json.loads(answer.stdout)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="processes (default: 15)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="import-time-") as home:
        measure(home)  # byte code is compiled, files are in the page cache
        rows = [measure(home) for _ in range(runs)]
    base = statistics.median(row[0] for row in rows)
    print(f"median of {runs} processes, Python {sys.version.split()[0]}")
    for name, column in zip(NAMES, zip(*rows, strict=True), strict=True):
        median = statistics.median(column)
        print(f"{name:32} {1000 * median:7.0f} ms  {median / base:5.2f} of Prefect's")


if __name__ == "__main__":
    main()
