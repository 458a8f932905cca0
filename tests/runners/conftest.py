"""The task runners: threads of this process, a pool of processes, and a Dask cluster of two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from distributed import LocalCluster
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner
from prefect_dask import DaskTaskRunner

from faults.conftest import executions, fault_server, proxy, tally  # noqa: F401 - fixtures
from prefect_langgraph.testing import PrefectServer


def two_workers() -> LocalCluster:
    """Two worker processes, which inherit the address of the Prefect server."""
    # Without a dashboard its port would still be the usual one.
    return LocalCluster(
        n_workers=2, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    )


@pytest.fixture(scope="session")
def cluster(prefect_server: PrefectServer) -> Iterator[LocalCluster]:
    with two_workers() as cluster:
        yield cluster


def runner_of(kind: str, request: pytest.FixtureRequest) -> TaskRunner[Any]:
    if kind == "threads":
        return ThreadPoolTaskRunner(max_workers=8)
    if kind == "processes":
        return ProcessPoolTaskRunner(max_workers=2)
    return DaskTaskRunner(address=request.getfixturevalue("cluster").scheduler_address)


@pytest.fixture(params=["threads", "processes", "dask"])
def runner(request: pytest.FixtureRequest) -> TaskRunner[Any]:
    """Each task runner in turn."""
    return runner_of(request.param, request)


@pytest.fixture(params=["processes", "dask"])
def pool(request: pytest.FixtureRequest) -> TaskRunner[Any]:
    """Each task runner with processes of its own, in turn."""
    return runner_of(request.param, request)
