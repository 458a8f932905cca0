"""One pooled client per deployment and set of secrets, on the shared loop.

A `Deployment` is a connection's client on the shared loop, found by `deployment_for`. What the packages
above keep for a deployment hangs on it as a part, which it does not know by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import random
import time
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import httpx
import orjson

from prefect_langgraph.errors import (
    DeploymentError,
    InvalidRequestError,
    NotFoundError,
    UnreachableError,
)
from prefect_langgraph.links import filled
from prefect_langgraph.logs import run_logger
from prefect_langgraph.models import Origin, RunHandle
from prefect_langgraph.transport.answers import refuse_strange_answer
from prefect_langgraph.transport.connection import Connection
from prefect_langgraph.transport.deadline import NO_DEADLINE, Deadline
from prefect_langgraph.transport.http_errors import (
    NoWholeAnswerError,
    is_transient,
    not_executed,
    retry_after_of,
    row_of,
    status_code_of,
    to_error,
)

T = TypeVar("T")
PartT = TypeVar("PartT")

_FIRST_BACKOFF, _LAST_BACKOFF = 0.2, 5.0

# What a request gets in any case: a server that is well answers within it.
_LEAST_SECONDS, _LEAST_PATIENT_SECONDS = 0.5, 5.0

# How long a caller whose deadline has passed waits for a clean-up: where the server answers, and where
# it has said nothing lately.
_CLEAN_UP_SECONDS, _SILENT_CLEAN_UP_SECONDS, _LATELY_SECONDS = 10.0, 2.0, 3.0
_REREAD_EVERY_SECONDS = 1.0
_OPEN_PATHS = ("/ok", "/info")  # answered whatever the key is

ANSWER_SECONDS = 5.0
"""How long a request that changes something may still be answered after its caller has gone."""

KEPT_UNUSED = 8
"""So many deployments that nobody uses keep their clients, and what was learned, for the next call."""


class InDoubtError(Exception):
    """A request left and its answer did not come: the server may have acted on it.

    Stays inside this package: a caller whose request must not be sent twice catches it and looks.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(type(cause).__name__)
        self.cause = cause

    @property
    def status_code(self) -> int | None:
        """The HTTP status that was the answer, None when there was none."""
        return getattr(self.cause, "status_code", None)

    def public(self) -> Exception:
        """The error for a caller who must not send the request again, nor have it retried."""
        if isinstance(self.cause, UnreachableError):
            self.cause.in_doubt = True
        return self.cause


class _Attempts:
    """The attempts of one request: for how long they go on, and when the next one is due."""

    def __init__(self, deadline: Deadline, patience_seconds: float) -> None:
        self._deadline = deadline
        self._patience = patience_seconds
        self._first_failure: float | None = None
        self._backoff = _FIRST_BACKOFF
        self._began = 0.0
        self.failures = 0

    def begin(self, timeout_seconds: float, *, patient: bool) -> float:
        """Begin an attempt, and say how many seconds it may take."""
        self._began = now = time.monotonic()
        ends = [now + timeout_seconds]
        if self._deadline.end is not None:
            ends.append(max(self._deadline.end, now + _LEAST_SECONDS))
        if patient:
            since = now if self._first_failure is None else self._first_failure
            ends.append(max(since + self._patience, now + _LEAST_PATIENT_SECONDS))
        return min(ends) - now

    def pause(self, error: Exception, *, patient: bool) -> float | None:
        """Seconds until the next attempt; None when this one was the last."""
        now = time.monotonic()
        self.failures += 1
        self._first_failure = self._began if self._first_failure is None else self._first_failure
        pause = retry_after_of(error)
        ends = [end for end in [self._deadline.end] if end is not None]
        if patient and pause is None:
            ends.append(self._first_failure + self._patience)
        if pause is None:
            pause = self._backoff * random.uniform(0.5, 1.0)  # noqa: S311
            self._backoff = min(self._backoff * 2, _LAST_BACKOFF)
        # Also a server that says "now" is given a moment.
        pause = max(pause, _FIRST_BACKOFF / 2)
        return None if ends and now + pause >= min(ends) else pause


