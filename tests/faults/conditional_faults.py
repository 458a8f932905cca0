"""Faults that take a whole conversation into account."""

from __future__ import annotations

import time
from collections.abc import Callable

from proxy import Exchange, Fault, Request, matches


class OutageAfter:
    """One request is carried out and its answer lost, and then nobody is there for a while.

    To be shown for every request: `proxy.on("*", "", OutageAfter("POST", RUN, 1.5), times=None)`.
    """

    def __init__(self, method: str, path: str, seconds: float) -> None:
        self._wanted = method, path
        self._seconds = seconds
        self._ends: float | None = None

    async def apply(self, exchange: Exchange) -> None:
        if self._ends is None and matches(exchange.request, *self._wanted):
            await exchange.fetch()
            self._ends = time.monotonic() + self._seconds
            exchange.hang_up()
        elif self._ends is not None and time.monotonic() < self._ends:
            exchange.hang_up()
        else:
            await exchange.relay()


class Only:
    """A fault for the requests of which something is true; the others pass."""

    def __init__(self, true_of: Callable[[Request], bool], fault: Fault) -> None:
        self._true_of = true_of
        self._fault = fault

    async def apply(self, exchange: Exchange) -> None:
        if self._true_of(exchange.request):
            await self._fault.apply(exchange)
        else:
            await exchange.relay()
