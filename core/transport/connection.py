"""Where a deployment is and how to talk to it. A `Connection` may be made on any OS thread."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NoReturn

import httpx
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient
from opentelemetry import propagate

from prefect_langgraph.headers import HeaderPolicy, merge_headers
from prefect_langgraph.headers.tokens import TokenAuth, Tokens
from prefect_langgraph.logs import run_logger
from prefect_langgraph.transport.http_errors import (
    arefuse_redirect,
    refuse_redirect,
)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """What every client of this process trusts: a megabyte and 25 ms of CPU, so it is made once."""
    return httpx.create_ssl_context()


@dataclass(frozen=True)
class Connection:
    """Where a deployment is and how to talk to it. Secrets stay out of its repr.

    Attributes:
        url: The deployment's address.
        api_key: Sent as `x-api-key`; None sends none.
        headers: Sent with every request.
        name: The saved block's name, or None when it was not saved.
        max_connections: Size of the pool.
        timeout_seconds: How long one request may be silent.
        patience_seconds: How long one call goes on when the server is not there or overloaded.
            Waits for a run go on until the caller's own deadline.
        header_policy: What the headers of a request that makes a run are held against, or None.
        tokens: Short-lived tokens, sent with every request; None sends none.
        trace_url: Template of the page of a run's trace, or None.
        studio_url: Template of a thread's page in Studio; None is LangSmith's.
        reread: Gives the connection as the saved block has it now, or None where that cannot be
            learned. None for a block that was not saved.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    name: str | None = None
    max_connections: int = 32
    timeout_seconds: float = 60.0
    patience_seconds: float = 30.0
    header_policy: HeaderPolicy | None = None
    tokens: Tokens | None = field(default=None, repr=False, compare=False)
    trace_url: str | None = None
    studio_url: str | None = None
    reread: Callable[[], Awaitable[Connection | None]] | None = field(
        default=None, repr=False, compare=False
    )

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Connection holds secrets and is not pickled: give the saved block's name")

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that may never be shown."""
        tokens = self.tokens.secrets if self.tokens is not None else ()
        key = (self.api_key,) if self.api_key else ()
        return (*key, *(value for _, value in self.headers), *tokens)

    def all_headers(self) -> dict[str, str]:
        """The headers of every request, the key among them, and without a token."""
        # Not get_client's own headers: it reads keys from the environment unless told not to, and it
        # cannot be given the size of the pool.
        key = {"x-api-key": self.api_key} if self.api_key else {}
        return {**dict(self.headers), **key}

    def headers_with_token(self, *, fetch: bool = True) -> dict[str, str]:
        """The headers for whoever sends without a client of ours, with the token that is good now.

        Args:
            fetch: False takes the token that is held, if there is one.
        """
        if self.tokens is None:
            return self.all_headers()
        token = self.tokens.get() if fetch else self.tokens.held()
        return self.all_headers() | (token.headers if token is not None else {})

    def async_client(self) -> LangGraphClient:
        """A new client with a pool of its own, for one event loop."""
        return LangGraphClient(self._async_http(self._limits()))

    def stream_client(self) -> httpx.AsyncClient:
        """A new client for streams: each holds a connection for as long as its run takes."""
        return self._async_http(httpx.Limits(max_connections=None, max_keepalive_connections=4))

    def _async_http(self, limits: httpx.Limits) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url,
            headers=self.all_headers(),
            timeout=self._timeout(),
            limits=limits,
            verify=_tls(),
            auth=self.auth(),
            event_hooks={"response": [arefuse_redirect]},
        )

    def sync_client(self) -> SyncLangGraphClient:
        """A new synchronous client with a pool of its own."""
        return SyncLangGraphClient(
            httpx.Client(
                base_url=self.url,
                headers=self.all_headers(),
                timeout=self._timeout(),
                limits=self._limits(),
                verify=_tls(),
                auth=self.auth(),
                event_hooks={"response": [refuse_redirect]},
            )
        )

    def auth(self) -> TokenAuth | None:
        """What sends the tokens with each request of a new client."""
        return TokenAuth(self.tokens) if self.tokens is not None else None

    @property
    def secrets_key(self) -> tuple[Any, ...]:
        """Equal for connections with the same secrets."""
        return self.all_headers(), self.tokens.key if self.tokens is not None else None

    def _timeout(self) -> httpx.Timeout:
        # pool=None: waiting for a free connection is queueing, not a failure.
        return httpx.Timeout(
            connect=5, read=self.timeout_seconds, write=self.timeout_seconds, pool=None
        )

    def _limits(self) -> httpx.Limits:
        return httpx.Limits(
            max_connections=self.max_connections, max_keepalive_connections=self.max_connections
        )

    def check_headers(self, headers: Mapping[str, str] | None) -> None:
        """Hold the headers of a request that makes a run, the block's among them, against the policy.

        Raises:
            HeaderPolicyError: They break it, and it does not only warn.
        """
        if self.header_policy is None:
            return
        for violation in self.header_policy.check(merge_headers(dict(self.headers), headers)):
            run_logger().warning("Header policy: %s", violation)

    def headers_of_run(self, headers: Mapping[str, str] | None) -> dict[str, str] | None:
        """The headers of a request that makes a run: the call's, and those of the trace it is part of.

        With an OpenTelemetry span in the process these are its `traceparent` and baggage, so that the
        run belongs to the same trace. The call's own come first, and what the policy denies stays here.
        """
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        given = {name.lower() for name in (*(headers or ()), *(name for name, _ in self.headers))}
        policy = self.header_policy
        going_on = {
            name: value
            for name, value in carrier.items()
            if name.lower() not in given and (policy is None or not policy.denies(name))
        }
        return {**(headers or {}), **going_on} or None

    def fingerprint(self) -> str:
        """Equal for connections that can share a deployment; tells nothing of the secrets.

        The name is part of it, since handles carry it to where only a name is of use.
        """
        parts = (
            self.url,
            self.name,
            self.secrets_key,
            self.max_connections,
            self.timeout_seconds,
            self.patience_seconds,
            self.header_policy,
            self.trace_url,
            self.studio_url,
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def mask_headers(state: Any, names: Iterable[str]) -> None:
    """Take the values of headers out of the metadata of a thread's state, subgraphs included."""
    masked = {name.lower() for name in names}
    metadata = state.get("metadata") or {}
    metadata.update({name: "**********" for name in metadata if name.lower() in masked})
    for task in state.get("tasks") or ():
        if isinstance(task.get("state"), dict):
            mask_headers(task["state"], masked)


def headers_of(headers: Mapping[str, str] | None) -> dict[str, str] | None:
    """Headers for one request, or None; the SDK treats an empty mapping and None alike."""
    return dict(headers) if headers else None