class Deployment:
    """A deployment's client on the shared loop, and what the packages above keep for it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.client = connection.async_client()
        self._parts: dict[Any, Any] = {}
        self._heard = -math.inf  # when it last answered
        self._connections = asyncio.Semaphore(connection.max_connections)
        self._unheard = False  # True when nothing answered the last attempt
        self._cleaning_up: set[asyncio.Task[Any]] = set()
        self._https: list[httpx.AsyncClient] = []
        self.add_client(self.client.http.client)
        self._users: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        # True once the server has let these secrets in: a refusal may mean that they were rotated.
        self._let_in = False
        self._rereading = asyncio.Lock()
        self._reread_at = 0.0
        self._former_secrets: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The deployment's address."""
        return self.connection.url

    def handle(
        self,
        run_id: str,
        thread_id: str,
        assistant_id: str,
        *,
        key: str | None = None,
        owns_thread: bool = False,
        origin: Origin = "started",
        item_key: str | None = None,
    ) -> RunHandle:
        """The handle of a run on this deployment."""

        def page(template: str | None) -> str | None:
            if template is None:
                return None
            return filled(
                template,
                run_id=run_id,
                thread_id=thread_id,
                assistant_id=assistant_id,
                url=self.url,
            )

        return RunHandle(
            run_id=run_id,
            thread_id=thread_id,
            assistant_id=assistant_id,
            url=self.url,
            credentials=self.connection.name,
            key=key,
            owns_thread=owns_thread,
            origin=origin,
            item_key=item_key,
            trace_url=page(self.connection.trace_url),
            studio_url=page(self.connection.studio_url),
        )

    def patience(self) -> Deadline:
        """A deadline for one call that has none: it waits out what is transient, for so long."""
        return Deadline.after(self.connection.patience_seconds)

    def part(self, kind: Callable[[Deployment], PartT]) -> PartT:
        """What a package above keeps for this deployment; `kind` makes it on first use."""
        if kind not in self._parts:
            self._parts[kind] = kind(self)
        found: PartT = self._parts[kind]
        return found

    def add_client(self, http: httpx.AsyncClient) -> None:
        """Have a client's answers checked, its secrets renewed, and itself closed, with the others."""
        hooks = http.event_hooks
        hooks["response"] = [*hooks["response"], refuse_strange_answer, self._note_let_in]
        http.event_hooks = hooks
        self._https.append(http)

    async def _note_let_in(self, response: httpx.Response) -> None:
        # What is refused for what it says was let in as well.
        answered = response.is_success or response.status_code in (404, 409, 422)
        self._let_in |= answered and not response.request.url.path.endswith(_OPEN_PATHS)

    def used_by(self, task: asyncio.Task[Any] | None) -> None:
        """Keep the clients open until this task has ended."""
        if task is not None:
            self._users.add(task)

    @property
    def is_used(self) -> bool:
        """True while a task that uses it has not ended."""
        return any(not task.done() for task in self._users)

    async def aclose(self) -> None:
        """Close the clients and their sockets."""
        for http in self._https:
            await http.aclose()

    async def send(
        self,
        request: Callable[[], Awaitable[T]],
        *,
        doing: str,
        deadline: Deadline,
        hidden: Any = None,
        repeatable: bool = True,
        patient: bool = True,
        within_wait: bool = False,
        abandoned: asyncio.Event | None = None,
        once: bool = False,
        quotes: bool = True,
    ) -> T:
        """Send a request, wait out what is transient, and raise this package's errors.

        Each attempt ends by itself, also where the server never finishes its answer: after the
        connection's timeout, and no later than the deadline or the end of the patience.

        Args:
            request: Makes one SDK call.
            doing: For messages: `start a run of agent`.
            deadline: The caller's. 429 and 503 with Retry-After are waited out until then.
            hidden: The payload, none of whose texts may come into a message.
            repeatable: False for a request that must not be sent again when the server may have
                acted on it; then `InDoubtError` is raised instead.
            patient: True gives up after the connection's patience, False only at the deadline.
            within_wait: True takes a 403, too, for a key that is being rotated.
            abandoned: Set for a caller that has gone: nothing is sent from then on. See
                `answer_to_abandoned`.
            once: True makes one attempt, whatever comes of it.
            quotes: False lets no word of the server's into an error.
        """
        attempts = _Attempts(deadline, self.connection.patience_seconds)
        while True:
            if abandoned is not None and abandoned.is_set():
                raise asyncio.CancelledError
            used = self.connection
            try:
                async with self._connection_free(deadline):
                    seconds = attempts.begin(used.timeout_seconds, patient=patient and not once)
                    answer = await _attempt(request, seconds)
                self._heard, self._unheard = time.monotonic(), False
                return answer
            except orjson.JSONEncodeError as error:
                raise InvalidRequestError(
                    f"Could not {doing}: a value is not JSON ({error}).", url=self.url
                ) from None
            except Exception as error:  # noqa: BLE001 - every one is mapped and raised
                self._unheard = status_code_of(error) is None and is_transient(error)
                refused = status_code_of(error) in (401, 403)
                if refused and await self._has_new_secrets(used):
                    continue
                rotated = refused and self._may_be_rotated(error, within_wait)
                said = await self._error_of(error, doing, hidden, deadline, quotes=quotes)
                if once or not (rotated or is_transient(error)):
                    raise said from None
                if not repeatable and not not_executed(error):
                    raise InDoubtError(said) from None
                pause = attempts.pause(error, patient=patient or rotated)
                if pause is None:
                    raise said from None
                if attempts.failures == 1:
                    run_logger().warning("Could not %s (%s); trying again", doing, type(error).__name__)
                await _pause(pause, abandoned)

    async def hold(self, request: Callable[[], Awaitable[bool]]) -> bool:
        """Send a request that is answered late and is but a hint: False whatever goes wrong with it."""
        try:
            async with self._connection_free(NO_DEADLINE):
                return await request()
        except Exception:  # noqa: BLE001 - what is wrong is told by the questions that are asked beside it
            return False

    @asynccontextmanager
    async def _connection_free(self, deadline: Deadline) -> AsyncIterator[None]:
        """Wait for a free connection: to stand in a queue of thousands is no failure of the server."""
        try:
            async with asyncio.timeout(deadline.remaining()):
                await self._connections.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout("no connection was free before the deadline") from None
        try:
            yield
        finally:
            self._connections.release()

    # -- secrets -----------------------------------------------------------------------------------

    def _may_be_rotated(self, error: Exception, within_wait: bool) -> bool:
        """Whether a refusal may be over soon: of a key that worked before."""
        return self._let_in and (within_wait or status_code_of(error) == 401)

    async def _has_new_secrets(self, used: Connection) -> bool:
        """Look the block up again, since its key was refused; True when it has other secrets now."""
        async with self._rereading:
            if self.connection is not used:
                return True
            now = time.monotonic()
            if used.reread is None or now - self._reread_at < _REREAD_EVERY_SECONDS:
                return False
            self._reread_at = now
            saved = await used.reread()
            # Secrets are for one address only.
            if saved is None or saved.url != used.url or saved.secrets_key == used.secrets_key:
                return False
            self._renew(saved)
            return True

    def _renew(self, saved: Connection) -> None:
        self._former_secrets = self.connection.secrets
        self.connection = replace(
            self.connection, api_key=saved.api_key, headers=saved.headers, tokens=saved.tokens
        )
        for http in self._https:
            http.headers = httpx.Headers(self.connection.all_headers())
            http.auth = self.connection.auth() or httpx.Auth()
        run_logger().info("The secrets of block %r have changed; the new ones are used", saved.name)

    async def answers_again(self, seconds: float) -> bool:
        """False when the last attempt was not answered, and one more within `seconds` is not either."""
        if self._unheard:
            with contextlib.suppress(DeploymentError):
                await self.send(
                    lambda: self.client.http.client.get("/ok"),
                    doing="ask whether the server is there",
                    deadline=Deadline.after(seconds),
                )
        return not self._unheard

    async def thread(
        self, thread_id: str, deadline: Deadline, *, once: bool = False
    ) -> dict[str, Any] | None:
        """A thread's row, or None when the server says that there is none.

        `once` makes one attempt; otherwise what is transient is waited out.
        """
        threads = self.client.threads

        async def ask() -> dict[str, Any]:
            return row_of(await threads.get(thread_id), "thread_id", "status")

        try:
            return await self.send(
                ask,
                doing="ask for a thread",
                deadline=deadline,
                once=once,
                quotes=False,
                within_wait=True,
            )
        except NotFoundError:
            return None

    async def clean_up(
        self,
        work: Coroutine[Any, Any, T],
        *,
        more_seconds: float = 0.0,
        seconds: float | None = None,
    ) -> T | None:
        """Wait for what is done for a caller whose deadline has passed; None when that takes too long.

        Then it goes on by itself: it must end some time and say in the log what went wrong.

        Args:
            work: What is done.
            more_seconds: Beyond what one run takes.
            seconds: No longer than this, whatever the work takes; None goes by what one run takes.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._cleaning_up.add(task)
        self.used_by(task)
        task.add_done_callback(self._cleaned_up)
        answers = time.monotonic() - self._heard < _LATELY_SECONDS
        usual = _CLEAN_UP_SECONDS + more_seconds if answers else _SILENT_CLEAN_UP_SECONDS
        await asyncio.wait([task], timeout=usual if seconds is None else seconds)
        return task.result() if task.done() else None

    def _cleaned_up(self, task: asyncio.Task[Any]) -> None:
        self._cleaning_up.discard(task)
        if not task.cancelled():
            task.exception()  # read: its caller may have left

    def error(
        self, error: Exception, doing: str, hidden: Any = None, *, quotes: bool = True
    ) -> DeploymentError:
        """This package's error for what the SDK raised."""
        secrets = (*self.connection.secrets, *self._former_secrets)
        return to_error(error, url=self.url, doing=doing, hidden=[hidden, *secrets], quotes=quotes)

    async def _error_of(
        self, error: Exception, doing: str, hidden: Any, deadline: Deadline, *, quotes: bool
    ) -> DeploymentError:
        make = partial(self.error, error, doing, hidden, quotes=quotes)
        # To look for what an answer quotes takes as long as the payload is large: the loop is for all.
        said = await asyncio.to_thread(make) if quotes and hidden is not None else make()
        deadline.mark(said)
        return said


