"""A proxy in front of a real server: it counts what passes and shows faults on request.

    with run_proxy(server.url) as proxy:
        proxy.on("POST", r"/threads/[^/]+/runs$", times=1, fault=LoseResponse())
        ...  # use proxy.url in place of server.url
        assert proxy.count("POST", r"/threads/[^/]+/runs$") == 1

Everything without a fault passes unchanged, streams as they come. A client that hangs up is hung up on
at the real server too. `refuse()` and `accept()` are a deployment that is down and comes back.

A fault is a class with `apply(exchange)`; it may ask the real server or not, and answer or not.
"""

from proxy._exchange import Exchange, Request, Response
from proxy._faults import (
    Answer,
    CutBody,
    CutStream,
    Delay,
    Fault,
    Hold,
    LoseRequest,
    LoseResponse,
    Rewrite,
    Silence,
    gateway_page,
    unhandled_500,
)
from proxy._proxy import Proxy, Rule, matches, run_proxy

__all__ = [
    "Answer",
    "CutBody",
    "CutStream",
    "Delay",
    "Exchange",
    "Fault",
    "Hold",
    "LoseRequest",
    "LoseResponse",
    "Proxy",
    "Request",
    "Response",
    "Rewrite",
    "Rule",
    "Silence",
    "gateway_page",
    "matches",
    "run_proxy",
    "unhandled_500",
]
