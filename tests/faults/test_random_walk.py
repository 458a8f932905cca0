"""A long walk through calls, with faults drawn at random for every request, and processes killed.

A failed walk prints its seed. `FAULT_SEED` repeats its calls, and its faults as far as the calls, of
which several go on at once, come in the same order; `FAULT_STEPS` makes the walk longer:

    make test ARGS="tests/faults/test_random_walk.py" FAULT_STEPS=3000 FAULT_SEED=7

Invariants, counted on the server after every leg of the walk: each call made one run, each run was
executed once, every result is its own, and nothing is left.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import pytest
from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner

from faults import flows
from faults.attempts import attempt, new_flow_run
from faults.conditional_faults import Only
from faults.tally import PRUNE, RUN, THREAD, Tally
from faults.test_killed_process import HISTORY, not_lease
from prefect_langgraph import (
    LangGraphCredentials,
    RunCancelledError,
    RunFailedError,
    cancel_run,
    create_cron,
    create_thread,
    delete_cron,
    delete_thread,
    fan_out,
    join_run,
    join_runs,
    run_on_thread,
    run_stateless,
    start_run,
    start_runs,
    sweep,
    with_finalizer,
)
from proxy import (
    Answer,
    CutBody,
    Delay,
    Exchange,
    Fault,
    Hold,
    LoseRequest,
    LoseResponse,
    Request,
    Silence,
    gateway_page,
    matches,
    unhandled_500,
)
from support.waiting import PATIENCE

STEPS = int(os.environ.get("FAULT_STEPS", "70"))
SEED = int(os.environ.get("FAULT_SEED", SystemRandom().randrange(10**6)))
STEPS_OF_A_LEG = 70
CALLS_AT_ONCE = 12
FAULTS_IN_A_ROW = 2
"""More of them for one request would outlast the patience of a call, which is another test."""

REFUSED_KEY = Answer(401, {"detail": "Invalid API key"})
FAULTS: list[Fault] = [
    LoseRequest(),
    LoseResponse(),
    CutBody(),
    Answer(429, retry_after=0.1),
    Answer(503),
    gateway_page(404),
    gateway_page(502),
    gateway_page(200),
    Answer(404, "404 page not found"),
    Answer(200, {"status": "ok"}),
    unhandled_500(),
    Delay(0.2),
    Silence(),
    REFUSED_KEY,
]
IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
PLACES = [("POST", THREAD), ("POST", RUN), ("POST", HISTORY), ("POST", PRUNE), ("GET", flows.LINGER)]


class Weather:
    """Draws what becomes of each request."""

    def __init__(self, random: Random, share: float) -> None:
        self._random = random
        self._share = share
        self._in_a_row: Counter[str] = Counter()
        self._let_in: set[int] = set()
        self.instead: Fault | None = None
        self.faults = 0

    async def apply(self, exchange: Exchange) -> None:
        request = exchange.request
        kind = f"{request.method} {IDS.sub('id', request.path)}"
        if self.instead is not None:
            await self.instead.apply(exchange)
        elif self._in_a_row[kind] < FAULTS_IN_A_ROW and self._random.random() < self._share:
            self._in_a_row[kind] += 1
            self.faults += 1
            await self._fault_for(exchange.request).apply(exchange)
        else:
            self._in_a_row[kind] = 0
            await exchange.relay()
            self._let_in.add(request.connection)

    def _fault_for(self, request: Request) -> Fault:
        fault = self._random.choice(FAULTS)
        # A key that was never let in is wrong, and refusing it is the right answer.
        wrong = fault is REFUSED_KEY and request.connection not in self._let_in
        return Answer(503) if wrong else fault


class Step:
    """One call, and what it must have come to on the server.

    Attributes:
        runs: How often each tag is to be executed, once for every run.
        crons: How many crons are to be made.
    """

    def __init__(self, tally: Tally, name: str) -> None:
        self._tally = tally
        self._block = tally.block
        self._name = name
        self.runs: Counter[str] = Counter()
        self.crons = 0

    def work(self, times: int = 1, **more: Any) -> dict[str, Any]:
        """An input with a tag of its own."""
        tag = f"{self._name}-{len(self.runs)}"
        self.runs[tag] = times
        return {"tag": tag, **more}

    def stateless(self) -> None:
        work = self.work()
        assert run_stateless("counted", work, credentials=self._block)["result"] == work["tag"]

    def identical(self) -> None:
        work = self.work(times=3)
        for _ in range(3):
            assert run_stateless("counted", work, credentials=self._block)["result"] == work["tag"]

    def on_thread(self) -> None:
        thread_id = create_thread(metadata={"users_own": True}, credentials=self._block)
        for _ in range(2):
            work = self.work()
            values = run_on_thread(thread_id, "counted", work, credentials=self._block)
            assert values["result"] == work["tag"]
        delete_thread(thread_id, credentials=self._block)

    def background(self) -> None:
        work = self.work(sleep=0.2)
        assert join_run(start_run("counted", work, credentials=self._block))["result"] == work["tag"]

    def many(self) -> None:
        works = [self.work() for _ in range(4)]
        results = join_runs(start_runs("counted", works, credentials=self._block))
        assert [values["result"] for values in results.values] == [work["tag"] for work in works]

    def fails(self) -> None:
        with pytest.raises(RunFailedError, match="execution 1 fails"):
            run_stateless("counted", self.work(fail_first=9), credentials=self._block)

    def cancels(self) -> None:
        work = self.work(gate=True)
        handle = start_run("counted", work, credentials=self._block)
        self._tally.wait_for_execution(work["tag"])
        cancel_run(handle)
        with pytest.raises(RunCancelledError):
            join_run(handle)

    def cron(self) -> None:
        self.crons += 1
        tag = {"tag": self._name}
        delete_cron(create_cron("counted", "0 0 1 1 *", tag, credentials=self._block))

    def fanned_out(self) -> None:
        """The flow, with a flow run and a finalizer of its own."""
        works = [self.work() for _ in range(6)]
        result = fan_out("counted", works, credentials=self._block, max_in_flight=3)
        assert [values["result"] for values in result.values] == [work["tag"] for work in works]

    def killed(self, random: Random, weather: Weather, folder: Path) -> None:
        """A flow run whose process is killed at a place, and that is executed again."""
        method, path = random.choice(PLACES)
        hold = Hold(answer=random.random() < 0.5)
        weather.instead = Only(
            lambda request: matches(request, method, path) and not_lease(request), hold
        )
        work = self.work()
        parameters = {"linger": self._tally.proxy.url} if path == flows.LINGER else {}
        flow_run = new_flow_run(flows.stateless, block=self._block, work=work, **parameters)
        with attempt(flows.stateless, flow_run, folder) as first:
            assert hold.reached.wait(PATIENCE), first.log()
            first.kill()
        hold.release()
        weather.instead = None
        # Who prunes has ended: that flow run is not executed again, the sweep deletes its threads.
        if path != PRUNE:
            with attempt(flows.stateless, flow_run, folder) as second:
                assert second.result() == [work["tag"]]


KINDS = [
    Step.stateless,
    Step.identical,
    Step.on_thread,
    Step.background,
    Step.many,
    Step.fails,
    Step.cancels,
    Step.cron,
]


def walked(block: str, steps: list[tuple[Callable[[Step], None], Step]]) -> None:
    """The calls of a leg in one flow run, several at once."""

    @task
    def walk(number: int) -> None:
        kind, step = steps[number]
        kind(step)

    @with_finalizer(block)
    @flow(task_runner=ThreadPoolTaskRunner(max_workers=CALLS_AT_ONCE))
    def leg() -> None:
        futures = [walk.submit(number) for number in range(len(steps))]
        for future in futures:
            future.result()

    leg()


@pytest.mark.timeout(900 + 5 * STEPS)
def test_walk_through_random_faults_makes_each_run_once_and_leaves_nothing(
    tally: Tally, tmp_path: Path
) -> None:
    # So that silence is noticed soon.
    LangGraphCredentials(url=tally.proxy.url, patience_seconds=15, timeout_seconds=2).save(
        tally.block, overwrite=True
    )
    print(f"FAULT_SEED={SEED} FAULT_STEPS={STEPS}")  # noqa: T201
    random = Random(SEED)  # noqa: S311
    weather = Weather(Random(SEED), share=0.15)  # noqa: S311
    tally.proxy.on("*", "", weather, times=None)
    made = crons = 0
    for leg in range(-(-STEPS // STEPS_OF_A_LEG)):
        steps = [Step(tally, f"{leg}-{number}") for number in range(STEPS_OF_A_LEG)]
        walked(tally.block, [(random.choice(KINDS), step) for step in steps[:-2]])
        steps[-2].fanned_out()
        steps[-1].killed(random, weather, tmp_path)
        sweep(tally.block, grace_seconds=0)
        tally.settle()
        expected = sum((step.runs for step in steps), Counter[str]())
        made += expected.total()
        crons += sum(step.crons for step in steps)
        assert {tag: n for tag, n in tally.executed.items() if tag.startswith(f"{leg}-")} == expected
        assert (tally.made, tally.crons_made) == (made, crons)
        tally.nothing_left()
    assert weather.faults > STEPS / 2
