"""Waiting for what comes by itself: by asking, and for as long as the slowest machine may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 300.0
"""Seconds after which something does not come any more. No test measures how fast a machine is."""

_PROBE_SECONDS = 0.05


def until(ask: Callable[[], T], *, seconds: float = PATIENCE) -> T:
    """Ask until the answer is one, and return it."""
    end = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < end, f"not within {seconds:g} s; the last answer: {answer!r}"
        time.sleep(_PROBE_SECONDS)
    return answer
