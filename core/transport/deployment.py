"""One pooled client per deployment and set of secrets, on the shared loop.

A `Deployment` is a connection's client on the shared loop, found by `deployment_for`. What the packages
above keep for a deployment hangs on it as a part, which it does not know by name.
"""

from __future__ import annotations

import asyncio
import random
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson

from prefect_langgraph.errors import InvalidRequestError, NotFoundError, UnreachableError
from prefect_langgraph.logs import run_logger
from prefect_langgraph.transport.connection import Connection
from prefect_langgraph.transport.deadline import Deadline
from prefect_langgraph.transport.http_errors import (
    is_transient,
    not_executed,
    retry_after_of,
    to_error,
)

T = TypeVar("T")
PartT = TypeVar("PartT")

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
    """A deployment's client on the shared loop, and what the packages above keep for it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.client = connection.async_client()
        self._parts: dict[Any, Any] = {}

    @property
    def url(self) -> str:
        """The deployment's address."""
        return self.connection.url

    def part(self, kind: Callable[[Deployment], PartT]) -> PartT:
        """What a package above keeps for this deployment; `kind` makes it on first use."""
        if kind not in self._parts:
            self._parts[kind] = kind(self)
        found: PartT = self._parts[kind]
        return found

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

    async def thread(
        self, thread_id: str, deadline: Deadline, *, patient: bool = True
    ) -> dict[str, Any] | None:
        """A thread's row, or None when the server says that there is none.

        `patient` gives up after the connection's patience also where there is no deadline.
        """
        threads = self.client.threads
        try:
            found = await self.send(
                lambda: threads.get(thread_id),
                doing="ask for a thread",
                deadline=deadline,
                patient=patient or deadline.end is not None,
            )
            return dict(found)
        except NotFoundError:
            return None

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
