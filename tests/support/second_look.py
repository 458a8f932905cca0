"""The look that follows a suspension, met by a fault."""

from __future__ import annotations

from proxy import Exchange, Fault, Hold, Proxy

SEARCH = "/threads/search$"


class SecondLook:
    """A fault for the look that follows the suspension; the two before it found the runs busy."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._looks = 0

    async def apply(self, exchange: Exchange) -> None:
        if b'"ids"' in exchange.request.body:
            self._looks += 1
        if self._looks >= 3:
            await self._fault.apply(exchange)
        else:
            await exchange.relay()


def hold_second_look(proxy: Proxy) -> Hold:
    """Hold the second look of the next flow run that suspends."""
    hold = Hold()
    proxy.on("POST", SEARCH, SecondLook(hold), times=None)
    return hold
