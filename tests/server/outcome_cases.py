"""The ways in which a run can end, and the sides from which it can be seen; and what must be said.

An `OutcomeCase` is one run: what becomes of it (`outcome`), on which thread and by whom it was started
(`thread_kind`), when somebody asks about it (`moment`) and by which task (`way`).
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

ThreadKind = Literal["own thread", "own, elsewhere", "new thread", "used thread", "used, elsewhere"]
Moment = Literal["before", "during", "ended", "later", "busy again"]
Way = Literal["join_run", "join_runs", "get_run", "run"]

WORKER_STEPS = ["prepare", "work", "finish"]


@dataclass(frozen=True, eq=False)
class Outcome:
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
OUTCOMES = [
    Outcome("success", RunStatus.SUCCESS, None, {"tag": "a", "sleep": 0.4}, (*WORKER_STEPS,), "a"),
    Outcome("failed", RunStatus.ERROR, RunFailedError, {"fail": "no luck", "sleep": 0.4}, ("prepare",)),
    Outcome("timed out", RunStatus.TIMEOUT, RunTimeoutError, LONG, ("prepare",)),
    Outcome(
        "cancelled while running",
        RunStatus.CANCELLED,
        RunCancelledError,
        LONG,
        ("prepare",),
        ending="cancel",
    ),
    Outcome(
        "cancelled while pending",
        RunStatus.CANCELLED,
        RunCancelledError,
        {"tag": "never"},
        None,
        options={"after_seconds": 600},
        ending="cancel",
    ),
    Outcome("rolled back", RunStatus.CANCELLED, RunCancelledError, LONG, None, ending="rollback"),
    Outcome(
        "one interrupt",
        RunStatus.INTERRUPTED,
        RunInterruptedError,
        {"interrupts": 1, "sleep": 0.4},
        ("prepare", "work"),
        interrupts=1,
    ),
    Outcome(
        "three interrupts",
        RunStatus.INTERRUPTED,
        RunInterruptedError,
        {"interrupts": 3, "sleep": 0.4},
        ("prepare", "work"),
        interrupts=3,
    ),
    Outcome(
        "breakpoint",
        RunStatus.INTERRUPTED,
        RunInterruptedError,
        {"tag": "a", "sleep": 0.4},
        ("prepare",),
        options={"interrupt_before": ["work"]},
    ),
    # Pending: the dev server goes on working on a run whose thread was deleted.
    Outcome(
        "deleted",
        RunStatus.LOST,
        RunLostError,
        {"tag": "never"},
        None,
        options={"after_seconds": 600},
        ending="delete",
    ),
    Outcome("unknown", RunStatus.LOST, RunLostError, {}, None, known=False),
]


@dataclass(frozen=True, eq=False)
class OutcomeCase:
    outcome: Outcome
    thread_kind: ThreadKind
    moment: Moment
    way: Way

    def __str__(self) -> str:
        return f"{self.outcome.name}, {self.thread_kind}, {self.moment}, {self.way}".replace(" ", "_")

    @property
    def is_own(self) -> bool:
        return self.thread_kind.startswith("own")

    @property
    def is_ours(self) -> bool:
        return not self.thread_kind.endswith("elsewhere")

    @property
    def is_used(self) -> bool:
        return self.thread_kind.startswith("used")

    @property
    def expected_status(self) -> RunStatus:
        # Who never saw it alive cannot tell it from one that never was.
        gone = self.outcome.ending == "rollback" and not self.is_ours and not self.is_own
        return RunStatus.LOST if gone else self.outcome.status

    @property
    def expected_error(self) -> type[RunError] | None:
        lost = self.expected_status is RunStatus.LOST
        return RunLostError if lost else self.outcome.error

    @property
    def expected_values(self) -> dict[str, Any] | None:
        if self.outcome.steps is None:
            return None
        earlier = WORKER_STEPS if self.is_used else []
        return {
            "request": dict(self.outcome.input),
            "steps": [*earlier, *self.outcome.steps],
            "answers": [],
            "result": self.outcome.result,
            "payload": "",
            "messages": [],
        }


_ASKED: dict[Way, list[tuple[ThreadKind, Moment]]] = {
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


def outcome_cases() -> list[OutcomeCase]:
    """Every combination that there can be, one of each kind."""
    return [
        case
        for outcome in OUTCOMES
        for way, sides in _ASKED.items()
        for thread_kind, moment in sides
        if _can_be(case := OutcomeCase(outcome, thread_kind, moment, way))
    ]


def _can_be(case: OutcomeCase) -> bool:
    outcome, moment = case.outcome, case.moment
    if not outcome.known:
        return not case.is_ours and moment == "ended"
    if moment == "during" and not outcome.begins:
        return False
    if outcome.ending == "delete" and moment in ("later", "busy again"):
        return False
    # Whether one who did not start it saw it alive is for a test of its own.
    return outcome.ending != "rollback" or case.is_ours or moment not in ("before", "during")