async def _attempt(request: Callable[[], Awaitable[T]], seconds: float) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await request()
    except TimeoutError:
        raise NoWholeAnswerError(f"no whole answer within {seconds:.1f} s") from None


async def answer_to_abandoned(sending: asyncio.Task[T], abandoned: asyncio.Event) -> T | None:
    """What came of a request that must not be sent twice, whose caller was cancelled meanwhile.

    Args:
        sending: `send`, as a task that the caller waited for shielded.
        abandoned: What `send` was given.

    Returns:
        The answer; None when the server surely did not act on it.

    Raises:
        InDoubtError: Whether the server acted on it is unknown.
    """
    abandoned.set()
    await asyncio.wait([sending], timeout=ANSWER_SECONDS)
    if not sending.done():
        sending.cancel()
        await asyncio.wait([sending])
        raise InDoubtError(TimeoutError(f"no answer for {ANSWER_SECONDS:g} s"))
    if sending.cancelled():
        return None
    error = sending.exception()
    if isinstance(error, InDoubtError):
        raise error
    return sending.result() if error is None else None


async def _pause(seconds: float, abandoned: asyncio.Event | None) -> None:
    if abandoned is None:
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await abandoned.wait()
    except TimeoutError:
        return


_deployments: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, OrderedDict[str, Deployment]] = (
    weakref.WeakKeyDictionary()
)
_closing: set[asyncio.Task[None]] = set()


def deployment_for(connection: Connection) -> Deployment:
    """The deployment of a connection on the running loop, for the task that asks.

    Equal connections share one client. Clients that nobody uses are closed, but for the last few.
    """
    on_loop = _deployments.setdefault(asyncio.get_running_loop(), OrderedDict())
    fingerprint = connection.fingerprint()
    if fingerprint not in on_loop:
        on_loop[fingerprint] = Deployment(connection)
    on_loop.move_to_end(fingerprint)
    deployment = on_loop[fingerprint]
    deployment.used_by(asyncio.current_task())
    if len(on_loop) > KEPT_UNUSED:
        _close_unused(on_loop)
    return deployment


def _close_unused(on_loop: OrderedDict[str, Deployment]) -> None:
    unused = [fingerprint for fingerprint, found in on_loop.items() if not found.is_used]
    for fingerprint in unused[:-KEPT_UNUSED]:
        closing = on_loop.pop(fingerprint).aclose()
        # Without the caller's context, which it does not need.
        task = asyncio.get_running_loop().create_task(closing, context=contextvars.Context())
        _closing.add(task)
        task.add_done_callback(_closing.discard)
