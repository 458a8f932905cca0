"""What one call asks of the server: see `benchmarks/one_call.py`, too."""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import Any

import pytest
from prefect import flow

from prefect_langgraph import LangGraphCredentials, run_stateless, with_finalizer
from prefect_langgraph.runs.poller import HELD_SECONDS
from proxy import Proxy

pytestmark = pytest.mark.usefixtures("prefect_server")

QUESTION = {"question": "What?"}
IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
POLL = "GET /threads/id/runs"
ONCE = {
    "POST /threads",
    "POST /threads/id/runs",
    "GET /threads/id/runs/id/join",
    "POST /threads/id/history",
}


def kinds(proxy: Proxy) -> Counter[str]:
    # A heartbeat goes beside the calls.
    sent = [one for one in proxy.requests if b"prefect_lease" not in one.body]
    return Counter(f"{one.method} {IDS.sub('id', one.path)}" for one in sent)


def asks_once(call: Any, proxy: Proxy, expected: set[str]) -> None:
    """See that the second of two calls sends one request of each kind."""
    call()
    proxy.requests.clear()
    began = time.monotonic()
    call()
    took = time.monotonic() - began
    found = kinds(proxy)
    # On a slow machine it is also asked for while its join is held.
    assert 1 <= found.pop(POLL) <= 1 + took / HELD_SECONDS
    assert found == dict.fromkeys(expected, 1)


def test_stateless_run_costs_six_requests_in_a_flow(
    proxy: Proxy, through_proxy: LangGraphCredentials
) -> None:
    def call() -> None:
        run_stateless("answer", QUESTION, credentials=through_proxy)

    @flow
    def calls() -> None:
        asks_once(call, proxy, {*ONCE, "POST /threads/prune"})

    calls()


def test_stateless_run_costs_five_requests_under_a_finalizer(
    proxy: Proxy, through_proxy: LangGraphCredentials
) -> None:
    def call() -> None:
        run_stateless("answer", QUESTION, credentials=through_proxy)

    @with_finalizer(through_proxy)
    @flow
    def calls() -> None:
        asks_once(call, proxy, ONCE)

    calls()


def test_stateless_run_costs_six_requests_outside_a_flow(
    proxy: Proxy, through_proxy: LangGraphCredentials
) -> None:
    def call() -> None:
        run_stateless("answer", QUESTION, credentials=through_proxy)

    asks_once(call, proxy, {*ONCE, "POST /threads/prune"})
