"""The ways in which a run can end, and the sides from which it can be seen; and what must be said.

A `Scenario` is one run: what becomes of it (`case`), on which thread and by whom it was started
(`place`), when somebody asks about it (`moment`) and by which task (`way`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prefect_langgraph import (
    RunCancelledError,
    RunError,
    RunFailedError,
    RunInterruptedError,
    RunLostError,
    RunStatus,
    RunTimeoutError,
)

Place = Literal["own thread", "own, elsewhere", "new thread", "used thread", "used, elsewhere"]
Moment = Literal["before", "during", "ended", "later", "busy again"]
Way = Literal["join_run", "join_runs", "get_run", "run"]

WORKER_STEPS = ["prepare", "work", "finish"]


@dataclass(frozen=True, eq=False)
class Case:
    """What becomes of a run, and what this package has to say about it."""

    name: str
    status: RunStatus
    error: type[RunError] | None
    input: Mapping[str, Any]
    steps: tuple[str, ...] | None
    result: str = "partial"
    options: Mapping[str, Any] = field(default_factory=dict)
    ending: Literal["itself", "cancel", "rollback", "delete"] = "itself"
    interrupts: int = 0
    known: bool = True

    @property
    def begins(self) -> bool:
        return "after_seconds" not in self.options

    @property
    def leaves_row(self) -> bool:
        return self.known and self.ending in ("itself", "cancel")


LONG = {"sleep": 60}
CASES = [
    Case("success", RunStatus.SUCCESS, None, {"tag": "a", "sleep": 0.4}, (*WORKER_STEPS,), "a"),
    Case("failed", RunStatus.ERROR, RunFailedError, {"fail": "no luck", "sleep": 0.4}, ("prepare",)),
    Case("timed out", RunStatus.TIMEOUT, RunTimeoutError, LONG, ("prepare",)),
    Case(
        "cancelled while running",
        RunStatus.CANCELLED,
        RunCancelledError,
        LONG,
        ("prepare",),
        ending="cancel",
    ),
    Case(
        "cancelled while pending",
        RunStatus.CANCELLED,
        RunCancelledError,
        {"tag": "never"},
        None,
        options={"after_seconds": 600},
        ending="cancel",
    ),
    Case("rolled back", RunStatus.CANCELLED, RunCancelledError, LONG, None, ending="rollback"),
    Case(
        "one interrupt",
        RunStatus.INTERRUPTED,
        RunInterruptedError,
        {"interrupts": 1, "sleep": 0.4},
        ("prepare", "work"),
        interrupts=1,
    ),
    Case(
        "three interrupts",
        RunStatus.INTERRUPTED,
        RunInterruptedError,
        {"interrupts": 3, "sleep": 0.4},
        ("prepare", "work"),
        interrupts=3,
    ),
    Case(
        "breakpoint",
        RunStatus.INTERRUPTED,
        RunInterruptedError,
        {"tag": "a", "sleep": 0.4},
        ("prepare",),
        options={"interrupt_before": ["work"]},
    ),
    # Pending: the dev server goes on working on a run whose thread was deleted.
    Case(
        "deleted",
        RunStatus.LOST,
        RunLostError,
        {"tag": "never"},
        None,
        options={"after_seconds": 600},
        ending="delete",
    ),
    Case("unknown", RunStatus.LOST, RunLostError, {}, None, known=False),
]


@dataclass(frozen=True, eq=False)
class Scenario:
    case: Case
    place: Place
    moment: Moment
    way: Way

    def __str__(self) -> str:
        return f"{self.case.name}, {self.place}, {self.moment}, {self.way}".replace(" ", "_")

    @property
    def is_own(self) -> bool:
        return self.place.startswith("own")

    @property
    def is_ours(self) -> bool:
        return not self.place.endswith("elsewhere")

    @property
    def is_used(self) -> bool:
        return self.place.startswith("used")

    @property
    def expected_status(self) -> RunStatus:
        # Who never saw it alive cannot tell it from one that never was.
        gone = self.case.ending == "rollback" and not self.is_ours and not self.is_own
        return RunStatus.LOST if gone else self.case.status

    @property
    def expected_error(self) -> type[RunError] | None:
        lost = self.expected_status is RunStatus.LOST
        return RunLostError if lost else self.case.error

    @property
    def expected_values(self) -> dict[str, Any] | None:
        if self.case.steps is None:
            return None
        earlier = WORKER_STEPS if self.is_used else []
        return {
            "request": dict(self.case.input),
            "steps": [*earlier, *self.case.steps],
            "answers": [],
            "result": self.case.result,
            "payload": "",
            "messages": [],
        }


_ASKED: dict[Way, list[tuple[Place, Moment]]] = {
    "join_run": [
        ("own thread", "before"),
        ("own thread", "during"),
        ("own, elsewhere", "ended"),
        ("new thread", "before"),
        ("used thread", "later"),
        ("used, elsewhere", "during"),
        ("used, elsewhere", "busy again"),
    ],
    "join_runs": [
        ("own thread", "before"),
        ("own thread", "during"),
        ("own thread", "ended"),
        ("own, elsewhere", "before"),
        ("own, elsewhere", "ended"),
        ("new thread", "ended"),
        ("used thread", "before"),
        ("used thread", "later"),
        ("used, elsewhere", "ended"),
    ],
    "get_run": [
        ("own thread", "ended"),
        ("own, elsewhere", "ended"),
        ("new thread", "ended"),
        ("used thread", "ended"),
        ("used, elsewhere", "later"),
    ],
    "run": [
        ("own thread", "before"),
        ("new thread", "before"),
        ("used thread", "before"),
    ],
}


def scenarios() -> list[Scenario]:
    """Every combination that there can be, one of each kind."""
    return [
        scenario
        for case in CASES
        for way, sides in _ASKED.items()
        for place, moment in sides
        if _can_be(scenario := Scenario(case, place, moment, way))
    ]


def _can_be(scenario: Scenario) -> bool:
    case, moment = scenario.case, scenario.moment
    if not case.known:
        return not scenario.is_ours and moment == "ended"
    if moment == "during" and not case.begins:
        return False
    if case.ending == "delete" and moment in ("later", "busy again"):
        return False
    # Whether one who did not start it saw it alive is for a test of its own.
    return case.ending != "rollback" or scenario.is_ours or moment not in ("before", "during")
