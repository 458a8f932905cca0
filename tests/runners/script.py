"""A user's script: a flow whose tasks run in processes that it starts itself. Run by `test_workers`."""

from __future__ import annotations

import sys
from typing import Any

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner
from prefect_dask import DaskTaskRunner

from runners import flows


def runner_named(name: str) -> TaskRunner[Any]:
    if name == "processes":
        return ProcessPoolTaskRunner(max_workers=2)
    own = {
        "n_workers": 2,
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
    }
    return DaskTaskRunner(cluster_kwargs=own)


if __name__ == "__main__":
    runner, block = sys.argv[1:]
    print(flows.unowned.with_options(task_runner=runner_named(runner))(block))  # noqa: T201
