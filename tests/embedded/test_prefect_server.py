"""The Prefect server that tests run against is real, and theirs alone."""

from __future__ import annotations

import threading

import httpx
from prefect import flow
from prefect.settings import PREFECT_API_URL

from prefect_langgraph.testing import PrefectServer


def test_flow_run_is_recorded_on_the_sessions_own_server(prefect_server: PrefectServer) -> None:
    @flow(name="recorded-on-the-sessions-own-server")
    def recorded() -> int:
        return 1

    assert recorded() == 1
    found = httpx.post(
        f"{prefect_server.api_url}/flows/filter",
        json={"flows": {"name": {"any_": ["recorded-on-the-sessions-own-server"]}}},
    )
    assert len(found.json()) == 1


def test_every_os_thread_points_at_the_sessions_own_server(prefect_server: PrefectServer) -> None:
    seen: list[str | None] = []
    thread = threading.Thread(target=lambda: seen.append(PREFECT_API_URL.value()))
    thread.start()
    thread.join()
    assert seen == [prefect_server.api_url]
