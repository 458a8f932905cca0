"""A caller's wall-clock limit, carried through every step of a call."""

from __future__ import annotations

import time
from dataclasses import dataclass

from prefect_langgraph.arguments import check_positive
from prefect_langgraph.errors import DeploymentError


@dataclass(frozen=True)
class Deadline:
    """A point on the monotonic clock, or None for no limit.

    Attributes:
        end: The point.
        max_wait_seconds: How long before it the clock was started.
        of_call: True for the limit that the caller of a task set, all attempts of the task together.
    """

    end: float | None = None
    max_wait_seconds: float | None = None
    of_call: bool = False

    @classmethod
    def after(cls, max_wait_seconds: float | None) -> Deadline:
        """Start the clock now. Zero and negatives are refused; None is unlimited."""
        check_positive("max_wait_seconds", max_wait_seconds)
        if max_wait_seconds is None:
            return cls()
        return cls(time.monotonic() + max_wait_seconds, max_wait_seconds)

    def no_later_than(self, seconds: float) -> Deadline:
        """This deadline, or the one that is so many seconds from now, whichever comes first."""
        left = self.remaining()
        return Deadline(time.monotonic() + (seconds if left is None else min(seconds, left)), seconds)

    def remaining(self, now: float | None = None) -> float | None:
        """Seconds left, never negative; None when there is no limit."""
        if self.end is None:
            return None
        return max(0.0, self.end - (time.monotonic() if now is None else now))

    def sooner(self, other: Deadline) -> Deadline:
        """Whichever of two comes first."""
        ends = [item for item in (self, other) if item.end is not None]
        return min(ends, key=lambda item: item.end or 0.0, default=self)

    def mark(self, error: Exception) -> None:
        """Write on an error until when another attempt of the task makes sense."""
        if self.of_call and isinstance(error, DeploymentError):
            error.retry_until = time.time() + (self.remaining() or 0.0)

    @property
    def passed(self) -> bool:
        """True when no time is left."""
        return self.end is not None and time.monotonic() >= self.end


NO_DEADLINE = Deadline()
