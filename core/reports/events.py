"""Prefect events about a fan-out, for automations. Documented in `docs/reference/events.md`.

Invariants:
- What an automation may ask for is a label of the event's resource: triggers see no payload.
- Prefect relates an event to the flow run, task run, flow, deployment and tags that it was emitted in.
- Nothing is emitted outside of a flow run.
- Ids, counts and outcomes only: no input, no value, no error text.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from prefect.events import emit_event

from prefect_langgraph.models import RunStatus
from prefect_langgraph.reports.fan_out_page import current_flow_run
from prefect_langgraph.results import RunResult, Usage

FAN_OUT_STARTED = "langgraph.fan-out.started"

FAN_OUT_ENDED = "langgraph.fan-out.ended"

RUN_ENDED = "langgraph.run.ended"

PER_RUN_EVENTS = 100
"""How many successes, and how many other ends, of one fan-out have an event of their own."""


class FanOutEvents:
    """The events of one fan-out, in the flow run that is current when this is made.

    Args:
        total: How many runs there are.
        label: What they are, in a few words.
    """

    def __init__(self, total: int, *, label: str) -> None:
        flow_run = current_flow_run()
        self._id = None if flow_run is None else f"langgraph.fan-out.{flow_run.id}"
        self._total = total
        self._label = label
        self._ended: Counter[RunStatus] = Counter()
        self._usage: Usage | None = None

    def fan_out_started(self) -> None:
        """The first runs are about to be started."""
        self._emit(FAN_OUT_STARTED, {}, {"total": self._total})

    def run_ended(self, result: RunResult) -> None:
        """A run ended. Beyond `PER_RUN_EVENTS` it is only counted.

        What did not succeed has an allowance of its own: it is what automations wait for, and a
        thousand successes before it must not use it up.
        """
        status, handle = result.status, result.handle
        self._ended[status] += 1
        if result.usage is not None:
            self._usage = (self._usage or Usage()) + result.usage
        good = self._ended[RunStatus.SUCCESS]
        alike = good if status is RunStatus.SUCCESS else self._ended.total() - good
        if self._id is None or alike > PER_RUN_EVENTS:
            return
        emit_event(
            RUN_ENDED,
            resource={
                "prefect.resource.id": f"langgraph.run.{handle.run_id}",
                "prefect.resource.name": handle.assistant_id,
                "langgraph.run.outcome": str(status),
                "langgraph.run.origin": result.origin,
                "langgraph.assistant": handle.assistant_id,
                "langgraph.thread": handle.thread_id,
            },
            related=[{"prefect.resource.id": self._id, "prefect.resource.role": "fan-out"}],
            payload={
                "outcome": str(status),
                "seconds": result.seconds,
                "tokens": _tokens(result.usage),
            },
        )

    def fan_out_ended(self, *, seconds: float, budget: str | None = None) -> None:
        """The fan-out is over, whether every run has ended or not.

        Args:
            seconds: How long it took.
            budget: Which bound of its budget was reached, or None.
        """
        good, ended = self._ended[RunStatus.SUCCESS], self._ended.total()
        if ended < self._total:
            outcome = "incomplete"
        elif good == ended:
            outcome = "success"
        else:
            outcome = "partial" if good else "failure"
        self._emit(
            FAN_OUT_ENDED,
            {
                "langgraph.fan-out.outcome": outcome,
                "langgraph.fan-out.budget": "within" if budget is None else "reached",
            },
            {
                "outcome": outcome,
                "total": self._total,
                "counts": {str(status): count for status, count in sorted(self._ended.items())},
                "seconds": seconds,
                "tokens": _tokens(self._usage),
            },
        )

    def _emit(self, event: str, labels: dict[str, str], payload: dict[str, Any]) -> None:
        if self._id is None:
            return
        name = {"prefect.resource.id": self._id, "prefect.resource.name": self._label}
        emit_event(event, resource={**name, **labels}, payload=payload)


def _tokens(usage: Usage | None) -> dict[str, int] | None:
    """The numbers of a usage, without the models; None where nothing was reported."""
    if usage is None:
        return None
    return {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cached": usage.cached_tokens,
        "total": usage.total_tokens,
    }
