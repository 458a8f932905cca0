"""The server is away, overloaded, broken or restarted while calls are on their way."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from typing import Any

import pytest
from prefect import flow

from faults.tally import PRUNE, Tally
from faults.test_lost_responses import Call, many, name_of, on_thread, run_in_flow
from prefect_langgraph import (
    InvalidRequestError,
    LangGraphCredentials,
    join_run,
    run_stateless,
    start_run,
    start_runs,
)
from prefect_langgraph.testing import LangGraphServer
from proxy import Answer, CutBody, Exchange, Fault, Hold, LoseRequest, unhandled_500
from support.waiting import until

IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


class EachInTurn:
    """Every kind of request meets each of these faults once, and passes from then on."""

    def __init__(self, *faults: Fault) -> None:
        self._faults = faults
        self.met: Counter[str] = Counter()

    async def apply(self, exchange: Exchange) -> None:
        request = exchange.request
        kind = f"{request.method} {IDS.sub('id', request.path)}"
        turn = self.met[kind]
        self.met[kind] += 1
        if turn < len(self._faults):
            await self._faults[turn].apply(exchange)
        else:
            await exchange.relay()


@pytest.mark.parametrize("call", [on_thread, many], ids=name_of)
def test_every_kind_of_request_fails_in_every_way_and_the_run_is_made_once(
    tally: Tally, call: Call
) -> None:
    fault = EachInTurn(
        Answer(429, retry_after=0.1),
        Answer(503),
        unhandled_500(),
        LoseRequest(),
        CutBody(),
        Answer(200, "<html>a proxy's page</html>"),
    )
    # Six failures in a row take longer than the five seconds of the tally's block.
    LangGraphCredentials(url=tally.proxy.url, patience_seconds=60).save(tally.block, overwrite=True)
    tally.proxy.on("*", "", fault, times=None)
    run_in_flow(tally, call)
    assert len(fault.met) >= 4
    assert min(fault.met.values()) >= 2


def test_refused_connections_for_20_seconds_are_waited_out(tally: Tally) -> None:
    block = f"{tally.block}-patient"
    LangGraphCredentials(url=tally.proxy.url, patience_seconds=60).save(block)

    @flow
    def calls() -> list[str]:
        waiting = start_run("counted", {"tag": "waiting"}, credentials=block)
        tally.proxy.refuse()
        timer = threading.Timer(20, tally.proxy.accept)
        timer.start()
        began = time.monotonic()
        try:
            # One waits and one starts while nobody is there.
            joined = join_run.submit(waiting)
            started = run_stateless("counted", {"tag": "starting"}, credentials=block)
            return [joined.result()["result"], started["result"]]
        finally:
            timer.join()
            assert time.monotonic() - began >= 20

    assert calls() == ["waiting", "starting"]
    assert tally.made == 2
    assert tally.executed == {"waiting": 1, "starting": 1}
    tally.nothing_left()


def test_server_that_restarts_executes_the_run_again_and_the_wait_goes_on(
    tally: Tally, fault_server: LangGraphServer
) -> None:
    @flow
    def calls() -> Any:
        handle = start_run("counted", {"tag": "a", "gate": True}, credentials=tally.block)
        tally.wait_for_execution("a")
        fault_server.restart()
        tally.open_gate()
        return join_run(handle)["result"]

    assert calls() == "a"
    assert tally.made == 1
    # The server began it anew: what a graph does before a crash may be done twice.
    assert len(set(tally.execution_ids)) == 1
    assert tally.executed["a"] == 2
    tally.nothing_left()


def test_result_in_hand_does_not_wait_for_its_clean_up_which_goes_on(tally: Tally) -> None:
    credentials = LangGraphCredentials(url=tally.proxy.url)
    hold = Hold()
    tally.proxy.on("POST", PRUNE, hold)
    values = run_stateless("counted", {"tag": "whole"}, credentials=credentials, max_wait_seconds=8)
    assert values["result"] == "whole"
    assert hold.reached.is_set()
    assert tally.remaining()
    hold.release()
    until(lambda: not tally.remaining())


@pytest.mark.parametrize("kind", ["one", "many"])
def test_refused_question_for_the_runs_of_a_thread_starts_no_second_one(
    tally: Tally, kind: str
) -> None:
    credentials = LangGraphCredentials(url=tally.proxy.url)
    given = {"tag": kind}

    def start() -> Any:
        key = f"refused-{kind}-{tally.block}"
        if kind == "one":
            return start_run("counted", given, credentials=credentials, idempotency_key=key)
        return start_runs("counted", [given], credentials=credentials, idempotency_key=key)[0]

    first = start()
    refused = tally.proxy.on("GET", r"/threads/[^/]+/runs$", Answer(400), times=None)
    with pytest.raises(InvalidRequestError):
        start()
    refused.end()
    assert start().run_id == first.run_id
    assert tally.made == 1
