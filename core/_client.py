"""One pooled client per deployment and set of secrets, on the shared loop.

A `Connection` says where a deployment is and how to talk to it; it may be made on any OS thread. A
`Deployment` is its client, its waiter and what was learned about the server; it lives on the shared
loop and is found by `deployment_for`.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import httpx
import orjson
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient

from prefect_langgraph._deadline import Deadline
from prefect_langgraph._http import (
    arefuse_redirect,
    is_transient,
    not_executed,
    refuse_redirect,
    retry_after_of,
    to_error,
)
from prefect_langgraph._lease import Leases
from prefect_langgraph._log import run_logger
from prefect_langgraph._lookup import Lookup
from prefect_langgraph._release import Pruner, ReleasedResults
from prefect_langgraph._waiter import Waiter
from prefect_langgraph.errors import InvalidRequestError, UnreachableError
from prefect_langgraph.headers import HeaderPolicy, merge_headers

T = TypeVar("T")

_FIRST_BACKOFF, _LAST_BACKOFF = 0.2, 5.0


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
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    name: str | None = None
    max_connections: int = 32
    timeout_seconds: float = 60.0
    patience_seconds: float = 30.0
    header_policy: HeaderPolicy | None = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Connection holds secrets and is not pickled: give the saved block's name")

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that may never be shown."""
        return (*((self.api_key,) if self.api_key else ()), *(value for _, value in self.headers))

    def all_headers(self) -> dict[str, str]:
        """The headers of every request, the key among them."""
        # Not get_client's own headers: it reads keys from the environment unless told not to, and it
        # cannot be given the size of the pool.
        key = {"x-api-key": self.api_key} if self.api_key else {}
        return {**dict(self.headers), **key}

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
                event_hooks={"response": [refuse_redirect]},
            )
        )

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

    def fingerprint(self) -> str:
        """Equal for connections that can share a deployment; tells nothing of the secrets.

        The name is part of it, since handles carry it to where only a name is of use.
        """
        parts = (
            self.url,
            self.name,
            self.all_headers(),
            self.max_connections,
            self.timeout_seconds,
            self.patience_seconds,
            self.header_policy,
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()


class InDoubtError(Exception):
    """A request left and its answer did not come: the server may have acted on it.

    Stays inside this package: whoever sends a request that must not be sent twice catches it and looks.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(type(cause).__name__)
        self.cause = cause

    def public(self) -> Exception:
        """The error for a caller who must not send the request again, nor have it retried."""
        if isinstance(self.cause, UnreachableError):
            self.cause.in_doubt = True
        return self.cause


class Deployment:
    """A deployment's client on the shared loop, and what was learned about its server."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.client = connection.async_client()
        self.lookup = Lookup(self)
        self.waiter = Waiter(self)
        self.pruner = Pruner(self)
        self.released = ReleasedResults()
        self.leases = Leases(self)
        # Threads by which calls were claimed that a run's key does not lead to, by run.
        self.places: dict[str, tuple[str, ...]] = {}
        # Cleared for good by the first answer that shows the server has no /runs/batch.
        self.creates_batches = True

    @property
    def url(self) -> str:
        """The deployment's address."""
        return self.connection.url

    async def send(
        self,
        request: Callable[[], Awaitable[T]],
        *,
        doing: str,
        deadline: Deadline,
        hidden: Any = None,
        repeatable: bool = True,
        patient: bool = True,
    ) -> T:
        """Send a request, wait out what is transient, and raise this package's errors.

        Args:
            request: Makes one SDK call.
            doing: For messages: `start a run of agent`.
            deadline: The caller's. 429 and 503 with Retry-After are waited out until then.
            hidden: The payload, none of whose texts may come into a message.
            repeatable: False for a request that must not be sent again when the server may have
                acted on it; then `InDoubtError` is raised instead.
            patient: True gives up after the connection's patience, False only at the deadline.
        """
        first_failure: float | None = None
        backoff = _FIRST_BACKOFF
        while True:
            try:
                return await request()
            except orjson.JSONEncodeError as error:
                raise InvalidRequestError(
                    f"Could not {doing}: a value is not JSON ({error}).", url=self.url
                ) from None
            except Exception as error:  # noqa: BLE001 - every one is mapped and raised
                if not is_transient(error):
                    raise self.error(error, doing, hidden) from None
                if not repeatable and not not_executed(error):
                    raise InDoubtError(self.error(error, doing, hidden)) from None
                now = time.monotonic()
                first_failure = now if first_failure is None else first_failure
                pause = retry_after_of(error)
                ends = [end for end in [deadline.end] if end is not None]
                if patient and pause is None:
                    ends.append(first_failure + self.connection.patience_seconds)
                if pause is None:
                    pause = backoff * random.uniform(0.5, 1.0)  # noqa: S311
                    backoff = min(backoff * 2, _LAST_BACKOFF)
                # Also a server that says "now" is given a moment.
                pause = max(pause, _FIRST_BACKOFF / 2)
                if ends and now + pause >= min(ends):
                    raise self.error(error, doing, hidden) from None
                if now == first_failure:
                    run_logger().warning("Could not %s (%s); trying again", doing, type(error).__name__)
                await asyncio.sleep(pause)

    def error(self, error: Exception, doing: str, hidden: Any = None) -> Exception:
        """This package's error for what the SDK raised."""
        secrets = self.connection.secrets
        return to_error(error, url=self.url, doing=doing, hidden=[hidden, *secrets])


_deployments: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Deployment]] = (
    weakref.WeakKeyDictionary()
)


def deployment_for(connection: Connection) -> Deployment:
    """The deployment of a connection on the running loop; one client for equal connections."""
    on_loop = _deployments.setdefault(asyncio.get_running_loop(), {})
    fingerprint = connection.fingerprint()
    if fingerprint not in on_loop:
        on_loop[fingerprint] = Deployment(connection)
    return on_loop[fingerprint]


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
