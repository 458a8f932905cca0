"""One pooled client per deployment and set of secrets, on the shared loop.

A `Deployment` is a connection's client, its waiter and what was learned about the server; it lives on
the shared loop and is found by `deployment_for`.
"""

from __future__ import annotations

import asyncio
import random
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson

from prefect_langgraph.errors import InvalidRequestError, UnreachableError
from prefect_langgraph.logs import run_logger
from prefect_langgraph.ownership.heartbeat import Leases
from prefect_langgraph.runs.lookup import Lookup
from prefect_langgraph.runs.poller import Waiter
from prefect_langgraph.transport.connection import Connection
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.http_errors import (
    is_transient,
    not_executed,
    retry_after_of,
    to_error,
)
from prefect_langgraph.transport.pruning import Pruner, ReleasedResults

T = TypeVar("T")

_FIRST_BACKOFF, _LAST_BACKOFF = 0.2, 5.0


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
