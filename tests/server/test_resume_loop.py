"""The resumer in a process that stays: through outages of either server, until SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_langgraph.testing import PrefectServer
from proxy import LoseRequest, Proxy, run_proxy
from support.waiting import until


@pytest.fixture
def prefect_proxy(prefect_server: PrefectServer) -> Iterator[Proxy]:
    with run_proxy(prefect_server.api_url.removesuffix("/api")) as proxy:
        yield proxy


def passes(proxy: Proxy) -> int:
    return len(proxy.done("POST", "/flow_runs/filter$"))


def test_resumer_that_stays_goes_on_after_an_outage_and_ends_cleanly_on_sigterm(
    prefect_proxy: Proxy, tmp_path: Path
) -> None:
    log = tmp_path / "resumer.log"
    command = [sys.executable, "-m", "prefect_langgraph.cli", "resume", "--every", "0.1"]
    environment = {
        **os.environ,
        "PREFECT_API_URL": f"{prefect_proxy.url}/api",
        "PREFECT_CLIENT_MAX_RETRIES": "0",
    }
    with log.open("wb") as output:
        running = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        until(lambda: passes(prefect_proxy) >= 2)
        outage = prefect_proxy.on("*", "", LoseRequest(), times=None)
        until(lambda: "Prefect could not be asked" in log.read_text())
        outage.end()
        before = passes(prefect_proxy)
        until(lambda: passes(prefect_proxy) > before and "answer again" in log.read_text())
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    finally:
        running.kill()
        running.wait()
    said = log.read_text()
    assert said.count("Prefect could not be asked") == 1
    assert "Traceback" not in said
    assert said.rstrip().endswith("Stopped")
