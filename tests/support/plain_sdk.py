"""The plain SDK, by which tests ask what the server itself says, and play what others do there.

Each request has a connection of its own. One that is kept may be closed by the server at the moment of
the next request, which then fails although the server is well: a fault of the test alone.
"""

from __future__ import annotations

import httpx
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient

_CONNECTION_ATTEMPTS = 5
# A busy machine may keep an answer waiting for long; a test that hangs is ended by its own limit.
_TIMEOUT = httpx.Timeout(300)
_NONE_KEPT = httpx.Limits(max_keepalive_connections=0)


def sync_sdk(url: str) -> SyncLangGraphClient:
    """A client to be used in a `with` block."""
    transport = httpx.HTTPTransport(limits=_NONE_KEPT, retries=_CONNECTION_ATTEMPTS, trust_env=False)
    return SyncLangGraphClient(httpx.Client(base_url=url, transport=transport, timeout=_TIMEOUT))


def async_sdk(url: str) -> LangGraphClient:
    """A client to be used in an `async with` block."""
    transport = httpx.AsyncHTTPTransport(
        limits=_NONE_KEPT, retries=_CONNECTION_ATTEMPTS, trust_env=False
    )
    return LangGraphClient(httpx.AsyncClient(base_url=url, transport=transport, timeout=_TIMEOUT))
